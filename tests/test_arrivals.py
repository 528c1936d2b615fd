"""Decoded frames on their way to the host's memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vidkit.pipelines import arrivals
from vidkit.pipelines.arrivals import MOST_PINNED, arriving, stage_for

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def copied(parts: list[torch.Tensor]) -> torch.Tensor:
    target = torch.full((sum(map(len, parts)), *parts[0].shape[1:]), torch.nan)
    start = 0
    with arriving() as copy:
        for part in parts:
            copy(part, target[start : start + len(part)])
            start += len(part)
    return target


def test_what_is_on_the_host_is_copied_at_once() -> None:
    parts = [torch.randn(2, 3), torch.randn(1, 3)]
    assert stage_for(parts[0]) is None
    assert torch.equal(copied(parts), torch.cat(parts))


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("most", [MOST_PINNED, 1])
def test_all_of_a_gpu_arrives_in_its_place(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST_PINNED", most)
    sources = [torch.randn(2, 1000, 1000, device="cuda") for _ in range(5)]
    parts = []

    def computed(source: torch.Tensor) -> torch.Tensor:
        for _ in range(20):  # so that it is not there yet when the copy is asked for
            source = source @ source
            source = source / source.norm()
        parts.append(source)
        return source

    target = torch.full((10, 1000, 1000), torch.nan)
    with arriving() as copy:
        for number, source in enumerate(sources):
            copy(computed(source), target[2 * number : 2 * number + 2])
    assert torch.equal(target, torch.cat(parts).cpu())


@pytest.mark.gpu
@needs_a_gpu
def test_without_pinned_memory_frames_arrive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.empty

    def empty(*arguments: Any, **options: Any) -> torch.Tensor:
        if options.get("pin_memory"):
            raise RuntimeError("CUDA error: out of memory")
        return own(*arguments, **options)

    monkeypatch.setattr(torch, "empty", empty)
    parts = [torch.randn(2, 3, device="cuda"), torch.randn(2, 3, device="cuda")]
    assert torch.equal(copied(parts), torch.cat(parts).cpu())
