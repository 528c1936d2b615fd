"""Bytes of a model's weights once they are loaded, from the headers of its safetensors files."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from vidkit.errors import SetupError
from vidkit.models.locate import Model
from vidkit.models.safetensors_header import Header, read_safetensors_header

#: bytes of a value: floating-point weights are loaded in the plan's type, others as they are
SIZES: Final = {"float16": 2, "bfloat16": 2, "float32": 4}
OTHERS: Final = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}

#: CUDA's caching allocator rounds every tensor up to this (kMinBlockSize in c10/cuda/CUDACachingAllocator)
BLOCK: Final = 512

#: the weight files that diffusers and transformers load, whole or in shards, with or without a variant
WEIGHT_FILE: Final = re.compile(
    r"(diffusion_pytorch_model|model)(?P<early>\.fp16)?(?P<shard>-\d+-of-\d+)?(?P<late>\.fp16)?\.safetensors"
)

#: where the parts of a Stable Diffusion 1.x checkpoint in one file are
PREFIXES: Final = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}

#: of each tensor: key, number of values, bytes of a value, 0 for floating point
Shapes = tuple[tuple[str, int, int], ...]


def weights(model: Model, part: str, dtype: str, *, without: str = "") -> int:
    """Bytes of a part ("unet", "vae", ...; "" for a folder that is one part) on the device, rounded as it allocates.

    dtype: "float16", "float32", ...; without: a prefix of keys that are not loaded.

    Raises:
        SetupError: `model_not_found` or `invalid_model`, when there are no safetensors or they cannot be read.
    """
    size = SIZES[dtype]
    found = shapes(model, part, dtype)
    return sum(
        rounded(values * (own or size)) for key, values, own in found if not (without and key.startswith(without))
    )


def rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def shapes(model: Model, part: str, dtype: str) -> Shapes:
    if model.path.is_file():
        return tuple(row for row in read(*identified(model.path)) if row[0].startswith(PREFIXES[part]))
    files = weight_files(model.path, part, dtype)
    return tuple(row for file in files for row in read(*identified(file)))


def identified(file: Path) -> tuple[Path, int, int]:
    try:
        stat = file.stat()
    except OSError:
        return file, 0, 0  # reading it says what is wrong
    return file, stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=64)
def read(file: Path, changed: int, size: int) -> Shapes:
    """The file's tensors. Headers are some thousand entries long: each version of a file is read once."""
    return tuple(described(read_safetensors_header(file)))


def described(header: Header) -> Iterable[tuple[str, int, int]]:
    for key, (dtype, shape) in header.items():
        yield key, math.prod(shape), OTHERS.get(dtype, 0)


def weight_files(folder: Path, part: str, dtype: str) -> list[Path]:
    """Those that would be loaded: the half-precision variant where vidkit asks for it, shards where there are some."""
    found = matches(folder / part)
    if not found:
        raise SetupError(
            "invalid_model",
            f"{folder / part} has no weights in safetensors format.",
            ["Fetch the model again, in safetensors format"],
            ["base_model"],
        )
    variant = {file for file, match in found.items() if match["early"] or match["late"]}
    plain = set(found) - variant
    # adapters are loaded without a variant
    chosen = variant if part and wants_variant(folder, dtype) else plain
    chosen = chosen or variant or plain
    shards = {file for file in chosen if found[file]["shard"]}
    return sorted(shards or chosen)


def wants_variant(folder: Path, dtype: str) -> bool:
    """As `vidkit.pipelines.family.weight_variant`, without torch."""
    unet = matches(folder / "unet")
    plain = [file for file, match in unet.items() if not (match["early"] or match["late"])]
    return dtype == "float16" or not plain


def matches(folder: Path) -> Mapping[Path, re.Match[str]]:
    files = folder.iterdir() if folder.is_dir() else ()
    return {file: match for file in files if (match := WEIGHT_FILE.fullmatch(file.name))}
