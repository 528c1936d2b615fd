"""Loaded components stay in memory: a request that needs them again, with whatever others, reads nothing from disk."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kept:
    """A component. size: bytes of its weights; place: where it is, "cuda" or "cpu"; model: the name of its model."""

    component: Any
    size: int
    place: str
    model: str


class WarmComponents:
    """The components of past requests, least recently used first. Not thread-safe: `generate` holds its lock around it.

    How many stay is for the caller to say (`make_room`), who knows what the next request needs.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def models(self) -> list[str]:
        """The names of the models that something is loaded of, those used last at the end."""
        return list(dict.fromkeys(kept.model for kept in tuple(self._kept.values())))  # asked from any thread

    def size(self, place: str) -> int:
        """Bytes that all take in a place."""
        return sum(kept.size for kept in self._kept.values() if kept.place == place)

    def found(self, wanted: Mapping[str, Hashable]) -> dict[str, Any]:
        """Those of the wanted components that are here, by the names given; they count as used now."""
        here = {name: key for name, key in wanted.items() if key in self._kept}
        for key in here.values():
            self._kept.move_to_end(key)
        return {name: self._kept[key].component for name, key in here.items()}

    def keep(self, key: Hashable, component: Any, place: str, model: str) -> None:
        self._kept[key] = Kept(component, size_of(component), place, model)

    def make_room(self, place: str, room: int, wanted: Collection[Hashable]) -> bool:
        """Drop what was not used longest, until all but the `wanted` components take at most `room` bytes in a place.

        Whether anything was dropped; its memory is given back to the device then.
        """
        others = [key for key, kept in self._kept.items() if kept.place == place and key not in wanted]
        taken = sum(self._kept[key].size for key in others)
        dropped = False
        for key in others:
            if taken <= room:
                break
            taken -= self._kept.pop(key).size
            dropped = True
        if dropped:
            give_back()
        return dropped

    def drop(self) -> None:
        """Forget all, and give their memory back."""
        if self._kept:
            self._kept.clear()
            give_back()


def size_of(component: Any) -> int:
    """Bytes of a network's weights; 0 for a tokenizer or an image processor."""
    if not hasattr(component, "state_dict"):
        return 0
    return sum(tensor.nbytes for tensor in component.state_dict().values())


def give_back() -> None:
    """Memory of what was dropped, which the garbage collector, torch's allocator and the C library still hold."""
    gc.collect()
    import torch

    torch.cuda.empty_cache()  # does nothing without CUDA
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library without it needs none
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps most of the weights otherwise: tensors are below 32 MiB
