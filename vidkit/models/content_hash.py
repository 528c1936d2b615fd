"""A model's identity: the SHA-256 of its files' contents, remembered by path, inode, size and time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vidkit.settings import Settings

#: What decides a model's output. Readmes, pictures and logs beside it don't.
HASHED_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".bin", ".ckpt", ".pt", ".pth"})


def hash_model(path: Path, settings: Settings, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 (hex) of a file, or of a folder's relevant files: of the sorted lines "sha256  relative/path".

    check: called between blocks; may raise to stop (a 10 GB model takes seconds the first time).
    """
    if path.is_file():
        return hash_file(path, settings, check)
    lines = [
        f"{hash_file(file, settings, check)}  {file.relative_to(path).as_posix()}\n"
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.suffix in HASHED_SUFFIXES and not file.name.startswith(".")
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_file(path: Path, settings: Settings, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 (hex) of a file; large files are remembered in the cache folder until they change."""
    status = path.stat()
    identity = f"{path}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}"
    entry = settings.cache / "hashes" / (hashlib.sha256(os.fsencode(identity)).hexdigest() + ".json")
    large = status.st_size > 1 << 20
    if large:
        with suppress(OSError, ValueError, KeyError, TypeError):  # no entry, or a broken one: hash again
            return str(json.loads(entry.read_text())["sha256"])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            check()
            digest.update(block)
    if large:
        with suppress(OSError):  # a full or read-only disk costs only the memory of it
            entry.parent.mkdir(parents=True, exist_ok=True)
            temporary = entry.with_suffix(f".{os.getpid()}.part")
            temporary.write_text(json.dumps({"path": str(path), "sha256": digest.hexdigest()}))
            temporary.replace(entry)
    return digest.hexdigest()
