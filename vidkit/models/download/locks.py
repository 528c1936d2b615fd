"""One download of a thing at a time, across processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from vidkit.files import typed_write_errors
from vidkit.models.download.progress import Meter

EVERY: Final = 0.2


@asynccontextmanager
async def locked(path: Path, meter: Meter) -> AsyncIterator[None]:
    """Hold the lock file; while another process has it, wait and say so.

    Raises:
        SetupError: `output_not_writable`; CriticalError: `disk_full`.
    """
    with typed_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        said = False
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                if not said:
                    meter.say(f"{meter.what}: waiting for another process that downloads it")
                said = True
                await asyncio.sleep(EVERY)
    try:
        yield
    finally:
        lock.release()
