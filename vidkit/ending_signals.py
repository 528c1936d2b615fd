"""What asks a process to end: Ctrl-C, SIGTERM, and on Windows Ctrl-Break."""

from __future__ import annotations

import signal
from typing import Final

#: those that this system has
ENDING_SIGNALS: Final[tuple[signal.Signals, ...]] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)
