"""Recorded steps: the same bits as computed ones, in all conditionings, and only where nothing moves or changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import pytest
import torch
from tiny_models import TinyAnimateDiff

from vidkit.device import Plan
from vidkit.pipelines.fast import fused, graphs
from vidkit.pipelines.fast.graphs import Recording, fits, may_record, recorded
from vidkit.placement import place, plan_of, release
from vidkit.warm import fresh_pipeline

pytestmark = pytest.mark.usefixtures("no_warm_pipeline", "without_gradients")

FAST = Plan("cuda", "float16", speed="fast")
MODES = ("svd", "init", "sparsectrl", "pia")

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_only_what_stays_where_it_is_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "works", lambda: True)
    assert may_record(FAST)
    assert may_record(replace(FAST, speed="turbo"))
    others: list[dict[str, Any]] = [{"speed": "exact"}, {"device": "cpu"}, {"offload": "model"}, {"offload": "layers"}]
    others += [{"halves": True}, {"slices": True}, {"host_skips": True}]
    assert not [measures for measures in others if may_record(replace(FAST, **measures))]
    monkeypatch.setattr(fused, "works", lambda: False)
    assert not may_record(FAST)


def test_a_recording_fits_what_it_reads() -> None:
    own, other = torch.zeros(2, 3), torch.zeros(2, 3)
    assert fits(own, own, own._version)
    assert not fits(other, own, own._version), "it would read the one that was recorded"
    version = own._version
    own += 1
    assert not fits(own, own, version), "what was computed of it before may be kept"
    assert fits(other, own, None), "which is copied"
    assert not fits(torch.zeros(2, 4), own, None)
    assert not fits(other.double(), own, None)
    assert fits(0.5, 0.5, None)
    assert not fits(0.5, 0.6, None)
    assert not fits(True, 1, None)
    assert not fits(None, own, None)


def test_a_pipeline_that_is_not_placed_is_left_alone(tiny_svd_folder: Path, image: Path) -> None:
    pipe = fresh_pipeline(clips.prepared(clips.svd_request(tiny_svd_folder, image)), Plan("cpu", "float32"))
    release(pipe)
    assert plan_of(pipe) is None
    with recorded(pipe, plan_of(pipe)):
        assert "forward" not in vars(pipe.unet)


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("mode", MODES)
def test_recorded_steps_have_the_bits_of_computed_ones(
    mode: str,
    tiny_svd_folder: Path,
    tiny_animatediff: TinyAnimateDiff,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = clips.svd_request(tiny_svd_folder, image, max_guidance_scale=3.0)
    if mode != "svd":
        request = clips.animatediff_request(tiny_animatediff, image, mode)
    job = clips.prepared(request | {"num_inference_steps": 8})
    pipe = fresh_pipeline(job, FAST)
    played: list[Recording] = []
    own = Recording._play

    def play(recording: Recording, leaves: Any) -> None:
        played.append(recording)
        own(recording, leaves)

    monkeypatch.setattr(Recording, "_play", play)
    monkeypatch.setattr(graphs, "MOST_BEHIND", 1.1)  # so small a network waits for the host, whatever else runs here

    def latents() -> torch.Tensor:
        found: torch.Tensor = job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)[0]
        return found

    place(pipe, FAST)
    computed = latents()
    for _ in range(2):  # another clip is recorded anew
        played.clear()
        with recorded(pipe, plan_of(pipe)):
            assert torch.equal(latents(), computed)
        assert len(played) >= 3
        assert len(set(map(id, played))) == (2 if mode == "sparsectrl" else 1)
    assert "forward" not in vars(pipe.unet)


@pytest.mark.gpu
@needs_a_gpu
def test_a_call_that_was_not_recorded_is_computed() -> None:
    weight = torch.randn(4, 4, device="cuda")

    def forward(sample: torch.Tensor, scale: float, context: torch.Tensor) -> torch.Tensor:
        return sample @ weight * scale + context

    context, recording = torch.randn(3, 4, device="cuda"), Recording()
    for scale in (1.0, 1.0, 1.0, 1.0, 2.0, 1.0):
        sample = torch.randn(3, 4, device="cuda")
        assert torch.equal(recording.answer(forward, sample, scale, context), forward(sample, scale, context))


@pytest.mark.gpu
@needs_a_gpu
def test_what_cannot_be_recorded_is_computed() -> None:
    def forward(sample: torch.Tensor) -> torch.Tensor:
        return sample * float(sample.sum())  # the host waits for the device

    recording = Recording()
    for _ in range(5):
        sample = torch.randn(3, 4, device="cuda")
        assert torch.equal(recording.answer(forward, sample), forward(sample))
