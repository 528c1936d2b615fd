"""What the controls of all parameters have in common: words from the schema, listeners, help, a place for a problem."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import ipywidgets
from ipywidgets.widgets import widget_bool, widget_button, widget_description, widget_int, widget_string

from vidkit.errors import VidkitError
from vidkit.panel.problems import Apply, ProblemView
from vidkit.panel.subshells import answer_while_busy
from vidkit.params import GenerationParams

OnChange = Callable[[str], None]


class Control(Protocol):
    """The control of one parameter. None as its value: not given, the model's default counts."""

    name: str
    widget: ipywidgets.Widget

    def get(self) -> Any | None:
        """What the user gave, as it stands there; it may be no valid value."""

    def set(self, value: Any | None) -> None:
        """Show a value; no callback is called."""

    def on_change(self, callback: OnChange) -> None:
        """Call back with the parameter's name after each change by the user."""

    def narrow(self, default: Any, low: float | None, high: float | None, step: float | None) -> None:
        """What the chosen model narrows; None: as the schema has it, or unknown (default). A value outside is kept:
        it is a problem to be told, not to be changed."""

    def show_problem(self, problem: VidkitError | None, apply: Apply) -> None:
        """Say what is wrong, at the control, with a button for each remedy; None: nothing."""


def unit_of(name: str) -> str:
    extra = GenerationParams.model_fields[name].json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def label_of(name: str) -> str:
    """A parameter in words (the field's title, where it has one), with its unit."""
    text = GenerationParams.model_fields[name].title or name.replace("_", " ").capitalize()
    unit = unit_of(name)
    return f"{text} ({unit})" if unit and unit.lower() not in text.lower() else text


def help_of(name: str) -> str:
    return GenerationParams.model_fields[name].description or ""


def default_of(name: str) -> Any | None:
    """The schema's default; None where the model decides, and where every request must say."""
    info = GenerationParams.model_fields[name]
    return None if info.is_required() else info.get_default()


class _Looks:
    """Layouts and styles shared by all controls: each would be one more model in the kernel and in the page."""

    def __init__(self) -> None:
        self.row = ipywidgets.Layout(width="100%", flex_flow="row wrap", align_items="center")
        self.column = ipywidgets.Layout(width="100%")
        self.field = ipywidgets.Layout(width="auto", flex="1 1 240px", min_width="0")
        self.number = ipywidgets.Layout(width="212px")
        self.slider = ipywidgets.Layout(width="auto", flex="1 1 60px", min_width="60px")
        self.reset = ipywidgets.Layout(width="auto", min_width="94px")
        self.narrow = ipywidgets.Layout(width="auto")
        self.words = widget_description.DescriptionStyle(description_width="136px")
        self.text = widget_string.TextStyle(description_width="136px")
        self.html = widget_string.HTMLStyle()
        self.label = widget_string.HTMLStyle(description_width="136px")
        self.check = widget_bool.CheckboxStyle()
        self.slide = widget_int.SliderStyle()
        self.button = widget_button.ButtonStyle()


_looks: _Looks | None = None


def looks() -> _Looks:
    """Made when the first control is, and again when a front end's `Widget.close_all` took them away."""
    global _looks
    if _looks is None or _looks.row.comm is None:
        _looks = _Looks()
    return _looks


class BaseControl:
    """One row of widgets. `_given` is the value, None while the default counts; a subclass shows it in `_put`.

    lock: the panel's; held while a change is taken, so that `set` in one thread is not taken for the user's in another.
    """

    def __init__(self, name: str, lock: threading.RLock) -> None:
        self.name, self._lock = name, lock
        self._listeners: list[OnChange] = []
        self._given: Any | None = None
        self._default = default_of(name)
        self._quiet = False
        self._problem: ProblemView | None = None
        self._row: tuple[ipywidgets.Widget, ...] = ()
        self._help = ipywidgets.HTML(help_html(name), layout=looks().narrow, style=looks().html)
        self.widget = ipywidgets.Box(layout=looks().row, _dom_classes=("vidkit-control",))

    def get(self) -> Any | None:
        return self._given

    def set(self, value: Any | None) -> None:
        with self._lock:
            self._given = value
            self._show()

    def on_change(self, callback: OnChange) -> None:
        self._listeners.append(callback)

    def narrow(self, default: Any, low: float | None, high: float | None, step: float | None) -> None:
        with self._lock:
            if default != self._default:
                self._default = default
                self._show()

    def show_problem(self, problem: VidkitError | None, apply: Apply) -> None:
        with self._lock:
            if self._problem is None:
                if problem is None:
                    return
                self._problem = ProblemView()
                self._problem.widget.layout.width = "100%"
            self._problem.show(problem, apply)
            self._arrange()

    def _place(self, *row: ipywidgets.Widget) -> None:
        """Put these into the row; help and problem follow them."""
        self._row = row
        self._arrange()

    def _arrange(self) -> None:
        problem = [] if self._problem is None else [self._problem.widget]
        children = (*self._row, self._help, *problem)
        if children != self.widget.children:
            self.widget.children = children
        answer_while_busy(self.widget)  # also a problem's buttons, and a control that was made in a cell

    def _watch(self, widget: ipywidgets.ValueWidget, meaning: Callable[[Any], Any]) -> None:
        """Take the user's changes of a widget's value. meaning: from the widget's value to the parameter's."""

        def take(change: Mapping[str, Any]) -> None:
            with self._lock:
                if not self._quiet:
                    self._change(meaning(change["new"]))

        widget.observe(take, "value")

    def _change(self, value: Any | None) -> None:
        """The user's change."""
        with self._lock:
            self._given = value
            self._show()
            for listener in self._listeners:
                listener(self.name)

    def _show(self) -> None:
        with self._quietly():
            self._put(self._default if self._given is None else self._given)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """What is changed in here is not the user's."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _put(self, value: Any) -> None:
        raise NotImplementedError


def help_html(name: str) -> str:
    """A question mark that opens to the help: by a click, by the keyboard, and its text on hovering."""
    text, label = html.escape(help_of(name)), html.escape(label_of(name))
    return (
        f'<details class="vidkit-help"><summary title="{text}" aria-label="Help: {label}">?</summary>'
        f'<span class="vidkit-help-text">{text}</span></details>'
    )
