"""A sweep that runs, as it goes on: how far it is, its clips as they come, and how to stop it."""

from __future__ import annotations

import base64
import html
import io
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import ipywidgets
from PIL import Image

from vidkit.errors import InputError
from vidkit.panel.run_view import status
from vidkit.panel.sweep_process import Look, PointEnd, SweepProcess
from vidkit.sweep.dry_run import cell, in_words

logger = logging.getLogger("vidkit")

#: seconds between two looks; more where a look takes long, so that looking costs a tenth of a core at most
EVERY: Final = 1.0
#: seconds that a report is waited for, of a sweep that somebody else runs
REPORT_WAIT: Final = 10.0
#: the last clips that have come
POSTERS: Final = 24
#: pixels: of a poster's longer side
SIDE: Final = 128
FAILURES: Final = 3


class SweepProgress:
    """Looks at the sweep from a thread until it is over.

    background: False: no thread, `refresh` is called for each look; stop: what the button is called.
    """

    def __init__(
        self, sweep: SweepProcess, *, lock: threading.RLock, background: bool, stop: str = "Stop sweep"
    ) -> None:
        self.sweep, self._lock = sweep, lock
        self.is_over = self._closed = self._stopping = False
        self._posters: dict[str, str] = {}
        self._said = ipywidgets.HTML(value=status(f"{sweep.name}: starting…"))
        self._bar = ipywidgets.IntProgress(max=1, layout={"width": "auto", "flex": "1 1 120px"})
        self.stop = ipywidgets.Button(description=stop, tooltip=f"Stop {sweep.name}; what is done is kept")
        self._shown = ipywidgets.HTML()
        row = ipywidgets.HBox([self._bar, self.stop], layout={"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([self._said, row, self._shown])
        self.widget.add_class("vidkit-sweep-run")
        self.stop.on_click(lambda _: self._stop())
        if background:
            threading.Thread(target=self._follow, name=f"vidkit sweep {sweep.name}", daemon=True).start()

    def refresh(self) -> Look:
        """Look once, and show it."""
        look, ends = self.sweep.look(), self.sweep.ended_points()
        done = [end for end in ends if end.failure is None][-POSTERS:]
        self._posters = {end.run.name: self._posters.get(end.run.name) or poster_of(end.run.poster) for end in done}
        pictures = "".join(figure(self._posters[end.run.name], end) for end in done)
        more = failures_html(ends) + report_html(self.sweep.report if look.is_over else None)
        with self._lock:
            self.is_over = look.is_over
            self.stop.disabled = look.is_over or self._stopping
            if look.status is not None:
                self._bar.max = max(look.status.points, 1)
                self._bar.value = look.status.done + look.status.failed
            self._said.value = status(f"{self.sweep.name}: {in_words_of(look, stopping=self._stopping)}")
            self._shown.value = f'<div class="vidkit-posters">{pictures}</div>{more}'
        return look

    def close(self) -> None:
        """No more looks; the sweep goes on."""
        self._closed = True

    def _follow(self) -> None:
        try:
            while not self._closed and not self._look_and_wait():
                pass
            end = time.monotonic() + REPORT_WAIT
            while not self._closed and not self.sweep.report.is_file() and time.monotonic() < end:
                time.sleep(EVERY)
            self.refresh()
        except Exception as error:
            logger.exception("%s can no longer be looked at", self.sweep.name)
            with self._lock:
                self._said.value = status(f"{self.sweep.name} can no longer be looked at: {error}")

    def _look_and_wait(self) -> bool:
        started = time.monotonic()
        look = self.refresh()
        if not look.is_over:
            time.sleep(max(EVERY, 10 * (time.monotonic() - started)))
        return look.is_over

    def _stop(self) -> None:
        with self._lock:
            try:
                self.sweep.stop()
            except InputError as error:
                self._said.value = status(" ".join([error.message, *error.suggestions]))
                return
            self._stopping = self.stop.disabled = True
            self._said.value = status(f"{self.sweep.name}: stopping…")


def in_words_of(look: Look, *, stopping: bool) -> str:
    if look.state == "broken":
        return f"it could not go on: {look.problem}"
    if look.status is None:
        return "stopped before its first clip." if look.is_over else "stopping…" if stopping else "starting…"
    parts = [f"{look.status.done} of {look.status.points} done"]
    parts += [f"{look.status.failed} failed"] if look.status.failed else []
    if look.state == "running" and not stopping and look.status.eta_seconds is not None:
        parts.append(f"about {in_words(look.status.eta_seconds)} left")
    words = {
        "starting": "Starting…",
        "running": "Running.",
        "reporting": "Writing the report…",
        "finished": "Finished.",
        "stopped": "Stopped; Run sweep goes on with the rest.",
    }
    return f"{', '.join(parts)}. {'Stopping…' if stopping and not look.is_over else words[look.state]}"


def poster_of(file: Path) -> str:
    """A small JPEG as a data address; "" where there is no picture."""
    try:
        with Image.open(file) as picture:
            small = picture.convert("RGB")
    except OSError as error:
        logger.info("%s cannot be shown: %s", file, error)
        return ""
    small.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def axes_in_words(end: PointEnd) -> str:
    return ", ".join(f"{name} {cell(value)}" for name, value in end.axes.items())


def figure(address: str, end: PointEnd) -> str:
    words = html.escape(axes_in_words(end))
    return f'<figure><img src="{address}" alt="Clip: {words}"><figcaption>{words}</figcaption></figure>'


def failures_html(ends: Sequence[PointEnd]) -> str:
    failed = [end for end in ends if end.failure is not None]
    lines = [f"Failed: {axes_in_words(end)}: {end.failure}" for end in failed[:FAILURES]]
    lines += [f"and {len(failed) - FAILURES} more, see the report"] if len(failed) > FAILURES else []
    return "".join(f"<div>⚠ {html.escape(line)}</div>" for line in lines)


def report_html(report: Path | None) -> str:
    """A link, and the path to copy: a browser opens no file from a page that came from a server."""
    if report is None or not report.is_file():
        return ""
    return f'<div>Report: <a href="{html.escape(report.as_uri())}" target="_blank">{html.escape(str(report))}</a></div>'
