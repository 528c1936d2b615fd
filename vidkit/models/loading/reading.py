"""Tensors from files into memory: several at a time, each straight to its device and in its type.

Files are read, not mapped: what is loaded does not depend on its file any more, which may be replaced, moved or cut.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.files.file_format import FETCH_AGAIN, file_format, invalid, quoted
from vidkit.models.files.pickles import read_pickle
from vidkit.models.files.safetensors_header import read_safetensors_header

if TYPE_CHECKING:
    import torch

#: the types that weights are stored in, as safetensors names them and torch
FLOATS: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
INTEGERS: Final = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}

#: one thread's share at a time: files of a few large tensors are still read by several threads
SHARE: Final = 64 * 2**20

#: on the way to a GPU, through page-locked memory, which copies twice as fast; each thread has a block of it
BLOCK: Final = 16 * 2**20

THREADS: Final = min(8, os.cpu_count() or 1)

#: called with the bytes that are read, and those of all; may raise to stop
OnRead = Callable[[int, int], None]


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file: its bytes are [begin, begin + size) of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


@dataclass
class Weights:
    """The tensors of one part, by their keys in its files, and where they go as they are read.

    tensors: filled by `reading`. mapped: those of a pickle, which torch has opened already.
    """

    stored: Mapping[str, Stored] = field(default_factory=dict)
    mapped: Mapping[str, torch.Tensor] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(one.size for one in self.stored.values()) + sum(one.nbytes for one in self.mapped.values())


def weights_in(file: Path, wanted: Callable[[str], bool] = lambda key: True) -> Weights:
    """What a file holds under the wanted keys; nothing is read yet but its header.

    Raises:
        SetupError: as `read_safetensors_header` and `read_pickle`.
    """
    if file_format(file) != "safetensors":
        return Weights(mapped={key: tensor for key, tensor in read_pickle(file).items() if wanted(key)})
    header = read_safetensors_header(file)  # which checks the offsets too
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries = json.loads(stream.read(length))
    stored = {}
    for key, (dtype, shape) in header.items():
        entry = entries.get(key, {})
        if (entry.get("dtype"), entry.get("shape")) != (dtype, list(shape)):
            raise invalid(file, "was changed while it was read", "Load it again once it is complete.")
        if wanted(key):
            begin, end = entry["data_offsets"]
            stored[key] = Stored(file, dtype, shape, 8 + length + begin, end - begin)
    return Weights(stored=stored)


def joined(several: Iterator[Weights]) -> Weights:
    """The shards of a part as one."""
    found = Weights()
    for one in several:
        found = Weights({**found.stored, **one.stored}, {**found.mapped, **one.mapped})
    return found


@contextmanager
def reading(parts: Mapping[str, Weights], device: str, dtype: str) -> Iterator[Reading]:
    """Inside the block, threads read all parts into their `tensors`; left early, they stop.

    dtype: of floating-point values once read; others stay what they are.
    """
    import torch

    place = torch.device(device)
    if place.type == "cuda" and place.index is None:  # the current device is each thread's own
        place = torch.device("cuda", torch.cuda.current_device())
    to, stop = Destination(place, getattr(torch, dtype)), threading.Event()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="vidkit-read") as pool:
        jobs = {
            pool.submit(read_share, parts[name], keys, to, stop): (name, size)
            for name in parts
            for keys, size in shares(parts[name])
        }
        try:
            yield Reading(jobs, list(parts))
        finally:
            stop.set()


class Reading:
    """Parts that are being read. jobs: by name of the part, and bytes."""

    def __init__(self, jobs: Mapping[Future[None], tuple[str, int]], names: Sequence[str]) -> None:
        self._jobs, self._names = jobs, names

    def complete(self, on_read: OnRead = lambda done, total: None) -> Iterator[str]:
        """The name of each part as it is complete, whichever that is first.

        on_read: called in this thread.

        Raises:
            SetupError: `invalid_model`, for weights in a type that weights are not loaded from, or a file cut short.
        """
        left = {name: sum(owner == name for owner, _ in self._jobs.values()) for name in self._names}
        total, done = sum(size for _, size in self._jobs.values()), 0
        yield from [name for name, count in left.items() if count == 0]
        for job in as_completed(self._jobs):
            job.result()
            name, size = self._jobs[job]
            done += size
            on_read(done, total)
            left[name] -= 1
            if left[name] == 0:
                yield name


def shares(weights: Weights) -> Iterator[tuple[list[str], int]]:
    """Keys whose tensors together take some `SHARE`, in the order of the file; and their bytes."""
    sizes = [(one.file, one.begin, key, one.size) for key, one in weights.stored.items()]
    together: list[str] = []
    size = 0
    for _, _, key, bytes_ in sorted(sizes):
        together.append(key)
        size += bytes_
        if size >= SHARE:
            yield together, size
            together, size = [], 0
    for key, tensor in weights.mapped.items():
        together.append(key)
        size += tensor.nbytes
        if size >= SHARE:
            yield together, size
            together, size = [], 0
    if together:
        yield together, size


def read_share(weights: Weights, keys: list[str], to: Destination, stop: threading.Event) -> None:
    for key in keys:
        if stop.is_set():
            return
        weights.tensors[key] = (
            to.fetched(key, weights.stored[key]) if key in weights.stored else to.copied(weights.mapped[key])
        )


class Destination:
    """A device and the type of floating-point values there."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._of_thread = threading.local()

    def fetched(self, key: str, stored: Stored) -> torch.Tensor:
        """A tensor of a file."""
        import torch

        name = FLOATS.get(stored.dtype) or INTEGERS.get(stored.dtype)
        if name is None:
            problem = f"is quantized or damaged: {quoted(key)} has dtype {stored.dtype}"
            raise invalid(stored.file, problem, "Fetch the model in half or single precision.")
        raw = torch.empty(stored.size, dtype=torch.uint8, device=self._device)
        with stored.file.open("rb", buffering=0) as stream:
            stream.seek(stored.begin)
            for place in self._blocks(raw):
                self._fill(place, stream, stored.file)
        tensor = raw.view(getattr(torch, name)).view(stored.shape)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def copied(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that is mapped from a file, without that file."""
        wanted = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, wanted, copy=True)

    def _blocks(self, raw: torch.Tensor) -> Iterator[torch.Tensor]:
        step = max(1, len(raw)) if self._device.type == "cpu" else BLOCK
        for begin in range(0, len(raw), step):
            yield raw[begin : begin + step]

    def _fill(self, place: torch.Tensor, stream: Any, file: Path) -> None:
        into = place if self._device.type == "cpu" else self._staging()[: place.numel()]
        view = memoryview(into.numpy().data)
        while view:
            count = stream.readinto(view)
            if not count:
                raise invalid(file, "was cut short while it was read", FETCH_AGAIN)
            view = view[count:]
        if into is not place:
            place.copy_(into)

    def _staging(self) -> torch.Tensor:
        import torch

        if not hasattr(self._of_thread, "staging"):
            self._of_thread.staging = torch.empty(BLOCK, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        staging: torch.Tensor = self._of_thread.staging
        return staging
