"""Steps of a network as CUDA graphs: recorded once a clip, then played.

A step of AnimateDiff starts some 1,400 kernels. At 256x256 that takes Python 118 ms, and an H200 27 ms to compute;
where the GPU is the slower one, it still waits 2 microseconds between two of them (`benchmarks/NOTES.md`). What is
played is the very kernels on the very numbers, so results have the same bits. While a step is played no layer is seen:
progress and cancelling go by whole steps, so only short ones are recorded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

from vidkit.pipelines.fast.capture import Recorder
from vidkit.pipelines.fast.installing import Measures, has_layers
from vidkit.pipelines.forwards import replaced
from vidkit.pipelines.watch import blocks_of, denoisers

logger = logging.getLogger("vidkit")

#: seconds of a step that is recorded: a clip may be stopped between steps, and longer ones gain less than 1 %
LONGEST: Final = 0.5

T = TypeVar("T")

#: by network and what it is called with, which of that are tensors that stay the same from step to step; none of all:
#: it is not recorded
Known = MutableMapping[Hashable, Sequence[bool]]


@contextmanager
def recorded(pipe: Any, measures: Measures, known: Known) -> Iterator[None]:
    """While the block runs, the UNet's and ControlNet's calls are recorded and played, where they are short.

    A call must have been computed twice before it is recorded, as that loads and chooses its kernels.

    known: of the pipeline as it is placed; a clip like one before is recorded from its first step.
    """
    if not may_record(measures):
        yield
        return
    import torch

    with ExitStack() as stack:
        for network in denoisers(pipe):
            stack.enter_context(replaced(network, "forward", Recording(network, known).answer))
        yield
    torch.cuda.empty_cache()  # a recording has memory of its own, which is free again now


def may_record(measures: Measures) -> bool:
    """Not where weights move between steps, so that kernels would not find them, nor where memory is short."""
    is_saving = measures.offload != "none" or measures.halves
    return measures.device == "cuda" and measures.speed != "exact" and not is_saving and has_layers(measures)


class Recording:
    """A network's calls in one clip."""

    def __init__(self, network: Any, known: Known) -> None:
        self._network, self._known = network, known
        self._last: tuple[Hashable, Sequence[Any]] = None, []  # what was computed last, and of what
        self._drop()

    def _drop(self) -> None:
        self._recorder: Recorder | None = None
        self._was_played = False
        self._like: Hashable = None  # what was recorded
        self._given: list[Any] = []  # where the recording reads: the call's own tensors, or copies of those that change
        self._versions: list[int | None] = []  # of the call's own
        self._result: Any = None

    def answer(self, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The network's; until the next call, where it was recorded."""
        from torch.utils._pytree import tree_flatten, tree_unflatten

        leaves, structure = tree_flatten((arguments, options))
        if self._recorder is not None:
            if self._fits(leaves):
                return self._played(self._recorder, leaves)
            if not self._was_played:  # nor would another be
                self._known[self._like] = ()
            self._drop()
        like = self._network, *map(kind_of, leaves)
        if like not in self._known:
            return self._computed(like, leaves, lambda: forward(*arguments, **options))
        if self._known[like]:
            self._place(like, leaves)
            given, more = tree_unflatten(self._given, structure)
            if self._record(lambda: forward(*given, **more)):
                return self._result
        return forward(*arguments, **options)

    def _computed(self, like: Hashable, leaves: Sequence[Any], call: Callable[[], Any]) -> Any:
        """The first call's result; or the second's, after which it is known whether the third is recorded."""
        (before, last), self._last = self._last, (like, leaves)
        if before != like:
            return call()
        result, seconds = timed(call)
        self._last = None, []
        kept = [leaf is earlier and is_on_gpu(leaf) for leaf, earlier in zip(leaves, last, strict=True)]
        self._known[like] = kept if seconds <= LONGEST else ()
        return result

    def _place(self, like: Hashable, leaves: Sequence[Any]) -> None:
        """Decide where the recording reads what the network is given."""
        import torch

        self._like = like
        (device,) = {leaf.device for leaf in leaves if is_on_gpu(leaf)}
        for leaf, is_kept in zip(leaves, self._known[like], strict=True):
            changes = isinstance(leaf, torch.Tensor) and not is_kept
            self._given.append(leaf.to(device, copy=True) if changes else leaf)
            self._versions.append(leaf._version if is_kept else None)

    def _record(self, call: Callable[[], Any]) -> bool:
        """Whether that can be."""
        import torch

        torch.cuda.empty_cache()  # what was used before does not serve a recording
        kept = [leaf for leaf, version in zip(self._given, self._versions, strict=True) if version is not None]
        recorder = Recorder(kept)
        try:
            self._result = recorder.record(call, blocks_of(self._network))
        except RuntimeError as error:  # of CUDA: something cannot be recorded, or has no room
            logger.info("no CUDA graph of a step: %s", (str(error) or type(error).__name__).splitlines()[0])
            self._known[self._like] = ()
            self._drop()
            return False
        self._recorder = recorder
        return True

    def _fits(self, leaves: Sequence[Any]) -> bool:
        """Whether a call is one that was recorded."""
        return len(leaves) == len(self._given) and all(
            fits(leaf, given, version) for leaf, given, version in zip(leaves, self._given, self._versions, strict=True)
        )

    def _played(self, recorder: Recorder, leaves: Sequence[Any]) -> Any:
        for leaf, given in zip(leaves, self._given, strict=True):
            if given is not leaf:
                given.copy_(leaf)
        recorder.play()
        self._was_played = True
        return self._result


def is_on_gpu(leaf: Any) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor) and leaf.is_cuda


def kind_of(leaf: Any) -> Hashable:
    """What calls have in common that start the same kernels."""
    import torch

    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return leaf if isinstance(leaf, Hashable) else type(leaf).__name__


def fits(leaf: Any, given: Any, version: int | None) -> bool:
    """Whether a graph that reads `given` is right for `leaf`. version: of a tensor that is read where it lies."""
    import torch

    if not isinstance(leaf, torch.Tensor) or not isinstance(given, torch.Tensor):
        return leaf is given or (type(leaf) is type(given) and bool(leaf == given))
    if version is not None:
        return leaf is given and leaf._version == version
    return leaf.shape == given.shape and leaf.dtype == given.dtype


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """A call's result, and the seconds that it takes."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    torch.cuda.synchronize()
    return result, time.perf_counter() - began
