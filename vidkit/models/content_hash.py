"""A model's identity: the SHA-256 of its files' contents, remembered by path, inode, size and time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from vidkit.errors import SetupError
from vidkit.settings import Settings

#: What decides a model's output. Readmes, pictures and logs beside it don't.
HASHED_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".bin", ".ckpt", ".pt", ".pth"})


def hash_model(path: Path, settings: Settings, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 (hex) of a file, or of a folder's relevant files: of the sorted lines "sha256  relative/path".

    check: called between blocks; may raise to stop (a 10 GB model takes seconds the first time).

    Raises:
        SetupError: `invalid_model`, when a file cannot be read.
    """
    try:
        sha256 = hash_file(path, settings, check) if path.is_file() else hash_folder(path, settings, check)
    except OSError as error:
        raise SetupError(
            "invalid_model",
            f"The model's file {error.filename} cannot be read: {error.strerror or error}.",
            ["Check the file and its permissions", "Fetch the model again"],
        ) from error
    remember(place_file(sha256, settings), {"path": str(path)})
    return sha256


def hash_folder(path: Path, settings: Settings, check: Callable[[], None]) -> str:
    lines = [
        f"{hash_file(file, settings, check)}  {file.relative_to(path).as_posix()}\n"
        for file in sorted(path.rglob("*"))
        if file.suffix in HASHED_SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def remembered(sha256: str, settings: Settings) -> Path | None:
    """Where on this machine a model of this hash was last used, if it still is there: clips don't hold paths."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, SetupError):  # no entry, a broken one, or the model is gone
        path = Path(json.loads(place_file(sha256, settings).read_text(encoding="utf-8"))["path"])
        if path.exists() and hash_model(path, settings) == sha256:
            return path
    return None


def place_file(sha256: str, settings: Settings) -> Path:
    return settings.cache / "models" / f"{sha256}.json"


def remember(entry: Path, content: Mapping[str, str]) -> None:
    with suppress(OSError):  # a full or read-only disk costs only the memory of it
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(entry)


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
        remember(entry, {"path": str(path), "sha256": digest.hexdigest()})
    return digest.hexdigest()
