"""Headers of safetensors files: what is right is read, all else is one typed error, quickly."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import quickest
from model_files import Shapes, overwrite, write_raw, write_shapes
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidkit.errors import SetupError
from vidkit.models.files.safetensors_header import MAX_HEADER_BYTES, MAX_TENSORS, read_safetensors_header

SHAPES: Shapes = {"a": ("F32", (2, 3)), "b": ("F16", (5,))}


def expect_refusal(path: Path, *words: str) -> SetupError:
    started = time.perf_counter()
    with pytest.raises(SetupError) as caught:
        read_safetensors_header(path)
    assert time.perf_counter() - started < 2
    assert caught.value.code == "invalid_model"
    assert caught.value.suggestions
    for word in (path.name, *words):
        assert word in caught.value.message
    return caught.value


def test_the_header_is_what_the_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool)
    tensors = {str(dtype): torch.zeros(size, 3, dtype=dtype) for size, dtype in enumerate(dtypes)}
    save_file(tensors | {"number": torch.tensor(3), "8 bits": torch.zeros(2).to(torch.float8_e4m3fn)}, path)
    header = read_safetensors_header(path)
    with safe_open(path, "pt") as file:
        assert header.keys() == set(file.keys())
        for key, (dtype, shape) in header.items():
            assert (dtype, list(shape)) == (file.get_slice(key).get_dtype(), file.get_slice(key).get_shape())


def test_a_header_is_read_once_until_the_file_changes(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "model.safetensors", SHAPES)
    os.utime(path, ns=(1, 1))
    assert read_safetensors_header(path) == SHAPES
    opened: list[Any] = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and args[0] == str(path) else None)
    read_safetensors_header(path)
    assert opened == []
    write_shapes(path, {"c": ("F32", (2, 4)), "b": ("F16", (3,))})
    assert path.stat().st_mtime_ns != 1
    assert read_safetensors_header(path).keys() == {"b", "c"}
    assert opened


def test_two_changes_at_the_same_moment_are_both_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    now = time.time_ns()
    for key in "abcdefgh":
        write_shapes(path, {key: ("F32", (2, 3))})
        os.utime(path, ns=(now, now))  # within a tick of the file system's clock, and of one size
        assert read_safetensors_header(path).keys() == {key}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "a web page"),
        (b"\n\n  <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265146304\n", "Git LFS pointer"),
        (b'{"error": "Access denied"}', "a JSON text"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a pickle"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"\x1f\x8b\x08" + bytes(20), "a compressed archive"),
        (b"pickle".ljust(257, b"\0") + b"ustar\0" + bytes(300), "a tar archive"),
    ],
)
def test_another_format_under_this_name_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    expect_refusal(path, words)


# --- hostile headers ------------------------------------------------------------------------------------------------


def header_of(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def entry(begin: int, end: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


#: what the error says, header, bytes of data, and the header length written when it is not the real one
HOSTILE: dict[str, tuple[str, bytes, int, int | None]] = {
    "empty_object": ("0 tensors", b"{}", 0, None),
    "huge_length": ("should have", b"{}", 0, 2**64 - 1),
    "length_beyond_file": ("should have", header_of(a=entry(0, 4)), 4, 10_000),
    "length_over_limit": ("more than the", b"{", 2**25, 2**24),
    "no_json": ("not JSON", b"hello world", 0, None),
    "bad_json": ("Expecting", b'{"a": ', 0, None),
    "array": ("not JSON", b"[1]", 0, None),
    "bad_utf8": ("utf-8", b'{"\xff": 1}', 0, None),
    "trailing": ("Extra data", header_of(a=entry(0, 4)) + b"{}", 4, None),
    "nested": ("nested", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 0, None),
    "giant_number": ("limit", b'{"a": ' + b"9" * 100_000 + b"}", 0, None),
    "twice": ("twice", b'{"a": 1, "a": 2}', 0, None),
    "no_entry": ("malformed", header_of(a=[]), 0, None),
    "missing_field": ("malformed", header_of(a={"dtype": "F32", "shape": [1]}), 0, None),
    "bad_dtype": ("dtype", header_of(a=entry(0, 4, dtype="PICKLE")), 4, None),
    "dtype_list": ("dtype", header_of(a=entry(0, 4, dtype=["F32"])), 4, None),
    "negative_shape": ("shape", header_of(a=entry(0, 4, shape=[-1, -1])), 4, None),
    "bool_shape": ("shape", header_of(a=entry(0, 4, shape=[True])), 4, None),
    "float_shape": ("shape", header_of(a=entry(0, 4, shape=[1.0])), 4, None),
    "many_dimensions": ("shape", header_of(a=entry(0, 4, shape=[1] * 100_000)), 4, None),
    "overflow": ("does not fit", header_of(a=entry(0, 0, shape=[2**62, 4])), 0, None),
    "wrong_size": ("does not fit", header_of(a=entry(0, 8)), 8, None),
    "backwards": ("does not fit", header_of(a=entry(4, 0)), 4, None),
    "three_offsets": ("data_offsets", header_of(a={**entry(0, 4), "data_offsets": [0, 4, 8]}), 4, None),
    "overlap": ("was due", header_of(a=entry(0, 4), b=entry(0, 4)), 8, None),
    "hole": ("was due", header_of(a=entry(0, 4), b=entry(8, 12)), 12, None),
    "beyond_end": ("follow the header", header_of(a=entry(0, 400, shape=[100])), 8, None),
    "unused_data": ("follow the header", header_of(a=entry(0, 4)), 8, None),
    "metadata": ("__metadata__", header_of(__metadata__={"a": 1}, a=entry(0, 4)), 4, None),
    "many_tensors": (
        "more than the 16384",
        header_of(**{f"t{i}": entry(0, 0, shape=[0]) for i in range(20_000)}),
        0,
        None,
    ),
    "escaped_tensors": (
        "16384",
        header_of(**{f"t{i}": entry(0, 0, shape=[0]) for i in range(20_000)}).replace(b"data_o", b"data\\u005fo"),
        0,
        None,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_header_is_one_typed_error(tmp_path: Path, case: str) -> None:
    words, header, data_bytes, length = HOSTILE[case]
    error = expect_refusal(write_raw(tmp_path / "hostile.safetensors", header, data_bytes, length), words)
    assert len(error.message) < 600


def test_million_empty_tensors_are_refused_at_once(tmp_path: Path) -> None:
    one = b'"tensor%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path = write_raw(tmp_path / "million.safetensors", b"{" + b",".join(one % i for i in range(1_000_000)) + b"}")
    assert quickest(lambda: expect_refusal(path, "more than the")) < 0.2


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -1])
def test_truncated_file_is_one_typed_error(tmp_path: Path, kept: int) -> None:
    path = write_shapes(tmp_path / "cut.safetensors", {"a": ("F32", (2, 3)), "b": ("F16", (5,))})
    path.write_bytes(path.read_bytes()[:kept])
    expect_refusal(path)


def test_lone_surrogate_in_a_key_can_be_printed(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "odd.safetensors", b'{"\\ud800": 1}')
    assert expect_refusal(path).message.encode("utf-8")


def test_unreadable_file_is_one_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shapes(tmp_path / "locked.safetensors", SHAPES)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything, so let the operating system's call fail
        monkeypatch.setattr(
            Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
    expect_refusal(path, "Permission denied")


def test_20000_mutated_headers_are_refused_by_one_error_or_read_as_the_library_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "mutated.safetensors"
    tensors = {"a.weight": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.float16), "c": torch.zeros(0, 4)}
    save_file(tensors, path, metadata={"format": "pt"})
    original = path.read_bytes()
    rng = random.Random(0)
    accepted = looser = 0
    for _ in range(20_000):
        overwrite(path, rng.choice((with_changed_bytes, with_changed_bytes, with_changed_entries))(original, rng))
        try:
            header = read_safetensors_header(path)
        except SetupError as error:
            assert error.code == "invalid_model"
            assert error.message.encode()
            looser += rng.random() < 0.05 and library_reads(path) is not None
            continue
        accepted += 1
        assert library_reads(path) == {key: list(shape) for key, (_, shape) in header.items()}
    assert 2_000 < accepted < 15_000  # both ways are taken
    assert looser < 50  # what only the library takes: too many dimensions, or a key twice


def library_reads(path: Path) -> dict[str, list[int]] | None:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  (it is no mapping)
    except SafetensorError:
        return None


def with_changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to three bytes of the length or the header changed, put in, taken out, or the file cut or longer."""
    data = bytearray(content)
    header_end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = rng.randrange(header_end)
        match rng.choice(["change", "change", "bit", "digit", "insert", "delete", "cut", "more"]):
            case "change" if place < len(data):
                data[place] = rng.randrange(256)
            case "bit" if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case "digit" if place < len(data):
                data[place] = rng.choice(b"0123456789")
            case "insert":
                data.insert(place, rng.choice(b'0123456789,:"[]{} '))
            case "delete" if place < len(data):
                del data[place]
            case "cut" if data and rng.random() < 0.3:
                del data[rng.randrange(len(data)) :]
            case "more" if rng.random() < 0.3:
                data += rng.randbytes(rng.randrange(1, 20))
    return bytes(data)


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    2**64,
    10**30,
    1.5,
    float("nan"),
    "",
    "F32",
    [],
    {},
    [0],
    [[2]],
]


def with_changed_entries(content: bytes, rng: random.Random) -> bytes:
    """One to three changes of the header's table that keep it JSON, the length right."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(rng.choice([1, 1, 2, 3])):
        key = rng.choice([key for key in header if key != "__metadata__"] or ["a"])
        rng.choice(CHANGES)(header, key, rng)
    raw = json.dumps(header).encode()
    if rng.random() < 0.1:  # a key twice
        raw = raw[:-1] + b", " + raw[1:]
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data) + 1)]
    return len(raw).to_bytes(8, "little") + raw + data


def change_entry(header: dict[str, Any], key: str, rng: random.Random) -> None:
    header[key] = rng.choice(ODD)


def change_field(header: dict[str, Any], key: str, rng: random.Random) -> None:
    if isinstance(header.get(key), dict):
        header[key][rng.choice(["dtype", "shape", "data_offsets", "more"])] = rng.choice(ODD)


def change_number(header: dict[str, Any], key: str, rng: random.Random) -> None:
    numbers = header[key].get(rng.choice(["shape", "data_offsets"])) if isinstance(header.get(key), dict) else None
    if isinstance(numbers, list) and numbers:
        numbers[rng.randrange(len(numbers))] = rng.choice([*ODD, rng.randrange(40)])


def change_dtype(header: dict[str, Any], key: str, rng: random.Random) -> None:
    if isinstance(header.get(key), dict):
        header[key]["dtype"] = rng.choice(
            ["F16", "BF16", "I16", "F64", "U32", "F4", "F8_E4M3", "f32", "Q4_0", "PICKLE"]
        )


def change_shape_to_the_same_size(header: dict[str, Any], key: str, rng: random.Random) -> None:
    if isinstance(header.get(key), dict) and isinstance(header[key].get("shape"), list):
        header[key]["shape"] = [*header[key]["shape"], *[1] * rng.randrange(20)]


def change_keys(header: dict[str, Any], key: str, rng: random.Random) -> None:
    if key in header:
        header[rng.choice(["", "x" * 500, "\ud800", "../../etc", "__metadata__", "a\0b"])] = header.pop(key)


def change_metadata(header: dict[str, Any], key: str, rng: random.Random) -> None:
    header["__metadata__"] = rng.choice([*ODD, {"a": 1}, {"a": "b" * 1000}, {}])


CHANGES: list[Callable[[dict[str, Any], str, random.Random], None]] = [
    change_entry,
    change_field,
    change_number,
    change_dtype,
    change_shape_to_the_same_size,
    change_shape_to_the_same_size,
    change_keys,
    change_metadata,
]


def test_limits_leave_room_for_real_files(tmp_path: Path) -> None:
    # SDXL has 2,500 tensors; the longest names of Stable Diffusion have 90 letters
    shapes: Shapes = {f"{number:090}": ("F16", (1280, 1280, 3, 3)) for number in range(2_500)}
    path = write_shapes(tmp_path / "large.safetensors", shapes)
    assert len(read_safetensors_header(path)) == 2_500
    assert int.from_bytes(path.open("rb").read(8), "little") * 10 < MAX_HEADER_BYTES
    assert len(shapes) * 5 < MAX_TENSORS
