"""The process that makes a check's clips: `vidkit.worker`, which also keeps their frames before any compression."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]

from vidkit import worker
from vidkit.files import typed_write_errors
from vidkit.generation import generate
from vidkit.progress import CancelToken, OnProgress, Progress

#: the user's limit of memory, as an environment variable
LIMIT: Final = "VIDKIT_LIMIT_MEMORY"


def clip(request: dict[str, Any], on_progress: OnProgress, token: CancelToken) -> dict[str, Any]:
    """As the JSON protocol's response, with what a check wants to know beside.

    request: a generation's, and in "check": "frames", the file (.npy) that gets them; "memory", GiB that it may take
    where it computes, or None.
    """
    wanted = request.pop("check")
    steps = 0

    def see(event: Progress) -> None:
        nonlocal steps
        steps = event.steps or steps
        on_progress(event)

    with memory_limit(wanted["memory"]):
        result = generate(
            request,
            on_progress=see,
            cancel=token,
            on_frames=lambda frames: keep(frames, Path(wanted["frames"])),
        )
    beside = {"steps": steps, "hostPeakBytes": host_peak()}
    return {**result.to_json(), "check": beside}


def keep(frames: npt.NDArray[np.uint8], file: Path) -> None:
    """Raises CriticalError `disk_full`; SetupError `output_not_writable`."""
    with typed_write_errors(file):
        np.save(file, frames)


@contextmanager
def memory_limit(gib: float | None) -> Iterator[None]:
    """The limit that a user may set, for what runs here; None: as it was."""
    before = os.environ.get(LIMIT)
    if gib is not None:
        os.environ[LIMIT] = repr(gib)
    try:
        yield
    finally:
        if before is not None:
            os.environ[LIMIT] = before
        else:
            os.environ.pop(LIMIT, None)


def host_peak() -> int:
    """Bytes of the host's memory that this process took at most."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes there, KiB on Linux


def main() -> None:
    worker.main(clip)
