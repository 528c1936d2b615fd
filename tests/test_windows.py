"""Clips longer than a model holds: the windows worked out by hand with plain diffusers, and what is told of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clips
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TinyAnimateDiff, make_short_animatediff, make_sparse_controlnet

from vidkit import generation
from vidkit.errors import Cancelled, InputError, SetupError
from vidkit.pipelines.windows import ANCHOR, Windows
from vidkit.progress import CancelToken, Progress

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")

HELD = 6
STEPS = 4
MODES = ("svd", "pia", "sparsectrl", "init")

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def svd_of_six(tiny_svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SVD model with a card that says how many frames it holds."""
    folder = tmp_path_factory.mktemp("card") / "model"
    shutil.copytree(tiny_svd_folder, folder)
    (folder / "vidkit.json").write_text(json.dumps({"name": "tiny model", "windowFrames": HELD}))
    return folder


@pytest.fixture(scope="module")
def parts_of_six(tiny_animatediff: TinyAnimateDiff, tmp_path_factory: pytest.TempPathFactory) -> TinyAnimateDiff:
    return make_short_animatediff(tmp_path_factory.mktemp("short"), tiny_animatediff, HELD)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return clips.saved(tmp_path)


@pytest.fixture
def ask(svd_of_six: Path, parts_of_six: TinyAnimateDiff, image: Path) -> Ask:
    """A request of a mode, for models that hold six frames."""

    def request(mode: str, **more: Any) -> dict[str, Any]:
        more = {"num_inference_steps": 2, **more}
        if mode == "svd":
            return clips.svd_request(svd_of_six, image, **more)
        return clips.animatediff_request(parts_of_six, image, mode, **more)

    return request


# --- the frames -----------------------------------------------------------------------------------------------------


def plain_window(
    pipe: Any, picture: Image.Image, frames: int, mode: str, before: torch.Tensor | None = None
) -> torch.Tensor:
    """A clip's latents `(frames, channels, height, width)` as diffusers makes them, without vidkit.

    before: with init, what the window before made of the first frames.
    """
    torch.manual_seed(7)  # SparseCtrl's own draw
    common = {"width": 64, "height": 64, "num_inference_steps": STEPS, "output_type": "latent"}
    generator = torch.Generator().manual_seed(7)
    if mode == "init":
        return plain_init_window(pipe, picture, frames, before, common | {"generator": generator})
    common["num_frames"] = frames
    if mode == "svd":
        latents = pipe(picture, fps=8, generator=generator, **common).frames
        return latents[0]
    how = (
        {"image": picture}
        if mode == "pia"
        else {"conditioning_frames": [picture], "controlnet_frame_indices": [0], "controlnet_conditioning_scale": 1.0}
    )
    latents = pipe(prompt="waves", negative_prompt="", generator=generator, **how, **common).frames
    return latents[0].transpose(0, 1)


def plain_init_window(
    pipe: Any, picture: Image.Image, frames: int, before: torch.Tensor | None, common: dict[str, Any]
) -> torch.Tensor:
    """Video-to-video, whose known frames are put into the latents with the noise that they began with."""
    known = 0 if before is None else len(before)
    noises: list[torch.Tensor] = []
    noised = pipe.scheduler.add_noise

    def add_noise(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        noises.append(noise)
        if before is not None:
            latents = torch.cat([before[None], latents[:, known:]], 1)
        return noised(latents, noise, timesteps)

    def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if before is None or step > 0:  # of three steps the last two are the model's
            return tensors
        kept = noised(before[None], noises[0][:, :known], pipe.scheduler.timesteps[step + 2 : step + 3])
        return {"latents": torch.cat([kept.transpose(1, 2), tensors["latents"][:, :, known:]], 2)}

    pipe.scheduler.add_noise = add_noise
    try:
        latents = pipe(
            video=[picture] * frames,
            prompt="waves",
            negative_prompt="",
            strength=0.8,
            callback_on_step_end=after_step,
            **common,
        ).frames
    finally:
        del pipe.scheduler.add_noise
    return latents[0].transpose(0, 1)


def plain_pixels(pipe: Any, latents: torch.Tensor, mode: str) -> clips.Frames:
    with torch.no_grad():
        if mode == "svd":
            frames = pipe.decode_latents(latents[None], num_frames=len(latents), decode_chunk_size=len(latents))
        else:
            frames = pipe.decode_latents(latents.transpose(0, 1)[None])
    return clips.as_bytes((frames[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).numpy())


def steadied_by_hand(window: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Each channel's mean and deviation on the way, frame by frame, from the window's own to the first frame's."""
    found = window.clone()
    for number, frame in enumerate(window):
        for channel, values in enumerate(frame):
            own = (values - values.mean()) / values.std() * first[channel].std() + first[channel].mean()
            share = ANCHOR * number / (len(window) - 1)
            found[number, channel] = (1 - share) * values + share * own
    return found


@pytest.mark.parametrize("mode", MODES)
def test_the_windows_worked_out_by_hand(ask: Ask, mode: str) -> None:
    """Eleven frames of a model that holds six: three windows that share three frames, at 0, 3 and 6, the last cut."""
    ours = clips.frames_of(ask(mode, num_frames=11, decode_chunk_size=1, num_inference_steps=STEPS))
    pipe = generation.last_pipeline()
    expected = plain_window(pipe, clips.picture(), HELD, mode)
    first = expected[0]
    for _ in range(2):
        shared = expected[-3:]
        picture = Image.fromarray(plain_pixels(pipe, shared[:2], mode)[0])
        window = steadied_by_hand(plain_window(pipe, picture, HELD, mode, shared), first)
        faded = [torch.lerp(shared[k], window[k], torch.tensor((k + 1) / 4)) for k in range(3)]
        expected = torch.cat([expected[:-3], torch.stack(faded), window[3:]])
    by_hand = np.concatenate([plain_pixels(pipe, frame[None], mode) for frame in expected[:11]])
    assert np.abs(ours.astype(int) - by_hand).max() <= 1  # the weights' last bit
    assert len({frame.tobytes() for frame in ours}) == 11


@pytest.mark.parametrize("mode", MODES)
def test_a_clip_that_the_model_holds_is_the_plain_pipelines(ask: Ask, mode: str) -> None:
    for frames in (2, HELD):
        ours, notes = clips.computed(ask(mode, num_frames=frames, decode_chunk_size=HELD, num_inference_steps=STEPS))
        pipe = generation.last_pipeline()
        latents = plain_window(pipe, clips.picture(), frames, mode)
        by_hand = plain_pixels(pipe, latents, mode).astype(int)
        # video-to-video encodes its picture once: rounding, beside the plain pipeline's batch of copies
        assert np.abs(ours - by_hand).max() <= (mode == "init")
        assert not any("windows" in note for note in notes)


@pytest.mark.parametrize("mode", MODES)
def test_a_longer_clip_begins_as_the_plain_one(ask: Ask, mode: str) -> None:
    whole = clips.frames_of(ask(mode, num_frames=HELD, decode_chunk_size=3))
    longer = clips.frames_of(ask(mode, num_frames=HELD + 1, decode_chunk_size=3))
    # the decoder rounds otherwise where its input lies otherwise in memory
    assert np.abs(longer[: HELD - 3].astype(int) - whole[: HELD - 3]).max() <= 1
    faded = np.abs(longer[HELD - 3 : HELD].astype(int) - whole[HELD - 3 : HELD])
    assert (faded.max((1, 2, 3)) > 3).all()


@pytest.mark.parametrize("frames", [7, 9, 10, 11, 14, 15])
@pytest.mark.parametrize("mode", MODES)
def test_the_clip_is_as_long_as_asked_and_no_pass_is_longer_than_the_model(ask: Ask, mode: str, frames: int) -> None:
    request = ask(mode, num_inference_steps=2 if mode == "init" else 1, num_frames=frames)  # strength leaves one out
    clips.frames_of(request | {"num_frames": 2})
    pipe = generation.last_pipeline()
    seen: list[tuple[int, ...]] = []
    handle = pipe.unet.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape)))
    assert clips.frames_of(request).shape == (frames, 64, 64, 3)
    handle.remove()
    assert {shape[1 if mode == "svd" else 2] for shape in seen} == {HELD}
    assert len(seen) == Windows(frames, HELD, "").count


@pytest.mark.parametrize("mode", MODES)
def test_one_request_is_one_clip(ask: Ask, mode: str) -> None:
    request = ask(mode, num_frames=7)
    first = clips.frames_of(request)
    torch.rand(5)
    np.testing.assert_array_equal(clips.frames_of(request), first)
    clips.cold()
    np.testing.assert_array_equal(clips.frames_of(request), first)
    assert (clips.frames_of(request | {"seed": 8}) != first).any((1, 2, 3)).all()


@pytest.mark.parametrize("held", [2, 3, 4, 5, 14, 16, 32])
@pytest.mark.parametrize("frames", [2, 4, 5, 6, 7, 25, 48, 200])
def test_windows_of_any_length_fit_together(frames: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that hold the moment they show: a window goes on from its picture's, and shared frames are of one."""
    monkeypatch.setattr("vidkit.pipelines.windows.ANCHOR", 0.0)  # the moment is in their colour
    windows = Windows(frames, held, "a model")
    starts: list[int] = []

    def one_pass(pictures: Sequence[Image.Image], count: int, before: torch.Tensor | None) -> torch.Tensor:
        starts.append(int(np.asarray(pictures[0])[0, 0, 0]))
        return (starts[-1] + torch.arange(float(count))).view(1, count, 1, 1, 1)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return (latents[0] / 127.5 - 1).expand(-1, 3, 8, 8)

    latents = windows.clip(one_pass, decode, [Image.new("RGB", (8, 8))])
    np.testing.assert_allclose(latents.flatten().numpy(), np.arange(frames), atol=1e-4)
    assert len(starts) == windows.count
    assert windows.count == 1 or starts[-1] + windows.overlap < frames  # the last one adds something


def test_the_shortest_of_the_parts_counts(parts_of_six: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    parts = replace(parts_of_six, sparse_controlnet=make_sparse_controlnet(tmp_path / "sparse of four", 4))
    frames, notes = clips.computed(clips.animatediff_request(parts, image, "sparsectrl", num_frames=5))
    assert frames.shape[0] == 5
    assert notes[1:] == [
        "5 frames are more than the 4 that sparse of four holds: made in sliding windows of 4 frames, 2 of them shared."
    ]


# --- what is told ---------------------------------------------------------------------------------------------------


def test_windows_are_noted(ask: Ask) -> None:
    expected = (
        "15 frames are more than the 6 that {} holds: made in sliding windows of 6 frames, 3 of them shared.".format
    )
    _, notes = clips.computed(ask("svd", num_frames=15))
    assert notes[-1] == expected("tiny model")
    for mode, adapter in (("pia", "pia_adapter"), ("sparsectrl", "motion_adapter"), ("init", "motion_adapter")):
        _, notes = clips.computed(ask(mode, num_frames=15))
        assert notes[1:] == [expected(adapter)]


def test_without_a_card_svd_makes_all_frames_in_one_pass(tiny_svd_folder: Path, image: Path) -> None:
    frames, notes = clips.computed(
        clips.svd_request(tiny_svd_folder, image, num_frames=15, decode_chunk_size=15, num_inference_steps=STEPS)
    )
    latents = plain_window(generation.last_pipeline(), clips.picture(), 15, "svd")
    np.testing.assert_array_equal(frames, plain_pixels(generation.last_pipeline(), latents, "svd"))
    assert not any("windows" in note for note in notes)


@pytest.mark.parametrize(("frames", "count"), [(6, 1), (7, 2), (15, 4)])
@pytest.mark.parametrize("mode", MODES)
def test_progress_counts_the_steps_of_all_windows(ask: Ask, mode: str, frames: int, count: int) -> None:
    events: list[Progress] = []
    strength = {"strength": 1.0} if mode == "init" else {}  # which leaves steps out
    clips.computed(ask(mode, num_frames=frames, **strength), events.append)
    steps = [event.step for event in events if event.step is not None]
    assert steps == sorted(steps)
    assert {event.steps for event in events if event.step is not None} == {2 * count}
    assert set(steps) == set(range(2 * count + 1))
    denoised = [event.progress for event in events if event.step is not None]
    assert (denoised[0], denoised[-1]) == (20, 85)


@pytest.mark.parametrize("mode", ["init", "pia"])
def test_a_scheduler_that_adds_steps_is_counted_as_it_is(
    parts_of_six: TinyAnimateDiff, image: Path, tmp_path: Path, mode: str
) -> None:
    """PNDM takes a step more than it is asked for: 4 for 3; and 5 for 5, of which strength 0.8 leaves one out."""
    base = tmp_path / "base"
    shutil.copytree(parts_of_six.base, base)
    (base / "vidkit.json").write_text('{"scheduler": "model"}')
    settings = {"num_frames": 8, "num_inference_steps": 3} if mode == "pia" else {"num_inference_steps": 5}
    request = clips.animatediff_request(replace(parts_of_six, base=base), image, mode, **settings)
    events: list[Progress] = []
    clips.computed(request, events.append)
    told = [(event.step, event.steps) for event in events if event.step is not None]
    in_all = 2 * 4 if mode == "pia" else 5
    assert {steps for _, steps in told} == {in_all}
    assert told[-1] == (in_all, in_all)


@pytest.mark.parametrize("mode", MODES)
def test_a_clip_stopped_in_its_second_window_leaves_no_trace(ask: Ask, mode: str) -> None:
    request = ask(mode, num_frames=11)
    fresh = clips.frames_of(request)
    token = CancelToken()
    steps: list[int] = []

    def listener(event: Progress) -> None:
        if event.step is not None:
            steps.append(event.step)
            if event.step == 3:
                token.cancel()

    with pytest.raises(Cancelled):
        clips.computed(request, listener, token)
    assert steps[-1] == 3
    np.testing.assert_array_equal(clips.frames_of(request), fresh)


@pytest.mark.parametrize("mode", MODES)
def test_cancelling_while_a_frame_is_handed_over(ask: Ask, mode: str) -> None:
    request = ask(mode, num_frames=11)
    clips.frames_of(request)
    decoder = generation.last_pipeline().vae.decoder
    token = CancelToken()
    late: list[None] = []
    handles = [
        decoder.conv_in.register_forward_hook(lambda *_: token.cancel()),
        decoder.up_blocks[0].register_forward_hook(lambda *_: late.append(None)),
    ]
    with pytest.raises(Cancelled):
        clips.computed(request, cancel=token)
    for handle in handles:
        handle.remove()
    assert not late


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_last_picture_needs_one_pass(ask: Ask, image: Path) -> None:
    request = ask("sparsectrl", last_image_path=str(image), num_frames=HELD)
    assert clips.prepared(request).params.num_frames == HELD
    with pytest.raises(
        InputError, match=r"numFrames is 7; with lastImagePath .* 6 frames that motion_adapter holds"
    ) as caught:
        clips.prepared(request | {"num_frames": HELD + 1})
    assert caught.value.code == "out_of_range"
    assert caught.value.suggestions == [
        "Set numFrames to 6",
        "Leave lastImagePath out: longer clips are then made in sliding windows",
    ]
    with pytest.raises(InputError, match="numFrames is 16"):  # the default
        clips.prepared({**request, "num_frames": None})
    # the other modes have no use for that picture, and say so
    job = clips.prepared(ask("pia", last_image_path=str(image), num_frames=HELD + 1))
    assert any(note.startswith("lastImagePath is ignored") for note in job.notes)


@pytest.mark.parametrize("held", [None, "16", 16.5, 1, 0, True])
def test_an_adapter_must_say_how_much_it_holds(
    parts_of_six: TinyAnimateDiff, image: Path, tmp_path: Path, held: Any
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(parts_of_six.motion_adapter, adapter)
    config = json.loads((adapter / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config | {"motion_max_seq_length": held}))
    with pytest.raises(SetupError, match=r"config\.json cannot be read: motion_max_seq_length is") as caught:
        clips.prepared(clips.animatediff_request(replace(parts_of_six, motion_adapter=adapter), image))
    assert caught.value.code == "invalid_model"


def test_a_cards_range_still_counts(svd_of_six: Path, image: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(svd_of_six, model)
    (model / "vidkit.json").write_text(json.dumps({"windowFrames": HELD, "ranges": {"numFrames": [2, 20]}}))
    request = clips.svd_request(model, image)
    assert clips.prepared(request | {"num_frames": 20}).params.num_frames == 20
    with pytest.raises(InputError, match="numFrames is 21"):
        clips.prepared(request | {"num_frames": 21})


# --- windows that the request asks for ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_fewer_frames_at_once_where_asked(ask: Ask, mode: str) -> None:
    request = ask(mode, num_frames=7, window_frames=4)
    clips.frames_of(request | {"num_frames": 2})
    seen: list[tuple[int, ...]] = []
    handle = generation.last_pipeline().unet.register_forward_pre_hook(
        lambda _, arguments: seen.append(tuple(arguments[0].shape))
    )
    frames, notes = clips.computed(request)
    handle.remove()
    assert frames.shape[0] == 7
    assert {shape[1 if mode == "svd" else 2] for shape in seen} == {4}
    assert notes[-1] == (
        "7 frames are more than the 4 of windowFrames: made in sliding windows of 4 frames, 2 of them shared."
    )


def test_fewer_frames_at_once_of_a_model_that_holds_any(tiny_svd_folder: Path, image: Path) -> None:
    frames, notes = clips.computed(clips.svd_request(tiny_svd_folder, image, num_frames=6, window_frames=4))
    assert frames.shape[0] == 6
    assert "6 frames are more than the 4 of windowFrames" in notes[-1]


@pytest.mark.parametrize("mode", MODES)
def test_more_frames_at_once_than_the_model_holds_are_refused(ask: Ask, mode: str) -> None:
    with pytest.raises(InputError, match="windowFrames is 7") as caught:
        clips.prepared(ask(mode, window_frames=HELD + 1))
    assert caught.value.suggestions == [f"Set windowFrames to {HELD}"]


# --- windows made together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["exact", "turbo"])
@pytest.mark.parametrize("mode", ["svd", "pia"])
def test_together_each_step_goes_over_all_windows(ask: Ask, mode: str, speed: str) -> None:
    """Eleven frames, of which six are seen at once: windows at 0, 3 and 5; progress never goes back."""
    request = ask(mode, num_frames=11, windowing="together", speed=speed)
    clips.frames_of(request | {"num_frames": 2})
    seen: list[int] = []
    handle = generation.last_pipeline().unet.conv_in.register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0].shape[0])
    )
    events: list[Progress] = []
    frames, notes = clips.computed(request, events.append)
    handle.remove()
    assert frames.shape[0] == len({frame.tobytes() for frame in frames}) == 11
    assert seen == [2 * HELD] * 3 * 2  # both halves of guidance; three windows, two steps
    told = [event.progress for event in events if event.step is not None]
    assert told == sorted(told)
    assert (told[0], told[-1]) == (20, 85)
    assert {event.steps for event in events if event.step is not None} == {2}
    assert any("windows of 6 frames, 3 of them shared and denoised together." in note for note in notes)


@pytest.mark.parametrize("mode", ["svd", "pia"])
def test_together_by_hand(ask: Ask, mode: str) -> None:
    """The plain pipeline, with a loop over windows in front of its UNet."""
    request = ask(mode, num_frames=8, windowing="together", decode_chunk_size=1, num_inference_steps=STEPS)
    ours = clips.frames_of(request)
    pipe = generation.last_pipeline()
    network, axis = pipe.unet.forward, 1 if mode == "svd" else 2

    def over_windows(sample: torch.Tensor, time: Any, *, encoder_hidden_states: torch.Tensor, **more: Any) -> Any:
        parts = []
        for first in (0, 2):  # each of six; the second is moved back from 3, to end with the clip
            some = sample.narrow(axis, first, HELD).clone()
            if mode == "pia":  # what is told of the picture: four channels of latents, and a mask that fades
                some[:, 4:] = sample[:, 4:, :HELD]
                told = encoder_hidden_states.view(2, 8, 77, -1)[:, first : first + HELD].flatten(0, 1)
            else:
                told = encoder_hidden_states
            parts.append(network(some, time, encoder_hidden_states=told, **more)[0].movedim(axis, 0))
        weights = [torch.tensor([float(w)]) for w in (1, 2, 3, 3, 2, 1)]
        frames = []
        for frame in range(8):
            of = [(window, frame - first) for window, first in ((0, 0), (1, 2)) if 0 <= frame - first < HELD]
            whole = sum(weights[at] for _, at in of)
            frames.append(sum(parts[window][at] * weights[at] / whole for window, at in of))
        whole = torch.stack(frames).movedim(0, axis)
        return (whole,) if mode == "svd" else SimpleNamespace(sample=whole)

    pipe.unet.forward = over_windows
    try:
        latents = plain_window(pipe, clips.picture(), 8, mode)
    finally:
        del pipe.unet.forward
    by_hand = np.concatenate([plain_pixels(pipe, frame[None], mode) for frame in latents])
    assert np.abs(ours.astype(int) - by_hand).max() <= 1
    chained = clips.frames_of(request | {"windowing": "chained"})
    assert np.abs(ours.astype(int) - chained)[-1].max() > 3


@pytest.mark.parametrize("mode", ["init", "sparsectrl"])
def test_the_others_chain_their_windows(ask: Ask, mode: str) -> None:
    frames, notes = clips.computed(ask(mode, num_frames=7, windowing="together"))
    np.testing.assert_array_equal(frames, clips.frames_of(ask(mode, num_frames=7)))
    assert any(
        note.startswith("windowing is ignored: only svd and animatediff with conditioning pia") for note in notes
    )


@pytest.mark.parametrize("mode", ["svd", "pia"])
def test_one_window_is_the_same_either_way(ask: Ask, mode: str) -> None:
    frames, notes = clips.computed(ask(mode, num_frames=HELD, windowing="together"))
    np.testing.assert_array_equal(frames, clips.frames_of(ask(mode, num_frames=HELD)))
    assert not any("windows" in note for note in notes)


@pytest.mark.parametrize("held", [2, 3, 14, 16])
@pytest.mark.parametrize("frames", [2, 4, 15, 17, 48, 250])
def test_windows_made_together_cover_the_clip(frames: int, held: int) -> None:
    windows = Windows(frames, held, "", together=True)
    ends = [min(start + held, frames) for start in windows.starts]
    assert (windows.starts[0], ends[-1], windows.calls) == (0, frames, 1)
    assert all(held // 2 <= end - start for end, start in zip(ends, windows.starts[1:], strict=False))
    assert len(set(windows.starts)) == windows.count


# --- colours --------------------------------------------------------------------------------------------------------


def test_colours_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that brighten what they are given, and harden it: the clip's colours stay near the first frame's."""

    def colours(anchor: float) -> torch.Tensor:
        monkeypatch.setattr("vidkit.pipelines.windows.ANCHOR", anchor)

        def one_pass(pictures: Sequence[Image.Image], count: int, before: torch.Tensor | None) -> torch.Tensor:
            picture = torch.from_numpy(np.array(pictures[0])).permute(2, 0, 1) / 127.5 - 1
            shares = torch.arange(float(count)).view(count, 1, 1, 1) / count
            return (picture * (1 + 0.1 * shares) + 0.1 * shares)[None]

        dull = Image.fromarray((np.asarray(clips.picture()) // 4 + 96).astype(np.uint8))
        latents = Windows(60, 6, "").clip(one_pass, lambda latents: latents[0], [dull])
        return torch.stack([latents.mean((-2, -1)), latents.std((-2, -1))])[:, 0]

    free, steady = colours(0.0), colours(0.5)
    assert (free[0, -1] - free[0, 0]).abs().min() > 0.5
    assert (steady[0] - steady[0, 0]).abs().max() < 0.2
    assert 0.8 < (steady[1, :, :2] / steady[1, :1, :2]).min() <= (steady[1, :, :2] / steady[1, :1, :2]).max() < 1.2
    assert steady.isfinite().all()  # the even channel has no spread
