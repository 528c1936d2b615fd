"""Recorded steps: the same bits as computed ones, in all conditionings, and only where nothing moves or changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import pytest
import torch
from tiny_models import TinyAnimateDiff

from vidkit.device import Plan
from vidkit.pipelines.fast import fused, graphs
from vidkit.pipelines.fast.capture import Recorder, outside
from vidkit.pipelines.fast.graphs import Known, Recording, Told, has_room, is_like, kind_of, may_record
from vidkit.placement import _placed, expect_changes, place, recording, release
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


def test_a_recording_is_given_what_is_like_what_it_reads() -> None:
    own, other = torch.zeros(2, 3), torch.zeros(2, 3)
    assert is_like(other, own), "which is copied"
    assert not is_like(torch.zeros(2, 4), own)
    assert not is_like(other.double(), own)
    assert is_like(0.5, 0.5)
    assert not is_like(0.5, 0.6)
    assert not is_like(True, 1)
    assert not is_like(None, own)


def test_what_a_recording_was_told_is_still_so() -> None:
    tensor = torch.zeros(2, 3)
    told = Told(tensor)
    assert told.is_still(tensor)
    assert not told.is_still(tensor.clone()), "it has a copy of the other one"
    tensor += 1
    assert not told.is_still(tensor), "what was computed of it before may be kept"


def test_recordings_outlast_their_clip_where_most_of_the_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (18 << 30, 24 << 30))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)
    assert has_room()
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 0.5)
    assert not has_room(), "a limit of the process"
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (17 << 30, 24 << 30))
    assert not has_room()


def test_calls_of_one_kind_start_the_same_kernels() -> None:
    assert kind_of(torch.zeros(2, 3)) == kind_of(torch.ones(2, 3))
    others = torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, device="meta"), 0.5, None
    assert len({kind_of(other) for other in (*others, torch.zeros(2, 3))}) == 6
    assert kind_of({"a": 1}) == "dict"


def test_a_pipeline_that_is_not_placed_is_left_alone(tiny_svd_folder: Path, image: Path) -> None:
    pipe = fresh_pipeline(clips.prepared(clips.svd_request(tiny_svd_folder, image)), Plan("cpu", "float32"))
    release(pipe)
    with recording(pipe):
        assert "forward" not in vars(pipe.unet)


def test_what_is_computed_once_is_computed_where_nothing_is_recorded() -> None:
    source = torch.ones(3)
    assert torch.equal(outside(lambda: source + 1, source), source + 1)


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize(("mode", "outlasts"), [*((mode, True) for mode in MODES), ("init", False)])
def test_recorded_steps_have_the_bits_of_computed_ones(
    mode: str,
    outlasts: bool,
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
    monkeypatch.setattr(graphs, "FREE_BESIDE", 0.0 if outlasts else 2.0)
    plays: list[Recorder] = []
    own_play = Recorder.play

    def play(recorder: Recorder) -> None:
        plays.append(recorder)
        own_play(recorder)

    monkeypatch.setattr(Recorder, "play", play)

    def latents(clip: int = 0) -> torch.Tensor:
        params = job.params.replace(seed=clip, prompt=f"text {clip}", motion_bucket_id=100 + clip)
        found: torch.Tensor = job.family.denoise(pipe, params, job.models, job.pictures, lambda: None)[0]
        return found

    def played(clip: int, wanted: torch.Tensor) -> tuple[int, list[Recorder]]:
        """How often, and which recordings."""
        plays.clear()
        with recording(pipe):
            assert torch.equal(latents(clip), wanted)
        assert len(set(map(id, plays))) == networks
        return len(plays) // networks, plays[-networks:]

    place(pipe, FAST)
    networks = 2 if mode == "sparsectrl" else 1
    computed = [latents(clip) for clip in range(3)]
    assert not torch.equal(computed[0], computed[1])
    found = [played(clip, wanted) for clip, wanted in enumerate(computed)]
    assert found[0][0] >= 3
    assert found[1][0] == found[0][0] + 2 + outlasts, "the first calls are recorded or played too"
    assert (found[1][1] == found[0][1]) == outlasts
    assert found[2][0] == found[1][0]
    assert (found[2][1] == found[1][1]) == outlasts

    layer: Any = next(layer for layer in pipe.unet.modules() if type(layer) is torch.nn.Linear)
    own = layer.weight
    layer.weight = torch.nn.Parameter(own * 1.5, requires_grad=False)  # as a LoRA does
    changed = latents()
    assert not torch.equal(changed, computed[0])
    played(0, changed)
    layer.weight = own
    wanted = latents()
    played(0, wanted)
    assert played(0, wanted)[0] == found[1][0]
    expect_changes(pipe)
    assert played(0, wanted)[0] == found[0][0] + 2, "recorded anew"
    assert not _placed[pipe].known.recordings[0].is_made
    assert "forward" not in vars(pipe.unet)


class Network(torch.nn.Module):
    """Of two blocks."""

    def __init__(self, inner: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.down_blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4, device="cuda")])
        self.mid_block = torch.nn.Linear(4, 4, device="cuda")
        self.inner = inner

    def compute(self, sample: torch.Tensor, *rest: Any) -> torch.Tensor:
        return self.inner(self.mid_block(self.down_blocks[0](sample + 1)), *rest)  # type: ignore[no-any-return]


def sample() -> torch.Tensor:
    return torch.randn(3, 4, device="cuda")


@pytest.mark.gpu
@needs_a_gpu
def test_answers_that_are_kept_stay_what_they_were() -> None:
    network, known = Network(lambda hidden: hidden + 1), Known()
    clip = Recording(network, known, copies=True)
    given = [sample() for _ in range(5)]
    answers = [clip.answer(network.compute, one) for one in given]
    for one, answer in zip(given, answers, strict=True):
        assert torch.equal(answer, network.compute(one))


@pytest.mark.gpu
@needs_a_gpu
def test_answers_of_a_recording_are_not_taken_for_what_stays() -> None:
    control, unet = Network(lambda hidden: hidden * 2), Network(lambda hidden, residual: hidden + residual)
    known = Known()
    first, second = Recording(control, known, copies=False), Recording(unet, known, copies=True)
    for _ in range(4):
        first.answer(control.compute, sample())
    for _ in range(6):
        given = sample()
        answer = second.answer(unet.compute, given, first.answer(control.compute, given))
        assert torch.equal(answer, unet.compute(given, control.compute(given)))
    assert second.is_made


@pytest.mark.gpu
@needs_a_gpu
def test_a_recording_that_no_call_was_left_for_did_not_fail() -> None:
    network, known = Network(lambda hidden: hidden + 1), Known()
    clip = Recording(network, known, copies=True)
    for number in range(8):
        clip.begin_call()
        for _ in range(3):
            given = sample()[: 2 + number % 2]
            assert torch.equal(clip.answer(network.compute, given), network.compute(given))
    assert [len(like) for like in known.kept.values()] == [1, 1], "both kinds are recorded still"


def test_what_fails_once_is_tried_again() -> None:
    known = Known()
    known.kept["like"] = [True]
    known.failed("like")
    assert "like" not in known.kept, "it is computed first again"
    known.kept["like"] = [True]
    known.failed("like")
    assert known.kept["like"] == ()


@pytest.mark.gpu
@needs_a_gpu
def test_a_call_that_was_not_recorded_is_computed() -> None:
    network = Network(lambda hidden, scale, context: hidden * scale + context)
    context, known = sample(), Known()
    answered = Recording(network, known, copies=True)
    for scale in (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0):
        given = sample(), scale, context
        assert torch.equal(answered.answer(network.compute, *given), network.compute(*given))
    assert all(known.kept.values()), "both kinds of calls can be recorded"


@pytest.mark.gpu
@needs_a_gpu
def test_another_clip_is_told_other_things() -> None:
    network = Network(lambda hidden, context: hidden + context)
    known = Known()
    kept = Recording(network, known, copies=True)
    for _ in range(3):
        for clip in (kept, Recording(network, known, copies=True)):
            context = sample()
            clip.begin_call()
            for _ in range(4):
                given = sample()
                assert torch.equal(clip.answer(network.compute, given, context), network.compute(given, context))
    assert kept.is_made


@pytest.mark.gpu
@needs_a_gpu
def test_what_cannot_be_recorded_is_computed() -> None:
    network = Network(lambda hidden: hidden * float(hidden.sum()))  # the host waits for the device
    known = Known()
    clip = Recording(network, known, copies=True)
    for _ in range(8):  # it is tried twice
        given = sample()
        assert torch.equal(clip.answer(network.compute, given), network.compute(given))
    assert list(known.kept.values()) == [()]


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("stays", [True, False])
def test_what_is_kept_is_computed_once_of_what_stays(stays: bool) -> None:
    found: list[torch.Tensor] = []

    def add(hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        if not found or not stays:
            found[:] = [outside(lambda: context * float(context.sum()), context)]
        return hidden + found[0]

    network, context, known = Network(add), sample(), Known()
    for _ in range(2):
        clip = Recording(network, known, copies=True)
        found.clear()
        for _ in range(4):
            given, context = sample(), context if stays else sample()
            answer = clip.answer(network.compute, given, context).clone()
            kept = list(found)
            assert torch.allclose(answer, network.compute(given, context))
            found[:] = kept
    assert [bool(kept) for kept in known.kept.values()] == [stays]


@pytest.mark.gpu
@needs_a_gpu
def test_a_clip_that_is_stopped_amid_a_recording_leaves_the_device_in_order() -> None:
    class StoppedError(Exception):
        pass

    network, known = Network(lambda hidden: hidden + 1), Known()
    for _ in range(2):
        clip = Recording(network, known, copies=True)
        for _ in range(2):
            clip.answer(network.compute, sample())
        handle = network.mid_block.register_forward_hook(lambda *_: stop())

        def stop() -> None:
            raise StoppedError

        with pytest.raises(StoppedError):
            Recording(network, known, copies=True).answer(network.compute, sample())
        handle.remove()
        given = sample()
        assert torch.equal(
            Recording(network, known, copies=True).answer(network.compute, given), network.compute(given)
        )
        torch.cuda.synchronize()
