"""The LoRAs of a request as rows of a name and a weight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from vidkit.lora_list import LoraEntry, loras_text, parse_loras
from vidkit.panel.control_base import BaseControl, label_of, looks
from vidkit.panel.subshells import answer_while_busy


class LoraRow:
    """One LoRA. on_change: after each change by the user; on_remove: the row is to go."""

    def __init__(self, entry: LoraEntry, on_change: Callable[[], None], on_remove: Callable[[LoraRow], None]) -> None:
        self._on_change, self._quiet = on_change, False
        self.name = ipywidgets.Combobox(continuous_update=False, layout=looks().field, style=looks().text)
        self.weight = ipywidgets.FloatText(step=0.1, layout=looks().number, style=looks().words)
        self.remove = ipywidgets.Button(description="Remove", layout=looks().reset, style=looks().button)
        self.widget = ipywidgets.Box([self.name, self.weight, self.remove], layout=looks().row)
        self.show(entry)
        for box in (self.name, self.weight):
            box.observe(self._changed, "value")
        self.remove.on_click(lambda _: on_remove(self))

    @property
    def entry(self) -> LoraEntry:
        return LoraEntry(self.name.value.strip(), self.weight.value)

    def show(self, entry: LoraEntry) -> None:
        self._quiet = True
        self.name.value, self.weight.value = entry.name, entry.weight
        self._quiet = False

    def call(self, number: int, names: Sequence[str]) -> None:
        """Its place in the list, and what there is to choose from."""
        self.name.description, self.weight.description = f"LoRA {number}", f"Weight of LoRA {number}"
        self.remove.tooltip = f"Take LoRA {number} off the request"
        self.name.placeholder = "a name or a path"
        if tuple(names) != tuple(self.name.options):
            self.name.options = tuple(names)

    def _changed(self, change: Mapping[str, Any]) -> None:
        if not self._quiet:
            self._on_change()


class LoraControl(BaseControl):
    """As many rows as LoRAs; a row without a name is none yet. None: not given."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._names: Sequence[str] = ()
        self.rows: list[LoraRow] = []
        self.add = ipywidgets.Button(
            description="Add LoRA", tooltip="Another LoRA or motion LoRA", layout=looks().narrow, style=looks().button
        )
        self._label = ipywidgets.HTML(description=label_of(name), layout=looks().narrow, style=looks().label)
        self._list = ipywidgets.VBox([], layout=looks().column)
        self._list.add_class("vidkit-loras")
        self._place(self._label, self.add, self._list)
        self.add.on_click(lambda _: self._add(LoraEntry("")))

    def choose(self, name: str) -> None:
        """As if the user had added it."""
        with self._lock:
            if name not in [row.entry.name for row in self.rows]:
                self._add(LoraEntry(name))

    def offer(self, names: Sequence[str], default: str | None) -> None:
        """names: to choose from."""
        with self._lock:
            self._names = tuple(names)
            self._number()

    def _written(self) -> str | None:
        entries = [row.entry for row in self.rows if row.entry.name]
        return loras_text(entries) if entries else None

    def _put(self, value: Any) -> None:
        if (value or None) == self._written():  # the rows say it already, those without a name among them
            return
        entries = parse_loras(value or "")
        if list(entries) != [row.entry for row in self.rows if row.entry.name]:
            del self.rows[len(entries) :]
            for row, entry in zip(self.rows, entries, strict=False):
                row.show(entry)
            self.rows += [self._new_row(entry) for entry in entries[len(self.rows) :]]
            self._number()

    def _new_row(self, entry: LoraEntry) -> LoraRow:
        return LoraRow(entry, self._take, self._remove)

    def _number(self) -> None:
        for number, row in enumerate(self.rows, 1):
            row.call(number, self._names)
        children = tuple(row.widget for row in self.rows)
        if children != self._list.children:
            self._list.children = children
            answer_while_busy(self._list)

    def _add(self, entry: LoraEntry) -> None:
        with self._lock:
            self.rows.append(self._new_row(entry))
            self._number()
            if entry.name:
                self._take()

    def _remove(self, row: LoraRow) -> None:
        with self._lock:
            named = bool(row.entry.name)
            self.rows.remove(row)
            self._number()
            if named:
                self._take()

    def _take(self) -> None:
        with self._lock:
            if not self._quiet:
                self._change(self._written())
