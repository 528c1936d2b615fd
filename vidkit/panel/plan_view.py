"""Before Run: what the request comes to, the memory it needs beside what is free, how long it takes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import ipywidgets

from vidkit.errors import VidkitError
from vidkit.memory import words
from vidkit.memory.planning import Planned
from vidkit.panel.outlook import Outlook, device_in_words, request_in_words, time_in_words
from vidkit.panel.problems import Apply, ProblemView


class PlanView:
    """A few lines of words and a bar. Problems that belong to no control are shown here, with their buttons."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._words = ipywidgets.HTML()
        self._problems = ipywidgets.VBox([])
        self._shown: tuple[str, ...] = ()
        self.widget = ipywidgets.VBox([self._words, self._problems])
        self.widget.add_class("vidkit-plan")

    def show(self, outlook: Outlook, device_problem: VidkitError | None, problems: Sequence[VidkitError]) -> None:
        """problems: those that no control shows."""
        lines = [device_in_words(outlook.device, device_problem)]
        if outlook.resolved is not None and outlook.models is not None:
            model = outlook.models["base_model"].name
            lines.insert(0, request_in_words(outlook.resolved.params, model))
            lines.append(time_in_words(outlook.seconds))
            lines += [f"Note: {note}" for note in outlook.resolved.notes]
        self._words.value = in_lines(lines) + plan_in_html(outlook.planned)
        self._show_problems([*problems, *([outlook.misfit] if outlook.misfit is not None else [])])

    def _show_problems(self, problems: Sequence[VidkitError]) -> None:
        texts = tuple(problem.message for problem in problems)
        if texts == self._shown:
            return
        self._shown = texts
        for child in self._problems.children:
            child.close()
        views = [ProblemView() for _ in problems]
        for view, problem in zip(views, problems, strict=True):
            view.show(problem, self._apply)
        self._problems.children = [view.widget for view in views]


def in_lines(texts: Iterable[str]) -> str:
    return "".join(f"<div>{html.escape(text)}</div>" for text in texts)


def plan_in_html(planned: Planned | None) -> str:
    """Predicted memory against what is free, as a bar and in words, and why the request runs as it does.

    Empty while nothing is known, and on a CPU where nothing has to be done.
    """
    if planned is None or planned.room.device is None or (planned.plan.device == "cpu" and len(planned.reasons) == 1):
        return ""
    free, prediction = planned.room.device, planned.prediction
    told = words(prediction, free)
    return (
        f'<div class="vidkit-bar" role="img" aria-label="{html.escape(told)}">'
        f'<div style="width:{min(prediction.peak / max(free, 1), 1):.0%}"></div></div>'
        + in_lines([f"Memory: {told}", *(planned.reasons if len(planned.reasons) > 1 else ())])
        + in_lines(f"Note: {note}" for note in planned.notes)
    )
