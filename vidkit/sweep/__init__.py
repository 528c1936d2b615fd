"""Sweeps: a grid of requests, run by papermill in a warm kernel, resumable, with a report of the videos.

`run_sweep(file, folder)` runs what is missing, `read_status(folder)` tells how far it is, `write_report(folder)` writes
the page that shows the videos. `vidkit.runs.table(folder)` has the results.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidkit.sweep.report import write_report
    from vidkit.sweep.runner import run_sweep
    from vidkit.sweep.status import read_status

_HOMES = {"read_status": "status", "run_sweep": "runner", "write_report": "report"}

__all__ = ["read_status", "run_sweep", "write_report"]


def __getattr__(name: str) -> Any:
    """On first use: papermill imports the engine beside this while it is being imported itself."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vidkit.sweep' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vidkit.sweep.{_HOMES[name]}"), name)
