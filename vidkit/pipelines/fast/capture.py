"""What a call starts on a GPU, as CUDA graphs that can be played again.

A call is recorded in pieces, and each is played as soon as it is recorded: so the GPU computes while the host records
the next one, and recording takes hardly longer than computing. The pieces share one pool of memory, from which tensors
go and come as in the call itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Recorder:
    """A call that is recorded. kept: tensors that are the same in each play."""

    def __init__(self, kept: Sequence[torch.Tensor]) -> None:
        import torch

        self._kept = kept
        self._pool = torch.cuda.graph_pool_handle()
        self._pieces: list[torch.cuda.CUDAGraph] = []
        self._is_open = False  # the last of them is being recorded
        self._outside: list[tuple[Callable[[], Any], list[Any]]] = []  # no part of them; where its results lie

    def record(self, call: Callable[[], T], blocks: Iterable[Any]) -> T:
        """The call's result. blocks: modules with which a new piece begins.

        Raises:
            RuntimeError: of CUDA: something cannot be recorded, or has no room; and what the call does.
        """
        import torch

        outer = torch.cuda.current_stream()
        stream = stream_of(outer.device_index)
        stream.wait_stream(outer)
        with ExitStack() as stack:
            stack.callback(outer.wait_stream, stream)  # after a failure too, as something may have been kept
            stack.enter_context(torch.cuda.stream(stream))
            for block in blocks:
                stack.callback(block.register_forward_pre_hook(lambda *_: self._begin_another()).remove)
            token = _underway.set(self)
            stack.callback(_underway.reset, token)
            stack.callback(self._close)
            self._begin()
            result = call()
            self._end()
        return result

    def play(self) -> None:
        """What was recorded, on the present stream. Its result is where the call's was."""
        for piece in self._pieces:
            piece.replay()

    def tell_anew(self) -> None:
        """The kept tensors have other values: what was computed of them outside is computed again.

        Raises:
            RuntimeError: its results lie elsewhere now, where the recording does not read.
        """
        for compute, places in self._outside:
            if places_of(compute()) != places:
                raise RuntimeError("what it keeps of a tensor is another tensor each time")

    def without(self, compute: Callable[[], T], source: torch.Tensor) -> T:
        if not any(source is tensor for tensor in self._kept):
            raise RuntimeError("it keeps what it computes of a tensor that changes")
        self._end()
        result = compute()
        self._outside.append((compute, places_of(result)))
        self._begin()
        return result

    def _begin_another(self) -> None:
        self._end()
        self._begin()

    def _begin(self) -> None:
        import torch

        piece = torch.cuda.CUDAGraph()
        # what other threads do with the GPU meanwhile is no part of it
        piece.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        self._pieces.append(piece)
        self._is_open = True

    def _end(self) -> None:
        self._pieces[-1].capture_end()
        self._is_open = False
        self._pieces[-1].replay()

    def _close(self) -> None:
        """After a failure: the stream is to record no longer. What went wrong is on its way already."""
        if self._is_open:
            with suppress(RuntimeError):
                self._pieces[-1].capture_end()
            leave_recording()


_underway: ContextVar[Recorder | None] = ContextVar("_underway", default=None)


def is_recording() -> bool:
    """Whether what is computed now is part of what is recorded, and may not wait for the device."""
    return _underway.get() is not None


def outside(compute: Callable[[], T], source: torch.Tensor) -> T:
    """What is computed of a tensor once and kept, so that it is no part of what is recorded meanwhile.

    compute: gives all tensors that are kept. Once the source has other values it is called again, and is then to write
    into those that it gave.

    Raises:
        RuntimeError: what is recorded is given another such tensor each time.
    """
    recorder = _underway.get()
    return compute() if recorder is None else recorder.without(compute, source)


def places_of(tensors: Any) -> list[Any]:
    """Where they lie in memory, and how."""
    import torch
    from torch.utils._pytree import tree_leaves

    found = (leaf for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor))
    return [(leaf.data_ptr(), leaf.shape, leaf.stride(), leaf.dtype) for leaf in found]


def leave_recording() -> None:
    """Where recording fails, torch's generator for the device would wait for its end for ever, and draw nothing."""
    import torch

    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


@functools.cache
def stream_of(device: int) -> torch.cuda.Stream:
    """Where calls are recorded: always the same, as libraries keep working memory for each."""
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
