"""A download that runs beside the notebook: started, looked at, stopped. It outlives the kernel that started it.

It is a process of its own, so that the kernel itself never goes to the network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psutil  # type: ignore[import-untyped]  # comes with ipykernel

from vidkit.files import typed_write_errors, written_whole
from vidkit.panel.on_its_own import ask_to_end, on_its_own
from vidkit.settings import home

#: seconds after which a download that has ended is forgotten
KEPT: Final = 24 * 3600
#: bytes at the end of a log, in which its last lines are
TAIL: Final = 1 << 14
#: seconds by which two clocks may tell a process's start apart
SLACK: Final = 1.0

State = Literal["running", "done", "cancelled", "failed"]


@dataclass(frozen=True)
class Look:
    """How a download is now. percent and message: the last that it said; answer: its result or error, once over."""

    state: State
    percent: int = 0
    message: str = ""
    answer: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        return self.state != "running"


class DownloadProcess:
    """A `vidkit models download` by its note in the data folder. process: None when another kernel has started it."""

    def __init__(self, note: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self._note, self._process = note, process
        content = json.loads(note.read_text(encoding="utf-8"))
        self.what, self._pid, self._started = str(content["what"]), int(content["pid"]), float(content["started"])

    @property
    def _log(self) -> Path:
        return self._note.with_suffix(".log")

    def look(self) -> Look:
        lives = self._lives()  # before its log is read: what it says last is then there
        percent, message, answer = 0, "Starting…", None
        for event in last_events(self._log):
            if "progress" in event:
                percent, message = event["progress"], event["message"]
            elif "status" in event:
                answer = event
        if lives:
            return Look("running", percent, message)
        if answer is None:
            words = last_line(self._log) or "it ended without a word"
            return Look("failed", percent, f"{words}; what has come is kept, Download goes on from there.")
        if answer["status"] == "success":
            return Look("done", 100, message, answer)
        told = " ".join([answer["message"], *(f"{one.rstrip('.')}." for one in answer["suggestions"])])
        return Look("cancelled" if answer["code"] == "cancelled" else "failed", percent, told, answer)

    def stop(self) -> None:
        """Ask it to end; what has come is kept."""
        if self._process is not None:
            if self._process.poll() is None:
                ask_to_end(self._process.pid)
        elif (other := self._other()) is not None:
            ask_to_end(other.pid)

    def forget(self) -> None:
        """Leave no trace of one that is over; what it has brought stays."""
        for file in (self._note, self._log):
            file.unlink(missing_ok=True)

    def _lives(self) -> bool:
        return self._process.poll() is None if self._process is not None else self._other() is not None

    def _other(self) -> psutil.Process | None:
        """The process that another kernel has started, if it still runs and is no later one of the same number."""
        try:
            process = psutil.Process(self._pid)
            same = abs(process.create_time() - self._started) < SLACK and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if same else None


def start_download(wanted: str, name: str | None = None) -> DownloadProcess:
    """`vidkit models download WANTED` in a session of its own.

    wanted: goes to it on its standard input, as an address may hold a token, and command lines are there for all to
    see.

    Raises:
        SetupError: `output_not_writable`; CriticalError: `disk_full`.
    """
    folder = notes_folder()
    note = folder / f"{uuid.uuid4().hex[:12]}.json"
    command = [sys.executable, "-m", "vidkit", "models", "download", "--json", *(["--name", name] if name else []), "-"]
    with typed_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with note.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, **on_its_own()
            )
        if process.stdin is not None:
            process.stdin.write(wanted.encode() + b"\n")
            process.stdin.close()
        started = psutil.Process(process.pid).create_time()
        with written_whole(note) as temporary:
            content = {"what": name or without_secrets(wanted), "pid": process.pid, "started": started}
            temporary.write_text(json.dumps(content), encoding="utf-8")
    return DownloadProcess(note, process)


def known_downloads() -> list[DownloadProcess]:
    """Those that run, and those that have ended lately, the oldest first; older ones are forgotten."""
    known = []
    for note in sorted(notes_folder().glob("*.json"), key=lambda file: file.stat().st_mtime):
        try:
            process = DownloadProcess(note)
        except (OSError, ValueError, LookupError, TypeError):  # a damaged note says nothing
            continue
        if process.look().is_over and time.time() - note.stat().st_mtime > KEPT:
            process.forget()
        else:
            known.append(process)
    return known


def notes_folder() -> Path:
    return home() / "panel" / "downloads"


def without_secrets(wanted: str) -> str:
    """An address without what may be a password or a token."""
    if "://" not in wanted:
        return wanted
    scheme, _, rest = wanted.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def last_events(log: Path) -> list[dict[str, Any]]:
    """The JSON objects among the last lines of a log."""
    events = []
    for line in last_lines(log):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def last_line(log: Path) -> str:
    return next((line for line in reversed(last_lines(log)) if line and not line.startswith("{")), "")


def last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
