"""A sweep that runs beside the notebook: started, looked at, stopped. It outlives the kernel that started it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psutil  # type: ignore[import-untyped]  # comes with ipykernel

from vidkit.errors import EXIT_CANCELLED, EXIT_CODES, InputError
from vidkit.files import typed_write_errors
from vidkit.panel.history import subfolders
from vidkit.panel.on_its_own import ask_to_end, on_its_own
from vidkit.runs import RunFolder
from vidkit.runs.folder import FOLDER_NAME, read_failure
from vidkit.sweep.seeds import PLAN_FILE
from vidkit.sweep.status import RUNNER_FILES, Status, live_runner, read_status

LOG: Final = "sweep.log"
REPORT: Final = "report.html"
#: a failed point is no failure of the sweep
ENDED_WELL: Final = (0, EXIT_CODES["generation"])

State = Literal["starting", "running", "reporting", "finished", "stopped", "broken"]


@dataclass(frozen=True)
class Look:
    """How a sweep is now. status: None while it has no plan; problem: why it is broken, in words."""

    state: State
    status: Status | None = None
    problem: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in ("finished", "stopped", "broken")


@dataclass(frozen=True)
class PointEnd:
    """A point that has ended. failure: why it failed, None when it is done."""

    axes: Mapping[str, Any]
    run: RunFolder
    failure: str | None = None


class SweepProcess:
    """The sweep in the folder `root`. process: None when somebody else has started it."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.root, self._process = root, process

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def report(self) -> Path:
        return self.root / REPORT

    def look(self) -> Look:
        code = self._process.poll() if self._process is not None else None
        lives = self._process is not None and code is None
        try:
            status = read_status(self.root)
        except InputError:  # it has no plan yet, or will never have one
            status = None
        if status is not None and status.state == "running":
            return Look("running", status)
        if lives:
            return Look("reporting" if status is not None and status.state == "finished" else "starting", status)
        if code in ENDED_WELL or (code is None and status is not None):
            return Look("finished" if status is not None and status.state == "finished" else "stopped", status)
        if code in (EXIT_CANCELLED, -signal.SIGTERM):
            return Look("stopped", status)
        why = "its folder is gone" if code is None else f"it ended with exit code {code}"
        return Look("broken", status, last_words(self.root / LOG) or f"{why}.")

    def ended_points(self) -> list[PointEnd]:
        """In the order of the plan."""
        try:
            points = json.loads((self.root / PLAN_FILE).read_text(encoding="utf-8"))["points"]
            known = [(point["axes"], RunFolder(self.root, point["key"])) for point in points]
        except (OSError, ValueError, LookupError, TypeError):
            return []
        ends = [end_of(axes, run) for axes, run in known]
        return [end for end in ends if end is not None]

    def stop(self) -> None:
        """Ask it to end: the point that it works on is left out, those that are done are kept.

        Raises:
            InputError: `invalid_request`: it is no process that may be ended from here.
        """
        if self._process is not None:
            if self._process.poll() is None:
                ask_to_end(self._process.pid)
            return
        for file in self.root.glob(RUNNER_FILES):
            runner = live_runner(file)
            if runner is None:
                continue
            if not is_sweep_command(runner):
                raise InputError(
                    "invalid_request",
                    f"{self.name} is run by another program (process {runner['pid']} on {runner['host']}).",
                    ["Stop it there"],
                )
            ask_to_end(int(runner["pid"]))


def start_sweep(file: Path, root: Path) -> SweepProcess:
    """`vidkit sweep FILE --output ROOT` in a session of its own; what it says goes into `sweep.log` in root.

    Raises:
        SetupError: `output_not_writable`; CriticalError: `disk_full`.
    """
    command = [sys.executable, "-m", "vidkit", "sweep", str(file), "--output", str(root)]
    with typed_write_errors(root / LOG):
        root.mkdir(parents=True, exist_ok=True)
        with (root / LOG).open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **on_its_own()
            )
    return SweepProcess(root, process)


def running_sweeps(runs: Path) -> list[SweepProcess]:
    """Those in the folders of `runs` that somebody works on now."""
    folders = [runs / name for name in subfolders(runs) if not FOLDER_NAME.fullmatch(name) and not name.startswith(".")]
    return [SweepProcess(root) for root in folders if any(map(live_runner, root.glob(RUNNER_FILES)))]


def is_sweep_command(runner: Mapping[str, Any]) -> bool:
    """Whether it is `vidkit sweep` on this machine: a kernel that runs a sweep in a cell must not be ended."""
    try:
        arguments = psutil.Process(int(runner["pid"])).cmdline()
    except psutil.Error:
        return False
    return (
        runner["host"] == socket.gethostname()
        and "sweep" in arguments
        and any("vidkit" in argument for argument in arguments)
    )


def end_of(axes: Mapping[str, Any], run: RunFolder) -> PointEnd | None:
    if run.manifest.is_file():
        return PointEnd(axes, run)
    failure = read_failure(run) if run.failure.is_file() else None
    if failure is None:
        return None
    return PointEnd(axes, run, str((failure.error or {}).get("message", "")))


def last_words(log: Path) -> str:
    """The error that the command ended with, as it stands in its log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            answer = json.loads(line)
            return " ".join([answer["message"], *answer["suggestions"]])
        except (ValueError, LookupError, TypeError):
            continue
    return lines[-1] if lines else ""
