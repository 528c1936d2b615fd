"""What torch's failures mean, each in the words of the library that fails; and that nothing of a failed try stays."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vidkit.errors import Cancelled, CriticalError, GenerationError
from vidkit.failures import attempted, let_go, typed_failure
from vidkit.params import GenerationParams

PARAMS = GenerationParams(
    image_path="a.png", prompt="waves", width=1024, height=576, num_frames=25, decode_chunk_size=8
)


def failing(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), "out_of_memory"),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"), "out_of_memory"),
        (RuntimeError("CUDA driver error: out of memory"), "out_of_memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out_of_memory"),
        (RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `x`"), "out_of_memory"),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "out_of_memory"),
        (RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":995'), "out_of_memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5.0 GB)"), "out_of_memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate"),
            "out_of_host_memory",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), "out_of_host_memory"),
        (RuntimeError("unable to mmap 900 bytes from file </m>: Cannot allocate memory (12)"), "out_of_host_memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), "out_of_host_memory"),
        (MemoryError(), "out_of_host_memory"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "gpu_driver"),
        (RuntimeError("CUDA error: device-side assert triggered"), "gpu_driver"),
        # no GPU is full here, so that these are what they say
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "gpu_driver"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "gpu_driver"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "gpu_driver"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_torchs_failures_are_typed(error: BaseException, code: str) -> None:
    typed = attempted(PARAMS, failing(error))
    assert isinstance(typed, CriticalError if code == "gpu_driver" else GenerationError)
    assert typed.code == code
    if code == "out_of_memory":
        assert typed.suggestions[:3] == [
            "Set decode_chunk_size to 4",
            "Reduce num_frames to 16",
            "Reduce the size to 768x384",
        ]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("out of memory"),
        Cancelled(),
    ],
)
def test_other_failures_pass_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        attempted(PARAMS, failing(error))
    assert caught.value is error


def test_out_of_memory_is_real() -> None:
    """The real error of torch's CPU allocator: 2^60 bytes are more than any machine has."""
    typed = attempted(PARAMS, lambda: torch.empty(2**60, dtype=torch.uint8))
    assert isinstance(typed, GenerationError)
    assert typed.code == "out_of_host_memory"
    assert typed_failure(RuntimeError("x"), PARAMS) is None


def test_a_failed_try_keeps_no_tensors_alive() -> None:
    """The next one needs the memory of this one, whoever holds the error."""
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()
    try:
        typed = attempted(PARAMS, work)
        assert isinstance(typed, GenerationError)
        assert (typed.__context__, typed.__traceback__) == (None, None)
        assert held[0]() is None
    finally:
        gc.enable()


def test_let_go_frees_what_cycles_and_the_interpreters_last_error_hold() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fail() -> None:
        tensor, cycle = torch.zeros(10), []
        cycle.append((cycle, tensor))
        held.append(weakref.ref(tensor))
        raise ZeroDivisionError("nobody catches this in a notebook")

    try:
        fail()
    except ZeroDivisionError as error:
        sys.last_value, sys.last_traceback = error, error.__traceback__
    gc.collect()
    assert held[0]() is not None
    let_go()
    assert held[0]() is None
    assert not hasattr(sys, "last_traceback")
