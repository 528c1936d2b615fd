"""One request from start to finish: what is written, what is told on the way, and how it stops."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from tiny_models import TEST_SIZE, TinyAnimateDiff

import vidkit
from vidkit import generation
from vidkit.errors import Cancelled, GenerationError, InputError, SetupError
from vidkit.pipelines.watch import denoiser_layers
from vidkit.progress import CancelToken, Progress
from vidkit.video import probe, read_frames

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return clips.saved(tmp_path)


@pytest.fixture
def request_(tiny_svd_folder: Path, image: Path, tmp_path: Path) -> dict[str, Any]:
    return clips.svd_request(tiny_svd_folder, image, output_path=str(tmp_path / "out" / "clip.mp4"))


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


# --- the result -----------------------------------------------------------------------------------------------------


def test_the_clip_is_what_was_asked_for(request_: dict[str, Any], tmp_path: Path) -> None:
    result = vidkit.generate(request_)
    assert result.output == tmp_path / "out" / "clip.mp4"
    info = probe(result.output)
    assert (info.frames, info.width, info.height, info.fps) == (4, TEST_SIZE, TEST_SIZE, 8)
    # the picture survives the compression: yuv420p blurs colours, these frames are noise
    seen, computed = read_frames(result.output).astype(float), clips.frames_of(request_ | {"overwrite": True})
    assert np.abs(seen.mean((1, 2)) - computed.mean((1, 2))).max() < 8
    assert files(tmp_path / "out") == ["clip.mp4", "clip.mp4.json"]


def test_the_response_has_the_specifications_keys(request_: dict[str, Any], tiny_svd_folder: Path) -> None:
    response = vidkit.generate(request_).to_json()
    assert json.loads(json.dumps(response)) == response
    metadata = response["metadata"]
    assert response["status"] == "success"
    assert metadata["pipeline"] == "svd"
    assert metadata["model"] == tiny_svd_folder.name
    assert (metadata["numFrames"], metadata["fps"], metadata["duration"]) == (4, 8, 0.5)
    assert (metadata["resolution"], metadata["seed"], metadata["vramUsed"]) == ("64x64", 7, 0.0)
    assert re.fullmatch("[0-9a-f]{64}", metadata["modelHash"])
    assert metadata["generationTime"] > 0
    assert metadata["notes"]


@pytest.mark.parametrize("family", ["svd", "init", "sparsectrl", "pia"])
def test_the_time_is_told_by_phase(
    request_: dict[str, Any], tiny_animatediff: TinyAnimateDiff, image: Path, family: str
) -> None:
    if family != "svd":
        request_ = clips.animatediff_request(tiny_animatediff, image, family, num_inference_steps=3)
    clips.cold()
    cold = vidkit.generate(request_ | {"output_path": None}).metadata
    pipe = generation.last_pipeline()
    handles = [
        module.register_forward_pre_hook(lambda *_, wait=wait: time.sleep(wait))
        for module, wait in ((pipe.vae.encoder, 0.2), (pipe.unet.mid_block, 0.3), (pipe.vae.decoder, 0.5))
    ]
    warm = vidkit.generate(request_ | {"output_path": None}).metadata
    for handle in handles:
        handle.remove()
    phases = ["load", "encode", "denoise", "decode", "write"]
    for metadata in (cold, warm):
        timing = metadata["timing"]
        assert list(timing) == [*phases, "total"]
        assert sum(timing[phase] for phase in phases) <= timing["total"] + 0.003
        assert timing["total"] == pytest.approx(metadata["generationTime"], abs=0.006)
        assert timing["write"] > 0
    steps = 2 if family in ("svd", "init") else 3  # init leaves some out, by its strength
    assert cold["timing"]["load"] > warm["timing"]["load"]
    assert generation.last_pipeline() is pipe
    assert warm["timing"]["encode"] > 0.2
    assert warm["timing"]["denoise"] > 0.3 * steps
    assert warm["timing"]["decode"] > 0.5


def test_a_notebook_shows_the_clip_and_keeps_what_is_known_of_it(request_: dict[str, Any], tmp_path: Path) -> None:
    result = vidkit.generate(request_)
    bundle = result._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.vidkit.result+json"}
    assert "<video" in bundle["text/html"]
    assert "record" not in bundle["text/plain"]
    data = bundle["application/vnd.vidkit.result+json"]
    assert json.loads(json.dumps(data)) == {"output": "clip.mp4", "metadata": result.metadata, "record": result.record}
    assert str(tmp_path) not in json.dumps(data)


def test_a_drawn_seed_is_reported_and_makes_the_clip_again(request_: dict[str, Any]) -> None:
    first = vidkit.generate(request_ | {"seed": -1})
    second = vidkit.generate(request_ | {"seed": -1, "overwrite": True})
    assert 0 <= first.seed < 2**31
    assert first.seed != second.seed
    assert f"{first.record['request']['seed']}" == f"{first.seed}"
    again = clips.frames_of(request_ | {"seed": second.seed, "overwrite": True})
    np.testing.assert_array_equal(again, clips.frames_of(request_ | {"seed": second.seed, "overwrite": True}))
    vidkit.generate(request_ | {"seed": second.seed, "overwrite": True})
    np.testing.assert_array_equal(read_frames(second.output), read_frames(first.output))  # the same path, made twice


@pytest.mark.parametrize(
    ("path", "wanted", "found"),
    [
        ("a.mp4", None, "mp4"),
        ("a.GIF", None, "gif"),
        ("a.webm", "webm", "webm"),
        (None, "gif", "gif"),
        (None, None, "mp4"),
    ],
)
def test_the_container_follows_the_path_or_the_format(
    request_: dict[str, Any], tmp_path: Path, path: str | None, wanted: Any, found: str
) -> None:
    target = str(tmp_path / path) if path else None
    job = clips.prepared({**request_, "output_path": target, "output_format": wanted})
    assert job.output_format == found
    assert job.target.suffix.lower() == f".{found}"


@pytest.mark.parametrize(("path", "wanted"), [("a.avi", None), ("a", None), ("a.mp4", "gif")])
def test_a_path_that_contradicts_the_format_is_refused(
    request_: dict[str, Any], tmp_path: Path, path: str, wanted: Any
) -> None:
    with pytest.raises(InputError) as caught:
        clips.prepared({**request_, "output_path": str(tmp_path / path), "output_format": wanted})
    assert caught.value.code == "invalid_value"
    assert caught.value.suggestions


def test_without_a_path_the_clip_gets_a_dated_name(request_: dict[str, Any], vidkit_home: Path) -> None:
    result = vidkit.generate({**request_, "output_path": None})
    assert result.output.parent == vidkit_home / "output"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}_picture_7\.mp4", result.output.name)


def test_an_existing_file_is_left_alone_unless_overwritten(request_: dict[str, Any]) -> None:
    path = Path(request_["output_path"])
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(InputError) as caught:
        vidkit.generate(request_)
    assert caught.value.code == "output_exists"
    assert path.read_bytes() == b"mine"
    vidkit.generate(request_ | {"overwrite": True})
    assert probe(path).frames == 4


def test_whatever_was_not_done_as_asked_is_noted(request_: dict[str, Any]) -> None:
    notes = vidkit.generate(request_ | {"turbo_share": 0.5, "guidance_scale": 7.5, "strength": 0.5}).notes
    for start in (
        "prompt is ignored",
        "guidanceScale is ignored",
        "strength is ignored",
        "turboShare is ignored",
    ):
        assert sum(note.startswith(start) for note in notes) == 1, (start, notes)


def test_corrupt_output_is_an_error_and_no_file(request_: dict[str, Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(request_["base_model"], broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({key: torch.full_like(value, float("nan")) for key, value in tensors.items()}, weights)
    with pytest.raises(GenerationError, match="NaN") as caught:
        vidkit.generate(request_ | {"base_model": str(broken)})
    assert caught.value.code == "corrupted_output"
    assert files(tmp_path / "out") == []


# --- progress -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "chunk"), [(1, 4), (1, 1), (3, 3), (8, 2), (50, 4)])
def test_progress_never_falls_nor_leaps(request_: dict[str, Any], steps: int, chunk: int) -> None:
    events: list[Progress] = []
    vidkit.generate(
        request_ | {"num_inference_steps": steps, "decode_chunk_size": chunk, "num_frames": 4},
        on_progress=events.append,
    )
    assert_smooth(events)
    assert [event.steps for event in events if event.step is not None][-1] == steps


@pytest.mark.parametrize(
    ("mode", "more"),
    [("init", {"num_inference_steps": 1, "strength": 1.0}), ("sparsectrl", {"num_inference_steps": 1}), ("pia", {})],
)
def test_progress_of_animatediff(
    tiny_animatediff: TinyAnimateDiff, image: Path, mode: str, more: dict[str, Any]
) -> None:
    events: list[Progress] = []
    vidkit.generate(clips.animatediff_request(tiny_animatediff, image, mode, **more), on_progress=events.append)
    assert_smooth(events)


def assert_smooth(events: list[Progress]) -> None:
    percents = [event.progress for event in events]
    assert percents[0] == 0
    assert percents[-1] == 100
    leaps = np.diff(percents)
    assert leaps.min() > 0  # an event that does not move the bar is left out
    assert leaps.max() <= 5, percents
    assert all(event.message for event in events)


def test_a_failing_listener_leaves_the_model_usable(request_: dict[str, Any], tmp_path: Path) -> None:
    clips.cold()
    fresh = clips.frames_of(request_)

    for limit in (12, 17, 40, 88, 96):

        def listener(event: Progress, limit: int = limit) -> None:
            if event.progress >= limit:
                raise ZeroDivisionError("the listener's own failure")

        with pytest.raises(ZeroDivisionError):
            vidkit.generate(request_, on_progress=listener)
        assert files(tmp_path / "out") == [], limit
    np.testing.assert_array_equal(clips.frames_of(request_), fresh)


# --- cancelling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["svd", "init", "sparsectrl"])
def test_cancelling_stops_within_a_layer(
    request_: dict[str, Any], tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, family: str
) -> None:
    if family != "svd":
        request_ = clips.animatediff_request(
            tiny_animatediff, image, family, output_path=request_["output_path"], strength=1.0
        )
    clips.cold()
    fresh = clips.frames_of(request_)
    pipe = generation.last_pipeline()
    layers = denoiser_layers(pipe)
    assert len(layers) >= 12
    token = CancelToken()
    ran: list[int] = []
    handles = []
    for number, layer in enumerate(layers):

        def after(*_: Any, number: int = number) -> None:
            ran.append(number)
            if len(ran) == 5:  # in the middle of the first step's UNet
                token.cancel()

        handles.append(layer.register_forward_hook(after))
    with pytest.raises(Cancelled):
        vidkit.generate(request_, cancel=token)
    for handle in handles:
        handle.remove()
    assert len(ran) == 5
    assert files(tmp_path / "out") == []
    assert generation.last_pipeline() is pipe
    np.testing.assert_array_equal(clips.frames_of(request_), fresh)


@pytest.mark.parametrize("percent", [0, 10, 15, 30, 90, 95, 96])
def test_cancelling_at_any_time_leaves_no_file(request_: dict[str, Any], tmp_path: Path, percent: int) -> None:
    token = CancelToken()

    def listener(event: Progress) -> None:
        if event.progress >= percent:
            token.cancel()

    if percent == 96:  # the clip stands; it is too late to cancel
        vidkit.generate(request_, on_progress=listener, cancel=token)
        assert files(tmp_path / "out") == ["clip.mp4", "clip.mp4.json"]
        return
    with pytest.raises(Cancelled):
        vidkit.generate(request_, on_progress=listener, cancel=token)
    assert files(tmp_path / "out") == []


def test_a_cancelled_request_does_not_wait_its_turn(request_: dict[str, Any]) -> None:
    token = CancelToken()
    with generation._lock:
        threading.Timer(0.3, token.cancel).start()
        with pytest.raises(Cancelled):
            vidkit.generate(request_, cancel=token)


def test_cancelling_while_a_picture_is_encoded(
    tiny_animatediff: TinyAnimateDiff, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """init encodes every frame before its first step: minutes on a CPU, at full size."""
    request = clips.animatediff_request(tiny_animatediff, image)
    clips.frames_of(request)
    token = CancelToken()
    encoder = generation.last_pipeline().vae.encoder
    handle = encoder.conv_in.register_forward_hook(lambda *_: token.cancel())
    ran: list[None] = []
    late = encoder.mid_block.register_forward_hook(lambda *_: ran.append(None))
    with pytest.raises(Cancelled):
        clips.computed(request, cancel=token)
    handle.remove()
    late.remove()
    assert not ran


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["unet", "vae.decoder", "image_encoder", "vae.encoder"])
def test_out_of_memory_in_any_part_leaves_the_model_usable(
    request_: dict[str, Any], tmp_path: Path, where: str
) -> None:
    fresh = clips.frames_of(request_)
    module = generation.last_pipeline().unet
    part = generation.last_pipeline()
    for name in where.split("."):
        part = getattr(part, name)
    assert isinstance(module, UNetSpatioTemporalConditionModel)
    handle = part.register_forward_pre_hook(failing_hook)
    with pytest.raises(GenerationError, match="4 frames of 64x64") as caught:
        vidkit.generate(request_)
    handle.remove()
    assert caught.value.code == "out_of_memory"
    assert files(tmp_path / "out") == []
    np.testing.assert_array_equal(clips.frames_of(request_), fresh)


def failing_hook(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_model_that_does_not_load_is_a_typed_error(request_: dict[str, Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(request_["base_model"], broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    with pytest.raises(SetupError, match="is a web page") as caught:
        vidkit.generate(request_ | {"base_model": str(broken)})
    assert caught.value.code == "invalid_model"
    assert probe(vidkit.generate(request_).output).frames == 4


# --- the warm model and threads -------------------------------------------------------------------------------------


def test_the_model_stays_loaded_until_another_is_asked_for(
    request_: dict[str, Any], tiny_animatediff: TinyAnimateDiff, image: Path
) -> None:
    clips.frames_of(request_)
    pipe = generation.last_pipeline()
    clips.frames_of(request_ | {"seed": 9, "num_frames": 3})
    assert generation.last_pipeline() is pipe
    clips.frames_of(clips.animatediff_request(tiny_animatediff, image, "pia"))
    assert generation.last_pipeline() is not pipe


def test_a_changed_model_is_loaded_again(request_: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(request_["base_model"], model)
    before = clips.frames_of(request_ | {"base_model": str(model)})
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value * 1.01 for key, value in load_file(weights).items()}, weights)
    assert (clips.frames_of(request_ | {"base_model": str(model)}) != before).any()


def test_two_threads_take_turns(request_: dict[str, Any], tmp_path: Path) -> None:
    expected = [clips.frames_of(request_ | {"seed": seed}) for seed in (1, 2)]
    results: list[Any] = [None, None]

    def work(number: int) -> None:
        results[number] = vidkit.generate(
            request_ | {"seed": number + 1, "output_path": str(tmp_path / f"{number}.webm")}
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, result in enumerate(results):
        assert result.seed == number + 1
        alone = vidkit.generate(request_ | {"seed": number + 1, "output_path": str(tmp_path / f"alone{number}.webm")})
        np.testing.assert_array_equal(read_frames(result.output), read_frames(alone.output))
    assert (expected[0] != expected[1]).any()
