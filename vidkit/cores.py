"""How many processor cores there are for this process."""

from __future__ import annotations

import os


def cores_here() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
