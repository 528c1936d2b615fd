"""One control for each parameter, made from the schema: its type, bounds, default, unit and help are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import ipywidgets

from vidkit.panel.control_base import BaseControl, Control, help_of, label_of, looks
from vidkit.panel.number_controls import NumberControl, SeedControl
from vidkit.params import GenerationParams, choices_of, plain_type

__all__ = ["SPECIAL", "Control", "help_of", "label_of", "make_control"]


class TextControl(BaseControl):
    """A line of text, taken when it is left or Enter is pressed. Empty: not given."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._box = ipywidgets.Text(
            description=label_of(name),
            placeholder=in_one_line(help_of(name)),
            continuous_update=False,
            layout=looks().field,
            style=looks().text,
        )
        self._place(self._box)
        self._watch(self._box, lambda value: value.strip() or None)

    def _put(self, value: Any) -> None:
        self._box.value = value if isinstance(value, str) else ""


class CheckControl(BaseControl):
    """A checkbox. As the default has it: not given."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._box = ipywidgets.Checkbox(
            description=label_of(name), indent=False, layout=looks().field, style=looks().check
        )
        self._place(self._box)
        self._show()
        self._watch(self._box, lambda value: None if value == self._default else value)

    def _put(self, value: Any) -> None:
        self._box.value = bool(value)


class ChoiceControl(BaseControl):
    """One of some words. The default's, or the one for "not given" where there is none: not given."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._list = ipywidgets.Dropdown(
            options=self._options(), description=label_of(name), layout=looks().field, style=looks().words
        )
        self._place(self._list)
        self._show()
        self._watch(self._list, lambda value: None if value == self._default else value)

    def _options(self) -> list[tuple[str, str | None]]:
        options: list[tuple[str, str | None]] = [
            (f"{value} (default)" if value == self._default else value, value)
            for value in choices_of(GenerationParams.model_fields[self.name])
        ]
        return options if self._default is not None else [("not given", None), *options]

    def narrow(self, default: Any, low: float | None, high: float | None, step: float | None) -> None:
        with self._lock:
            if default != self._default:
                self._default = default
                with self._quietly():
                    self._list.options = self._options()
                self._show()

    def _put(self, value: Any) -> None:
        self._list.value = value


#: controls that do more than a parameter's type asks for
SPECIAL: Final[Mapping[str, Callable[[str, threading.RLock], Control]]] = {"seed": SeedControl}


def make_control(name: str, lock: threading.RLock) -> Control:
    """A parameter's control, from the schema alone but for those in `SPECIAL`. lock: the panel's."""
    info = GenerationParams.model_fields[name]
    if name in SPECIAL:
        return SPECIAL[name](name, lock)
    if choices_of(info):
        return ChoiceControl(name, lock)
    kinds: dict[type, Callable[[str, threading.RLock], Control]] = {
        int: NumberControl,
        float: NumberControl,
        bool: CheckControl,
        str: TextControl,
    }
    return kinds[plain_type(info)](name, lock)


def in_one_line(text: str, length: int = 60) -> str:
    """The first sentence, cut to fit into a box."""
    first = text.split(". ")[0].rstrip(".")
    return first if len(first) <= length else first[: length - 1] + "…"
