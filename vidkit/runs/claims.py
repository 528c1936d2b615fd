"""Who makes a run: exactly one runner at a time, whatever process or machine it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock, SoftFileLock, Timeout

from vidkit.errors import SetupError
from vidkit.files import typed_write_errors
from vidkit.runs.folder import RunFolder, run_folders

POLL_SECONDS: Final = 0.2

State = Literal["ours", "busy", "done", "failed"]


@dataclass(frozen=True)
class Claim:
    """What came of asking for a run; true when it is ours to make.

    state: "ours"; "busy", another runner has it; "done" or "failed", nothing is left to do.
    """

    run: RunFolder
    state: State

    def __bool__(self) -> bool:
        return self.state == "ours"


@contextmanager
def claim(root: Path, key: str, *, wait: bool = False, failures: int = 0) -> Iterator[Claim]:
    """Take a run, unless it is done or another runner has it. It is ours until the block ends.

    The system frees it when its holder is killed, however: the lock is the open file's, and nothing is decided by ages
    or process numbers. Who takes it finds an empty folder: what a dead runner left is removed, and so is what the block
    leaves without a manifest or a failure. Start no process in the block that inherits this one's open files (as fork
    does, and subprocess does not): it would keep the claim.

    Args:
        wait: for a runner that has it, until that is done with it or dead.
        failures: failed attempts (`RunFolder.attempts`) to try again after. With more than that on record, another
            runner has tried in the meantime, and the state is "failed".

    Raises:
        SetupError: `output_not_writable`: the folder cannot be written to, or its file system has no locks.
        CriticalError: `disk_full`.
    """
    run = RunFolder(root, key)
    settled = settled_state(run, failures)
    if settled:
        yield Claim(run, settled)
        return
    with locked(run, wait) as held:
        state = (settled_state(run, failures) or "ours") if held else "busy"
        if state != "ours":
            yield Claim(run, state)
            return
        before = run.attempts()
        with typed_write_errors(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            run.clear()
        try:
            yield Claim(run, state)
        finally:
            if not run.is_done() and run.attempts() == before:
                remove_unfinished(run)


def settled_state(run: RunFolder, failures: int) -> Literal["done", "failed"] | None:
    if run.is_done():
        return "done"
    return "failed" if run.attempts() > failures else None


@contextmanager
def locked(run: RunFolder, wait: bool) -> Iterator[bool]:
    """Whether the run's lock is ours while the block runs."""
    with typed_write_errors(run.lock):
        run.lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.lock)
        try:
            lock.acquire(blocking=wait, poll_interval=POLL_SECONDS)
        except Timeout:
            held = False
        except NotImplementedError as error:  # older filelock
            raise no_locks(run) from error
        else:
            held = True
    if isinstance(lock, SoftFileLock):  # filelock's way out where there is no flock: a killed holder would keep it
        lock.release()
        raise no_locks(run)
    try:
        yield held
    finally:
        lock.release()


def no_locks(run: RunFolder) -> SetupError:
    return SetupError(
        "output_not_writable",
        f"The file system of {run.root} has no file locks, so two runners could make the same clip there.",
        ["Choose a folder on a local disk", "Mount the shared folder with locks (NFS 4, Lustre: -o flock)"],
    )


def remove_unfinished(run: RunFolder) -> None:
    with suppress(OSError):  # what stays does not count, and the next who claims the run removes it
        run.clear()
        run.path.rmdir()  # stays when something of the user's is in it


def clean(root: Path) -> list[str]:
    """Remove what killed runners left of runs that are neither done nor failed; the names of those that had something.

    Runs that are being made are left alone. Not needed before a sweep: whoever makes a run begins with an empty folder.
    """
    removed = []
    for run in run_folders(root):
        with claim(root, run.name) as ours:
            if ours:
                removed.append(run.name)
    return removed
