"""Getting models: what there is for the pipeline, or any address; how far it is; and when it is here."""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import ipywidgets

from vidkit.errors import SetupError, VidkitError
from vidkit.models.catalogue import Published, catalogue
from vidkit.models.registry import registered
from vidkit.panel.download_process import DownloadProcess, Look, known_downloads, start_download
from vidkit.panel.model_guide import free_gigabytes, published_for
from vidkit.panel.run_view import status
from vidkit.panel.subshells import answer_while_busy
from vidkit.settings import Settings

logger = logging.getLogger("vidkit")

#: seconds between two looks at a download
EVERY: Final = 0.5
OTHER: Final = ""


class DownloadView:
    """widget: a choice, an address box, and a bar for each download.

    on_done: called, from a thread, when a model has come; background: False where threads cannot update widgets.
    """

    def __init__(
        self, *, lock: threading.RLock, settings: Settings, on_done: Callable[[], None], background: bool = True
    ) -> None:
        self._lock, self._settings, self._on_done, self._background = lock, settings, on_done, background
        self._family = ""
        self._rows: list[DownloadRow] = []
        self.choice = ipywidgets.Dropdown(description="Get", layout={"width": "98%"})
        self.source = ipywidgets.Text(
            description="Or from",
            placeholder="https://… of a download button, or ORGANISATION/NAME on the Hugging Face hub",
            layout={"width": "auto", "flex": "1 1 300px"},
        )
        self.name = ipywidgets.Text(
            description="Call it", placeholder="as it is called there", layout={"width": "auto", "flex": "0 1 220px"}
        )
        self.start = ipywidgets.Button(
            description="Download model", tooltip="Fetch it; goes on in the background", layout={"width": "auto"}
        )
        self._about, self._said = ipywidgets.HTML(), ipywidgets.HTML()
        self._running = ipywidgets.VBox([])
        row = ipywidgets.HBox(
            [self.source, self.name, self.start], layout={"flex_flow": "row wrap", "align_items": "center"}
        )
        self.widget = ipywidgets.VBox([self.choice, self._about, row, self._said, self._running])
        self.choice.observe(lambda _: self._tell_about(), "value")
        self.source.observe(lambda _: self._tell_about(), "value")
        self.start.on_click(lambda _: self._start())
        for process in known_downloads():
            self._add(process)

    def tell(self, family: str) -> None:
        """The request's pipeline is this one now; also after models have come or gone."""
        with self._lock:
            self._family = family
            here = names_here(self._settings)
            options = [(in_one_line(one, one.name in here), one.name) for one in published_for(family)]
            chosen = self.choice.value
            self.choice.options = [*options, ("something else, named below", OTHER)]
            if chosen in [name for _, name in self.choice.options]:
                self.choice.value = chosen
            self._tell_about()

    def refresh(self) -> None:
        """Look at all downloads once."""
        for row in list(self._rows):
            row.refresh()

    def close(self) -> None:
        """No more looks; downloads go on."""
        for row in self._rows:
            row.close()

    def _chosen(self) -> Published | None:
        if self.source.value.strip():
            return None
        return next((one for one in catalogue() if one.name == self.choice.value), None)

    def _tell_about(self) -> None:
        with self._lock:
            published = self._chosen()
            lines = [] if published is None else list(about(published, self._settings))
            self._about.value = "".join(f"<div>{line}</div>" for line in lines)

    def _start(self) -> None:
        with self._lock:
            wanted = self.source.value.strip() or self.choice.value
            if not wanted:
                self._said.value = status("Choose a model, or give its address.")
                return
            try:
                process = start_download(wanted, self.name.value.strip() or None)
            except VidkitError as error:
                self._said.value = status(" ".join([error.message, *error.suggestions]))
                return
            self._said.value = ""
            self.source.value = self.name.value = ""
            self._add(process)

    def _add(self, process: DownloadProcess) -> None:
        row = DownloadRow(process, lock=self._lock, on_done=self._done, on_close=self._take_off)
        self._rows.append(row)
        self._running.children = [row.widget for row in self._rows]
        answer_while_busy(self._running)
        if self._background:
            row.follow()

    def _done(self) -> None:
        self.tell(self._family)
        self._on_done()

    def _take_off(self, row: DownloadRow) -> None:
        self._rows.remove(row)
        self._running.children = [row.widget for row in self._rows]


class DownloadRow:
    """One download: what it says, a bar, and a button that cancels it, or takes the row away once it is over."""

    def __init__(
        self,
        process: DownloadProcess,
        *,
        lock: threading.RLock,
        on_done: Callable[[], None],
        on_close: Callable[[DownloadRow], None],
    ) -> None:
        self._process, self._lock, self._on_done, self._on_close = process, lock, on_done, on_close
        self._closed = self._stopping = False
        self._look = Look("running")
        self._said = ipywidgets.HTML()
        self._bar = ipywidgets.IntProgress(max=100, layout={"width": "auto", "flex": "1 1 120px"})
        self._bar.tooltip = f"Download of {process.what}"
        self.stop = ipywidgets.Button(layout={"width": "auto"})
        self.stop.on_click(lambda _: self._press())
        row = ipywidgets.HBox([self._bar, self.stop], layout={"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([self._said, row])
        self.widget.add_class("vidkit-download")
        self._show(process.look())

    def follow(self) -> None:
        """Look at it from a thread until it is over."""
        if not self._look.is_over:
            threading.Thread(target=self._follow, name=f"vidkit download {self._process.what}", daemon=True).start()

    def refresh(self) -> Look:
        """Look once, and show it."""
        look = self._process.look()
        with self._lock:
            came = look.state == "done" and not self._look.is_over
            self._show(look)
        if came:
            self._on_done()
        return look

    def close(self) -> None:
        self._closed = True

    def _show(self, look: Look) -> None:
        self._look = look
        self._bar.value = look.percent
        self._bar.bar_style = {"done": "success", "failed": "danger", "cancelled": "warning"}.get(look.state, "")
        self._said.value = status(in_words(self._process.what, look, stopping=self._stopping))
        self.stop.description = "Dismiss" if look.is_over else "Cancel download"
        self.stop.tooltip = (
            f"Take the line of {self._process.what} away"
            if look.is_over
            else f"Stop {self._process.what}; what has come is kept, and Download goes on from there"
        )
        self.stop.disabled = self._stopping and not look.is_over

    def _follow(self) -> None:
        try:
            while not self._closed and not self.refresh().is_over:
                time.sleep(EVERY)
        except Exception as error:
            logger.exception("the download of %s can no longer be looked at", self._process.what)
            with self._lock:
                self._said.value = status(f"{self._process.what} can no longer be looked at: {error}")

    def _press(self) -> None:
        with self._lock:
            if self._look.is_over:
                self._process.forget()
                self._on_close(self)
                return
            self._stopping = True
            self._process.stop()
            self._show(self._look)


def in_words(what: str, look: Look, *, stopping: bool) -> str:
    if look.state == "done" and look.answer is not None:
        notes = " ".join(f"{note.rstrip('.')}." for note in look.answer.get("notes", []))
        return f"{look.answer['name']} is here. {notes}".strip()
    if look.is_over:
        return f"{what}: {look.message}"
    return f"{what}: stopping…" if stopping else look.message if what in look.message else f"{what}: {look.message}"


def names_here(settings: Settings) -> set[str]:
    """The catalogue's models that are registered and there."""
    try:
        return {entry.text("catalogue") for entry in registered(settings) if not entry.is_missing}
    except SetupError:  # a broken registry is told where models are listed
        return set()


def in_one_line(published: Published, is_here: bool) -> str:
    size = f"{published.gigabytes:g} GB" if published.gigabytes >= 1 else f"{published.gigabytes * 1000:.0f} MB"
    return f"{published.title}: about {size}" + (" (here already)" if is_here else "")


def about(published: Published, settings: Settings) -> Iterator[str]:
    """Licence, what it needs beside it, and whether the disk has room, as HTML."""
    page = f'<a href="{html.escape(published.page)}" target="_blank">{html.escape(published.page)}</a>'
    yield f"Licence: {html.escape(published.licence)}. {page}"
    if published.gated:
        yield "Its licence has to be accepted on that page; then log in once, in a terminal: <code>hf auth login</code>"
    here = names_here(settings)
    for need in published.needs:
        there = [name for name in need.names if name in here]
        names = f"here: {', '.join(there)}" if there else f"get one of: {', '.join(need.names)}" if need.names else ""
        yield html.escape(f"Needs {need.what}" + (f" ({names})" if names else ""))
    for what, value in published.limits().items():
        yield html.escape(f"{what.capitalize()}: {value}")
    free = free_gigabytes(settings.models)
    if published.gigabytes > free:
        yield f"⚠ Only {free:.1f} GB are free on the disk of {html.escape(str(settings.models))}."
