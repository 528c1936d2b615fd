"""Controls of numbers: a box that takes any, a slider over the range that the model takes; and the seed's."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import ipywidgets

from vidkit.panel.control_base import BaseControl, help_of, label_of, looks
from vidkit.params import MAX_SEED, GenerationParams, bounds_of, plain_type

#: a slider has at most so many places; over a longer range a number can only be typed
SLIDER_PLACES: Final = 512


class NumberControl(BaseControl):
    """A number to type; a slider, where the range is short enough for one; a button that takes the value back.

    The box takes numbers out of range too: ipywidgets' bounded boxes clamp what is typed without a word. Where neither
    the user nor the model says a number, it shows 0, and the button says so.
    """

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        info = GenerationParams.model_fields[name]
        self._whole = plain_type(info) is int
        self._bounds = bounds_of(info)
        self._slider: ipywidgets.IntSlider | ipywidgets.FloatSlider | None = None
        box = ipywidgets.IntText if self._whole else ipywidgets.FloatText
        self._box = box(description=label_of(name), tooltip=help_of(name), layout=looks().number, style=looks().words)
        self._reset = ipywidgets.Button(layout=looks().reset, style=looks().button, _dom_classes=("vidkit-reset",))
        self._range = (math.nan, math.nan, 1.0)
        self._handle = 0.0
        self._limit(None, None, None)
        self._show()
        self._watch(self._box, lambda value: value)
        self._reset.on_click(lambda _: self._change(None))

    def narrow(self, default: Any, low: float | None, high: float | None, step: float | None) -> None:
        with self._lock, ExitStack() as held:
            if self._slider is not None:  # in one message: between two, the page would move the handle by itself
                held.enter_context(self._slider.hold_sync())
            self._default = default
            self._limit(low, high, step)
            self._show()

    def _limit(self, low: float | None, high: float | None, step: float | None) -> None:
        """The range of the slider: what is given here, else the schema's bounds."""
        bounds = self._bounds
        low = bounds.get("ge", bounds.get("gt", -math.inf)) if low is None else low
        high = bounds.get("le", bounds.get("lt", math.inf)) if high is None else high
        step = step or (1 if self._whole else nice_step(low, high))
        if low == bounds.get("gt"):  # that itself is no value
            low += step
        if (low, high, step) == self._range:
            return
        self._range = (low, high, step)
        self._box.step = step
        if (high - low) / step > SLIDER_PLACES:
            self._place(self._box, self._reset)
            return
        if self._slider is None:
            self._slider = self._make_slider()
        with self._quietly():
            set_range(self._slider, low, high, step)
        self._place(self._box, self._slider, self._reset)

    def _make_slider(self) -> ipywidgets.IntSlider | ipywidgets.FloatSlider:
        """Beside the box, which is its readout. Its name in the page comes from the box's label (accessible.js)."""
        make = ipywidgets.IntSlider if self._whole else ipywidgets.FloatSlider
        slider = make(readout=False, layout=looks().slider, style=looks().slide)
        slider.observe(self._on_slider, "value")
        return slider

    def _on_slider(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            value = self._rounded(change["new"])
            # the page sends a handle back that it was told to move, give or take the noise of fractions
            if not self._quiet and value != self._rounded(self._handle):
                self._change(value)

    def _rounded(self, value: float) -> float:
        """Without the noise of binary fractions: 0.3, not 0.30000000000000004."""
        return value if self._whole else round(value, max(0, -math.floor(math.log10(self._range[2]))))

    def _place_of(self, value: float) -> float:
        """Where the handle stands for a value: the page moves it to the nearest place, and would take that for a
        change by the user."""
        low, high, step = self._range
        return min(low + max(0, round((value - low) / step)) * step, high)

    def _put(self, value: Any) -> None:
        self._box.value = 0 if value is None else value
        if self._slider is not None:
            self._handle = self._slider.value = self._place_of(self._box.value)
        given, default = self._given is not None, in_short(self._default)
        known = f"the default, {default}" if default else "the model's default"
        self._reset.description = (f"Reset to {default}" if default else "Reset") if given else "default"
        self._reset.tooltip = f"{label_of(self.name)}: back to {known}" if given else f"Not given: {known}, counts"
        self._reset.disabled = not given


class SeedControl(BaseControl):
    """The seed, a lock and a dice. Not locked (not given): each run draws its own; the dice draws one and locks it."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._last: int | None = None
        self._box = ipywidgets.IntText(
            description=label_of(name), tooltip=help_of(name), layout=looks().number, style=looks().words
        )
        self._locked = ipywidgets.Checkbox(
            description="Lock seed", indent=False, layout=looks().narrow, style=looks().check
        )
        dice = ipywidgets.Button(
            description="Dice",
            icon="random",
            tooltip="Draw a new seed and lock it",
            layout=looks().narrow,
            style=looks().button,
        )
        self._words = ipywidgets.HTML(layout=looks().column, style=looks().html, _dom_classes=("vidkit-hint",))
        self._place(self._box, self._locked, dice, self._words)
        self._show()
        self._watch(self._box, lambda value: None if value == self._default else value)
        self._watch(self._locked, lambda on: (draw() if self._last is None else self._last) if on else None)
        dice.on_click(lambda _: self._change(draw()))

    def set(self, value: Any | None) -> None:
        super().set(None if value == self._default else value)

    def drawn(self, seed: int) -> None:
        """A run has drawn this seed: it is said, and it is what the lock keeps."""
        with self._lock:
            self._last = seed
            self._show()

    def _put(self, value: Any) -> None:
        self._box.value = value
        self._locked.value = self._given is not None
        last = "" if self._last is None else f"; the last was {self._last}"
        words = "every run has this seed" if self._given is not None else f"each run draws one{last}"
        self._words.value = f'<span role="status">{words}</span>'


def draw() -> int:
    return secrets.randbelow(MAX_SEED + 1)


def nice_step(low: float, high: float) -> float:
    """A power of ten that gives a slider 100 to 1,000 places: 0.01 for 0 to 1, 0.1 for 1 to 30."""
    span = high - low
    return 10.0 ** math.floor(math.log10(span / 100)) if 0 < span < math.inf else 0.01


def set_range(slider: ipywidgets.IntSlider | ipywidgets.FloatSlider, low: float, high: float, step: float) -> None:
    """In an order in which the lowest is never above the highest."""
    slider.max = max(slider.max, high)
    slider.min, slider.max, slider.step = low, high, step


def in_short(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
