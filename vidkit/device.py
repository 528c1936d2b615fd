"""Which device computes, how a pipeline is placed on it, and what its failures mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from vidkit.errors import CriticalError, GenerationError, InputError, Remedy, SetupError
from vidkit.params import GenerationParams

GIB: Final = 2**30

Result = TypeVar("Result")

#: free device memory (GiB) from which all of a full-size model stays resident: weights (SVD 4.2 GiB in fp16) and the
#: activations of 25 frames of 1024x576 (measured peak 12.0 allocated, 19.2 reserved); else model by model
RESIDENT_FROM: Final = 20.0

#: the others: CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED, cuDNN 9's ..._DEVICE_ALLOCATION_FAILED
OUT_OF_MEMORY: Final = ("out of memory", "ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")
OUT_OF_HOST_MEMORY: Final = ("DefaultCPUAllocator", "not enough memory", "HOST_ALLOCATION_FAILED")
DRIVER: Final = ("CUDA error", "device-side assert", "CUDA driver", "NVML", "an illegal memory access")


@dataclass(frozen=True)
class Plan:
    """Where and how a request runs. offload: "none", or "model" (one part of the pipeline on the device at a time)."""

    device: str
    dtype: str
    offload: str
    speed: str = "exact"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def chosen_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"; `VIDKIT_DEVICE` (auto, cpu, cuda) chooses otherwise.

    Raises:
        InputError: `invalid_value` for another VIDKIT_DEVICE.
        SetupError: `cuda_not_available`, when cuda was asked for.
    """
    import torch

    wanted = os.environ.get("VIDKIT_DEVICE", "auto").lower()
    if wanted not in ("auto", "cpu", "cuda"):
        raise InputError("invalid_value", f"VIDKIT_DEVICE is {wanted!r}.", ["Set it to auto, cpu or cuda"])
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SetupError(
            "cuda_not_available",
            f"VIDKIT_DEVICE is cuda, but torch {torch.__version__} sees no CUDA device.",
            ["Install a CUDA build of torch and the NVIDIA driver", "Set VIDKIT_DEVICE to auto to run on the CPU"],
        )
    return "cpu" if wanted == "cpu" or not torch.cuda.is_available() else "cuda"


def make_plan() -> Plan:
    """The plan for this machine as it is now: CUDA in half precision, else the CPU in full.

    Memory that this process holds counts as free: its models are used again, or dropped first.

    Raises:
        InputError, SetupError: as `chosen_device`.
    """
    import torch

    if chosen_device() == "cpu":
        return Plan("cpu", "float32", "none")
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return Plan("cuda", "float16", "none" if free / GIB >= RESIDENT_FROM else "model")


def device_identity(device: str) -> str | None:
    """The name under which processes take turns on a device: a GPU's UUID, whatever number it has in this process.

    None for the CPU, which processes use side by side. `VIDKIT_DEVICE_LOCK=NAME` is the name of either instead: those
    with the same NAME take turns.
    """
    given = os.environ.get("VIDKIT_DEVICE_LOCK")
    if given or device == "cpu":
        return given or None
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    identity = getattr(properties, "uuid", None)  # not in every build for AMD
    return f"GPU-{identity}" if identity else f"{properties.name}-{torch.cuda.current_device()}"


def device_label(device: str) -> str:
    """A device in a sentence."""
    return "the GPU" if device == "cuda" else "the CPU"


def memory_held() -> int | None:
    """Bytes of device memory that this process has taken, in use or not; None where it has used no GPU."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return int(torch.cuda.memory_reserved())


def give_back_spare_memory() -> None:
    """Memory that the allocator keeps for later goes back to the device, for other processes."""
    import torch

    torch.cuda.empty_cache()  # does nothing without CUDA


def place(pipe: Any, plan: Plan) -> None:
    pipe.set_progress_bar_config(disable=True)
    if plan.offload == "model":
        pipe.enable_model_cpu_offload()
    else:
        pipe.to(plan.device)


def restore(pipe: Any, plan: Plan) -> None:
    """After a failed or stopped call: diffusers' pipelines leave hooks attached and the VAE in another precision."""
    import torch

    pipe.maybe_free_model_hooks()
    pipe.vae.to(dtype=getattr(torch, plan.dtype))


def reset_peak_memory(plan: Plan) -> None:
    import torch

    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(plan: Plan) -> float:
    """Peak allocated device memory since `reset_peak_memory`, GiB; 0 on the CPU."""
    import torch

    return round(torch.cuda.max_memory_allocated() / GIB, 2) if plan.device == "cuda" else 0.0


def typed_failures(params: GenerationParams, work: Callable[[], Result]) -> Result:
    """Do the work; turn torch's failures into typed errors. Anything not recognised passes through unchanged."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        typed = typed_failure(error, params)
        if typed is None:
            raise
    # Outside of `except`, and why this is no context manager: within it the new error would keep the first as its
    # context, and with it the traceback, its frames and their tensors.
    raise typed


def typed_failure(error: BaseException, params: GenerationParams) -> GenerationError | CriticalError | None:
    text = str(error)
    if isinstance(error, MemoryError) or any(mark in text for mark in OUT_OF_HOST_MEMORY):
        return GenerationError("out_of_host_memory", memory_message(params), smaller_requests(params))
    if any(mark in text for mark in OUT_OF_MEMORY):
        return GenerationError(
            "out_of_memory", memory_message(params), [*smaller_requests(params), "Close other GPU applications"]
        )
    if any(mark in text for mark in DRIVER):
        return CriticalError(
            "gpu_driver", f"The GPU or its driver failed: {text.splitlines()[0]}", ["Restart vidkit, then the machine"]
        )
    return None


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
