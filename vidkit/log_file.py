"""A log file that several processes write to: in turns, each line whole, renamed when it has grown large."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from filelock import FileLock

#: seconds to wait for another process's turn, which takes milliseconds: one that was stopped in it may never end it
PATIENCE: Final = 2.0

#: seconds without a try after one failed: what is logged must not be what a clip waits for
SILENCE: Final = 60.0


class SharedLogFile(RotatingFileHandler):
    """Opens the file for one record at a time, under a lock beside it: so nobody writes to a renamed file, and Windows,
    which renames no open one, can rename it.

    What cannot be written (a full disk, a folder that may not be written to) is told once, by the logger, and dropped.
    """

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        """max_bytes: of a file; files: how many are kept, at least 2: `path`, then `path`.1, which is older, ..."""
        super().__init__(
            path, maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", errors="backslashreplace", delay=True
        )
        self._silent_until = -1.0
        self._told = False
        self._length = 0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() < self._silent_until:
            return
        path = Path(self.baseFilename)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE):
                try:
                    super().emit(record)
                finally:
                    self._close_stream()
        except Exception:  # noqa: BLE001  (logging breaks nothing; what it was is told)
            self.handleError(record)

    def doRollover(self) -> None:  # noqa: N802  (the name in logging)
        """Where the file cannot be renamed (Windows, while somebody looks at it), it goes on growing."""
        with suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name in logging)
        """Called while an exception is handled."""
        error = sys.exception()
        if not isinstance(error, OSError):  # a defect of who logs
            super().handleError(record)
            return
        self._silent_until = time.monotonic() + SILENCE
        if not self._told:
            self._told = True
            reason = error.strerror or error
            logging.getLogger("vidkit").warning(
                "nothing is logged: %s cannot be written: %s", self.baseFilename, reason
            )

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        self._length = stream.seek(0, os.SEEK_END)
        return stream

    def _close_stream(self) -> None:
        """Closing writes what is not written yet. Where that fails, half a line must not begin the next one."""
        stream, self.stream = self.stream, None
        if stream is None:
            return
        try:
            stream.close()
        except OSError:
            os.truncate(self.baseFilename, self._length)
            raise
