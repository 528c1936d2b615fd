"""The header of a `.safetensors` file, read and checked without reading a tensor.

The format: 8 bytes little-endian header length, JSON header, data.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from vidkit.errors import SetupError
from vidkit.models.files.file_format import DESCRIPTIONS, START_BYTES, format_of
from vidkit.models.files.file_format import FETCH_AGAIN as FETCH_AGAIN
from vidkit.models.files.file_format import invalid as invalid
from vidkit.models.files.file_format import quoted as quoted
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.near_paths import near_paths

#: dtype and shape by the key of the tensor
Header = Mapping[str, tuple[str, tuple[int, ...]]]

#: The header of Stable Diffusion 1.5 has 0.2 MB and 1,100 tensors (1,800 with its EMA copy), that of SDXL 0.4 MB and
#: 2,500; training logs in `__metadata__` reach a few MB. safetensors itself takes 100 MB, and 6.4 s over a 66 MB
#: header of a million empty tensors; within these limits the worst file is refused in well under a second.
MAX_HEADER_BYTES: Final = 8 * 2**20
MAX_TENSORS: Final = 16_384
#: torch itself stops at 64 dimensions; weights have at most five
MAX_DIMENSIONS: Final = 16

#: a full-size header takes 4 ms to read, and is asked for by everything that looks at a model
_headers: Final[RememberedByFile[Header]] = RememberedByFile(most=64)

BITS_PER_VALUE: Final = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
#: names of dtypes in torch to names here, in the order in which the library writes them to a file
TORCH_DTYPES: Final = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "bfloat16": "BF16",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def read_safetensors_header(path: Path) -> Header:
    """The dtype (as the file names it, e.g. `"F16"`) and shape of every tensor, by key, without reading a tensor.

    Checks all that the format promises: unique keys, known dtypes, and tensors that fill the file's data exactly,
    without gap or overlap. At most `MAX_HEADER_BYTES` are read, and only once while the file stays what it is.

    Raises:
        SetupError: `model_not_found` when there is no such file; `invalid_model` when it can't be read, is not a
            safetensors file or goes beyond the limits.
    """
    try:
        if not path.is_file():
            raise SetupError("model_not_found", f"There is no model file {str(path)!r}.", near_paths(path))
        return _headers.get(path, _read_header)
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror or error}", "Check the file's permissions.") from error
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        problem = "its header is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise invalid(path, f"is not a usable safetensors file: {problem}", FETCH_AGAIN) from error


def _read_header(path: Path) -> Header:
    with path.open("rb") as file:
        found = format_of(file.read(START_BYTES))
        if found not in ("safetensors", "empty file", "unknown"):
            raise ValueError(f"it is {DESCRIPTIONS[found]}")
        file.seek(0)
        raw, data_bytes = _read_raw_header(file)
    return _parse_header(raw, data_bytes)


def _read_raw_header(file: BinaryIO) -> tuple[bytes, int]:
    """The header, and the number of bytes that follow it."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ValueError(f"it has only {size} bytes")
    length = int.from_bytes(prefix, "little")
    if length > size - 8:
        raise ValueError(f"its header should have {length} bytes, but {size - 8} follow")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, more than the {MAX_HEADER_BYTES} allowed here")
    raw = file.read(length)
    if len(raw) < length:
        raise ValueError("it was cut short while it was read")
    return raw, size - 8 - length


def _parse_header(raw: bytes, data_bytes: int) -> Header:
    if not raw.startswith(b"{"):
        raise ValueError("its header is not JSON")
    # Before parsing, which is what takes the time. Quotes within strings are escaped, so metadata can't match.
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise ValueError(f"it has more than the {MAX_TENSORS} tensors allowed here")
    entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_object_without_duplicates)
    _check_metadata(entries.pop("__metadata__", {}))
    if not 0 < len(entries) <= MAX_TENSORS:
        raise ValueError(f"it has {len(entries)} tensors; 1 to {MAX_TENSORS} are allowed here")
    header: dict[str, tuple[str, tuple[int, ...]]] = {}
    spans = []
    for key, entry in entries.items():
        key.encode()  # half a character, which JSON can say and UTF-8 cannot: the library refuses it
        dtype, shape, begin, end = _tensor_entry(key, entry)
        header[key] = (dtype, shape)
        spans.append((begin, end, key))
    _check_spans(spans, data_bytes)
    return header


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two equal keys, this reader and the one that loads the tensors might take different ones.
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("its header has a key twice")
    return result


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not a table of texts")
    "".join((*metadata, *metadata.values())).encode()


def _tensor_entry(key: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, first byte, byte after the last."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of tensor {quoted(key)} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS_PER_VALUE:
        raise ValueError(f"tensor {quoted(key)} has the unknown dtype {quoted(dtype)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {quoted(key)} has no valid shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {quoted(key)} has no valid data_offsets")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * BITS_PER_VALUE[dtype]:
        raise ValueError(f"tensor {quoted(key)} takes {end - begin} bytes, which does not fit its shape and dtype")
    return dtype, tuple(shape), begin, end


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_spans(spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """The tensors, in the order of their offsets, must fill the data from its first to its last byte."""
    position = 0
    for begin, end, key in sorted(spans):
        if begin != position:
            raise ValueError(f"tensor {quoted(key)} begins at byte {begin} of the data where {position} was due")
        position = end
    if position != data_bytes:
        raise ValueError(f"its tensors take {position} bytes, but {data_bytes} bytes of data follow the header")
