"""Requests, finished clips and other processes for the tests of the panel's backend."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from clips import Frames, svd_request
from run_folders import manifest_of

from vidkit.params import GenerationParams
from vidkit.runs import RunFolder, write_manifest
from vidkit.video import write_video


def request(model: Path, image: Path, **more: Any) -> GenerationParams:
    return GenerationParams(**svd_request(model, image, **{"num_frames": 2, "num_inference_steps": 1, **more}))


def key_number(number: int) -> str:
    return f"{number:016x}" * 4


def moving(frames: int = 3, size: tuple[int, int] = (32, 48)) -> Frames:
    """A bright bar that moves one step a frame."""
    clip = np.full((frames, *size, 3), 40, np.uint8)
    for number, frame in enumerate(clip):
        frame[:, 4 * number : 4 * number + 4] = 220
    return clip


def made(root: Path, number: int, frames: Frames | None = None, **more: Any) -> RunFolder:
    """A finished run without a model: the clip of some frames, or bytes that are no clip where none are given."""
    run = RunFolder(root, key_number(number))
    run.path.mkdir(parents=True)
    if frames is None:
        run.clip().write_bytes(b"no clip")
    else:
        write_video(frames, run.clip(), fps=8, output_format="mp4", record={"any": "record"})
    finished = f"2026-01-{number // 1440 % 28 + 1:02d}T{number // 60 % 24:02d}:{number % 60:02d}:00+00:00"
    write_manifest(run, manifest_of(run.key, finished=finished, **more))
    return run


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.01)


PRELUDE = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from vidkit.params import GenerationParams
from vidkit.panel.queue import JobQueue
root, folder = Path({root!r}), Path({folder!r})
requests = [GenerationParams(**one) for one in json.loads({requests!r})]
def tell(*words):
    print(*words, flush=True)
"""


@contextmanager
def process(
    root: Path, folder: Path, requests: list[GenerationParams], code: str, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Another Python that runs code with `root`, `folder`, `requests`, `JobQueue`; killed when the block ends."""
    texts = json.dumps([one.to_wire() for one in requests])
    prelude = PRELUDE.format(tests=str(Path(__file__).parent), root=str(root), folder=str(folder), requests=texts)
    command = [sys.executable, "-c", prelude + textwrap.dedent(code)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()
