"""Where a user's processes that share a device leave word for each other: a folder that only this user may enter.

A process is there as long as its lock file is locked, which the system ends with the process, however it ends: nothing
is decided by process numbers. What it says of itself is JSON beside that, which may be missing (a full disk).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs
import psutil  # type: ignore[import-untyped]  # comes with ipykernel
from filelock import FileLock, SoftFileLock

from vidkit.files import remembered, written_whole

#: Seconds without a sign of life, after which a process is passed over: it was stopped (Ctrl-Z), or hangs whole. A long
#: computation is none: a thread of its own gives the signs.
DEAF: Final = 30.0

#: seconds that count as silence between two looks, at most
BEAT: Final = 1.0

#: seconds to lock a new file of our own: somebody may be looking whether its owner lives
OWN_SECONDS: Final = 2.0


class UnusableError(OSError):
    """The folder cannot be used: it is not this user's alone, or its file system has no locks."""


class Sign:
    """A file that stands for this process in the folder, until it is removed or the process ends.

    Args:
        kind: what it stands for, the beginning of its name.
        order: signs of a kind are listed in this order.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path, kind: str, order: int = 0) -> None:
        self._owner = os.getpid()
        self.path = folder / f"{kind}-{order:020d}-{self._owner}-{secrets.token_hex(4)}.lock"
        self._lock = locked(self.path, OWN_SECONDS)

    def say(self, **content: Any) -> None:
        """What others can read of it; left out when it cannot be written."""
        with suppress(OSError), written_whole(said(self.path)) as temporary:
            temporary.write_text(json.dumps({"pid": os.getpid(), **content}), encoding="utf-8")

    def beat(self) -> None:
        """Show that this process goes on."""
        with suppress(OSError):
            os.utime(self.path)

    @property
    def asked(self) -> Path:
        """The file in which another process asks something of this one; it goes when that is done."""
        return asked(self.path)

    def remove(self) -> None:
        if self._owner != os.getpid():  # a forked child has a copy, and leaves the block that it was made in
            return
        remove_files(self.path)
        self._lock.release()
        remove_files(self.path)  # Windows removes no file that is open


@dataclass(frozen=True)
class Peer:
    """Another process's sign. content: what it says of itself, {} when nothing is known but that it is there."""

    path: Path
    content: dict[str, Any]

    @property
    def pid(self) -> int:
        return int(self.path.name.split("-")[2])

    @property
    def in_words(self) -> str:
        program = self.content.get("program")
        return f"process {self.pid}" + (f" ({program})" if program else "")

    @property
    def bytes(self) -> int:
        """Of device memory that it holds; 0 when not known."""
        size = self.content.get("bytes")
        return size if isinstance(size, int) else 0

    @property
    def asked(self) -> Path:
        return asked(self.path)

    def quiet_for(self) -> float:
        """Seconds since its last sign of life; of who holds models, since its last turn."""
        return time.time() - self.last_beat()

    def asked_for(self) -> float:
        """Seconds since it was asked something that it has not done yet; 0 when there is nothing."""
        with suppress(OSError):
            return time.time() - self.asked.stat().st_mtime
        return 0.0

    def lives(self) -> bool:
        """Whether its sign still stands; that of a process which has ended is cleared away."""
        try:
            lock = locked(self.path)
        except OSError:  # it is locked; on Windows also: it is just being removed
            return self.path.exists()
        remove_files(self.path)
        lock.release()
        remove_files(self.path)
        return False

    def last_beat(self) -> float:
        """The time of its last sign of life, by the file system's clock; 0 when it has gone."""
        with suppress(OSError):
            return self.path.stat().st_mtime
        return 0.0


class Silence:
    """How long others have given no sign of life, by what was seen here: clocks jump, and machines sleep."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, float, float]] = {}  # last sign, seconds without one, when looked at

    def parted(self, others: list[Peer]) -> tuple[list[Peer], list[Peer]]:
        """Those that live, and those that have not been heard of for long."""
        now, seen = time.monotonic(), {}
        for peer in others:
            beat = peer.last_beat()
            before, seconds, looked = self._seen.get(peer.path, (beat, 0.0, now))
            seen[peer.path] = (beat, seconds + min(now - looked, BEAT) if beat == before else 0.0, now)
        self._seen = seen
        deaf = [peer for peer in others if seen[peer.path][1] > DEAF]
        return [peer for peer in others if peer not in deaf], deaf


def has_turn(peer: Peer) -> bool:
    return bool(peer.content.get("turn"))


def peers(folder: Path, kind: str) -> list[Peer]:
    """The signs of one kind of all processes that live, this one's too, in order.

    Raises:
        OSError: the folder cannot be read.
    """
    paths = sorted(path for path in folder.iterdir() if path.name.startswith(f"{kind}-") and path.suffix == ".lock")
    found = [Peer(path, remembered(said(path))) for path in paths]
    return [peer for peer in found if peer.lives()]


def locked(path: Path, timeout: float = 0) -> FileLock:
    """The lock of a file, now ours. It goes to no child process, and ends with this one.

    Raises:
        Timeout: another has it (an OSError); UnusableError: there are no such locks; OSError: others.
    """
    lock = FileLock(path, mode=0o600, thread_local=False)
    lock.acquire(timeout=timeout)
    if isinstance(lock, SoftFileLock):  # filelock's way out where there is no flock: a killed holder would keep it
        lock.release()
        raise UnusableError(f"{path.parent} is on a file system without locks")
    return lock


def said(path: Path) -> Path:
    return path.with_suffix(".json")


def asked(path: Path) -> Path:
    return path.with_suffix(".asked")


def remove_files(path: Path) -> None:
    for file in (said(path), asked(path), path):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def waiting_in_words(label: str, before: list[Peer]) -> str:
    """before: who comes first, or sleeps; empty when that is not known."""
    if not before:
        return f"Waiting for {label}: another process is at work..."
    first = [*before[:1], *filter(has_turn, before)][-1]
    more = len(before) - 1
    waiting = f" ({more} more {'wait' if more > 1 else 'waits'} for it)" if more else ""
    return f"Waiting for {label}: {first.in_words} is {first.content.get('doing', 'at work')}{waiting}..."


def folder_for(identity: str) -> Path:
    """The folder of a device, made if need be, in the platform's runtime folder of this user.

    Raises:
        OSError: it cannot be made; UnusableError: other users could enter it or put another in its place.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no XDG_RUNTIME_DIR, as in containers
        runtime = Path(platformdirs.user_runtime_dir("vidkit", appauthor=False))
    folder = runtime / re.sub(r"[^\w.-]", "_", identity)[:100]
    for part in (runtime.parent, runtime, folder):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(part, alone=part != runtime.parent)
    return folder


def check_private(folder: Path, *, alone: bool) -> None:
    """Raises UnusableError unless nobody else can change what is in it. alone: nor even enter it."""
    if sys.platform == "win32":
        return  # it is in the user's profile
    found = folder.lstat()
    mode = stat.S_IMODE(found.st_mode)
    ours = found.st_uid == os.geteuid() or (not alone and found.st_uid == 0)
    forbidden = 0o077 if alone else 0 if mode & stat.S_ISVTX else 0o022
    if not stat.S_ISDIR(found.st_mode) or not ours or mode & forbidden:
        raise UnusableError(f"{folder} is not this user's alone (owner {found.st_uid}, mode {mode:04o})")


def program_in_words(pid: int | None = None) -> str:
    """What a process is to its user: "vidkit sweep", "a notebook", else its program's name; "" when not known.

    A worker, or a sweep's kernel, is what has started it.
    """
    try:
        process = psutil.Process(pid)
        commands = [ancestor.cmdline() for ancestor in (process, *process.parents()[:3])]
    except psutil.Error:
        return ""
    for words in commands:
        for place, word in enumerate(words[:6]):
            if Path(word).stem == "vidkit" and (place < 2 or words[place - 1] == "-m"):
                verb = next(iter(words[place + 1 :]), "")
                return f"vidkit {verb}" if re.fullmatch(r"[a-z]+", verb) else "vidkit"
    if any("ipykernel" in word for word in commands[0]):
        return "a notebook"
    return str(process.name())
