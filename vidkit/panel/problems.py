"""An error in words, with a button for each remedy that a program can apply."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets

from vidkit.errors import Remedy, VidkitError

Apply = Callable[[Mapping[str, Any]], None]


class ProblemView:
    """Empty until it has something to say. `.widget` takes no room then."""

    def __init__(self) -> None:
        self._shown: tuple[str, ...] = ()
        self._words = ipywidgets.HTML()
        self.widget = ipywidgets.VBox([], layout={"display": "none"})
        self.widget.add_class("vidkit-problem")

    def show(self, problem: VidkitError | None, apply: Apply) -> None:
        """apply: called with a remedy's changes when its button is pressed. None: all is well."""
        text = () if problem is None else (problem.message, *problem.suggestions)
        if text == self._shown:
            return
        self._shown = text
        for child in self.widget.children:
            if child is not self._words:
                child.close()
        if problem is None:
            self.widget.children = ()
            self.widget.layout.display = "none"
            return
        self._words.value = in_html(problem)
        self.widget.children = (self._words, *remedy_buttons(problem, apply))
        self.widget.layout.display = ""


def in_html(problem: VidkitError) -> str:
    """The message, and what to do that no button does."""
    lines = [f'<span role="alert">⚠ Problem: {html.escape(problem.message)}</span>']
    lines += [f"→ {html.escape(text)}" for text in problem.suggestions if not isinstance(text, Remedy)]
    return "<br>".join(lines)


def remedy_buttons(problem: VidkitError, apply: Apply) -> list[ipywidgets.Button]:
    buttons = []
    for remedy in problem.suggestions:
        if not isinstance(remedy, Remedy):
            continue
        button = ipywidgets.Button(description=remedy, tooltip=remedy, layout={"width": "auto"})
        button.on_click(lambda _, changes=remedy.changes: apply(changes))
        buttons.append(button)
    return buttons
