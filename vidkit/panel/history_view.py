"""The clips made so far: a page of moving pictures, and what can be done with the chosen one."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Any, Final

import ipywidgets

from vidkit.errors import VidkitError
from vidkit.panel.clip_details import details_html, name_of
from vidkit.panel.clip_grid import PAGE, ClipGrid
from vidkit.panel.history import Entry, History, params_of
from vidkit.panel.queue import Job, JobQueue
from vidkit.panel.queue_view import counted
from vidkit.params import GenerationParams
from vidkit.runs import RunFolder

MIB: Final = 2**20
SURE: Final = "Yes, delete for good"


class HistoryView:
    """Shows what `History` finds; made anew when a run of the queue ends.

    on_restore: all settings of a clip; on_rerun: the same with a seed to be drawn, to be queued; on_pin: what is pinned
    left, and right if there is one; on_play: show it large.
    """

    def __init__(
        self,
        history: History,
        *,
        lock: threading.RLock,
        on_restore: Callable[[GenerationParams], object],
        on_rerun: Callable[[GenerationParams], object],
        on_pin: Callable[[Entry, Entry | None], object],
        on_play: Callable[[Entry], object],
        queue: JobQueue | None = None,
    ) -> None:
        self._history, self._lock = history, lock
        self._on_restore, self._on_rerun, self._on_pin, self._on_play = on_restore, on_rerun, on_pin, on_play
        self._entries: list[Entry] = []
        self._page = 0
        self._chosen: str | None = None
        self._pinned: dict[str, Entry] = {}
        self._grid = ClipGrid(history, lock=lock, on_choose=self._choose, background=queue is None or queue.threaded)
        self._make_controls()
        self._stop_listening = queue.listen(self._on_job) if queue is not None else lambda: None
        self.refresh()

    def _make_controls(self) -> None:
        auto = ipywidgets.Layout(width="auto")
        looks: dict[str, Any] = {"layout": auto, "style": ipywidgets.ButtonStyle()}
        self.search = ipywidgets.Text(
            description="Find", placeholder="words of the prompt, a seed, a model, a date", layout={"width": "420px"}
        )
        self.starred = ipywidgets.Checkbox(description="Starred only", indent=False, layout=auto)
        self.again = ipywidgets.Button(description="Refresh history", **looks)
        self.back = ipywidgets.Button(description="Newer clips", **looks)
        self.on = ipywidgets.Button(description="Older clips", **looks)
        self._where = ipywidgets.HTML()
        self.actions = {
            name: ipywidgets.Button(description=name, **looks)
            for name in (
                *("Play", "Restore settings", "New seed again", "Pin left", "Pin right", "Star", "Delete"),
                *("Undo delete", "Empty trash"),
            )
        }
        self._said = ipywidgets.HTML(value=said(""))
        self._details = ipywidgets.HTML()
        wrap = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.search, self.starred, self.again], layout=wrap),
                self._grid.widget,
                ipywidgets.HBox([self.back, self.on, self._where], layout=wrap),
                ipywidgets.HBox(list(self.actions.values()), layout=wrap),
                self._said,
                self._details,
            ]
        )
        self.widget.add_class("vidkit-history")
        self.search.observe(lambda _: self._filter(), "value")
        self.starred.observe(lambda _: self._filter(), "value")
        self.again.on_click(lambda _: self.refresh())
        self.back.on_click(lambda _: self._turn(-1))
        self.on.on_click(lambda _: self._turn(1))
        for name, act in self._acts().items():
            self.actions[name].on_click(lambda _, act=act: self._act(act))

    def _acts(self) -> dict[str, Callable[[], None]]:
        return {
            "Play": self._with_chosen(lambda entry: self._on_play(entry)),
            "Restore settings": self._with_chosen(lambda entry: self._on_restore(params_of(entry))),
            "New seed again": self._with_chosen(lambda entry: self._on_rerun(params_of(entry).replace(seed=-1))),
            "Pin left": self._with_chosen(lambda entry: self._pin("left", entry)),
            "Pin right": self._with_chosen(lambda entry: self._pin("right", entry)),
            "Star": self._with_chosen(self._star),
            "Delete": self._with_chosen(self._delete),
            "Undo delete": self._undo,
            "Empty trash": self._empty_trash,
        }

    # --- what is shown

    @property
    def chosen(self) -> Entry | None:
        return next((entry for entry in self._entries if entry.id == self._chosen), None)

    def refresh(self, choose: RunFolder | None = None) -> None:
        """Look again at what is on disk. choose: a run to choose and turn to."""
        with self._lock:
            self._entries = self._history.entries(starred_only=self.starred.value, text=self.search.value)
            for number, entry in enumerate(self._entries):
                if choose is not None and entry.run.path == choose.path:
                    self._chosen, self._page = entry.id, number // PAGE
            self._page = max(0, min(self._page, self._pages() - 1))
            self._draw()
            self._show_trash()

    def close(self) -> None:
        self._stop_listening()
        self._grid.close()

    def _pages(self) -> int:
        return -(-len(self._entries) // PAGE)

    def _draw(self) -> None:
        start = self._page * PAGE
        self._grid.show(self._entries[start : start + PAGE], self._chosen)
        self.back.disabled = self._page == 0
        self.on.disabled = self._page + 1 >= self._pages()
        self._where.value = html.escape(self._where_in_words())
        chosen = self.chosen
        for name in ("Play", "Restore settings", "New seed again", "Pin left", "Pin right", "Star", "Delete"):
            self.actions[name].disabled = chosen is None
        self.actions["Star"].description = "Remove star" if chosen is not None and chosen.starred else "Star"
        self._details.value = "" if chosen is None else details_html(chosen)

    def _where_in_words(self) -> str:
        if self._entries:
            return f"{counted(len(self._entries), 'clip')}, page {self._page + 1} of {self._pages()}"
        if self.search.value or self.starred.value:
            return "No clip is like that."
        return "No clips yet: the first one that you run appears here."

    def _show_trash(self) -> None:
        clips, size = self._history.trash()
        self.actions["Undo delete"].disabled = self.actions["Empty trash"].disabled = not clips
        inside = f" ({counted(clips, 'clip')}, {size / MIB:.1f} MiB)" if clips else ""
        self.actions["Empty trash"].description = f"Empty trash{inside}"

    # --- what is done

    def _choose(self, entry: Entry) -> None:
        with self._lock:
            self._chosen = entry.id
            self._say(f"Chosen: {name_of(entry)}.")
            self._draw()

    def _turn(self, by: int) -> None:
        with self._lock:
            self._page = max(0, min(self._page + by, self._pages() - 1))
            self._draw()

    def _filter(self) -> None:
        with self._lock:
            self._page = 0
            self.refresh()

    def _on_job(self, job: Job) -> None:
        if job.state in ("done", "known"):
            self.refresh()

    def _act(self, act: Callable[[], None]) -> None:
        """What cannot be done is said."""
        with self._lock:
            try:
                act()
            except VidkitError as error:
                self._say(" ".join([error.message, *error.suggestions]))

    def _with_chosen(self, act: Callable[[Entry], object]) -> Callable[[], None]:
        def on_chosen() -> None:
            if self.chosen is not None:
                act(self.chosen)

        return on_chosen

    def _pin(self, side: str, entry: Entry) -> None:
        self._pinned[side] = entry
        left, right = self._pinned.get("left"), self._pinned.get("right")
        if left is not None and right is not None:
            self._say(f"Compared: left {name_of(left)}; right {name_of(right)}.")
            self._on_pin(left, right)
        else:
            self._say(f"Pinned {side}: {name_of(entry)}. Pin another to the other side to compare them.")
            self._on_pin(entry, None)

    def _star(self, entry: Entry) -> None:
        self._history.star(entry, not entry.starred)
        self._say(f"{'Star removed' if entry.starred else 'Starred'}: {name_of(entry)}.")
        self.refresh()

    def _delete(self, entry: Entry) -> None:
        place = self._entries.index(entry)
        self._history.delete(entry)
        self._pinned = {side: pinned for side, pinned in self._pinned.items() if pinned.id != entry.id}
        neighbours = [*self._entries[place + 1 : place + 2], *self._entries[max(place - 1, 0) : place]]
        self._chosen = neighbours[0].id if neighbours else None
        self._say(f"Deleted: {name_of(entry)}. Undo delete brings it back.")
        self.refresh()

    def _undo(self) -> None:
        back = self._history.undo()
        if back is not None:
            self._say(f"Back again: {name_of(back)}.")
        self.refresh(back.run if back is not None else None)

    def _empty_trash(self) -> None:
        """The second press does it: it cannot be undone."""
        button = self.actions["Empty trash"]
        if button.description == SURE:
            self._history.empty_trash()
            self._say("The trash is empty.")
            self._show_trash()
        else:
            clips, size = self._history.trash()
            self._say(f"Delete {counted(clips, 'clip')} ({size / MIB:.1f} MiB) for good? Press again.")
            button.description = SURE

    def _say(self, text: str) -> None:
        self._said.value = said(text)
        self._show_trash()  # whatever else is done, the question of the trash is taken back


def said(text: str) -> str:
    """Read out by screen readers as it changes."""
    return f'<span role="status" aria-live="polite">{html.escape(text)}</span>'
