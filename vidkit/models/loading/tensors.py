"""The tensors of a component, where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tensors_of(component: Any) -> list[torch.Tensor]:
    """Parameters and buffers of a network; a tokenizer or an image processor has none."""
    return list(each_tensor(component))


def each_tensor(component: Any) -> Iterator[torch.Tensor]:
    """The same one by one: whoever wants the first does not look for the others."""
    if hasattr(component, "parameters"):
        yield from component.parameters()
        yield from component.buffers()


def size_of(component: Any) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in tensors_of(component))


def the_device(name: str) -> torch.device:
    """ "cuda" is the current one, by its number, as tensors name it."""
    import torch

    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def move(component: Any, device: torch.device) -> bool:
    """To a device, all tensors or none. They stay the same objects, which other modules may share.

    Whether any was elsewhere.
    """
    moved: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for tensor in tensors_of(component):
            if tensor.device != device:
                before = tensor.data
                tensor.data = before.to(device)
                moved.append((tensor, before))
    except BaseException:
        for tensor, before in moved:
            tensor.data = before
        raise
    return bool(moved)


def cast(component: Any, dtype: torch.dtype) -> None:
    """Floating-point tensors to another type, without the warning of diffusers' own `to`."""
    for tensor in tensors_of(component):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


@contextmanager
def cast_for(component: Any, dtype: torch.dtype) -> Iterator[None]:
    """Of that type while the block runs. What there was before stays beside it and comes back without a copy, but for
    tensors that were moved meanwhile."""
    changed: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    try:
        for tensor in tensors_of(component):
            if tensor.is_floating_point() and tensor.dtype != dtype:
                before, now = tensor.data, tensor.data.to(dtype)
                tensor.data = now
                changed.append((tensor, before, now))
        yield
    finally:
        for tensor, before, now in changed:
            tensor.data = before if tensor.data_ptr() == now.data_ptr() else tensor.data.to(before.dtype)
