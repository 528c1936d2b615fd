"""Loaded components stay in memory: a request that needs them again, with whatever others, reads nothing from disk."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vidkit.models.loading.tensors import each_tensor, move, size_of


@dataclass(frozen=True)
class Kept:
    """A component. size: bytes of its weights; model: the name of its model."""

    component: Any
    size: int
    model: str

    @property
    def place(self) -> str:
        """Where it is, "cuda" or "cpu"."""
        return next((tensor.device.type for tensor in each_tensor(self.component)), "cpu")


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

    def keep(self, key: Hashable, component: Any, model: str) -> None:
        self._kept[key] = Kept(component, size_of(component), model)

    def make_room(self, rooms: Mapping[str, int], wanted: Collection[Hashable]) -> None:
        """Until all but the `wanted` components take at most so many bytes by place, those used longest ago go.

        From a device they go to the host's memory; if it has no room left they are dropped. Their memory is given back.
        """
        import torch

        changed = False
        for place in sorted(rooms, key=lambda place: place == "cpu"):  # the host's last: others come to it
            for key in self._too_many(place, rooms[place], wanted):
                if place != "cpu" and self._kept[key].size <= rooms.get("cpu", 0) - self._taken("cpu", wanted):
                    move(self._kept[key].component, torch.device("cpu"))
                else:
                    del self._kept[key]
                changed = True
        if changed:
            give_back()

    def _too_many(self, place: str, room: int, wanted: Collection[Hashable]) -> Iterator[Hashable]:
        """Keys, as long as there are too many."""
        for key in tuple(self._kept):
            if self._taken(place, wanted) > room and self._kept[key].place == place and key not in wanted:
                yield key

    def _taken(self, place: str, wanted: Collection[Hashable]) -> int:
        return sum(kept.size for key, kept in self._kept.items() if kept.place == place and key not in wanted)

    def drop(self) -> None:
        """Forget all, and give their memory back."""
        if self._kept:
            self._kept.clear()
            give_back()


def give_back() -> None:
    """Memory that nothing uses any more, but Python's garbage, torch's allocators or the C library still hold."""
    gc.collect()
    import torch

    torch.cuda.empty_cache()  # does nothing without CUDA
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch._C._host_emptyCache()  # page-locked memory, in which layers waited
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library without it needs none
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps most of the weights otherwise: tensors are below 32 MiB
