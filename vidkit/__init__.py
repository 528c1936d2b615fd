"""vidkit: turn a still picture into a short video on your own machine, from a notebook.

`vidkit.generate(params)` makes a clip; `vidkit.GenerationParams` is a request; `vidkit.plan(params)` tells beforehand
what memory it needs and how it would run; `vidkit.measure(clip)` tells how much moves in it. Names are loaded on first
use: importing vidkit loads neither torch nor Jupyter.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidkit.errors import Cancelled, CriticalError, GenerationError, InputError, SetupError, VidkitError
    from vidkit.generation import GenerationResult, generate
    from vidkit.logs import log_to
    from vidkit.metrics import measure
    from vidkit.panel.compare_clips import Comparison, compare
    from vidkit.panel.control_panel import ControlPanel
    from vidkit.params import GenerationParams
    from vidkit.planned_request import PlannedRequest, plan
    from vidkit.progress import CancelToken, Progress
    from vidkit.record import show
    from vidkit.safety.acknowledgement import acknowledge

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library says nothing unasked: see `log_to`

_HOMES = {
    "CancelToken": "progress",
    "Cancelled": "errors",
    "Comparison": "panel.compare_clips",
    "ControlPanel": "panel.control_panel",
    "CriticalError": "errors",
    "GenerationError": "errors",
    "GenerationParams": "params",
    "GenerationResult": "generation",
    "InputError": "errors",
    "PlannedRequest": "planned_request",
    "Progress": "progress",
    "SetupError": "errors",
    "VidkitError": "errors",
    "acknowledge": "safety.acknowledgement",
    "compare": "panel.compare_clips",
    "generate": "generation",
    "log_to": "logs",
    "measure": "metrics",
    "plan": "planned_request",
    "show": "record",
}

__all__ = [
    "CancelToken",
    "Cancelled",
    "Comparison",
    "ControlPanel",
    "CriticalError",
    "GenerationError",
    "GenerationParams",
    "GenerationResult",
    "InputError",
    "PlannedRequest",
    "Progress",
    "SetupError",
    "VidkitError",
    "acknowledge",
    "compare",
    "generate",
    "log_to",
    "measure",
    "plan",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vidkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vidkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
