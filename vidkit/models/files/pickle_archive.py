"""Where the pickle and the tensors' bytes lie in a file of torch's: a zip archive, or the older plain stream.

torch and Python each have their own reader of zip archives. So that both read the same, only archives as torch.save
writes them are taken: stored, not compressed, each name once, nothing overlapping, nothing after the directory.
"""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from vidkit.models.files.file_format import quoted
from vidkit.models.files.pickle_reader import MAX_PICKLE_BYTES, PickleReader, RefusedError, Storage, bytes_per_value

#: a storage each; of the tensors of a state dict hardly two share one. Those of Stable Diffusion 1.5 with an
#: optimizer's states are 5,000.
MAX_RECORDS: Final = 32_768
_MAX_DIRECTORY_BYTES: Final = 8 * 2**20

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001

#: beside data.pkl and data/KEY
_OTHER_RECORDS: Final = frozenset({"version", "byteorder", ".format_version", ".storage_alignment"})
_END: Final = struct.Struct("<4sHHHHIIH")
_END64: Final = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64: Final = struct.Struct("<4sIQI")


@dataclass(frozen=True)
class Pickled:
    """What a file holds: the object as `PickleReader` tells it, and the names of a training program's leftovers in it.

    in_archive: a zip archive, which can be mapped into memory.
    """

    content: Any
    leftovers: frozenset[str]
    in_archive: bool


def read_archive(path: Path) -> Pickled:
    """Read the pickle of a zip archive. Raises `RefusedError`, or OSError as it is."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        _check_directory(file, size)
        try:
            with zipfile.ZipFile(file) as archive:
                records = _records(archive, file)
                if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
                    raise RefusedError("its tensors are stored in big-endian order")
                reader = PickleReader(archive.read(records["data.pkl"]))
        except RefusedError:
            raise
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, struct.error) as error:
            raise RefusedError(f"it is a broken zip archive: {error}") from error
    content = reader.read()
    for storage in reader.storages.values():
        record = records.get(f"data/{storage.key}")
        if record is None or record.file_size != storage.bytes:
            raise RefusedError(f"the bytes of its storage {quoted(storage.key)} are missing or of another size")
    return Pickled(content, frozenset(reader.leftovers), in_archive=True)


def _check_directory(file: BinaryIO, size: int) -> None:
    """The size of the directory and the number of its entries, before it is parsed."""
    file.seek(max(size - _END.size - _LOCATOR64.size, 0))
    tail = file.read()
    end = tail[-_END.size :]
    if not end.startswith(b"PK\x05\x06") or not end.endswith(b"\0\0"):
        raise RefusedError("it is a zip archive that is incomplete, or has something after its end")
    _, _, _, _, entries, directory, start, _ = _END.unpack(end)
    if tail.startswith(b"PK\x06\x07"):
        _, _, position, _ = _LOCATOR64.unpack(tail[: _LOCATOR64.size])
        if position + _END64.size + _LOCATOR64.size + _END.size != size:
            raise RefusedError("it is a zip archive with a broken end")
        file.seek(position)
        signature, _, _, _, _, _, _, entries, directory, start = _END64.unpack(file.read(_END64.size))
        if signature != b"PK\x06\x06" or start + directory != position:
            raise RefusedError("it is a zip archive with a broken end")
    elif start + directory != size - _END.size:
        raise RefusedError("it is a zip archive with something before it or within it")
    if entries > MAX_RECORDS or directory > _MAX_DIRECTORY_BYTES:
        raise RefusedError(f"it is a zip archive of {entries} entries, more than the {MAX_RECORDS} allowed here")


def _records(archive: zipfile.ZipFile, file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by their names without the folder that all of them lie in."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if not entries:
        raise RefusedError("it is an empty zip archive")
    folder = entries[0].filename.partition("/")[0] + "/"
    if any(entry.filename.startswith((folder + "constants.pkl", folder + "code/")) for entry in entries):
        raise RefusedError("it is a TorchScript archive: a program, not weights")
    records: dict[str, zipfile.ZipInfo] = {}
    position = 0
    for entry in entries:
        name = entry.filename.removeprefix(folder)
        if not entry.filename.startswith(folder) or entry.filename != entry.orig_filename or name in records:
            raise RefusedError(f"it is a zip archive, but not one of torch's: it holds {quoted(entry.filename)}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1 or entry.file_size != entry.compress_size:
            raise RefusedError(f"its {quoted(entry.filename)} is compressed or encrypted, which torch's are not")
        if entry.header_offset < position:
            raise RefusedError("it is a zip archive whose entries overlap")
        position = _data_start(file, entry) + entry.file_size
        records[name] = entry
    if position > archive.start_dir:
        raise RefusedError("it is a zip archive whose entries overlap")
    _check_names(records)
    return records


def _data_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: after its local header, which has lengths of its own."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise RefusedError("it is a broken zip archive: an entry is not where its directory says")
    name, extra = struct.unpack("<HH", header[26:])
    return int(entry.header_offset + 30 + name + extra)


def _check_names(records: dict[str, zipfile.ZipInfo]) -> None:
    if "data.pkl" not in records:
        raise RefusedError("it is a zip archive, but not one of torch's: it has no data.pkl")
    for name, entry in records.items():
        if re.fullmatch(r"data/[\w.-]+", name, re.ASCII):
            continue
        if name != "data.pkl" and name not in _OTHER_RECORDS and not re.fullmatch(r"\.data/\w+", name, re.ASCII):
            raise RefusedError(f"it is a zip archive, but not one of torch's: it holds {quoted(name)}")
        if entry.file_size > (MAX_PICKLE_BYTES if name == "data.pkl" else 1024):
            raise RefusedError(f"its {quoted(name)} has {entry.file_size} bytes, more than is allowed here")


def read_stream(path: Path) -> Pickled:
    """Read the pickles of the older format: five one after another, then the storages' bytes.

    Raises `RefusedError`, or OSError as it is.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        reader = PickleReader(file.read(MAX_PICKLE_BYTES))
        if reader.read() != _MAGIC or reader.read() != _PROTOCOL:
            raise RefusedError("it is a pickle, but not one of torch's")
        machine = reader.read()
        if type(machine) is not dict or machine.get("little_endian") is not True:
            raise RefusedError("its tensors are stored in big-endian order")
        content = reader.read()
        keys = reader.read()
        if type(keys) is not list or set(map(str, keys)) != set(reader.storages) or len(keys) != len(reader.storages):
            raise RefusedError("its list of storages is broken")
        position = reader.position
        for storage in (reader.storages[key] for key in keys):
            position = _after(file, position, storage)
        if position != size:
            raise RefusedError(f"it has {size} bytes where {position} were due")
    return Pickled(content, frozenset(reader.leftovers), in_archive=False)


def _after(file: BinaryIO, position: int, storage: Storage) -> int:
    """Where a storage's bytes end: 8 bytes of its number of values, then these."""
    file.seek(position)
    length = file.read(8)
    if len(length) < 8 or int.from_bytes(length, "little") * bytes_per_value(storage.dtype) != storage.bytes:
        raise RefusedError(f"the bytes of its storage {quoted(storage.key)} are missing or of another size")
    return position + 8 + storage.bytes
