"""Above Run: what has to be acknowledged once before the request may run, with a box and a button."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence

import ipywidgets

from vidkit.errors import VidkitError
from vidkit.panel.problems import ProblemView
from vidkit.safety.acknowledgement import CLOSE, INTRODUCTION, POINTS, acknowledge


class AcknowledgementView:
    """Takes no room until a request needs it. on_given: called once it was given."""

    def __init__(self, *, lock: threading.RLock, on_given: Callable[[], None]) -> None:
        self._lock, self._on_given = lock, on_given
        self.box = ipywidgets.Checkbox(
            description="I have read this and accept it", indent=False, layout={"width": "auto"}
        )
        self.button = ipywidgets.Button(
            description="Acknowledge", tooltip="Kept in the settings, with its date", disabled=True
        )
        self._problem = ProblemView()
        self.widget = ipywidgets.VBox(
            [ipywidgets.HTML(text_in_html()), self.box, self.button, self._problem.widget], layout={"display": "none"}
        )
        self.widget.add_class("vidkit-problem")
        self.box.observe(self._on_box, "value")
        self.button.on_click(self._on_button)

    def show(self, problems: Sequence[VidkitError]) -> None:
        """problems: all that stands in the way of running the request."""
        needed = any(problem.code == "acknowledgement_needed" for problem in problems)
        if needed == (self.widget.layout.display == ""):
            return
        self.widget.layout.display = "" if needed else "none"
        self.box.value = False

    def _on_box(self, _: object) -> None:
        self.button.disabled = not self.box.value

    def _on_button(self, _: ipywidgets.Button) -> None:
        with self._lock:
            try:
                acknowledge(accept=self.box.value)
            except VidkitError as error:
                self._problem.show(error, lambda changes: None)
                return
            self._problem.show(None, lambda changes: None)
            self._on_given()


def text_in_html() -> str:
    points = "".join(f"<li><b>{html.escape(title)}.</b> {html.escape(text)}</li>" for title, text in POINTS.items())
    return f"<p>{html.escape(INTRODUCTION)}</p><ol>{points}</ol><p>{html.escape(CLOSE)}</p>"
