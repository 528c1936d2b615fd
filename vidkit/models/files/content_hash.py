"""A model's identity: the SHA-256 of its files' contents, remembered by path, inode, size and time.

In memory for all files, so that a second look opens none; on disk, for other processes, where hashing takes a while.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from vidkit.errors import SetupError
from vidkit.files import remember
from vidkit.models.files.file_format import examine
from vidkit.models.files.file_identity import FileIdentity, RememberedByFile, identity_of
from vidkit.settings import Settings

#: What decides a model's output. Readmes, pictures and logs beside it don't.
HASHED_SUFFIXES: Final = frozenset({".safetensors", ".json", ".txt", ".bin", ".ckpt", ".pt", ".pth"})

#: bytes read between two calls of `check`
BLOCK: Final = 1 << 22
#: files of more bytes are remembered on disk
LARGE: Final = 1 << 20

_hashes: Final[RememberedByFile[str]] = RememberedByFile(most=4096)
#: places that this process has written already
_places: Final[set[tuple[Path, Path]]] = set()


def hash_model(path: Path, settings: Settings, check: Callable[[], None] = lambda: None, *, anew: bool = False) -> str:
    """SHA-256 (hex) of a file, or of a folder's relevant files: of the sorted lines "sha256  relative/path".

    check: called before each `BLOCK` that is read; may raise to stop (a 10 GB model takes seconds the first time).
    anew: read every file, whatever is remembered of it, as for finding damage; `hashed_bytes` are read.

    Raises:
        SetupError: `invalid_model`, when a file cannot be read.
    """
    try:
        lines = [(hash_file(file, settings, check, anew=anew), file) for file in hashed_files(path)]
    except OSError as error:
        raise unreadable(error) from error
    if path.is_file():
        sha256 = lines[0][0]
    else:
        text = "".join(f"{digest}  {file.relative_to(path).as_posix()}\n" for digest, file in lines)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
    entry = place_file(sha256, settings)
    if (entry, path) not in _places or not entry.exists():
        remember(entry, {"path": str(path)})
        _places.add((entry, path))
    return sha256


def hashed_files(path: Path) -> list[Path]:
    """The files whose contents make a model's hash: the file itself, or those in a folder, in order."""
    if path.is_file():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in HASHED_SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    ]


def hashed_bytes(path: Path) -> int:
    """How much `hash_model` reads the first time.

    Raises:
        SetupError: `invalid_model`, when a file cannot be read.
    """
    try:
        return sum(file.stat().st_size for file in hashed_files(path))
    except OSError as error:
        raise unreadable(error) from error


def hash_file(path: Path, settings: Settings, check: Callable[[], None] = lambda: None, *, anew: bool = False) -> str:
    """SHA-256 (hex) of a file's content, read once until the file changes. Arguments as for `hash_model`.

    Raises OSError as it is.
    """
    if anew:
        return _hashes.get_anew(path, lambda file: _hashed_and_noted(file, settings, check))
    return _hashes.get(path, lambda file: noted_hash(file, settings) or _hashed_and_noted(file, settings, check))


def note_hash(path: Path, sha256: str, settings: Settings) -> None:
    """Remember the SHA-256 of a file that was hashed while it came: it need not be read once more.

    Raises OSError as it is.
    """

    def known(file: Path) -> str:
        _note(identity_of(file), sha256, settings)
        return sha256

    _hashes.get_anew(path, known)


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


def noted_hash(path: Path, settings: Settings) -> str | None:
    """What another process, or this one before, has noted of a large file as it is now."""
    identity = identity_of(path)
    if identity.size > LARGE:
        with suppress(OSError, ValueError, KeyError, TypeError):  # no entry, or a broken one: hash again
            return str(json.loads(_note_file(identity, settings).read_text(encoding="utf-8"))["sha256"])
    return None


def _hashed_and_noted(path: Path, settings: Settings, check: Callable[[], None]) -> str:
    identity = identity_of(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        check()
        while block := file.read(BLOCK):
            digest.update(block)
            check()
    if identity_of(path) == identity:
        _note(identity, digest.hexdigest(), settings)
    return digest.hexdigest()


def _note(identity: FileIdentity, sha256: str, settings: Settings) -> None:
    if identity.size > LARGE:
        remember(_note_file(identity, settings), {"path": identity.path, "sha256": sha256})


def _note_file(identity: FileIdentity, settings: Settings) -> Path:
    text = f"{identity.path}|{identity.inode}|{identity.size}|{identity.mtime_ns}"
    return settings.cache / "hashes" / (hashlib.sha256(os.fsencode(text)).hexdigest() + ".json")


def unreadable(error: OSError) -> SetupError:
    return SetupError(
        "invalid_model",
        f"The model's file {error.filename} cannot be read: {error.strerror or error}.",
        ["Let this user read it", examine(error.filename)],
    )
