"""Files written whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
