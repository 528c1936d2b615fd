"""Copies of device tensors in the host's memory, made and read beside the computing.

On CUDA the copies run in a stream of their own, in pinned memory. The tensors of both ends belong to the computing
stream, and it is events that keep the order: the copying stream waits for what was computed before, the computing one
for the copy before it reads it, or before it lets go of what was copied. The host waits for nothing.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


logger = logging.getLogger("vidkit")


class HostCopy:
    """A copy of a tensor. The tensor must stay as it is until `settle` was called."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.device, self.stream = tensor.device, copying_stream(tensor.device)
        #: slices on their way back, with what says that they have come
        self.coming: dict[tuple[int, int], tuple[torch.Tensor, Any]] = {}
        self.host = host_tensor(tensor, is_locked=self.stream is not None)
        self.copied = self._copy(self.host, tensor)

    def settle(self) -> None:
        """What is computed from now on, in the tensor's memory too, comes after the copy."""
        self._await(self.copied)

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """The rows start to stop along the first axis, on the device; the next as many are fetched meanwhile."""
        part, come = self.coming.pop((start, stop)) if (start, stop) in self.coming else self._fetch(start, stop)
        following = (stop, min(2 * stop - start, self.host.shape[0]))
        if self.stream is not None and following[0] < following[1]:
            self.coming[following] = self._fetch(*following)
        self._await(come)
        return part

    def __del__(self) -> None:
        if self.coming:  # the work was stopped: their memory may be used anew once they have come
            import torch

            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def _fetch(self, start: int, stop: int) -> tuple[torch.Tensor, Any]:
        import torch

        part = torch.empty((stop - start, *self.host.shape[1:]), dtype=self.host.dtype, device=self.device)
        return part, self._copy(part, self.host[start:stop])

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """An event that comes after the copy; None where it is made already."""
        import torch

        if self.stream is None:
            target.copy_(source)
            return None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
            return self.stream.record_event()

    def _await(self, event: Any) -> None:
        import torch

        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)


def host_tensor(like: torch.Tensor, is_locked: bool) -> torch.Tensor:
    """An empty one. is_locked: in page-locked memory, if there is enough: else the copies are slower, and right too."""
    import torch

    try:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=is_locked)
    except RuntimeError as error:
        if not is_locked:
            raise
        logger.info("no more memory can be page-locked: %s", error)
        return torch.empty(like.shape, dtype=like.dtype)


def copying_stream(device: torch.device) -> Any:
    """One for each GPU; None for other devices, whose copies are made at once."""
    import torch

    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return stream_of(device)


@cache
def stream_of(device: torch.device) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
