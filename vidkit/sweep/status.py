"""How far a sweep is, for another process to read: what is done stands in the run folders, who works on it here.

Each runner on a sweep's folder has one small file, `.runner-HOST-PID.json`, which it replaces at every event and
removes when it ends. `read_status` puts them together with plan.json and the run folders, so that a runner that was
killed, or a second one, changes nothing about what is said to be done.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]  # comes with ipykernel

from vidkit.errors import InputError
from vidkit.paths import local_path
from vidkit.runs import RunFolder
from vidkit.sweep.seeds import PLAN_FILE, write_json

RUNNER_FILES: Final = ".runner-*.json"
PACE_OF: Final = 50  # points: the last ones tell how long the next will take


@dataclass(frozen=True)
class Status:
    """state: running, finished (nothing is left to run) or stopped; points: their number; seconds: to the end, as far
    as it can be told."""

    state: str
    points: int
    done: int
    failed: int
    running: list[Mapping[str, Any]]
    eta_seconds: float | None
    runners: int

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        content["etaSeconds"] = content.pop("eta_seconds")
        return content

    def line(self) -> str:
        parts = [f"{self.state}: {self.done} of {self.points} done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.running:
            parts.append(f"{len(self.running)} running")
        if self.eta_seconds is not None:
            parts.append(f"{in_words(self.eta_seconds)} left")
        return ", ".join(parts)


def in_words(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


@dataclass
class Pace:
    """Seconds from one finished point to the next, whoever of the workers finished it."""

    seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        self.seconds = [*self.seconds[1 - PACE_OF :], seconds]

    def left(self, points: int) -> float | None:
        """Seconds that so many points will take; None while nothing is known."""
        return statistics.fmean(self.seconds) * points if self.seconds else None


class RunnerFile:
    """This process's file in a sweep's folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / f".runner-{socket.gethostname()}-{os.getpid()}.json"
        self.running: dict[int, dict[str, Any]] = {}

    def began(self, index: int, axes: Mapping[str, Any]) -> None:
        self.running[index] = {"index": index, "axes": dict(axes), "since": datetime.now(UTC).isoformat()}

    def ended(self, index: int) -> None:
        self.running.pop(index, None)

    def write(self, eta_seconds: float | None) -> None:
        write_json(
            self.path,
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "updated": time.time(),
                "running": list(self.running.values()),
                "etaSeconds": eta_seconds,
            },
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def read_status(root: str | Path) -> Status:
    """How far the sweep in a folder is, from any process.

    Raises:
        InputError: `invalid_request`, when no sweep was planned there.
    """
    root = local_path(root)
    try:
        keys = [point["key"] for point in json.loads((root / PLAN_FILE).read_text(encoding="utf-8"))["points"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            "invalid_request",
            f"{root} holds no sweep that was started ({type(error).__name__}: {error}).",
            ["Give the --output folder of a sweep", "Start it: vidkit sweep FILE.yaml --output FOLDER"],
        ) from error
    folders = [RunFolder(root, key) for key in dict.fromkeys(keys)]
    done = sum(folder.is_done() for folder in folders)
    failed = sum(folder.has_failed() for folder in folders)
    runners = [runner for file in root.glob(RUNNER_FILES) if (runner := live_runner(file)) is not None]
    etas = [runner["etaSeconds"] for runner in runners if runner["etaSeconds"] is not None]
    state = "running" if runners else "finished" if done + failed == len(folders) else "stopped"
    return Status(
        state=state,
        points=len(folders),
        done=done,
        failed=failed,
        running=[point for runner in runners for point in runner["running"]],
        eta_seconds=max(etas) / len(runners) if etas else None,
        runners=len(runners),
    )


def live_runner(file: Path) -> dict[str, Any] | None:
    """A runner's file; None when it was just removed, or its process is no more (where that can be told)."""
    try:
        runner: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return runner if runner["host"] != socket.gethostname() or psutil.pid_exists(int(runner["pid"])) else None
