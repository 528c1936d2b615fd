"""The command line as its clients use it: a process, JSON on stdout, progress and log text on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: the protocol's promise for an answer to a signal, seconds
PROMISE = 5.0
GENERATE = (sys.executable, "-m", "vidkit", "generate")


@dataclass(frozen=True)
class Finished:
    """A process that has ended. progress: stderr's JSON lines; log: its others."""

    code: int
    stdout: str
    progress: list[dict[str, Any]]
    log: list[str]

    @property
    def response(self) -> dict[str, Any]:
        """stdout as exactly one JSON document; anything before or after it is an error here."""
        content = json.loads(self.stdout)
        assert isinstance(content, dict)
        return content


def sorted_out(lines: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    progress, log = [], []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            progress.append(event)
        else:
            log.append(line)
    return progress, log


def run(
    *arguments: str | Path, command: tuple[str, ...] = GENERATE, stdin: bytes | None = None, **more: Any
) -> Finished:
    """Run a command to its end. stdin None: /dev/null."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, timeout=120, **source, **more)
    return Finished(done.returncode, done.stdout.decode(), *sorted_out(done.stderr.decode().splitlines()))


class Running:
    """A command that runs while the test looks on."""

    def __init__(self, *arguments: str, command: tuple[str, ...] = GENERATE, **more: Any) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def progress(self) -> list[dict[str, Any]]:
        return sorted_out(list(self.lines))[0]

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def send(self, request: dict[str, Any]) -> None:
        self.write(json.dumps(request) + "\n")

    def response(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        content = json.loads(self.process.stdout.readline())
        assert isinstance(content, dict)
        return content

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The response to one line, and the progress on the way to it."""
        self.lines.clear()
        self.send(request)
        response = self.response()
        if response["status"] == "success":  # said on another pipe, which may be read later
            wait_for(lambda: any(event["progress"] == 100 for event in self.progress))
        return response, self.progress

    def worker(self) -> int:
        """The process id of the only child."""
        return wait_for(lambda: children(self.process.pid))[0]

    def wait_for_step(self, step: int) -> None:
        """Until this many denoising steps are done: torch is loaded and at work."""
        wait_for(lambda: any(event.get("step", 0) >= step for event in self.progress), seconds=60)

    def finish(self) -> Finished:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        stdout = self.process.stdout.read()
        code = self.process.wait(60)
        self._reader.join(10)
        return Finished(code, stdout, *sorted_out(self.lines))

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(OSError):  # what was not read any more
                    stream.close()


def quickest(act: Callable[[], Any]) -> float:
    """Seconds of the quickest of five times, which other work on the machine has least to do with."""

    def seconds() -> float:
        began = time.perf_counter()
        act()
        return time.perf_counter() - began

    return min(seconds() for _ in range(5))


def wait_for(condition: Callable[[], Any], seconds: float = 10) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)
    return value


def together(processes: list[subprocess.Popen[str]]) -> None:
    """Processes that said a line, and wait for one, go on at once."""
    for process in processes:
        assert process.stdout is not None and process.stdout.readline()
    for process in processes:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "VIDKIT_HOME": str(home), **more}


def save_picture(path: Path, size: tuple[int, int] = (160, 90)) -> Path:
    """A colour gradient with a hard edge."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, np.where(x + y > 255, 255, 0)], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def assert_good_progress(events: list[dict[str, Any]]) -> None:
    percents = [event["progress"] for event in events]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert max(after - before for before, after in pairwise(percents)) <= 5, percents
    assert all(isinstance(event["progress"], int) and event["message"] for event in events)
    denoising = [event for event in events if "step" in event]
    assert denoising
    assert all(set(event) - {"etaSeconds"} == {"progress", "message", "step", "steps"} for event in denoising)
    assert any(event.get("etaSeconds", -1) >= 0 for event in denoising)
