"""Where the weights of a pipeline are, and with which measures of its plan it computes.

`place` puts a pipeline where it is to run, `restore` brings it back to that after each clip and each failure, `release`
leaves its components as they were loaded, for another pipeline.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from vidkit.device import Plan
from vidkit.models.loading.tensors import cast, move, the_device
from vidkit.pipelines import fast, lean
from vidkit.pipelines.fast.graphs import Known, recorded
from vidkit.pipelines.offloading import Offloading, networks

if TYPE_CHECKING:
    import torch


#: where PyTorch looks for settings of its allocator of device memory
ALLOCATOR_SETTINGS: Final = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


@dataclass
class Placed:
    """What a pipeline was placed with."""

    plan: Plan
    offloading: Offloading | None = None
    handles: list[Any] = field(default_factory=list)
    known: Known = field(default_factory=Known)


#: by pipeline
_placed: WeakKeyDictionary[Any, Placed] = WeakKeyDictionary()


def place(pipe: Any, plan: Plan) -> None:
    """Put a pipeline where the plan says, with the plan's measures. One that is placed already is released first.

    Its components must not be part of another pipeline that is placed. On failure it is as if released.
    """
    release(pipe)
    pipe.set_progress_bar_config(disable=True)
    placed = _placed[pipe] = Placed(plan)
    try:
        for network in networks(pipe).values():
            move(network, the_device(resting_place(plan)))
        fast.install(pipe, plan)
        lean.install(pipe, plan)
        if plan.vae_float32:
            placed.handles = in_float32(pipe.vae, dtype_of(plan))
        if plan.offload != "none":
            placed.offloading = Offloading(pipe, the_device(plan.device), by_layers=plan.offload == "layers")
    except BaseException:
        release(pipe)
        raise


def restore(pipe: Any) -> None:
    """After a clip, and after a failed or stopped one: what came to the device goes back to the host's memory, and the
    autoencoder has its precision again, which diffusers' pipelines change as they encode."""
    placed = _placed[pipe]
    if placed.offloading is not None:
        placed.offloading.rest()
    cast(pipe.vae, dtype_of(placed.plan))


def release(pipe: Any) -> None:
    """The components are as they were loaded, and rest where they rested. Nothing to do for one that is not placed."""
    placed = _placed.get(pipe)
    if placed is None:
        return
    placed.known.forget_recordings()
    placed.known.recordings.clear()
    if placed.offloading is not None:
        placed.offloading.remove()
    for handle in placed.handles:
        handle.remove()
    cast(pipe.vae, dtype_of(placed.plan))
    lean.remove(pipe)
    fast.remove(pipe)
    del _placed[pipe]


def recording(pipe: Any) -> AbstractContextManager[None]:
    """While the block runs, steps of a pipeline that is placed are recorded and played where they are short."""
    placed = _placed.get(pipe)
    return nullcontext() if placed is None else recorded(pipe, placed.plan, placed.known)


def expect_changes(pipe: Any) -> None:
    """Somebody else has a pipeline, and may change how it computes: no clip is played from recordings of another."""
    if pipe in _placed:
        _placed[pipe].known.may_outlast = False


def forget_recordings(pipe: Any) -> None:
    """After a failure, which may have been one of memory."""
    if pipe in _placed:
        _placed[pipe].known.forget_recordings()


def resting_place(plan: Plan) -> str:
    """Where components are while they don't compute."""
    return plan.device if plan.offload == "none" else "cpu"


def dtype_of(plan: Plan) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, plan.dtype)
    return dtype


def in_float32(vae: Any, dtype: torch.dtype) -> list[Any]:
    """An autoencoder computes in single precision whatever it is given; what it has encoded is of another type again.

    It is cast as it is called, since diffusers' pipelines cast it themselves. Gives the handles of the hooks.
    """
    import torch

    def begin(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        cast(vae, torch.float32)
        return (arguments[0].float(), *arguments[1:])

    decoding_begins, encoding_ends = (
        getattr(vae, name, None) or other
        for name, other in (("post_quant_conv", vae.decoder), ("quant_conv", vae.encoder))
    )
    return [
        *(module.register_forward_pre_hook(begin) for module in (vae.encoder, decoding_begins)),
        encoding_ends.register_forward_hook(lambda module, arguments, result: result.to(dtype)),
    ]


def allow_growing_segments() -> None:
    """Have CUDA's allocator grow its segments instead of adding others, which leaves fewer gaps; before CUDA begins.

    Not where someone has chosen settings of the allocator, nor on Windows, which has none of this.
    """
    if sys.platform != "win32" and not any(name in os.environ for name in ALLOCATOR_SETTINGS):
        os.environ[ALLOCATOR_SETTINGS[0]] = "expandable_segments:True"
