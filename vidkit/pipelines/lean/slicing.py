"""How a layer's work is split into slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vidkit.pipelines.lean.maps import FeatureMap

#: Bytes of a layer's input in one slice. Smaller ones save little, as some maps are whole at any time, and leave a GPU
#: too little work for each kernel.
SLICE_BYTES: Final = 32 << 20

#: A transformer block's feed-forward layer (GEGLU) makes tensors of sixteen times its input, so its slices are smaller
#: by this. Of these too, smaller ones would leave a GPU waiting for Python, which calls thirty layers for each.
TRANSFORMER_SHARE: Final = 2


@dataclass(frozen=True)
class Slicing:
    """How layers run: in slices, or each at once; and where skip connections wait.

    slice_bytes: of a slice's input; None for all at once.
    """

    slice_bytes: int | None = None
    host_skips: bool = False

    def ranges(self, count: int, one: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of the slices of `count` frames, rows or pixels, of which each has `one` bytes."""
        return ranges(count, one, self.slice_bytes)

    def transformer_ranges(self, count: int, one: int) -> Iterator[tuple[int, int]]:
        return ranges(count, one, self.slice_bytes and self.slice_bytes // TRANSFORMER_SHARE)


def ranges(count: int, one: int, limit: int | None) -> Iterator[tuple[int, int]]:
    """Slices of nearly the same size: so a GPU sees few shapes, and no small rest. At least one is in each."""
    most = count if limit is None else max(1, limit // one)
    pieces = -(-count // most)
    length = -(-count // pieces)
    for start in range(0, count, length):
        yield start, min(start + length, count)


def frames_of(value: Any, start: int, stop: int, count: int) -> Any:
    """A layer's other arguments for some of its frames: tensors that have `count` along their first axis, also within
    lists and tuples, are sliced; all else is for all frames."""
    import torch

    if isinstance(value, torch.Tensor):
        return value[start:stop] if value.ndim and value.shape[0] == count else value
    if isinstance(value, list | tuple):
        return type(value)(frames_of(item, start, stop, count) for item in value)
    return value


def frame_bytes(source: FeatureMap) -> int:
    return int(source.shape[1:].numel()) * source.dtype.itemsize
