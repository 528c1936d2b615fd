"""Files written whole or not at all, and what a failed writing means."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vidkit.errors import CriticalError, SetupError

#: of OSError: the disk, or the user's part of it, is full
NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def free_disk_bytes(folder: Path) -> int:
    """Free where a folder lies, or will lie once it is made. Raises OSError as it is."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def temporary_beside(path: Path) -> Path:
    """The name under which this thread writes `path` until it is whole: in the same folder, hidden."""
    return path.with_name(f".{path.name}.{threading.get_ident()}.{os.getpid()}.part{path.suffix or '.tmp'}")


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a name beside `path` to write; at the end it becomes `path` in one step, or nothing is left of it.

    durable: also after a power cut, for some milliseconds. Raises OSError as it is.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        if durable:
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):  # what went wrong is told, not this
            temporary.unlink(missing_ok=True)


def partial_files(folder: Path, pid: int) -> list[Path]:
    """What a killed process `pid` left unfinished in `folder` (its clips and their parts), to be removed."""
    return sorted(folder.glob(f".*.{pid}.part.*"))


@contextmanager
def typed_write_errors(path: Path) -> Iterator[None]:
    """An OSError of the block becomes CriticalError `disk_full` or SetupError `output_not_writable` for `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise CriticalError(
                "disk_full", f"{path} could not be written: {error.strerror}.", ["Free some space; run it again"]
            ) from error
        raise SetupError(
            "output_not_writable",
            f"{path} cannot be written: {error.strerror or error}.",
            ["Choose a folder that you may write to"],
        ) from error
