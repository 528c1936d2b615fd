"""Safetensors files of any content, right or wrong. Their data are holes, so that full-size models take no room."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]

BITS = {"F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I8": 8, "F8_E4M3": 8}


def write_raw(path: Path, header: bytes, data_bytes: int = 0, length: int | None = None) -> Path:
    """A file with any header, and the length of the header that it says."""
    with path.open("wb") as file:
        file.write((len(header) if length is None else length).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + data_bytes)
    return path


def write_shapes(path: Path, tensors: Shapes) -> Path:
    """A valid safetensors file with tensors of these dtypes and shapes, all zero."""
    entries, position = {}, 0
    for key, (dtype, shape) in tensors.items():
        end = position + math.prod(shape) * BITS[dtype] // 8
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    return write_raw(path, json.dumps(entries).encode(), position)


def overwrite(path: Path, content: bytes) -> None:
    """As `write_bytes`, thousands of times in a few seconds: a file that is emptied first is flushed to the disk."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
