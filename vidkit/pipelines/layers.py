"""Layers of a UNet that are on the device one by one, each while it computes.

A layer is a residual block, a transformer, a motion module or a downsampler. Finer pieces would have to come again for
each slice that a layer works on. While one computes, the next is copied by a stream of its own from page-locked memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.loading.tensors import tensors_of

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("vidkit")

#: The lists of a UNet's block that hold its layers. Not its upsampler, which may compute within the next layer
#: (`lean`): it is small, and stays with the rest of the UNet.
KINDS: Final = ("resnets", "attentions", "motion_modules", "downsamplers")

#: bytes to which tensors are aligned that share a piece of memory
ALIGNED: Final = 512


def layers_of(network: Any) -> list[Any]:
    """Of a UNet or a ControlNet."""
    blocks = (*network.down_blocks, network.mid_block, *(getattr(network, "up_blocks", None) or ()))
    lists = (getattr(block, kind, None) or () for block in blocks for kind in KINDS)
    return [layer for found in lists for layer in found if layer is not None]


class Layers:
    """Two places on the device, each as large as the largest layer: for the one that computes, and for the next.

    Which is next is what was next before; a layer that comes unexpected is waited for.
    """

    def __init__(self, layers: Sequence[Any], device: torch.device) -> None:
        self.all, self._device = layers, device
        self._slots: list[Slot] = []
        self._following: dict[Any, Any] = {}
        self._last: Any = None
        self._stream: Any = None
        self._is_locking = device.type == "cuda"

    @property
    def here(self) -> list[Any]:
        """The layers that are on the device, or on their way."""
        return [slot.layer for slot in self._slots if slot.layer is not None]

    def watch(self) -> Iterator[Any]:
        """Handles of the hooks that fetch each layer before its call and put it back after."""
        for layer in self.all:
            yield layer.register_forward_pre_hook(lambda layer, arguments: self.enter(layer))
            yield layer.register_forward_hook(lambda layer, arguments, result: self.leave(layer))

    def begin(self) -> None:
        import torch

        if not self.all:
            return
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        for layer in self.all:
            self._lock(layer)
        size = max(map(packed_size, self.all))
        self._slots = [Slot(size, self._device, self._stream) for _ in range(2)]

    def enter(self, layer: Any) -> None:
        slot = self._slot_with(layer) or self._load(layer)
        slot.give()
        self._following[self._last] = layer
        self._last = layer
        following = self._following.get(layer)
        if following is not None and self._slot_with(following) is None:
            self._load(following)

    def leave(self, layer: Any) -> None:
        for slot in self._slots:
            if slot.layer is layer:
                slot.take_back()

    def end(self) -> None:
        """All layers are in the host's memory alone."""
        for slot in self._slots:
            slot.take_back()
        if self._stream is not None:
            import torch

            torch.cuda.current_stream(self._device).wait_stream(self._stream)  # before the slots' memory is used anew
        self._slots, self._last, self._stream = [], None, None

    def _slot_with(self, layer: Any) -> Slot | None:
        return next((slot for slot in self._slots if slot.layer is layer), None)

    def _load(self, layer: Any) -> Slot:
        slot = next(slot for slot in self._slots if not slot.is_given)
        slot.load(layer)
        return slot

    def _lock(self, layer: Any) -> None:
        """Its weights go to page-locked memory, where they stay; without, they come slower."""
        for tensor in tensors_of(layer) if self._is_locking else ():
            if not tensor.is_pinned():
                try:
                    tensor.data = tensor.data.pin_memory()
                except RuntimeError as error:
                    logger.info("no more memory can be page-locked: %s", error)
                    self._is_locking = False
                    return


class Slot:
    """Memory on the device that holds one layer after another. stream: that copies, None on a CPU."""

    def __init__(self, size: int, device: torch.device, stream: Any) -> None:
        import torch

        self._memory = torch.empty(size, dtype=torch.uint8, device=device)
        self._stream, self._device = stream, device
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.layer: Any = None

    @property
    def is_given(self) -> bool:
        """Whether the layer's tensors are here."""
        return bool(self._waiting)

    def load(self, layer: Any) -> None:
        """Begin to copy a layer. What the slot held before may still be computed with: it is waited for."""
        import torch

        self.layer = layer
        self._copies = list(self._places(layer))
        if self._stream is None:
            for tensor, copy in self._copies:
                copy.copy_(tensor.data)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for tensor, copy in self._copies:
                copy.copy_(tensor.data, non_blocking=True)

    def give(self) -> None:
        """The layer's tensors are those here, once they are complete."""
        import torch

        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        for tensor, copy in self._copies:
            self._waiting.append((tensor, tensor.data))
            tensor.data = copy

    def take_back(self) -> None:
        """The layer's tensors are those in the host's memory."""
        for tensor, host in self._waiting:
            tensor.data = host
        self._waiting, self._copies, self.layer = [], [], None

    def _places(self, layer: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        begin = 0
        for tensor in tensors_of(layer):
            copy = self._memory[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            yield tensor, copy
            begin += aligned(tensor.nbytes)


def packed_size(layer: Any) -> int:
    """Bytes of a layer's tensors in one piece of memory."""
    return sum(aligned(tensor.nbytes) for tensor in tensors_of(layer))


def aligned(size: int) -> int:
    return math.ceil(size / ALIGNED) * ALIGNED
