"""Steps of a network as CUDA graphs: recorded once, then played.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import ref

from vidkit.errors import first_line
from vidkit.pipelines.fast.capture import Recorder
from vidkit.pipelines.fast.installing import Measures, has_layers
from vidkit.pipelines.forwards import replaced
from vidkit.pipelines.watch import blocks_of, denoisers

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("vidkit")

#: seconds of a step that is recorded: a clip may be stopped between steps, and longer ones gain less than 1 %
LONGEST: Final = 0.5

#: Share of a GPU's memory that must be free for recordings to outlast their clip. They take 1.3 GiB of AnimateDiff at
#: 512x512 in 16 frames, and 4.5 of SVD at 1024x576 in 25; what is planned meanwhile counts on all that is free.
FREE_BESIDE: Final = 0.75

T = TypeVar("T")


class Known:
    """Of a pipeline as it is placed: what is known of its networks' calls.

    kept: by what a network is called with, which of that are tensors that stay the same from step to step; none of all:
    it is not recorded. recordings: of the clip before. may_outlast: whether they may be played in the next one.
    """

    def __init__(self) -> None:
        self.kept: dict[Hashable, Sequence[bool]] = {}
        self.recordings: list[Recording] = []
        self.may_outlast = True
        self._failed: set[Hashable] = set()

    def failed(self, like: Hashable) -> None:
        """What was known did not serve. Once: such calls are computed again first, which may take other kernels, or
        there was no room; the second time they are given up."""
        self.kept[like] = ()
        if like not in self._failed:
            self._failed.add(like)
            del self.kept[like]

    @property
    def is_recorded(self) -> bool:
        return any(recording.is_made for recording in self.recordings)

    def forget_recordings(self) -> None:
        """Their memory goes back to the device."""
        are_made = self.is_recorded
        for recording in self.recordings:
            recording.forget()
        if are_made:
            give_back_memory()

    def begin_call(self) -> None:
        """Of the pipeline: the first of a clip, or another one. Only where nobody needs their memory, recordings are
        still there."""
        if self.is_recorded and not (self.may_outlast and has_room()):
            self.forget_recordings()
        for recording in self.recordings:
            recording.begin_call()


@contextmanager
def recorded(pipe: Any, measures: Measures, known: Known) -> Iterator[None]:
    """While the block runs, the UNet's and ControlNet's calls are recorded and played, where they are short.

    A call must have been computed twice before it is recorded, as that loads and chooses its kernels. A clip like one
    before is recorded from its first step; and like the last one it is played, if there was room for the recording
    meanwhile.
    """
    if not may_record(measures):
        yield
        return
    if not known.recordings:
        known.recordings = [Recording(network, known, copies=network is pipe.unet) for network in denoisers(pipe)]
    known.begin_call()

    def call_ends(own: Callable[[], None]) -> None:
        """What follows is decoding, which may need the memory, and maybe another call."""
        known.begin_call()
        own()

    with ExitStack() as stack:
        for network, recording in zip(denoisers(pipe), known.recordings, strict=True):
            stack.enter_context(replaced(network, "forward", recording.answer))
        stack.enter_context(replaced(pipe, "maybe_free_model_hooks", call_ends))  # diffusers' last of a call
        yield


def give_back_memory() -> None:
    """That nobody needs any more, once what was played is done."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def has_room() -> bool:
    """For recordings that nobody plays now, beside all that may be planned meanwhile."""
    import torch

    if torch.cuda.get_per_process_memory_fraction() < 1:
        return False
    if is_mostly_free():
        return True
    torch.cuda.empty_cache()  # what the allocator keeps for later is free too
    return is_mostly_free()


def is_mostly_free() -> bool:
    import torch

    free, total = torch.cuda.mem_get_info()
    return free >= FREE_BESIDE * total


def may_record(measures: Measures) -> bool:
    """Not where weights move between steps, so that kernels would not find them, nor where memory is short."""
    is_saving = measures.offload != "none" or measures.halves
    return measures.device == "cuda" and measures.speed != "exact" and not is_saving and has_layers(measures)


class Recording:
    """A network's calls, those of one kind recorded. copies: of what it answers, as some schedulers keep that."""

    def __init__(self, network: Any, known: Known, *, copies: bool) -> None:
        self._network = ref(network)  # which leads to its pipeline, by whose end its recordings end
        self._known, self._copies = known, copies
        self._weights = [vars(module)["_parameters"] for module in network.modules()]
        self.forget()

    @property
    def is_made(self) -> bool:
        return self._made is not None

    def forget(self) -> None:
        self._last: tuple[Hashable, Sequence[Any]] = None, []  # what was computed last, and of what
        self._made: Made | None = None

    def begin_call(self) -> None:
        """What was the same from step to step may be another now, and so may weights."""
        self._last = None, []
        if self._made is not None:
            self._made.is_of_last_call = True
            if self._made.weights != self._where_weights_lie():
                self.forget()

    def answer(self, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The network's; where that was recorded and is no copy, until it is called again."""
        from torch.utils._pytree import tree_flatten, tree_unflatten

        leaves, structure = tree_flatten((arguments, options))
        if (made := self._made) is not None:
            is_of_last_call = made.is_of_last_call
            if made.plays(leaves):
                return self._answered(made)
            if not (made.was_played or is_of_last_call):  # nor might another be
                self._known.failed(made.like)
            self._made = None
        network = self._network()
        like = type(network).__name__, *map(kind_of, leaves)
        if like not in self._known.kept:
            return self._computed(like, leaves, lambda: forward(*arguments, **options))
        if self._known.kept[like]:
            give_back_memory()  # what was used before does not serve a recording

            def call(given: Sequence[Any]) -> Any:
                its_arguments, its_options = tree_unflatten(list(given), structure)
                return forward(*its_arguments, **its_options)

            self._made = made = self._recorded(like, leaves, call, blocks_of(network))
            if made is not None:
                return self._answered(made)
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

    def _recorded(
        self, like: Hashable, leaves: Sequence[Any], call: Callable[[Sequence[Any]], Any], blocks: Sequence[Any]
    ) -> Made | None:
        """None: it cannot be."""
        import torch

        (device,) = {leaf.device for leaf in leaves if is_on_gpu(leaf)}
        given = [leaf.to(device, copy=True) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        told = [Told(leaf) if is_kept else None for leaf, is_kept in zip(leaves, self._known.kept[like], strict=True)]
        recorder = Recorder([own for own, what in zip(given, told, strict=True) if what is not None])
        try:
            result = recorder.record(lambda: call(given), blocks)
        except RuntimeError as error:  # of CUDA: something cannot be recorded, or has no room
            logger.info("no CUDA graph of a step: %s", first_line(error))
            self._known.failed(like)
            return None
        return Made(like, recorder, given, told, result, self._where_weights_lie())

    def _where_weights_lie(self) -> list[int]:
        """LoRAs' sums lie elsewhere."""
        return [weight.data_ptr() for own in self._weights for weight in own.values() if weight is not None]

    def _answered(self, made: Made) -> Any:
        import torch
        from torch.utils._pytree import tree_map_only

        # never the same tensor twice: whoever compares them would take its values for the same
        return tree_map_only(torch.Tensor, torch.clone if self._copies else torch.Tensor.detach, made.result)


class Told:
    """A tensor that a recording has a copy of, as it was then."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor, self._version = tensor, tensor._version

    def is_still(self, tensor: Any) -> bool:
        return tensor is self._tensor and tensor._version == self._version


@dataclass
class Made:
    """A network's call that was recorded. given: what it reads, of tensors copies. told: of which tensors it has copies
    that stay the same. weights: where the network's lay. is_of_last_call: of the pipeline, or of its last clip."""

    like: Hashable
    recorder: Recorder
    given: list[Any]
    told: list[Told | None]
    result: Any
    weights: Sequence[int]
    was_played: bool = False
    is_of_last_call: bool = False

    def plays(self, leaves: Sequence[Any]) -> bool:
        """Whether a call is like the one that was recorded, and is played."""
        if len(leaves) != len(self.given) or not all(map(is_like, leaves, self.given)):
            return False
        if not (self._tell_anew(leaves) if self.is_of_last_call else self._knows(leaves)):
            return False
        for leaf, given, told in zip(leaves, self.given, self.told, strict=True):
            if told is None and is_tensor(given):
                given.copy_(leaf)
        self.recorder.play()
        self.was_played = True
        return True

    def _knows(self, leaves: Sequence[Any]) -> bool:
        """Whether the same tensors stayed the same."""
        return all(told is None or told.is_still(leaf) for leaf, told in zip(leaves, self.told, strict=True))

    def _tell_anew(self, leaves: Sequence[Any]) -> bool:
        """What stays the same in this call of the pipeline, such as its texts. Whether that can be."""
        self.is_of_last_call = False
        for number, (leaf, given) in enumerate(zip(leaves, self.given, strict=True)):
            if self.told[number] is not None:
                given.copy_(leaf)
                self.told[number] = Told(leaf)
        try:
            self.recorder.tell_anew()
        except RuntimeError as error:
            logger.info("a step is recorded again: %s", first_line(error))
            return False
        return True


def is_tensor(leaf: Any) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor)


def is_on_gpu(leaf: Any) -> bool:
    return is_tensor(leaf) and bool(leaf.is_cuda)


def kind_of(leaf: Any) -> Hashable:
    """What calls have in common that start the same kernels."""
    import torch

    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return leaf if isinstance(leaf, Hashable) else type(leaf).__name__


def is_like(leaf: Any, given: Any) -> bool:
    """Whether a recording that reads `given` can be given `leaf`."""
    if not is_tensor(leaf) or not is_tensor(given):
        return leaf is given or (type(leaf) is type(given) and bool(leaf == given))
    return bool(leaf.shape == given.shape and leaf.dtype == given.dtype)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """A call's result, and the seconds that it takes."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    result = call()
    torch.cuda.synchronize()
    return result, time.perf_counter() - began
