"""What torch's failures mean: CUDA, cuDNN, cuBLAS and the CPU's allocator each have their own ways of saying it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from vidkit.errors import CriticalError, GenerationError, Remedy
from vidkit.params import GenerationParams

Result = TypeVar("Result")

#: "CUDA out of memory. Tried to allocate" (torch's allocator), "CUDA error: out of memory" and "CUDA driver error: out
#: of memory" (the runtime, outside of it), "HIP", "MPS backend", "Triton Error [CUDA]"; *_STATUS_ALLOC_FAILED of
#: cuBLAS, cuDNN, cuSOLVER and cuSPARSE, CUFFT_ALLOC_FAILED; cuDNN 9's ..._DEVICE_ALLOCATION_FAILED; and what torch's
#: allocator says where it fails to ask the driver who has the memory that it could not get
OUT_OF_MEMORY: Final = (
    "out of memory",
    "ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "NVML_SUCCESS == ",
)

OUT_OF_HOST_MEMORY: Final = (
    "DefaultCPUAllocator",
    "not enough memory",
    "HOST_ALLOCATION_FAILED",
    "Cannot allocate memory",
)

#: The libraries' handles and kernels are loaded when first used, and found no room; or something else is wrong. Which
#: of it, the free memory says.
PERHAPS_OUT_OF_MEMORY: Final = (
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED",
    "nable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)

DRIVER: Final = ("CUDA error", "device-side assert", "CUDA driver", "NVML", "an illegal memory access")

#: what helps against some of them, by what they say. "unknown error" is what sleep leaves behind on Linux.
DRIVER_ADVICE: Final = {
    "no kernel image": "Install a torch that has kernels for this GPU: vidkit doctor has the command",
    "driver version is insufficient": "Update the NVIDIA driver: it is older than this torch needs",
    "unknown error": "After sleep, load the driver anew: sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm",
    "illegal memory access": "Set an overclocked or undervolted GPU back to its own clocks, and update its driver",
    "device-side assert": "Report it with the request: a value was computed that no kernel takes",
}

#: bytes that a library may need at once, its kernels and workspace; with less, a device counts as full
FULL: Final = 2**30

#: where interpreters keep the last error that nobody caught: with its frames, and so with their tensors
KEPT_ERRORS: Final = ("last_exc", "last_value", "last_traceback", "last_type")


def attempted(params: GenerationParams, work: Callable[[], Result]) -> Result | GenerationError | CriticalError:
    """Do the work; one of torch's failures is returned as a typed error, which keeps nothing of the work alive.

    Anything not recognised passes through unchanged.
    """
    try:
        return work()
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        typed = typed_failure(error, params)
        if typed is None:
            raise
    # Outside of `except`, and why this is no context manager: within it the new error would keep the first as its
    # context, and with it the traceback, its frames and their tensors.
    return typed


def typed_failure(error: BaseException, params: GenerationParams) -> GenerationError | CriticalError | None:
    """A failure of torch's as a typed error; None when it is none that is known. Ask while it is being handled."""
    text = str(error)
    if isinstance(error, MemoryError) or says(text, OUT_OF_HOST_MEMORY):
        return GenerationError("out_of_host_memory", memory_message(params), smaller_requests(params))
    if says(text, OUT_OF_MEMORY) or (says(text, PERHAPS_OUT_OF_MEMORY) and device_is_full()):
        return GenerationError(
            "out_of_memory", memory_message(params), [*smaller_requests(params), "Close other GPU applications"]
        )
    if says(text, (*DRIVER, *PERHAPS_OUT_OF_MEMORY)):
        return gpu_failure(text.splitlines()[0])
    return None


def gpu_failure(what: str) -> CriticalError:
    advice = next((advice for mark, advice in DRIVER_ADVICE.items() if mark in what), "")
    return CriticalError(
        "gpu_driver",
        f"The GPU or its driver failed: {what.rstrip('.')}.",
        [
            *([advice] if advice else []),
            "Make the clip again in a new process, as vidkit generate does by itself: this one can use the GPU no more",
            "If it fails again, restart the machine; vidkit doctor tells whether GPU, driver and torch go together",
        ],
    )


def says(text: str, marks: tuple[str, ...]) -> bool:
    return any(mark in text for mark in marks)


def device_is_full() -> bool:
    """Whether so little is left on the GPU, or of what this process may take there, that a library finds no room."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    free, total = torch.cuda.mem_get_info()
    allocated = torch.cuda.memory_allocated()
    spare = free + torch.cuda.memory_reserved() - allocated
    return min(spare, total * torch.cuda.get_per_process_memory_fraction() - allocated) < FULL


def let_go() -> None:
    """After a failed attempt: what only its frames held is freed, and its memory goes back to the device.

    Its traceback is gone by then, but frames may be in a cycle, or in an older error that the interpreter keeps for its
    debugger.
    """
    import torch

    for name in KEPT_ERRORS:
        if hasattr(sys, name):
            delattr(sys, name)
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without CUDA


def memory_message(params: GenerationParams) -> str:
    return (
        f"{params.num_frames} frames of {params.width}x{params.height} did not fit into memory. "
        "Try reducing decode_chunk_size or num_frames."
    )


def smaller_requests(params: GenerationParams) -> list[str]:
    """Concrete requests that need less memory than this one."""
    suggestions: list[str] = []
    if params.decode_chunk_size > 1:
        chunk = params.decode_chunk_size // 2
        suggestions.append(Remedy(f"Set decode_chunk_size to {chunk}", decode_chunk_size=chunk))
    frames, width, height = params.num_frames or 2, params.width or 64, params.height or 64
    if frames > 4:
        fewer = frames * 2 // 3
        suggestions.append(Remedy(f"Reduce num_frames to {fewer}", num_frames=fewer))
    if min(width, height) > 256:
        width, height = width * 3 // 4 // 64 * 64, height * 3 // 4 // 64 * 64
        suggestions.append(Remedy(f"Reduce the size to {width}x{height}", width=width, height=height))
    return suggestions
