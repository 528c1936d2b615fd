"""Before Run: what the request comes to, the memory it needs beside what is free, how long it takes."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets

from vidkit.device import Plan
from vidkit.errors import SetupError, VidkitError
from vidkit.memory import free_device_memory, predict, words
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

    def show(
        self, outlook: Outlook, plan: Plan | None, plan_problem: VidkitError | None, problems: Sequence[VidkitError]
    ) -> None:
        """plan: where it runs, None while that is being found out; problems: those that no control shows."""
        lines = [device_in_words(plan, plan_problem)]
        if outlook.resolved is not None and outlook.models is not None:
            model = outlook.models["base_model"].name
            lines.insert(0, request_in_words(outlook.resolved.params, model))
            lines.append(time_in_words(outlook.seconds))
            lines += [f"Note: {note}" for note in outlook.resolved.notes]
        text = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        self._words.value = text + memory_bar(outlook, plan)
        self._show_problems(problems)

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


def memory_bar(outlook: Outlook, plan: Plan | None) -> str:
    """Predicted memory against what is free, as a bar and in words; empty on the CPU and while nothing is known."""
    if plan is None or plan.device == "cpu" or outlook.resolved is None or outlook.models is None:
        return ""
    try:
        prediction = predict(outlook.resolved.params, outlook.models, plan)
    except SetupError as error:
        return f"<div>Memory is not predicted: {html.escape(error.message)}</div>"
    free = free_device_memory()
    if prediction is None or free is None:
        return ""
    told = html.escape(words(prediction, free))
    share = min(prediction.peak / max(free, 1), 1)
    state = "vidkit-bar-full" if prediction.peak > free else ""
    return (
        f'<div class="vidkit-bar {state}" role="img" aria-label="{told}">'
        f'<div style="width:{share:.0%}"></div></div><div>Memory: {told}</div>'
    )
