"""Bytes of a model's weights once they are loaded, from the headers of its files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Final

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

#: CUDA's caching allocator rounds every tensor up to this (kMinBlockSize in c10/cuda/CUDACachingAllocator)
BLOCK: Final = 512

#: of each tensor: key, number of values, bytes of a value, 0 for floating point
Shapes = tuple[tuple[str, int, int], ...]


def weights(model: Model, part: str, dtype: str, *, without: str = "") -> int:
    """Bytes of a part ("unet", "vae", ...; "" for a model that is one part) on the device, rounded as it allocates.

    dtype: "float16", "float32", ...; without: a prefix of keys that are not loaded.

    Raises:
        SetupError: `model_not_found` or `invalid_model`, when there are no weights or they cannot be read.
    """
    size = SIZES[dtype]
    found = shapes(model, part, dtype)
    return sum(
        rounded(values * (own or size)) for key, values, own in found if not (without and key.startswith(without))
    )


def lora_weights(loras: Iterable[Model], component: Component, dtype: str) -> int:
    """Bytes of the sums that LoRAs put in the place of a component's weights, which are kept. Raises SetupError."""
    changed = {layer: values for lora in loras for layer, values in changed_values(lora.path).items()}
    return sum(rounded(values * SIZES[dtype]) for (of, _), values in changed.items() if of == component)


def rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def shapes(model: Model, part: str, dtype: str) -> Shapes:
    if model.path.is_file():
        prefixes = LAYOUTS[model.kind, part].prefixes
        return tuple(row for row in rows(model.path) if row[0].startswith(prefixes))
    return tuple(row for file in weight_files(model.path, part, dtype) for row in rows(file))


def rows(file: Path) -> Shapes:
    """The file's tensors. To tell a file's format it is opened, so what was found is kept, not its header alone."""
    try:
        return _rows.get(file, lambda file: tuple(described(read_header(file))))
    except OSError as error:
        raise invalid(file, f"cannot be read: {error.strerror or error}", FETCH_AGAIN) from error


def described(header: Header) -> Iterable[tuple[str, int, int]]:
    for key, (dtype, shape) in header.items():
        yield key, math.prod(shape), OTHERS.get(dtype, 0)


_rows: Final[RememberedByFile[Shapes]] = RememberedByFile(most=64)
