"""Where a queue's requests stand on disk, so that a crash loses none: one file for each process that has a queue.

A lock file tells whether that process still lives, as the claims of runs do: the system frees it when its holder ends,
however. Nothing is decided by ages or process numbers.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, SoftFileLock, Timeout

from vidkit.errors import InputError, SetupError
from vidkit.files import typed_write_errors, written_whole
from vidkit.params import GenerationParams

logger = logging.getLogger("vidkit")

VERSION: Final = 1
QUEUE_FILES: Final = "queue-*.json"


@dataclass(frozen=True)
class Kept:
    """A request as it is kept. id: the job's, unique for ever."""

    id: str
    params: GenerationParams


class QueueFile:
    """This process's file. It is private: requests hold paths.

    Raises:
        SetupError: `output_not_writable`: the folder cannot be written to, or its file system has no locks.
        CriticalError: `disk_full`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"queue-{uuid.uuid4().hex}.json"
        with typed_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = held(lock_of(self.path))
        if lock is None:
            raise SetupError(
                "output_not_writable",
                f"The file system of {folder} has no file locks, so two processes could run the same requests.",
                ["Set VIDKIT_HOME to a folder on a local disk"],
            )
        self._lock = lock
        self.closed = False

    def save(self, jobs: Sequence[Kept]) -> None:
        """Keep these requests, in this order. Raises SetupError, CriticalError, as above."""
        with typed_write_errors(self.path):
            if not jobs:
                self.path.unlink(missing_ok=True)
                return
            content = {"version": VERSION, "jobs": [{"id": job.id, "request": job.params.to_wire()} for job in jobs]}
            text = json.dumps(content, ensure_ascii=False, indent=1)
            with written_whole(self.path, durable=True) as temporary:
                temporary.touch(mode=0o600)
                # a lone surrogate (of a file name that is no Unicode) has no UTF-8; as \udcxx it is valid JSON
                temporary.write_bytes(text.encode("utf-8", "backslashreplace"))

    def adopt(self) -> list[Kept]:
        """Take over the requests of processes that have ended, oldest first; they stand in this file from now on."""
        adopted: dict[str, Kept] = {}
        left = []
        for path in sorted(self.path.parent.glob(QUEUE_FILES), key=modified):
            if path == self.path or (lock := held(lock_of(path))) is None:
                continue
            left.append((path, lock))
            adopted |= {job.id: job for job in read(path)}  # one that was killed while adopting has left two copies
        try:
            if adopted:
                self.save(list(adopted.values()))
            for path, _ in left:
                path.unlink(missing_ok=True)
        finally:
            for path, lock in left:
                lock.release()
                remove_lock(path)
        return list(adopted.values())

    def close(self) -> None:
        """Let go of the file: what stands in it is the next process's."""
        self.closed = True
        self._lock.release()
        remove_lock(self.path)


def lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def remove_lock(path: Path) -> None:
    """Only when its file is gone: else another process may hold it by now, and a third would take a new one."""
    if not path.exists():
        with suppress(OSError):  # an empty file that nobody looks at
            lock_of(path).unlink(missing_ok=True)


def held(path: Path) -> Any | None:
    """The lock, now ours; None when another has it, or there are no locks."""
    with typed_write_errors(path):
        lock = FileLock(path, thread_local=False)  # a queue may be closed by another thread than made it
        try:
            lock.acquire(blocking=False)
        except (Timeout, NotImplementedError):
            return None
    if isinstance(lock, SoftFileLock):  # filelock's way out where there is no flock: a killed holder would keep it
        lock.release()
        return None
    return lock


def modified(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def read(path: Path) -> list[Kept]:
    """The requests in a file. What cannot be read is said in the log, and the file put aside under another name."""
    try:
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
    except FileNotFoundError:  # another process has adopted them meanwhile
        return []
    except (OSError, ValueError, LookupError, TypeError) as error:
        put_aside(path, error)
        return []
    readable = []
    for job in jobs:
        try:
            readable.append(Kept(str(job["id"]), GenerationParams(**job["request"])))
        except (LookupError, TypeError, InputError) as error:
            put_aside(path, error)
    return readable


def put_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".unreadable")
    logger.warning("%s holds requests that cannot be read (%s); it is now %s", path, error, aside.name)
    with suppress(OSError):
        shutil.copyfile(path, aside)
