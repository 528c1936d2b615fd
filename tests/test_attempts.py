"""What runs out of memory is computed again with less, broken frames once in a safer way; and nothing stays behind."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clips
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import vidkit
from vidkit import generation
from vidkit.attempts import until_done
from vidkit.computing import Computation, Stopwatch
from vidkit.device import Plan
from vidkit.errors import GenerationError, Remedy
from vidkit.memory.fitting import Room
from vidkit.memory.planning import Planned
from vidkit.memory.prediction import predict
from vidkit.progress import Reporter
from vidkit.warm import WarmModels

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture
def request_(tiny_svd_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Large enough that its activations count beside the weights of the tiny model."""
    size = {"width": 128, "height": 128, "num_frames": 8, "decode_chunk_size": 8}
    output = str(tmp_path / "clip.mp4")
    return clips.svd_request(tiny_svd_folder, clips.saved(tmp_path), output_path=output, overwrite=True, **size)


@pytest.fixture
def small_request(request_: dict[str, Any]) -> dict[str, Any]:
    """For half precision, which a CPU computes slowly."""
    return request_ | {"width": 64, "height": 64, "num_frames": 2, "decode_chunk_size": 2}


@contextmanager
def too_large(module: torch.nn.Module, is_too_large: Callable[[torch.Tensor], bool]) -> Iterator[list[int]]:
    """Torch's own error where a module gets more than there is room for; the batch sizes that it was given."""
    seen: list[int] = []

    def before(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = arguments[0] if arguments else named["hidden_states"]
        seen.append(given.shape[0])
        if is_too_large(given):
            torch.empty(2**60, dtype=torch.uint8)

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


# --- out of memory --------------------------------------------------------------------------------------------------


def test_while_denoising(request_: dict[str, Any]) -> None:
    """There is room for one half of guidance: 8 frames, not 16."""
    plain = clips.frames_of(request_)
    pipe = generation.last_pipeline()
    with too_large(pipe.unet.mid_block, lambda given: given.shape[0] > 8) as seen:
        result = vidkit.generate(request_)
    assert seen == [16, 8, 8, 8, 8]
    assert generation.last_pipeline() is pipe
    assert result.record["plan"]["halves"] is True
    assert any("memory ran out" in note for note in result.notes)
    assert any("halves of guidance" in note for note in result.notes)
    assert result.record["request"]["numFrames"] == 8
    np.testing.assert_array_equal(clips.frames_of(request_), plain)  # the next has all of its measures taken back


def test_a_leaner_attempt_gives_the_same_frames(request_: dict[str, Any]) -> None:
    plain = clips.frames_of(request_)
    with too_large(generation.last_pipeline().unet.mid_block, lambda given: given.shape[0] > 8):
        leaner = clips.frames_of(request_)
    assert np.abs(leaner.astype(int) - plain).max() <= 1


def test_while_decoding_nothing_is_denoised_again(request_: dict[str, Any]) -> None:
    """SVD's decoder mixes frames, so that a smaller chunk needs leave, and is told."""
    clips.frames_of(request_)
    pipe = generation.last_pipeline()
    request = request_ | {"allow_changes": True}
    with (
        too_large(pipe.vae.decoder.mid_block, lambda given: given.shape[0] > 4) as decoded,
        too_large(pipe.unet.mid_block, lambda given: False) as denoised,
    ):
        result = vidkit.generate(request)
    assert len(denoised) == 2
    chunk = result.record["plan"]["changes"]["decodeChunkSize"]
    assert decoded[0] == 8 and chunk in decoded and chunk <= 4
    assert result.record["request"]["decodeChunkSize"] == 8
    assert sum("decoded at once" in note and "does not fit" in note for note in result.notes) == 1
    expected = clips.frames_of(request_ | {"decode_chunk_size": chunk})
    with too_large(pipe.vae.decoder.mid_block, lambda given: given.shape[0] > 4):
        assert np.abs(clips.frames_of(request).astype(int) - expected).max() <= 1


def test_what_would_fit_is_told_when_nothing_helps(request_: dict[str, Any], tmp_path: Path) -> None:
    clips.frames_of(request_)
    with (
        too_large(generation.last_pipeline().vae.decoder.mid_block, lambda given: given.shape[0] > 4) as seen,
        pytest.raises(GenerationError) as caught,
    ):
        vidkit.generate(request_)
    assert set(seen) == {8}
    assert caught.value.code == "out_of_host_memory"
    changes = [advice.changes for advice in caught.value.suggestions if isinstance(advice, Remedy)]
    assert {"allow_changes": True} in changes
    assert any(change.keys() == {"decode_chunk_size"} for change in changes)
    assert not (tmp_path / "clip.mp4").exists()


def test_any_other_failure_is_not_tried_again(request_: dict[str, Any]) -> None:
    clips.frames_of(request_)
    ran: list[None] = []

    def fail(*_: Any) -> None:
        ran.append(None)
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    handle = generation.last_pipeline().unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="size of tensor"):
        clips.frames_of(request_)
    handle.remove()
    assert len(ran) == 1


def test_twenty_failures_leave_nothing_behind(request_: dict[str, Any]) -> None:
    """As in a notebook, whose interpreter keeps the last error. Each fails in all its attempts: the UNet's and the
    decoder's in turn, some with changes of the clip too."""
    request_["num_inference_steps"] = 1
    plain = clips.frames_of(request_)
    parts = [generation.last_pipeline().unet.mid_block, generation.last_pipeline().vae.decoder.mid_block]
    tensors, resident = held()
    gc.freeze()  # what is there now is not looked through again each time, nor counted
    for number in range(22):
        with too_large(parts[number % 2], lambda given: True) as seen, pytest.raises(GenerationError) as caught:
            clips.frames_of(request_ | {"allow_changes": number in (0, 11)})
        assert len(seen) >= (1 if number % 2 else 2)
        sys.last_value, sys.last_traceback = caught.value, caught.value.__traceback__
        del caught
        if number == 1:
            resident = held()[1]  # the first failures load and keep what any failure needs
    left, now = held()
    gc.unfreeze()
    assert left < 0.01 * tensors
    assert now == pytest.approx(resident, rel=0.01)
    np.testing.assert_array_equal(clips.frames_of(request_), plain)


def held() -> tuple[int, int]:
    """Bytes of all tensors that live, and of the process."""
    gc.collect()
    storages = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if type(thing) in (torch.Tensor, torch.nn.Parameter)
    }
    return sum(storages.values()), psutil.Process().memory_info().rss


# --- broken frames --------------------------------------------------------------------------------------------------


def test_broken_frames_are_decoded_again_in_single_precision(
    tiny_svd_folder: Path, tmp_path: Path, small_request: dict[str, Any]
) -> None:
    """A decoder whose values are too large for half precision: it gives NaN, and in single precision the picture."""
    model = tmp_path / "large"
    shutil.copytree(tiny_svd_folder, model)
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_in.weight"] *= 6e4 / tensors["decoder.conv_in.weight"].abs().max()
    save_file(tensors, weights)
    (frames, _), planned, notes, denoised = in_half_precision(small_request | {"base_model": str(model)})
    assert planned.plan.vae_float32
    assert len(denoised) == 2  # steps: the latents were taken over
    assert len(notes) == 1 and "NaN" in notes[0] and "single precision" in notes[0]
    expected = clips.frames_of(small_request | {"base_model": str(model)})
    assert np.abs(frames.astype(int) - expected).mean() < 16


def test_frames_that_stay_broken_are_an_error_after_two_attempts(
    tiny_svd_folder: Path, tmp_path: Path, small_request: dict[str, Any]
) -> None:
    """Latents that are no numbers are not decoded again: all is computed once more."""
    model = tmp_path / "broken"
    shutil.copytree(tiny_svd_folder, model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"conv_out.bias": torch.full_like(tensors["conv_out.bias"], float("nan"))}, weights)
    denoised: list[int] = []
    with pytest.raises(GenerationError, match="NaN") as caught:
        in_half_precision(small_request | {"base_model": str(model)}, denoised)
    assert caught.value.code == "corrupted_output"
    assert len(denoised) == 4


def in_half_precision(
    request: dict[str, Any], denoised: list[int] | None = None
) -> tuple[Any, Planned, list[str], list[int]]:
    """A request on the CPU as on a GPU; also the calls of the UNet."""
    job, warm = clips.prepared(request), WarmModels()
    calls: list[int] = [] if denoised is None else denoised
    computation = Computation(job, Reporter(None, None), Stopwatch(), None)
    plan = Plan("cpu", "float16")
    planned = Planned(job.params, job.models, plan, predict(job.params, job.models, plan), Room(None), [])

    def attempt(planned: Planned) -> Any:
        pipe = warm.pipeline(job, planned.plan)
        with too_large(pipe.unet.mid_block, lambda given: False) as seen:
            try:
                return computation.frames(pipe, planned.plan)
            finally:
                calls.extend(seen)

    try:
        return *until_done(planned, attempt, lambda: computation.phase), calls
    finally:
        warm.unload()
