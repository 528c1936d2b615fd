"""Run folders as runners leave them, and other processes that work on them. Loads no torch."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidkit.errors import CriticalError
from vidkit.runs import RunFolder, describe_error, write_manifest

KEY = "0123456789abcdef" * 4
CLIP = b"a clip's bytes"


def manifest_of(key: str = KEY, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "key": key,
        "status": "done",
        "axes": {"seed": 3},
        "request": {"pipeline": "svd", "seed": 3, "numFrames": 14},
        "seed": 3,
        "timing": {"denoise": 4.1, "total": 5.4},
        "metrics": {"motion": 1.9, "firstFramePsnr": None},
        "files": {"clip": "clip.mp4"},
        "attempts": 1,
        "error": None,
        **more,
    }


def failure_of(key: str = KEY, **more: Any) -> dict[str, Any]:
    error = describe_error(CriticalError("gpu_driver", "The GPU fell off the bus.", ["Restart"]))
    return manifest_of(key, status="failed", files={}, error=error, **more)


def make(run: RunFolder) -> None:
    """A finished run, as a runner leaves it."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.clip().write_bytes(CLIP)
    write_manifest(run, manifest_of(run.key))


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


PRELUDE = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from run_folders import CLIP, KEY, failure_of, make, manifest_of
from vidkit.runs import *
root = Path({root!r})
def tell(*words):
    print(*words, flush=True)
"""


@contextmanager
def process(root: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python that runs code with `root`, `tell` and what this module has; killed when the block ends."""
    prelude = PRELUDE.format(root=str(root), tests=str(Path(__file__).parent))
    running = subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def heard(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def kill(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGKILL)
    running.wait(10)
