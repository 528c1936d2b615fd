"""Signals that end a sweep, none of which is lost.

A signal raises KeyboardInterrupt in whatever the main thread is at. Where that is a callback, as of an import's lock or
of the garbage collector, Python prints the exception and goes on. So it is noted too, and raised again where a sweep
waits or goes on to its next point.
"""

from __future__ import annotations

import signal
import threading
from typing import Final

from vidkit.ending_signals import ENDING_SIGNALS

#: Those that came. No threading.Event: a second signal would wait for its lock, which the first one's handler has.
_noted: Final[list[int]] = []


def interrupt_on_signals() -> None:
    """Of this process, from its main thread: Ctrl-C, SIGTERM and Ctrl-Break raise KeyboardInterrupt there, from now on.

    Ctrl-C not where it is ignored, as in what an idle kernel starts.
    """
    _noted.clear()
    for number in ENDING_SIGNALS:
        if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: object) -> None:
    _noted.append(number)
    raise KeyboardInterrupt


def heed() -> None:
    """Raises:
    KeyboardInterrupt: a signal came. In the main thread alone, as from Python's own.
    """
    if _noted and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
