"""Which device computes, and how a request runs there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic.alias_generators import to_camel

from vidkit.errors import InputError, SetupError
from vidkit.params import GenerationParams

GIB: Final = 2**30

#: where Linux tells of the CPU
CPU_INFO: Final = Path("/proc/cpuinfo")

#: what waits in the host's memory: nothing; all parts of the pipeline but the one that computes; those too, and of the
#: UNet all layers but the one that computes
Offload = Literal["none", "model", "layers"]


@dataclass(frozen=True)
class Plan:
    """Where and how a request runs. All but `changes` and turbo is exact: the frames are the same up to rounding.

    dtype: of the weights and of what is computed. speed: "exact" computes as diffusers does, "fast" with less work and
    fewer copies (`pipelines.fast`), "turbo" as fast, but not all of the steps (`pipelines.turbo`).
    halves: the two halves of guidance are computed one after the other, not in one batch.
    slices: layers work on slices of frames or of pixels, one after the other.
    host_skips: the UNet's skip connections wait in the host's memory.
    vae_float32: the autoencoder computes in single precision.
    changes: parameters of the request that the plan changes, by snake_case name, with their values.
    """

    device: str
    dtype: str
    offload: Offload = "none"
    speed: str = "exact"
    halves: bool = False
    slices: bool = False
    host_skips: bool = False
    vae_float32: bool = False
    changes: tuple[tuple[str, int], ...] = ()

    def applied(self, params: GenerationParams) -> GenerationParams:
        """The request with the plan's changes."""
        return params.replace(**dict(self.changes)) if self.changes else params

    def to_json(self) -> dict[str, Any]:
        """For a record: camelCase keys, of the measures those that are taken."""
        found = {to_camel(name): value for name, value in asdict(self).items() if value not in (False, ())}
        return found | ({"changes": {to_camel(name): value for name, value in self.changes}} if self.changes else {})


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
            [how_to_see_it(), "Set VIDKIT_DEVICE to auto: the CPU is used where there is no GPU"],
        )
    return "cpu" if wanted == "cpu" or not torch.cuda.is_available() else "cuda"


def how_to_see_it() -> str:
    """What keeps torch from seeing a GPU, as far as it can be told without one, and what to do."""
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if not (torch.version.cuda or torch.version.hip):
        return f"Install a CUDA build of torch: {torch.__version__} is one for the CPU. vidkit doctor has the command"
    if hidden.strip() in ("", "-1"):
        return f"Unset CUDA_VISIBLE_DEVICES: it is {hidden!r}, and hides every GPU"
    return "Install or update the GPU's driver (for WSL: on Windows), until nvidia-smi lists the GPU; see vidkit doctor"


def plain_plan(device: str, *, speed: str = "exact", vae_float32: bool = False) -> Plan:
    """The plan without any measure: half precision on a GPU, single on a CPU, for turbo bfloat16 where it is quick."""
    dtype = "float16"
    if device == "cpu":
        dtype = "bfloat16" if speed == "turbo" and cpu_has_bfloat16() else "float32"
    return Plan(device, dtype, speed=speed, vae_float32=vae_float32)


@cache
def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16, by which networks take some 0.6 of the time. As Linux
    tells of x86; elsewhere nobody tells without asking torch, and the answer is no.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return False
    return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())


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


@contextmanager
def capped_memory(device: str, limit: int | None) -> Iterator[None]:
    """Of the GPU's memory torch takes no more than `limit` bytes here, out of memory beyond. None: as it was set."""
    if limit is None or device != "cuda":
        yield
        return
    import torch

    before = torch.cuda.get_per_process_memory_fraction()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(limit / total, before))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before)


def reset_peak_memory(plan: Plan) -> None:
    import torch

    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(plan: Plan) -> float:
    """Peak allocated device memory since `reset_peak_memory`, GiB; 0 on the CPU. Of a clip: from when it is loaded."""
    import torch

    return round(torch.cuda.max_memory_allocated() / GIB, 2) if plan.device == "cuda" else 0.0
