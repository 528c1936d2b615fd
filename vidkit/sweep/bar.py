"""A sweep's progress for a person: a bar in the terminal or in a notebook, and a line for each failure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from vidkit.sweep.execute import Outcome, Task
    from vidkit.sweep.plan import Plan
    from vidkit.sweep.runner import Summary

LONGEST: Final = 60  # characters of a point's description


class ProgressBar:
    """Listens to `run_sweep`."""

    def __init__(self) -> None:
        self._bar: Any = None

    def planned(self, plan: Plan, summary: Summary, missing: int) -> None:
        from tqdm.auto import tqdm

        for note in plan.notes:
            print(f"Note: {note}", file=stream())
        before = f", {summary.before} done before" if summary.before else ""
        print(f"{plan.name}: {summary.points} points{before}. {summary.root}", file=stream())
        self._bar = tqdm(total=missing, unit="clip", dynamic_ncols=True, disable=not missing)

    def began(self, task: Task) -> None:
        self._bar.set_description(describe(task.axes))

    def ended(self, task: Task, outcome: Outcome, summary: Summary) -> None:
        if outcome.error is not None:
            self._bar.write(f"Failed: {describe(task.axes)}: {outcome.error['message']}", file=sys.stderr)
        self._bar.set_postfix_str(f"{summary.failed} failed" if summary.failed else "", refresh=False)
        self._bar.update(1)

    def closed(self) -> None:
        self._bar.close()


def stream() -> TextIO:
    """Where a person reads what is no failure: Jupyter shows stderr on red; in a terminal stdout is for the result."""
    ipython = sys.modules.get("IPython")
    return sys.stdout if ipython is not None and ipython.get_ipython() is not None else sys.stderr


def describe(axes: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name} {value}" for name, value in axes.items()) or "the one point"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
