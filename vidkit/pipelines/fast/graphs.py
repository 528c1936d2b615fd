"""Steps of a network as CUDA graphs: recorded once a clip, then played.

A step of AnimateDiff starts some 1,400 kernels. At 256x256 that takes Python 118 ms, and an H200 27 ms to compute;
where the GPU is the slower one, it still waits 2 microseconds between two of them (`benchmarks/NOTES.md`). What is
played is the very kernels on the very numbers, so results have the same bits. While a step is played no layer is seen:
progress and cancelling go by whole steps, so only short ones are recorded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

from vidkit.errors import first_line
from vidkit.pipelines.fast.capture import Recorder
from vidkit.pipelines.fast.installing import Measures, has_layers
from vidkit.pipelines.forwards import replaced
from vidkit.pipelines.watch import blocks_of, denoisers

logger = logging.getLogger("vidkit")

#: seconds of a step that is recorded: a clip may be stopped between steps, and longer ones gain less than 1 %
LONGEST: Final = 0.5

T = TypeVar("T")


class Known:
    """Of a pipeline as it is placed: what is known of its networks' calls.

    kept: by what a network is called with, which of that are tensors that stay the same from step to step; none of all:
    it is not recorded.
    """

    def __init__(self) -> None:
        self.kept: dict[Hashable, Sequence[bool]] = {}
        self._failed: set[Hashable] = set()

    def failed(self, like: Hashable) -> None:
        """What was known did not serve. Once: such calls are computed again first, which may take other kernels, or
        there was no room; the second time they are given up."""
        self.kept[like] = ()
        if like not in self._failed:
            self._failed.add(like)
            del self.kept[like]


@contextmanager
def recorded(pipe: Any, measures: Measures, known: Known) -> Iterator[None]:
    """While the block runs, the UNet's and ControlNet's calls are recorded and played, where they are short.

    A call must have been computed twice before it is recorded, as that loads and chooses its kernels. A clip like one
    before is recorded from its first step.
    """
    if not may_record(measures):
        yield
        return
    recordings = [Recording(network, known, copies=network is pipe.unet) for network in denoisers(pipe)]

    def call_ends(own: Callable[[], None]) -> None:
        """Before a window of a clip is decoded for the next one, the memory of its recordings is free again."""
        drop(recordings)
        own()

    with ExitStack() as stack:
        for network, recording in zip(denoisers(pipe), recordings, strict=True):
            stack.enter_context(replaced(network, "forward", recording.answer))
        stack.enter_context(replaced(pipe, "maybe_free_model_hooks", call_ends))  # diffusers' last of a call
        stack.callback(drop, recordings)
        yield


def drop(recordings: Sequence[Recording]) -> None:
    """Their memory goes back to the device, once what was played is done."""
    import torch

    for recording in recordings:
        recording.drop()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def may_record(measures: Measures) -> bool:
    """Not where weights move between steps, so that kernels would not find them, nor where memory is short."""
    is_saving = measures.offload != "none" or measures.halves
    return measures.device == "cuda" and measures.speed != "exact" and not is_saving and has_layers(measures)


class Recording:
    """A network's calls in one clip. copies: of what it answers, as some schedulers keep that."""

    def __init__(self, network: Any, known: Known, *, copies: bool) -> None:
        self._network, self._known, self._copies = network, known, copies
        self._last: tuple[Hashable, Sequence[Any]] = None, []  # what was computed last, and of what
        self.drop()

    def drop(self) -> None:
        self._recorder: Recorder | None = None
        self._was_played = False
        self._like: Hashable = None  # what was recorded
        self._given: list[Any] = []  # where the recording reads: the call's own tensors, or copies of those that change
        self._versions: list[int | None] = []  # of the call's own
        self._result: Any = None

    def answer(self, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The network's; where that was recorded and is no copy, until the next call."""
        from torch.utils._pytree import tree_flatten, tree_unflatten

        leaves, structure = tree_flatten((arguments, options))
        if self._recorder is not None:
            if self._fits(leaves):
                return self._played(self._recorder, leaves)
            if not self._was_played:  # nor might another be
                self._known.failed(self._like)
            self.drop()
        like = type(self._network).__name__, *map(kind_of, leaves)
        if like not in self._known.kept:
            return self._computed(like, leaves, lambda: forward(*arguments, **options))
        if self._known.kept[like]:
            drop([self])  # what was used before does not serve a recording
            self._place(like, leaves)
            given, more = tree_unflatten(self._given, structure)
            if self._record(lambda: forward(*given, **more)):
                return self._answered()
        return forward(*arguments, **options)

    def _computed(self, like: Hashable, leaves: Sequence[Any], call: Callable[[], Any]) -> Any:
        """The first call's result; or the second's, after which it is known whether the third is recorded."""
        (before, last), self._last = self._last, (like, leaves)
        if before != like:
            return call()
        result, seconds = timed(call)
        self._last = None, []
        kept = [leaf is earlier and is_on_gpu(leaf) for leaf, earlier in zip(leaves, last, strict=True)]
        self._known.kept[like] = kept if seconds <= LONGEST else ()
        return result

    def _place(self, like: Hashable, leaves: Sequence[Any]) -> None:
        """Decide where the recording reads what the network is given."""
        import torch

        self._like = like
        (device,) = {leaf.device for leaf in leaves if is_on_gpu(leaf)}
        for leaf, is_kept in zip(leaves, self._known.kept[like], strict=True):
            changes = isinstance(leaf, torch.Tensor) and not is_kept
            self._given.append(leaf.to(device, copy=True) if changes else leaf)
            self._versions.append(leaf._version if is_kept else None)

    def _record(self, call: Callable[[], Any]) -> bool:
        """Whether that can be."""
        kept = [leaf for leaf, version in zip(self._given, self._versions, strict=True) if version is not None]
        recorder = Recorder(kept)
        try:
            self._result = recorder.record(call, blocks_of(self._network))
        except RuntimeError as error:  # of CUDA: something cannot be recorded, or has no room
            logger.info("no CUDA graph of a step: %s", first_line(error))
            self._known.failed(self._like)
            self.drop()
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
        return self._answered()

    def _answered(self) -> Any:
        import torch
        from torch.utils._pytree import tree_map_only

        return tree_map_only(torch.Tensor, torch.clone, self._result) if self._copies else self._result


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
