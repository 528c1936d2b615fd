"""Files written whole or not at all, and what a failed writing means."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from vidkit.errors import CriticalError, Remedy, SetupError

#: of OSError: the disk, or the user's part of it, is full
NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: seconds: longer than reading one of our small files takes
PATIENCE: Final = 1.0 if os.name == "nt" else 0.0

#: bytes that must be free where somebody is sent: more than any clip of the bundled models takes
A_LITTLE: Final = 2**28


def existing_folder(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there already."""
    whole = folder.absolute()
    # os.path.isdir, which raises for no name and no closed folder; a drive that is not there has no folder at all
    return next((path for path in (whole, *whole.parents) if os.path.isdir(path)), Path(whole.anchor))  # noqa: PTH112


def free_disk_bytes(folder: Path) -> int:
    """Free where a folder lies, or will lie once it is made. Raises OSError as it is."""
    return shutil.disk_usage(existing_folder(folder)).free


def next_free_name(path: Path) -> Path:
    """A path where nothing is yet: the name itself, or with a number behind it."""
    numbered = (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


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
        put_in_place(temporary, path)
    finally:
        with suppress(OSError):  # what went wrong is told, not this
            temporary.unlink(missing_ok=True)


def remember(entry: Path, content: Mapping[str, Any]) -> None:
    """JSON in the cache. A full or read-only disk costs only the memory of it."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(entry) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


def remembered(entry: Path) -> dict[str, Any]:
    """What `remember` left; {} where nothing is, or nothing whole."""
    with suppress(OSError, ValueError):
        content = json.loads(entry.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename in one step. On Windows, which refuses that while somebody reads `path`, until the reader is done."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.02)


def partial_files(folder: Path, pid: int) -> list[Path]:
    """What a killed process `pid` left unfinished in `folder` (its clips and their parts), to be removed."""
    return sorted(folder.glob(f".*.{pid}.part.*"))


@contextmanager
def typed_write_errors(path: Path) -> Iterator[None]:
    """An OSError of the block becomes CriticalError `disk_full` or SetupError `output_not_writable` for `path`."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError, *, is_output: bool = False) -> CriticalError | SetupError:
    """What it means that `path` could not be written. is_output: the clip, which `outputPath` can send elsewhere."""
    if error.errno in NO_SPACE:
        return disk_full(
            f"{path} could not be written: {error.strerror}.", path, number=error.errno, is_output=is_output
        )
    return SetupError(
        "output_not_writable",
        f"{path} cannot be written: {error.strerror or error}.",
        [*in_the_way(path, error), *other_places(path, is_output=is_output, on_another_disk=False)],
        ["output_path"] if is_output else [],
    )


def disk_full(
    message: str, path: Path, needed: int = 0, *, number: int | None = errno.ENOSPC, is_output: bool = False
) -> CriticalError:
    """No room for `path`: how much is missing, and where there is some.

    needed: bytes that must be free, if that is known; number: the errno that told it.
    """
    folder = existing_folder(path.parent)
    free = free_disk_bytes(folder)
    if number == errno.EDQUOT:
        first = f"Delete files of yours on the disk of {folder}: your quota of it is used up"
    elif number == errno.EFBIG:
        first = f"Choose another folder than {folder}: larger files are not allowed there (ulimit -f, or a FAT32 disk)"
    elif needed > free:
        first = f"Free {in_words(needed - free)} more on the disk of {folder}: {in_words(free)} are free there"
    else:
        first = f"Free some space on the disk of {folder}: {in_words(free)} are free there"
    return CriticalError(
        "disk_full",
        message,
        [first, *other_places(path, needed, is_output=is_output)],
        ["output_path"] if is_output else [],
    )


def in_the_way(path: Path, error: OSError) -> list[str]:
    """What keeps `path` from being written, as far as it can be seen, and what to do."""
    with suppress(OSError):
        if path.is_dir():
            return [f"Add a file's name: {path} is a folder"]
        obstacle = next((parent for parent in path.parents if parent.is_file()), None)
        if obstacle is not None:
            return [f"Move {obstacle} away: it is a file, where a folder is needed"]
    if error.errno == errno.ENAMETOOLONG:
        return [f"Choose a shorter name: this one has {len(path.name)} characters"]
    folder = existing_folder(path.parent)
    if error.errno == errno.EROFS:
        return [f"Mount the disk of {folder} for writing, or choose another: it is mounted read-only"]
    told = [f"Let this user write into {folder}"]
    if os.name == "nt" and path.exists():  # Windows lets nobody replace what somebody reads
        told.insert(0, f"Close the program that has {path.name} open")
    return told


def other_places(path: Path, needed: int = 0, *, is_output: bool = False, on_another_disk: bool = True) -> list[str]:
    """Up to two folders where this user may write and `needed` bytes are free, most room first."""
    given = existing_folder(path.parent)
    rooms: dict[object, tuple[int, Path]] = {}
    for folder in [Path.home(), Path.cwd(), *mounted_disks()]:
        with suppress(OSError):  # gone, or of another user
            disk = folder.stat().st_dev
            free = free_disk_bytes(folder)
            is_other = disk != given.stat().st_dev if on_another_disk else not folder.samefile(given)
            if is_other and disk not in rooms and os.access(folder, os.W_OK) and free > needed + A_LITTLE:
                rooms[disk] = (free, folder)
    found = sorted(rooms.values(), reverse=True)[:2]
    return [elsewhere(folder / path.name, free, is_output=is_output) for free, folder in found]


def elsewhere(path: Path, free: int, *, is_output: bool) -> str:
    room = f"{in_words(free)} are free there"
    if is_output:
        return Remedy(f"Set outputPath to {path}: {room}", output_path=str(path))
    return f"Choose another folder, for example in {path.parent}: {room}"


def mounted_disks() -> list[Path]:
    """Where the disks of this machine are mounted, those of Windows in WSL too."""
    import psutil  # type: ignore[import-untyped]  # only where something went wrong

    with suppress(OSError):
        return [Path(disk.mountpoint) for disk in psutil.disk_partitions() if Path(disk.mountpoint).is_dir()]
    return []


def in_words(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
