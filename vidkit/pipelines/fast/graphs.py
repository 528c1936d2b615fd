"""Steps of a network that wait for the host, not for the GPU, as CUDA graphs: recorded once a clip, then played.

A step of AnimateDiff starts some 1,500 kernels. At 256x256 that takes Python 118 ms, and an H200 27 ms to compute
(`benchmarks/NOTES.md`). What is played is the very kernels on the very numbers, so results have the same bits. While a
step is played no layer is seen: progress and cancelling go by whole steps, which are short.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from vidkit.pipelines.fast.installing import Measures, has_layers
from vidkit.pipelines.forwards import replaced
from vidkit.pipelines.watch import denoisers

logger = logging.getLogger("vidkit")

#: of a step's time, the share in which a GPU still works when the host has started all: with more, nothing is saved
MOST_BEHIND: Final = 0.1

#: calls before one is recorded: the first loads and chooses kernels, the second is timed
CALLS_BEFORE: Final = 2


@contextmanager
def recorded(pipe: Any, measures: Measures | None) -> Iterator[None]:
    """While the block runs, the UNet's and ControlNet's calls are recorded and played, where that is faster.

    measures: None: the pipeline is not placed, and nothing is recorded.
    """
    if measures is None or not may_record(measures):
        yield
        return
    import torch

    with ExitStack() as stack:
        for network in denoisers(pipe):
            stack.enter_context(replaced(network, "forward", Recording().answer))
        yield
    torch.cuda.empty_cache()  # a recording has memory of its own, which is free again now


def may_record(measures: Measures) -> bool:
    """Not where weights move between steps, so that kernels would not find them, nor where memory is short."""
    is_saving = measures.offload != "none" or measures.halves
    return measures.device == "cuda" and measures.speed != "exact" and not is_saving and has_layers(measures)


class Recording:
    """A network's calls in one clip."""

    def __init__(self) -> None:
        self._is_off = False
        self._calls = 0
        self._last: list[Any] = []  # what the last call was given
        self._graph: Any = None
        self._given: list[Any] = []  # where the graph reads: the call's own tensors, or copies of those that change
        self._versions: list[int | None] = []  # of the call's own
        self._result: Any = None

    def answer(self, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The network's; until the next call, where it was played."""
        if self._is_off:
            return forward(*arguments, **options)
        from torch.utils._pytree import tree_flatten, tree_unflatten

        leaves, structure = tree_flatten((arguments, options))
        if self._graph is not None and not self._fits(leaves):
            self._end()
        if self._graph is not None:
            self._play(leaves)
            return self._result
        self._calls += 1
        if self._is_off or self._calls < CALLS_BEFORE:
            result = forward(*arguments, **options)
        elif self._calls == CALLS_BEFORE:
            result, behind = timed(lambda: forward(*arguments, **options))
            if behind > MOST_BEHIND:
                self._end()
        else:
            self._place(leaves)
            given, more = tree_unflatten(self._given, structure)
            self._record(lambda: forward(*given, **more))
            if self._is_off:
                result = forward(*arguments, **options)
            else:
                self._play(leaves)
                result = self._result
        self._last = [] if self._is_off else leaves
        return result

    def _place(self, leaves: Sequence[Any]) -> None:
        """Decide where the graph reads what the network is given. What was the same object before will be again."""
        import torch

        (device,) = {leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_cuda}
        before = self._last if len(self._last) == len(leaves) else [None] * len(leaves)
        for leaf, last in zip(leaves, before, strict=True):
            changes = isinstance(leaf, torch.Tensor) and not (leaf is last and leaf.is_cuda)
            self._given.append(leaf.to(device, copy=True) if changes else leaf)
            self._versions.append(leaf._version if isinstance(leaf, torch.Tensor) and not changes else None)

    def _record(self, call: Callable[[], Any]) -> None:
        import torch

        graph = torch.cuda.CUDAGraph()
        try:
            # what other threads do with the GPU meanwhile is no part of it
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._result = call()
        except RuntimeError as error:  # of CUDA: something cannot be recorded, or has no room
            logger.info("no CUDA graph of a step: %s", (str(error) or type(error).__name__).splitlines()[0])
            self._end()
        else:
            self._graph = graph

    def _fits(self, leaves: Sequence[Any]) -> bool:
        """Whether a call is one that was recorded."""
        return len(leaves) == len(self._given) and all(
            fits(leaf, given, version) for leaf, given, version in zip(leaves, self._given, self._versions, strict=True)
        )

    def _play(self, leaves: Sequence[Any]) -> None:
        for leaf, given in zip(leaves, self._given, strict=True):
            if given is not leaf:
                given.copy_(leaf)
        self._graph.replay()

    def _end(self) -> None:
        self._is_off = True
        self._graph = self._result = None
        self._given, self._versions, self._last = [], [], []


def fits(leaf: Any, given: Any, version: int | None) -> bool:
    """Whether a graph that reads `given` is right for `leaf`. version: of a tensor that is read where it lies."""
    import torch

    if not isinstance(leaf, torch.Tensor) or not isinstance(given, torch.Tensor):
        return leaf is given or (type(leaf) is type(given) and bool(leaf == given))
    if version is not None:
        return leaf is given and leaf._version == version
    return leaf.shape == given.shape and leaf.dtype == given.dtype


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """A call's result, and the share of its time in which only the GPU worked."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    started = time.perf_counter()
    torch.cuda.synchronize()
    ended = time.perf_counter()
    return result, (ended - started) / (ended - began)
