"""Bytes of a model's weights once they are loaded, from the headers of its files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from vidkit.models.files.file_format import FETCH_AGAIN, invalid
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.models.files.pickles import read_header
from vidkit.models.files.safetensors_header import Header
from vidkit.models.files.weight_files import weight_files
from vidkit.models.loading.layouts import LAYOUTS
from vidkit.models.locate import Model
from vidkit.models.lora_keys import Component
from vidkit.models.loras import changed_values

#: bytes of a value: floating-point weights are loaded in the plan's type, others as they are
SIZES: Final = {"float16": 2, "bfloat16": 2, "float32": 4}
OTHERS: Final = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}

#: the layers of a UNet, an adapter or a ControlNet that come to the device one by one (`vidkit.pipelines.layers`), in
#: their keys, and in those of the original checkpoints
LAYER: Final = re.compile(
    r"((down|up)_blocks\.\d+|mid_block)\.(resnets|attentions|motion_modules|downsamplers)\.\d+\."
    r"|input_blocks\.[1-9]\d*\.\d+\.|middle_block\.\d+\.|output_blocks\.\d+\.\d+\.(?!conv\.)"
)

#: CUDA's caching allocator rounds every tensor up to this (kMinBlockSize in c10/cuda/CUDACachingAllocator)
BLOCK: Final = 512


class Size(NamedTuple):
    """Bytes of a network's weights, and of what is where when its layers come to the device one by one.

    all: on the device; layer: its largest layer; rest: what is in none; pinned: its layers, in the host's memory.
    """

    all: int
    layer: int
    rest: int
    pinned: int


class Tensors:
    """A file's tensors: key, number of values, bytes of a value, 0 for floating point. Sums are kept once made."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        self._rows = tuple(rows)
        self._sizes: dict[tuple[int, tuple[str, ...], str], Size] = {}

    def size(self, size: int, prefixes: tuple[str, ...], without: str) -> Size:
        """size: bytes of a floating-point value; prefixes: of the keys to count; without: of those not to, "" none."""
        wanted = size, prefixes, without
        if wanted not in self._sizes:
            self._sizes[wanted] = self._summed(*wanted)
        return self._sizes[wanted]

    def _summed(self, size: int, prefixes: tuple[str, ...], without: str) -> Size:
        layers: dict[str, int] = {}
        rest = pinned = 0
        for key, values, own in self._rows:
            if not key.startswith(prefixes) or (without and key.startswith(without)):
                continue
            bytes_ = values * (own or size)
            if found := LAYER.search(key):
                layers[found[0]] = layers.get(found[0], 0) + rounded(bytes_)
                pinned += in_pinned_memory(bytes_)
            else:
                rest += rounded(bytes_)
        return Size(rest + sum(layers.values()), max(layers.values(), default=0), rest, pinned)


def size_of(model: Model, part: str, dtype: str, *, without: str = "") -> Size:
    """Bytes of a part ("unet", "vae", ...; "" for a model that is one part), each tensor rounded as it is allocated.

    dtype: "float16", "float32", ...; without: a prefix of keys that are not loaded.

    Raises:
        SetupError: `model_not_found` or `invalid_model`, when there are no weights or they cannot be read.
    """
    if model.path.is_file():
        files, prefixes = [model.path], LAYOUTS[model.kind, part].prefixes
    else:
        files, prefixes = weight_files(model.path, part, dtype), ("",)
    sizes = [tensors(file).size(SIZES[dtype], prefixes, without) for file in files]
    whole, layer, rest, pinned = zip(*sizes, strict=True)
    return Size(sum(whole), max(layer), sum(rest), sum(pinned))


def weights(model: Model, part: str, dtype: str) -> int:
    """Bytes of a part on the device. Arguments and errors as of `size_of`."""
    return size_of(model, part, dtype).all


def lora_weights(loras: Iterable[Model], component: Component, dtype: str) -> int:
    """Bytes of the sums that LoRAs put in the place of a component's weights, which are kept. Raises SetupError."""
    changed = {layer: values for lora in loras for layer, values in changed_values(lora.path).items()}
    return sum(rounded(values * SIZES[dtype]) for (of, _), values in changed.items() if of == component)


def rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def in_pinned_memory(size: int) -> int:
    """What a tensor takes there: PyTorch's allocator for it rounds up to a power of two (CachingHostAllocator.h)."""
    return 1 << (size - 1).bit_length() if size else 0


def tensors(file: Path) -> Tensors:
    """The file's tensors. To tell a file's format it is opened, so what was found is kept, not its header alone."""
    try:
        return _tensors.get(file, lambda file: Tensors(described(read_header(file))))
    except OSError as error:
        raise invalid(file, f"cannot be read: {error.strerror or error}", FETCH_AGAIN) from error


def described(header: Header) -> Iterable[tuple[str, int, int]]:
    for key, (dtype, shape) in header.items():
        yield key, math.prod(shape), OTHERS.get(dtype, 0)


_tensors: Final[RememberedByFile[Tensors]] = RememberedByFile(most=64)
