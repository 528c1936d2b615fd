"""Processes that the panel starts and asks to end: not ended by what ends the kernel, on every system."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any


def on_its_own() -> dict[str, Any]:
    """For Popen: a session of its own, so that Ctrl-C at the server does not reach it; on Windows a process group."""
    group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", None)
    return {"start_new_session": True} if group is None else {"creationflags": group}


def ask_to_end(pid: int) -> None:
    """As Ctrl-C, so that it puts things in order first: SIGTERM, which is heard also by what a kernel has started
    (kernels ignore SIGINT while no cell runs, and what they start then ignores it too).

    On Windows SIGTERM ends a process at once, so it is Ctrl-Break there; SIGTERM where there is no console to send it.
    """
    wanted = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
    try:
        os.kill(pid, wanted)
    except ProcessLookupError:  # it has ended by itself
        return
    except OSError:
        if wanted == signal.SIGTERM:
            raise
        os.kill(pid, signal.SIGTERM)
