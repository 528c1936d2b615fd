"""A page of clips as moving pictures, each a button. Nothing waits for the pictures: they come when they are made."""

from __future__ import annotations

import base64
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import ipywidgets

from vidkit.errors import VidkitError
from vidkit.panel.clip_details import name_of
from vidkit.panel.history import Entry, History

logger = logging.getLogger("vidkit")

PAGE: Final = 12
#: pictures kept in memory, by content key: several pages, some MiB
REMEMBERED: Final = 8 * PAGE
#: a WebP of one transparent pixel, shown until the picture is there
NOTHING: Final = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")


class ClipGrid:
    """At most a page of entries. Its cells are made when they are first needed, and used again for every page.

    on_choose: called with the entry whose button was pressed; background: make pictures in a thread (else at once).
    """

    def __init__(
        self, history: History, *, lock: threading.RLock, on_choose: Callable[[Entry], None], background: bool
    ) -> None:
        self._history, self._lock, self._on_choose, self._background = history, lock, on_choose, background
        self._cells: list[ClipCell] = []
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._drawing = 0
        self._looks = CellLooks()
        self.widget = ipywidgets.HBox([], layout={"flex_flow": "row wrap"})
        self.widget.add_class("vidkit-clips")

    def show(self, entries: Sequence[Entry], chosen: str | None) -> None:
        """chosen: the id of the entry that is marked."""
        while len(self._cells) < len(entries):
            self._cells.append(ClipCell(self._on_choose, self._looks))
        cells = self._cells[: len(entries)]
        for cell, entry in zip(cells, entries, strict=True):
            cell.show(entry, self._pictures.get(entry.manifest.key), chosen=entry.id == chosen)
        shown = tuple(cell.widget for cell in cells)
        if shown != self.widget.children:
            self.widget.children = shown
        self._drawing += 1
        missing = [entry for entry in entries if entry.manifest.key not in self._pictures]
        if missing and self._background:
            threading.Thread(
                target=self._fill, args=(missing, self._drawing), name="vidkit thumbnails", daemon=True
            ).start()
        elif missing:
            self._fill(missing, self._drawing)

    def close(self) -> None:
        self._drawing += 1  # a thread that makes pictures stops at the next one

    def _fill(self, entries: Sequence[Entry], drawing: int) -> None:
        """Make pictures, as long as their page is shown."""
        for entry in entries:
            if drawing != self._drawing:
                return
            data = self._picture(entry)
            with self._lock:
                self._remember(entry.manifest.key, data)
                for cell in self._cells:
                    if cell.entry is not None and cell.entry.manifest.key == entry.manifest.key:
                        cell.show_picture(data)

    def _picture(self, entry: Entry) -> bytes:
        try:
            return self._history.thumbnail(entry)
        except VidkitError as error:
            logger.info("%s has no picture in the history: %s", entry.clip, error.message)
        except Exception:
            logger.exception("%s has no picture in the history", entry.clip)
        return NOTHING

    def _remember(self, key: str, data: bytes) -> None:
        self._pictures[key] = data
        self._pictures.move_to_end(key)
        while len(self._pictures) > REMEMBERED:
            self._pictures.popitem(last=False)


class CellLooks:
    """Shared by all cells: each would cost as much as a widget."""

    def __init__(self) -> None:
        self.cell = ipywidgets.Layout(width="164px", flex="0 0 auto")
        self.picture = ipywidgets.Layout(height="120px", width="100%", object_fit="contain")
        self.button = ipywidgets.Layout(width="100%", height="auto")
        self.style = ipywidgets.ButtonStyle()


class ClipCell:
    """A picture and, over all of it, a button that says in words which clip it is."""

    def __init__(self, on_choose: Callable[[Entry], None], looks: CellLooks) -> None:
        self.entry: Entry | None = None
        self.picture = ipywidgets.Image(value=NOTHING, format="webp", layout=looks.picture)
        self.button = ipywidgets.Button(layout=looks.button, style=looks.style)
        self.widget = ipywidgets.VBox([self.picture, self.button], layout=looks.cell)
        self.widget.add_class("vidkit-clip")

        def on_click(_: ipywidgets.Button) -> None:
            if self.entry is not None:
                on_choose(self.entry)

        self.button.on_click(on_click)

    def show(self, entry: Entry, picture: bytes | None, *, chosen: bool) -> None:
        if self.entry is None or self.entry.manifest.key != entry.manifest.key:
            self.show_picture(picture or NOTHING)
        self.entry = entry
        name = name_of(entry)
        star, mark = "★ " if entry.starred else "", "Chosen: " if chosen else ""
        self.button.description = f"{mark}{star}{name}"
        self.button.tooltip = name
        (self.widget.add_class if chosen else self.widget.remove_class)("vidkit-chosen")

    def show_picture(self, data: bytes) -> None:
        if self.picture.value != data:
            self.picture.value = data
