"""Attention by the quickest kernel: real ones compute the same, the choice is measured once and noted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from vidkit.doctor import attention
from vidkit.doctor.probe import Probed
from vidkit.pipelines.fast import kernels
from vidkit.pipelines.fast.kernels import (
    KERNELS,
    UNMEASURED,
    WIDE_KERNELS,
    attended,
    by_torch,
    chosen,
    note_file,
    noted,
    shape_of,
)

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def _nothing_chosen() -> Iterator[None]:
    before = dict(kernels._chosen)
    kernels._chosen.clear()
    yield
    kernels._chosen.clear()
    kernels._chosen.update(before)


def tensors(device: str = "cpu", tokens: int = 96, words: int | None = None) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    rows = 2 if device == "cpu" else 2**20 // tokens  # so many that a GPU needs longer for them than Python
    sizes = [(rows, 4, tokens, 32), (rows, 4, words or tokens, 32), (rows, 4, words or tokens, 32)]
    dtype = torch.float32 if device == "cpu" else torch.float16
    query, key, value = (torch.randn(size, generator=generator).to(device, dtype) for size in sizes)
    return query, key, value


def slow(*qkv: torch.Tensor) -> torch.Tensor:
    time.sleep(0.05)
    return by_torch(*qkv)


def unfit(*qkv: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("No available kernel. Aborting execution.")


def test_the_quickest_that_can_is_taken_and_noted() -> None:
    given = tensors()
    mine = {"unfit": unfit, "slow": slow, "quick": by_torch}
    assert chosen(*given, mine) is by_torch
    assert noted("cpu") == {shape_of(*given[:2]): "quick"}
    assert chosen(*given, {"slow": slow}) is by_torch, "it is not measured again in this process"


def test_another_process_takes_what_was_noted() -> None:
    given = tensors()
    chosen(*given, {"slow": slow})
    kernels._chosen.clear()
    assert chosen(*given, {"slow": slow, "quick": by_torch}) is slow
    kernels._chosen.clear()
    assert chosen(*given, {"quick": by_torch}) is by_torch, "a kernel that is gone is not waited for"


def test_each_shape_has_its_own() -> None:
    chosen(*tensors(), {"quick": by_torch})
    chosen(*tensors(words=7), {"slow": slow})
    assert sorted(noted("cpu").values()) == ["quick", "slow"]


def test_where_none_can_torch_chooses_and_is_not_asked_again() -> None:
    given = tensors()
    assert chosen(*given, {"unfit": unfit}) is by_torch
    assert list(noted("cpu").values()) == [UNMEASURED]
    kernels._chosen.clear()
    assert chosen(*given, {"slow": slow}) is by_torch


def test_where_memory_runs_out_nothing_is_noted_of_the_kernel() -> None:
    def full(*qkv: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        chosen(*tensors(), {"quick": by_torch, "full": full})
    assert noted("cpu") == {}


@pytest.mark.parametrize("text", ["", "[1, 2]", "{"])
def test_a_broken_note_is_written_anew(text: str) -> None:
    file = note_file("cpu")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    chosen(*tensors(), {"quick": by_torch})
    assert list(json.loads(file.read_text()).values()) == ["quick"]


def test_a_note_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    note_file("cpu").parent.parent.mkdir(parents=True, exist_ok=True)
    note_file("cpu").parent.write_text("a file where the folder would be")
    assert chosen(*tensors(), {"quick": by_torch}) is by_torch


@pytest.mark.parametrize("name", WIDE_KERNELS)
def test_a_kernel_computes_attention_or_says_that_it_cannot(name: str) -> None:
    """On a CPU flash alone can, and all scores at once; xformers is not installed where these tests run."""
    given = tensors()
    try:
        found = WIDE_KERNELS[name](*given)
    except kernels.UNFIT:
        assert name not in ("flash", "all scores")
        return
    assert torch.allclose(found, by_torch(*given), atol=1e-5)


def test_a_cpu_measures_nothing() -> None:
    assert torch.equal(attended(*tensors()), by_torch(*tensors()))
    assert noted("cpu") == {}


def test_doctor_says_what_was_found() -> None:
    def told(quickest: Mapping[str, str]) -> Any:
        enabled = {"flash": True, "memoryEfficient": True, "cudnn": True}
        stages = {"cuda": {"available": True}, "attention": {**enabled, "quickest": quickest}}
        return next(attention.findings(Probed(stages)))

    assert "measured when it is first met" in told({}).what
    found = told({"a": "cuDNN", "b": "cuDNN", "c": "memory-efficient"})
    assert "so far cuDNN for 2, memory-efficient for 1" in found.what
    assert found.data["quickest"]["a"] == "cuDNN"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("tokens", "words"), [(4096, None), (4096, 77), (25, None)])
def test_on_a_gpu_the_choice_is_right_and_no_slower_than_torchs(tokens: int, words: int | None) -> None:
    given = tensors("cuda", tokens, words)
    exact = by_torch(*(one[:2].double().cpu() for one in given))
    found = attended(*given)
    assert (found[:2].double().cpu() - exact).norm() <= 2e-3 * exact.norm()
    kernel = chosen(*given, KERNELS)
    assert min(kernels.seconds(kernel, *given) for _ in range(5)) <= 1.2 * min(
        kernels.seconds(by_torch, *given) for _ in range(5)
    )
