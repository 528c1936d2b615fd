"""Each family against plain diffusers, bit for bit, and what vidkit adds: long prompts, long clips, clear refusals."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffSparseControlNetPipeline,
    AnimateDiffVideoToVideoPipeline,
    DDIMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    PIAPipeline,
    PNDMScheduler,
    SparseControlNetModel,
    StableVideoDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import load_file
from tiny_models import TEST_SIZE, TinyAnimateDiff, save_single_file

from vidkit import generation
from vidkit.device import chosen_device, plain_plan
from vidkit.errors import Cancelled, InputError, SetupError
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.prompts import encode_prompts, token_ids
from vidkit.progress import CancelToken, Progress
from vidkit.settings import Settings
from vidkit.warm import WarmModels

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")

MODES = ("init", "sparsectrl", "pia")
WORDS = "storm light river stone cloud ember forest window silver harbour"

LONG = " ".join(WORDS.split()[number % 10] for number in range(200))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return clips.saved(tmp_path)


def euler(pipe: Any) -> None:
    """The scheduler of the original specification."""
    pipe.scheduler = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", beta_schedule="linear"
    )


def plain(parts: TinyAnimateDiff, conditioning: str) -> Any:
    """The diffusers pipeline of a conditioning mode as its documentation puts it together."""
    adapter = parts.pia_adapter if conditioning == "pia" else parts.motion_adapter
    channels = 9 if conditioning == "pia" else None
    more: dict[str, Any] = {"motion_adapter": MotionAdapter.from_pretrained(adapter, conv_in_channels=channels)}
    if conditioning == "sparsectrl":
        more["controlnet"] = SparseControlNetModel.from_pretrained(parts.sparse_controlnet)
    classes: dict[str, Any] = {
        "init": AnimateDiffVideoToVideoPipeline,
        "sparsectrl": AnimateDiffSparseControlNetPipeline,
        "pia": PIAPipeline,
    }
    pipe = classes[conditioning].from_pretrained(parts.base, local_files_only=True, **more)
    pipe.set_progress_bar_config(disable=True)
    euler(pipe)
    return pipe


def plain_frames(pipe: Any, **arguments: Any) -> clips.Frames:
    torch.manual_seed(arguments.pop("seed", 7))  # SparseCtrl's own draw
    size = {} if "video" in arguments else {"num_frames": 4}
    defaults: dict[str, Any] = {
        "prompt": "waves",
        "negative_prompt": "",
        "width": TEST_SIZE,
        "height": TEST_SIZE,
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(7),
        "output_type": "np",
    }
    return clips.as_bytes(pipe(**{**defaults, **size, **arguments}).frames[0])


# --- SVD ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_svd(tiny_svd_folder: Path) -> Any:
    pipe = StableVideoDiffusionPipeline.from_pretrained(tiny_svd_folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fps": 24, "motion_bucket_id": 20, "noise_aug_strength": 0.3},
        {"min_guidance_scale": 1.5, "max_guidance_scale": 6.0, "num_inference_steps": 3},
        {"min_guidance_scale": 1.0, "max_guidance_scale": 1.0},
        {"num_frames": 5, "decode_chunk_size": 2, "width": 128, "height": 64},
        {"num_frames": 7, "decode_chunk_size": 3, "seed": 123},
        {"num_frames": 3, "decode_chunk_size": 8},
    ],
    ids=lambda settings: " ".join(f"{key}={value}" for key, value in settings.items()) or "defaults",
)
def test_svd_gives_the_frames_of_plain_diffusers(
    tiny_svd_folder: Path, plain_svd: Any, image: Path, settings: dict[str, Any]
) -> None:
    request = clips.svd_request(tiny_svd_folder, image, decode_chunk_size=2) | settings
    ours = clips.frames_of(request)
    arguments = {"num_frames": 4, "num_inference_steps": 2, "decode_chunk_size": 2, "fps": 8, "width": 64, "height": 64}
    arguments |= {"min_guidance_scale": 1.0, "max_guidance_scale": 3.0, **settings}
    seed = arguments.pop("seed", 7)
    size = (arguments["width"], arguments["height"])
    theirs = plain_svd(
        # cropped to the size, which 64x64 fills
        generation.fit_image(clips.picture(), *size),
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **arguments,
    ).frames[0]
    np.testing.assert_array_equal(ours, clips.as_bytes(theirs))


def test_each_svd_setting_changes_the_clip(tiny_svd_folder: Path, image: Path, tmp_path: Path) -> None:
    base = clips.frames_of(clips.svd_request(tiny_svd_folder, image))
    other_picture = str(clips.saved(tmp_path, "other.png", value=200))
    for change in (
        {"fps": 20},
        {"motion_bucket_id": 255},
        {"noise_aug_strength": 0.5},
        {"max_guidance_scale": 5.0},
        {"min_guidance_scale": 2.0},
        {"num_inference_steps": 3},
        {"seed": 8},
        {"image_path": other_picture},
    ):
        assert (clips.frames_of(clips.svd_request(tiny_svd_folder, image) | change) != base).any(), change


def test_svd_says_that_it_takes_no_text(tiny_svd_folder: Path, image: Path) -> None:
    frames, notes = clips.computed(clips.svd_request(tiny_svd_folder, image))
    other, _ = clips.computed(clips.svd_request(tiny_svd_folder, image, prompt="something else"))
    np.testing.assert_array_equal(frames, other)
    assert any(note.startswith("prompt is ignored") for note in notes)


# --- AnimateDiff's conditioning modes -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"strength": 0.5, "guidance_scale": 1.0}, {"num_frames": 6, "seed": 5}])
def test_init_is_video_to_video_over_the_repeated_picture(
    tiny_animatediff: TinyAnimateDiff, image: Path, settings: dict[str, Any]
) -> None:
    """Bit for bit where the pipeline too encodes one picture at a time: a batch of them is rounded otherwise."""
    ours = clips.frames_of(clips.animatediff_request(tiny_animatediff, image, decode_chunk_size=1) | settings)
    seed = settings.get("seed", 7)
    theirs = plain_frames(
        plain(tiny_animatediff, "init"),
        video=[clips.picture()] * settings.get("num_frames", 4),
        strength=settings.get("strength", 0.8),
        guidance_scale=settings.get("guidance_scale", 7.5),
        decode_chunk_size=1,
        generator=torch.Generator().manual_seed(seed),
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("pictures", "scale"), [(1, 1.0), (2, 0.3)])
def test_sparsectrl_conditions_on_the_first_and_last_frame(
    tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, pictures: int, scale: float
) -> None:
    request = clips.animatediff_request(
        tiny_animatediff, image, "sparsectrl", conditioning_scale=scale, guidance_scale=3.0, negative_prompt="blur"
    )
    if pictures == 2:
        request["last_image_path"] = str(clips.saved(tmp_path, "last.png", value=255))
    ours = clips.frames_of(request)
    theirs = plain_frames(
        plain(tiny_animatediff, "sparsectrl"),
        conditioning_frames=[clips.picture(), clips.picture(value=255)][:pictures],
        controlnet_frame_indices=[0, 3][:pictures],
        controlnet_conditioning_scale=scale,
        guidance_scale=3.0,
        negative_prompt="blur",
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("motion_scale", [0, 8])
def test_pia_is_the_pia_pipeline(tiny_animatediff: TinyAnimateDiff, image: Path, motion_scale: int) -> None:
    ours = clips.frames_of(clips.animatediff_request(tiny_animatediff, image, "pia", motion_scale=motion_scale))
    theirs = plain_frames(plain(tiny_animatediff, "pia"), image=clips.picture(), motion_scale=motion_scale)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_a_decode_chunk_changes_no_frame_of_animatediff(
    tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    """Its decoder knows no neighbours. (init encodes in chunks too: the same noise, drawn in the same order.)"""
    whole = clips.frames_of(clips.animatediff_request(tiny_animatediff, image, mode, decode_chunk_size=8))
    parts = clips.frames_of(clips.animatediff_request(tiny_animatediff, image, mode, decode_chunk_size=3))
    assert np.abs(whole.astype(int) - parts).max() <= 1  # rounding: convolutions of other batch sizes


@pytest.mark.parametrize("mode", MODES)
def test_without_guidance_every_mode_runs(tiny_animatediff: TinyAnimateDiff, image: Path, mode: str) -> None:
    request = clips.animatediff_request(tiny_animatediff, image, mode, guidance_scale=1.0)
    frames = clips.frames_of(request)
    assert frames.shape == (4, TEST_SIZE, TEST_SIZE, 3)
    # without guidance the negative prompt has no effect, and the prompt has one
    np.testing.assert_array_equal(frames, clips.frames_of(request | {"negative_prompt": "blur"}))
    assert (frames != clips.frames_of(request | {"prompt": "mountains"})).any()


@pytest.mark.parametrize("mode", ["svd", *MODES])
def test_the_seed_decides_and_the_random_state_is_left_alone(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    request = (
        clips.svd_request(tiny_svd_folder, image)
        if mode == "svd"
        else clips.animatediff_request(tiny_animatediff, image, mode)
    )
    clips.cold()  # loading counts too
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = clips.frames_of(request)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    torch.rand(5)  # whatever the caller's state is
    np.testing.assert_array_equal(first, clips.frames_of(request))
    assert (first != clips.frames_of(request | {"seed": 8})).any()


# --- one motion adapter for two modes -------------------------------------------------------------------------------


@pytest.fixture
def shared_adapter(tiny_animatediff: TinyAnimateDiff, vidkit_home: Path) -> TinyAnimateDiff:
    """The tiny base, and a PIA adapter whose card says that it serves init too; both in the models folder."""
    base, adapter = vidkit_home / "models" / "my base", vidkit_home / "models" / "my adapter"
    shutil.copytree(tiny_animatediff.base, base)
    shutil.copytree(tiny_animatediff.pia_adapter, adapter)
    (adapter / "vidkit.json").write_text('{"conditionings": ["init", "pia"]}')
    return TinyAnimateDiff(base, adapter, tiny_animatediff.sparse_controlnet, adapter)


def test_a_pia_adapter_may_serve_init_too(
    shared_adapter: TinyAnimateDiff, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips.cold()
    ours = clips.frames_of(clips.animatediff_request(shared_adapter, image, decode_chunk_size=1))
    assert "not used" not in caplog.text  # diffusers' word on the input channels left out
    pipe = generation.last_pipeline()
    assert pipe.unet.config.in_channels == 4
    stored = load_file(next(shared_adapter.pia_adapter.glob("*.safetensors")))
    modules = pipe.motion_adapter.state_dict()
    assert set(stored) - set(modules) == {"conv_in.weight", "conv_in.bias"}
    assert set(modules) <= set(stored)
    for key, weight in modules.items():
        assert torch.equal(weight, stored[key]), key
        assert torch.equal(weight, pipe.unet.state_dict()[key]), key
    theirs = plain_frames(
        plain(shared_adapter, "init"),
        video=[clips.picture()] * 4,
        strength=0.8,
        decode_chunk_size=1,
        generator=torch.Generator().manual_seed(7),
    )
    np.testing.assert_array_equal(ours, theirs)


def test_a_shared_adapter_is_loaded_as_each_mode_needs_it(
    shared_adapter: TinyAnimateDiff, tiny_animatediff: TinyAnimateDiff, image: Path
) -> None:
    init, pia = (clips.animatediff_request(shared_adapter, image, mode) for mode in ("init", "pia"))
    first = clips.frames_of(init)
    np.testing.assert_array_equal(
        clips.frames_of(pia), clips.frames_of(clips.animatediff_request(tiny_animatediff, image, "pia"))
    )
    clips.frames_of(pia)
    np.testing.assert_array_equal(clips.frames_of(init), first)


def test_a_shared_adapter_makes_long_clips_in_both_modes(shared_adapter: TinyAnimateDiff, image: Path) -> None:
    for mode in ("init", "pia"):
        request = clips.animatediff_request(shared_adapter, image, mode, num_frames=34, num_inference_steps=2)
        frames, notes = clips.computed(request)
        assert frames.shape[0] == 34
        assert [note for note in notes if "sliding windows" in note]


def test_models_by_name_and_from_the_settings(shared_adapter: TinyAnimateDiff, image: Path, vidkit_home: Path) -> None:
    (vidkit_home / "config.json").write_text('{"defaultModels": {"animatediff": "my base"}}')
    request = {**clips.animatediff_request(shared_adapter, image), "base_model": None, "motion_adapter": "my adapter"}
    assert clips.computed(request)[1][:-1] == ["No baseModel was given: my base was used."]
    # the bundled adapter does not fit a base model of one's own
    assert "the request names none" in refused({**request, "motion_adapter": None}, "model_not_found")


def test_an_adapters_card_decides_within_what_it_can(shared_adapter: TinyAnimateDiff, image: Path) -> None:
    sparse = clips.animatediff_request(shared_adapter, image, "sparsectrl")
    with pytest.raises(SetupError, match="PIA adapter; it does not work with conditioning sparsectrl") as caught:
        loaded(sparse)
    assert caught.value.suggestions[:2] == ["Set conditioning to init", "Set conditioning to pia"]
    card = shared_adapter.pia_adapter / "vidkit.json"
    card.write_text('{"conditionings": ["init"]}')
    assert "conditioning pia" in refused(clips.animatediff_request(shared_adapter, image, "pia"))
    card.write_text('{"conditionings": ["init", "pia", "sparsectrl"]}')
    assert clips.frames_of(sparse).shape[0] == 4
    config = shared_adapter.pia_adapter / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"conv_in_channels": None}))
    assert "no conv_in_channels" in refused(clips.animatediff_request(shared_adapter, image))


# --- the scheduler --------------------------------------------------------------------------------------------------


def loaded(request: dict[str, Any]) -> Any:
    return WarmModels().pipeline(clips.prepared(request), plain_plan(chosen_device()))


@pytest.fixture
def carded(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> Any:
    """The tiny base with a model card: a function from the card's content to the parts."""

    def make(card: Any) -> TinyAnimateDiff:
        base = tmp_path / "carded"
        shutil.copytree(tiny_animatediff.base, base)
        (base / "vidkit.json").write_text(json.dumps(card))
        return TinyAnimateDiff(
            base, tiny_animatediff.motion_adapter, tiny_animatediff.sparse_controlnet, tiny_animatediff.pia_adapter
        )

    return make


@pytest.mark.parametrize("mode", MODES)
def test_the_scheduler_is_euler_with_trailing_linear_betas(
    tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    scheduler = loaded(clips.animatediff_request(tiny_animatediff, image, mode)).scheduler
    assert type(scheduler) is EulerDiscreteScheduler
    assert (scheduler.config.timestep_spacing, scheduler.config.beta_schedule) == ("trailing", "linear")
    assert scheduler.config.beta_end == 0.012  # the rest is the model's


def test_a_model_card_may_keep_the_models_scheduler(carded: Any, image: Path) -> None:
    scheduler = loaded(clips.animatediff_request(carded({"scheduler": "model"}), image)).scheduler
    assert type(scheduler) is PNDMScheduler
    assert scheduler.config.beta_schedule == "scaled_linear"


def test_a_model_card_may_name_another_scheduler(carded: Any, image: Path) -> None:
    card = {"scheduler": {"class": "DDIMScheduler", "config": {"beta_schedule": "linear", "clip_sample": False}}}
    request = clips.animatediff_request(carded(card), image)
    scheduler = loaded(request).scheduler
    assert type(scheduler) is DDIMScheduler
    assert scheduler.config.beta_schedule == "linear"
    assert clips.frames_of(request).shape == (4, TEST_SIZE, TEST_SIZE, 3)


@pytest.mark.parametrize(
    "scheduler", ["modell", {"class": "NoSuchScheduler"}, {"class": "AutoModel"}, {}, {"class": 3}, ["x"]]
)
def test_a_card_with_an_unknown_scheduler_is_refused(carded: Any, image: Path, scheduler: Any) -> None:
    with pytest.raises(SetupError, match="scheduler") as caught:
        loaded(clips.animatediff_request(carded({"scheduler": scheduler}), image))
    assert caught.value.code == "invalid_model"
    assert "vidkit.json" in caught.value.message


def test_an_adapter_made_for_few_steps_brings_its_settings(carded: Any, image: Path, tmp_path: Path) -> None:
    """As AnimateLCM, whose card comes from the catalogue: it works with no other scheduler, whatever the base's."""
    parts = carded({"scheduler": "model", "defaults": {"numInferenceSteps": 30, "width": TEST_SIZE}})
    adapter = tmp_path / "few-steps"
    shutil.copytree(parts.motion_adapter, adapter)
    lcm = {"class": "LCMScheduler", "config": {"beta_schedule": "linear"}}
    (adapter / "vidkit.json").write_text(json.dumps({"scheduler": lcm, "defaults": {"numInferenceSteps": 6}}))
    request = clips.animatediff_request(replace(parts, motion_adapter=adapter), image)
    scheduler = loaded(request).scheduler
    assert (type(scheduler).__name__, scheduler.config.beta_schedule) == ("LCMScheduler", "linear")
    asked = GenerationParams(**{**request, "num_inference_steps": None, "width": None})
    defaults = FAMILIES["animatediff"].limits(asked, FAMILIES["animatediff"].models(asked, Settings())).defaults
    assert (defaults["num_inference_steps"], defaults["width"]) == (6, TEST_SIZE)


def test_a_cards_defaults_and_ranges_count(carded: Any, image: Path) -> None:
    parts = carded({"name": "my model", "defaults": {"numFrames": 5, "width": 48}, "ranges": {"height": [64, 128]}})
    request = clips.animatediff_request(parts, image, num_frames=None, width=None)
    job = clips.prepared(request)
    assert (job.params.num_frames, job.params.width, job.params.height) == (5, 48, 64)
    with pytest.raises(InputError, match="my model takes 64 to 128"):
        clips.prepared(request | {"height": 256})


# --- prompts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_pipe(tiny_animatediff: TinyAnimateDiff) -> Any:
    return plain(tiny_animatediff, "init")


def exactly(pipe: Any, count: int) -> str:
    """A text of exactly so many tokens."""
    text = " ".join(LONG.split()[:count])
    assert len(token_ids(pipe.tokenizer, text)) == count
    return text


@pytest.mark.parametrize("tokens", [1, 20, 74, 75])
def test_a_prompt_of_up_to_75_tokens_is_encoded_as_diffusers_does(text_pipe: Any, tokens: int) -> None:
    texts = exactly(text_pipe, tokens), "blurry, (deformed:1.2), naïve 🎈"
    ours = encode_prompts(text_pipe, *texts, at_once=False)
    theirs = text_pipe.encode_prompt(texts[0], "cpu", 1, True, texts[1])
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert ours[2] == []


@pytest.mark.parametrize("tokens", [20, 200])
def test_prompts_that_are_encoded_at_once_are_the_same_up_to_rounding(text_pipe: Any, tokens: int) -> None:
    texts = exactly(text_pipe, tokens), "blurry"
    found, wanted = (encode_prompts(text_pipe, *texts, at_once=at_once) for at_once in (True, False))
    for ours, theirs in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert found[2] == wanted[2]


@pytest.mark.parametrize(("tokens", "chunks"), [(76, 2), (150, 2), (151, 3), (200, 3)])
def test_a_longer_prompt_is_encoded_in_chunks(text_pipe: Any, tokens: int, chunks: int) -> None:
    text = exactly(text_pipe, tokens)
    prompt, negative, notes = encode_prompts(text_pipe, text, "blur", at_once=False)
    assert prompt.shape == negative.shape == (1, 77 * chunks, 32)
    # each chunk is what diffusers gives for its words alone; one word here is one token
    words = text.split()
    for number in range(chunks):
        alone = " ".join(words[75 * number : 75 * (number + 1)])
        theirs = text_pipe.encode_prompt(alone, "cpu", 1, False)[0]
        assert torch.equal(prompt[:, 77 * number : 77 * (number + 1)], theirs)
    assert notes == [f"The text is {tokens} tokens long and was encoded in {chunks} chunks of 75."]


def test_a_tokenizer_without_a_length_takes_the_encoders(text_pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_pipe.tokenizer, "model_max_length", int(1e30))
    assert encode_prompts(text_pipe, exactly(text_pipe, 76), "", at_once=False)[0].shape == (1, 154, 32)


@pytest.mark.parametrize("mode", ["sparsectrl", "pia"])  # init: with a long clip, below
def test_the_last_word_of_a_long_prompt_counts(tiny_animatediff: TinyAnimateDiff, image: Path, mode: str) -> None:
    request = clips.animatediff_request(tiny_animatediff, image, mode, prompt=LONG)
    frames, notes = clips.computed(request)
    changed = clips.frames_of(request | {"prompt": LONG.removesuffix("harbour") + "volcano"})
    assert (frames != changed).any()
    assert any("200 tokens" in note for note in notes)


def test_the_last_word_of_a_long_negative_prompt_counts(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    request = clips.animatediff_request(tiny_animatediff, image, negative_prompt=LONG)
    changed = request | {"negative_prompt": LONG.removesuffix("harbour") + "volcano"}
    assert (clips.frames_of(request) != clips.frames_of(changed)).any()


# --- clips longer than the motion adapter ---------------------------------------------------------------------------


def test_a_long_clip_runs_in_windows_and_leaves_no_trace(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    short = clips.animatediff_request(tiny_animatediff, image, num_frames=16, num_inference_steps=1, strength=1.0)
    fresh = clips.frames_of(short)
    frames, notes = clips.computed(short | {"num_frames": 48})
    assert frames.shape == (48, TEST_SIZE, TEST_SIZE, 3)
    assert any("sliding windows of 32 frames" in note for note in notes)
    np.testing.assert_array_equal(clips.frames_of(short), fresh)


def test_a_long_clip_takes_a_long_prompt(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    request = clips.animatediff_request(
        tiny_animatediff, image, num_frames=33, num_inference_steps=1, strength=1.0, prompt=LONG
    )
    frames, notes = clips.computed(request)
    assert len(notes) == 3  # with that on the safety checker
    changed = request | {"prompt": LONG.removesuffix("harbour") + "volcano"}
    assert (frames != clips.frames_of(changed)).any()


class ListenerError(Exception):
    pass


@pytest.mark.parametrize("how", ["cancel", "exception"])
def test_a_stopped_long_clip_leaves_no_trace(tiny_animatediff: TinyAnimateDiff, image: Path, how: str) -> None:
    short = clips.animatediff_request(tiny_animatediff, image, num_frames=8, num_inference_steps=2, strength=1.0)
    fresh = clips.frames_of(short)
    token = CancelToken()

    def listener(event: Progress) -> None:
        if event.step == 1:
            if how == "exception":
                raise ListenerError
            token.cancel()

    with pytest.raises(ListenerError if how == "exception" else Cancelled):
        clips.computed(short | {"num_frames": 48}, listener, token)
    np.testing.assert_array_equal(clips.frames_of(short), fresh)


# --- refusals before anything is loaded -----------------------------------------------------------------------------


def test_steps_times_strength_below_one_is_refused(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    request = clips.animatediff_request(tiny_animatediff, image, num_inference_steps=4, strength=0.2)
    with pytest.raises(InputError, match=r"numInferenceSteps 4 times strength 0\.2") as caught:
        clips.prepared(request)
    assert caught.value.code == "out_of_range"
    assert caught.value.suggestions == ["Set strength to at least 0.25", "Set numInferenceSteps to 6"]
    clips.prepared(request | {"strength": 0.25})
    clips.prepared(request | {"num_inference_steps": 6})
    clips.prepared(clips.animatediff_request(tiny_animatediff, image, "pia", strength=0.1))  # unused there


def test_the_strength_suggested_suffices(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    family = FAMILIES["animatediff"]
    request = GenerationParams(**clips.animatediff_request(tiny_animatediff, image, strength=0.001))
    models = family.models(request, generation.load_settings())
    for steps in range(1, 201):
        with pytest.raises(InputError) as caught:
            family.limits(request.replace(num_inference_steps=steps), models)
        strength = float(caught.value.suggestions[0].rsplit(" ", 1)[1])
        family.limits(request.replace(num_inference_steps=steps, strength=strength), models)


def refused(request: dict[str, Any], code: str = "invalid_model") -> str:
    with pytest.raises(SetupError) as caught:
        loaded(request)
    assert caught.value.code == code
    assert caught.value.suggestions
    return caught.value.message


def test_models_of_the_wrong_kind_are_refused(
    tiny_animatediff: TinyAnimateDiff, tiny_svd_folder: Path, image: Path, tmp_path: Path
) -> None:
    parts = tiny_animatediff
    init = clips.animatediff_request(parts, image)
    assert "StableVideoDiffusionPipeline" in refused(init | {"base_model": str(tiny_svd_folder)})
    assert "MotionAdapter" in refused(init | {"base_model": str(parts.motion_adapter)})
    assert "PIA adapter" in refused(init | {"motion_adapter": str(parts.pia_adapter)})
    assert "StableDiffusionPipeline" in refused(init | {"motion_adapter": str(parts.base)})
    pia = clips.animatediff_request(parts, image, "pia", motion_adapter=str(parts.motion_adapter))
    assert "plain motion adapter" in refused(pia)
    sparse = clips.animatediff_request(parts, image, "sparsectrl")
    assert "MotionAdapter" in refused(sparse | {"controlnet": str(parts.motion_adapter)})
    assert "StableDiffusionPipeline" in refused(clips.svd_request(parts.base, image))
    single = save_single_file(parts.base, tmp_path / "single.safetensors")
    assert "it is a StableDiffusionPipeline" in refused(clips.svd_request(single, image))


def test_missing_models_are_named(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    init = clips.animatediff_request(tiny_animatediff, image)
    assert "base model" in refused({**init, "base_model": str(tmp_path / "none")}, "model_not_found")
    assert "the request names none" in refused({**init, "motion_adapter": None}, "model_not_found")
    assert "motion adapter" in refused({**init, "motion_adapter": str(tmp_path / "none")}, "model_not_found")
    sparse = clips.animatediff_request(tiny_animatediff, image, "sparsectrl")
    assert "controlnet" in refused({**sparse, "controlnet": None}, "model_not_found")


def test_folders_that_hold_no_model_are_refused(tiny_svd_folder: Path, image: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "neither model_index.json nor config.json" in refused(clips.svd_request(empty, image))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_svd_folder, broken)
    (broken / "model_index.json").write_text("{not JSON")
    assert "model_index.json" in refused(clips.svd_request(broken, image))
    shutil.copy(tiny_svd_folder / "model_index.json", broken)
    for content in ("", "[]", '{"block_out_channels": 3}'):
        (broken / "unet" / "config.json").write_text(content)
        refused(clips.svd_request(broken, image))


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
def test_a_folder_without_its_weights_is_refused(tiny_svd_folder: Path, image: Path, tmp_path: Path, part: str) -> None:
    """An interrupted download: a part's weights missing, or cut short."""
    folder = tmp_path / "incomplete"
    shutil.copytree(tiny_svd_folder, folder)
    weights = next((folder / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "incomplete" in refused(clips.svd_request(folder, image))
    weights.unlink()
    assert "incomplete" in refused(clips.svd_request(folder, image))


# --- the base model as one file -------------------------------------------------------------------------------------


@pytest.fixture
def single_file(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> Path:
    """The tiny base as one file, in a folder with its configurations (tiny models have other ones than SD 1.5)."""
    folder = tmp_path / "single"
    shutil.copytree(tiny_animatediff.base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return save_single_file(tiny_animatediff.base, folder / "tiny.safetensors")


@pytest.mark.parametrize("mode", ["init", "sparsectrl"])
def test_a_single_file_gives_the_folders_frames(
    tiny_animatediff: TinyAnimateDiff, single_file: Path, image: Path, mode: str
) -> None:
    request = clips.animatediff_request(tiny_animatediff, image, mode)
    np.testing.assert_array_equal(clips.frames_of(request), clips.frames_of(request | {"base_model": str(single_file)}))


def test_a_single_file_that_is_no_base_model_is_refused_before_anything_is_hashed(
    tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path
) -> None:
    adapter = next(tiny_animatediff.motion_adapter.glob("*.safetensors"))
    request = clips.animatediff_request(tiny_animatediff, image, base_model=str(adapter))
    with pytest.raises(SetupError, match="it is a MotionAdapter") as caught:
        clips.prepared(request)
    assert caught.value.code == "invalid_model"
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"\x80\x04.")
    with pytest.raises(SetupError, match=r"model\.ckpt"):
        clips.prepared(request | {"base_model": str(pickle)})


# --- no network -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"the network was used: {arguments}")

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with contextlib.suppress(ImportError):
        import transformers.utils.hub

        monkeypatch.setattr(transformers.utils.hub, "is_offline_mode", lambda: False)
    yield


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("mode", ["svd", *MODES, "single file"])
def test_a_generation_needs_no_network(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, single_file: Path, image: Path, mode: str
) -> None:
    if mode == "svd":
        request = clips.svd_request(tiny_svd_folder, image)
    elif mode == "single file":
        request = clips.animatediff_request(tiny_animatediff, image, base_model=str(single_file))
    else:
        request = clips.animatediff_request(tiny_animatediff, image, mode)
    clips.cold()
    assert clips.frames_of(request).std() > 1


def test_pictures_of_any_size_are_fitted(tiny_svd_folder: Path, tmp_path: Path) -> None:
    wide = clips.saved(tmp_path, "wide.png", size=(200, 100))
    job = clips.prepared(clips.svd_request(tiny_svd_folder, wide))
    assert [fitted.size for fitted in job.pictures] == [(TEST_SIZE, TEST_SIZE)]
    expected = generation.fit_image(Image.open(wide), TEST_SIZE, TEST_SIZE)
    assert job.pictures[0].tobytes() == expected.tobytes()
