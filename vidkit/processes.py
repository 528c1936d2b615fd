"""The cores that this process may use, and the processes that it started."""

from __future__ import annotations

import os
from contextlib import suppress


def cores_here() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_children(pid: int | None = None) -> None:
    """End the processes that a process started, and those that they did. pid: of that process; None: this one."""
    import psutil  # type: ignore[import-untyped]  # comes with ipykernel; not for every start of the command line

    with suppress(psutil.Error):
        children = psutil.Process(pid).children(recursive=True)
        for child in children:
            with suppress(psutil.Error):  # it has ended by itself
                child.kill()
        psutil.wait_procs(children, timeout=1)
