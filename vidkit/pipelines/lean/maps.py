"""Feature maps as they go from layer to layer, so that their memory is free as soon as no layer needs them.

diffusers' networks and blocks keep what they pass to a layer in variables until the layer is done, and the skip
connections much longer: a layer could free nothing. So lean layers pass each other these objects in place of tensors.
Who keeps one keeps no memory: the layer that reads it last empties it, or writes its own result into it.

What diffusers' networks do with a map between layers is here too, but done when a layer reads it, slice by slice:
concatenating a skip connection (`torch.cat`), adding a ControlNet's residual, scaling that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vidkit.pipelines.lean.host import HostCopy

if TYPE_CHECKING:
    import torch


class FeatureMap:
    """A map of shape (videos x frames, channels, height, width). Its frames are read in their order, once by each
    reader, who then says `done`."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        import torch

        self.shape, self.dtype, self.device = torch.Size(shape), dtype, device

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """Some of them; not to be written into."""
        raise NotImplementedError

    def spare(self, shape: Sequence[int]) -> torch.Tensor | None:
        """The memory of this map, if it has that shape and nobody else will read it: a frame that was read may be
        overwritten."""
        return None

    def done(self) -> None:
        """A reader needs it no more."""

    def halves(self) -> list[FeatureMap]:
        """The two halves of the batch."""
        half = self.shape[0] // 2
        return [FrameRange(self, 0, half), FrameRange(self, half, 2 * half)]

    def to(self, target: Any, **options: Any) -> FeatureMap:
        """As of a tensor; to a device that it is not on it does not go: layers run where their maps are."""
        import torch

        if isinstance(target, torch.dtype) and target != self.dtype:
            return Changed(self, lambda frames: frames.to(target), self.shape, target)
        return self

    def __add__(self, other: FeatureMap | torch.Tensor) -> FeatureMap:
        return Sum(self, as_map(other))

    def __mul__(self, factor: Any) -> FeatureMap:
        return Changed(self, lambda frames: frames * factor, self.shape, self.dtype)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        import torch

        if function is torch.cat:
            return Concatenated([as_map(part) for part in given[0]])
        return NotImplemented


class Held(FeatureMap):
    """A tensor. readers: how many layers will read it; None when it is not ours, and so never emptied."""

    def __init__(self, tensor: torch.Tensor, readers: int | None = 1) -> None:
        super().__init__(tensor.shape, tensor.dtype, tensor.device)
        self.tensor: torch.Tensor | None = tensor
        self.readers = readers

    def frames(self, start: int, stop: int) -> torch.Tensor:
        if self.tensor is None:
            raise RuntimeError("This feature map was read already")
        return self.tensor[start:stop]

    def spare(self, shape: Sequence[int]) -> torch.Tensor | None:
        return self.tensor if self.readers == 1 and self.shape == tuple(shape) else None

    def done(self) -> None:
        if self.readers is not None:
            self.readers -= 1
            if self.readers == 0:
                self.tensor = None


class OnHost(FeatureMap):
    """A skip connection that goes to the host's memory: the next layer still finds it on the device, the second reader
    gets it back from the host."""

    def __init__(self, tensor: torch.Tensor, readers: int = 2) -> None:
        super().__init__(tensor.shape, tensor.dtype, tensor.device)
        self.tensor: torch.Tensor | None = tensor
        self.copy: HostCopy | None = HostCopy(tensor)
        self.readers = readers
        if readers == 1:
            self.leave_device()

    def frames(self, start: int, stop: int) -> torch.Tensor:
        if self.tensor is not None:
            return self.tensor[start:stop]
        if self.copy is None:
            raise RuntimeError("This feature map was read already")
        return self.copy.frames(start, stop)

    def done(self) -> None:
        self.readers -= 1
        if self.readers == 1:
            self.leave_device()
        else:
            self.copy = None

    def leave_device(self) -> None:
        if self.copy is not None:
            self.copy.settle()
        self.tensor = None


class Changed(FeatureMap):
    """What a frame-wise function makes of a map, computed when it is read."""

    def __init__(
        self,
        source: FeatureMap,
        change: Callable[[torch.Tensor], torch.Tensor],
        shape: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(shape, dtype, source.device)
        self.source, self.change = source, change

    def frames(self, start: int, stop: int) -> torch.Tensor:
        return self.change(self.source.frames(start, stop))

    def spare(self, shape: Sequence[int]) -> torch.Tensor | None:
        return self.source.spare(shape)

    def done(self) -> None:
        self.source.done()


class Concatenated(FeatureMap):
    """Maps side by side along the channels."""

    def __init__(self, parts: list[FeatureMap]) -> None:
        first = parts[0]
        channels = sum(part.shape[1] for part in parts)
        super().__init__((first.shape[0], channels, *first.shape[2:]), first.dtype, first.device)
        self.parts = parts

    def frames(self, start: int, stop: int) -> torch.Tensor:
        import torch

        return torch.cat([part.frames(start, stop) for part in self.parts], dim=1)

    def spare(self, shape: Sequence[int]) -> torch.Tensor | None:
        return next((spare for part in self.parts if (spare := part.spare(shape)) is not None), None)

    def done(self) -> None:
        for part in self.parts:
            part.done()


class Sum(FeatureMap):
    """A map and a residual that is added to it."""

    def __init__(self, source: FeatureMap, residual: FeatureMap) -> None:
        super().__init__(source.shape, source.dtype, source.device)
        self.source, self.residual = source, residual

    def frames(self, start: int, stop: int) -> torch.Tensor:
        return self.source.frames(start, stop) + self.residual.frames(start, stop)

    def spare(self, shape: Sequence[int]) -> torch.Tensor | None:
        own = self.source.spare(shape)
        return self.residual.spare(shape) if own is None else own

    def done(self) -> None:
        self.source.done()
        self.residual.done()


class FrameRange(FeatureMap):
    """Some frames of another map, for one reader; whoever reads the last of them is that map's reader too."""

    def __init__(self, source: FeatureMap, start: int, stop: int) -> None:
        super().__init__((stop - start, *source.shape[1:]), source.dtype, source.device)
        self.source, self.start = source, start

    def frames(self, start: int, stop: int) -> torch.Tensor:
        return self.source.frames(self.start + start, self.start + stop)

    def done(self) -> None:
        if self.start + self.shape[0] == self.source.shape[0]:
            self.source.done()


class Joined(FeatureMap):
    """The maps of two halves of a batch."""

    def __init__(self, parts: list[FeatureMap]) -> None:
        first = parts[0]
        super().__init__((sum(part.shape[0] for part in parts), *first.shape[1:]), first.dtype, first.device)
        self.parts = parts

    def frames(self, start: int, stop: int) -> torch.Tensor:
        import torch

        found, offset = [], 0
        for part in self.parts:
            count = part.shape[0]
            first, last = max(start - offset, 0), min(stop - offset, count)
            if first < last:
                found.append(part.frames(first, last))
            offset += count
        return found[0] if len(found) == 1 else torch.cat(found)

    def done(self) -> None:
        for part in self.parts:
            part.done()

    def halves(self) -> list[FeatureMap]:
        return self.parts


def as_map(value: FeatureMap | torch.Tensor) -> FeatureMap:
    """A tensor that comes from elsewhere is read and left as it is."""
    return value if isinstance(value, FeatureMap) else Held(value, readers=None)


def own_tensor(value: FeatureMap | torch.Tensor) -> torch.Tensor:
    """The whole map as a tensor to write into; its reader is done with the map."""
    source = as_map(value)
    own = source.spare(source.shape)
    if own is None:
        own = source.frames(0, source.shape[0]).clone()
    source.done()
    return own
