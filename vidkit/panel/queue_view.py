"""The queue in words, one line a job, with what can be done to each."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Final

import ipywidgets

from vidkit.panel.queue import Job, JobQueue
from vidkit.sweep.dry_run import in_words

#: jobs that are over, of those that the queue remembers
ENDED_SHOWN: Final = 5
#: lines; what is beyond is counted
LINES: Final = 40
#: letters of a prompt
PROMPT_SHOWN: Final = 60


class QueueView:
    """What runs, what waits and what has just ended. Listens to the queue until `close`."""

    def __init__(self, queue: JobQueue, *, lock: threading.RLock) -> None:
        self._queue, self._lock = queue, lock
        self._summary = ipywidgets.HTML()
        self._pause = ipywidgets.Button(description="Pause queue", layout={"width": "auto"})
        self._note = ipywidgets.HTML()
        self._start = ipywidgets.Button(description="Start waiting requests", layout={"width": "auto"})
        self._held = ipywidgets.HBox([self._note, self._start], layout={"flex_flow": "row wrap", "display": "none"})
        self._held.add_class("vidkit-note")
        self._looks = Looks()
        self._rows: list[JobRow] = []
        self._lines = ipywidgets.VBox([])
        head = ipywidgets.HBox([self._summary, self._pause], layout={"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([head, self._held, self._lines])
        self.widget.add_class("vidkit-queue")
        self._pause.on_click(lambda _: self._toggle())
        self._start.on_click(lambda _: queue.resume())
        self._stop_listening = queue.listen(self._on_job)
        self.refresh()

    def close(self) -> None:
        self._stop_listening()

    def refresh(self) -> None:
        with self._lock:
            jobs = self._queue.jobs()
            waiting = [job for job in jobs if job.state == "queued"]
            active = [job for job in jobs if not job.is_over]
            over = [job for job in jobs if job.is_over][:ENDED_SHOWN]
            shown = active[: LINES - len(over)]
            self._show_lines([*shown, *over], waiting)
            self._show_head(active, waiting, hidden=len(active) - len(shown))

    def _show_lines(self, jobs: list[Job], waiting: list[Job]) -> None:
        places = {job.id: number for number, job in enumerate(waiting)}
        while len(self._rows) < len(jobs):
            self._rows.append(JobRow(self._queue, self._looks))
        for row, job in zip(self._rows, jobs, strict=False):
            row.show(job, places.get(job.id), len(waiting))
        shown = tuple(row.widget for row in self._rows[: len(jobs)])
        if shown != self._lines.children:
            self._lines.children = shown

    def _show_head(self, active: list[Job], waiting: list[Job], hidden: int) -> None:
        held = sum(job.held for job in waiting)
        self._summary.value = f'<span role="status">{html.escape(self._in_words(active, waiting, hidden))}</span>'
        self._pause.layout.display = "" if waiting or self._queue.paused else "none"
        self._pause.description = "Resume queue" if self._queue.paused else "Pause queue"
        self._held.layout.display = "" if held else "none"
        if held:
            self._note.value = (
                f"{counted(held, 'request')} of a session that ended {'is' if held == 1 else 'are'} waiting."
            )

    def _in_words(self, active: list[Job], waiting: list[Job], hidden: int) -> str:
        if not active:
            return "Queue: paused, empty." if self._queue.paused else "Queue: empty."
        parts = ["1 running"] if len(active) > len(waiting) else []
        parts += [f"{len(waiting)} waiting"] if waiting else []
        parts += [f"{hidden} not shown"] if hidden else []
        return f"Queue{' (paused)' if self._queue.paused else ''}: {', '.join(parts)}."

    def _toggle(self) -> None:
        if self._queue.paused:
            self._queue.resume()
        else:
            self._queue.pause()
        self.refresh()  # an empty queue has no job to tell of

    def _on_job(self, job: Job) -> None:
        """A step of the running job touches its own line alone."""
        with self._lock:
            row = next((row for row in self._rows if row.job is job), None)
            if row is not None and row.state == job.state == "running":
                row.show(job, None, 0)
            else:
                self.refresh()


class Looks:
    """Layouts that all lines share: a widget each would double their number."""

    def __init__(self) -> None:
        self.button = ipywidgets.Layout(width="34px", flex="0 0 auto")
        self.none = ipywidgets.Layout(display="none")
        self.line = ipywidgets.Layout(flex="1 1 auto", min_width="0")
        self.row = ipywidgets.Layout(align_items="center")
        self.style = ipywidgets.ButtonStyle()


class JobRow:
    """One line. job, state: what it shows now."""

    def __init__(self, queue: JobQueue, looks: Looks) -> None:
        self.job: Job | None = None
        self.state: str | None = None
        self._looks = looks
        self._line = ipywidgets.HTML(layout=looks.line)
        self._up = self._button("vidkit-up", lambda job: queue.move(job.id, -1))
        self._down = self._button("vidkit-down", lambda job: queue.move(job.id, 1))
        self._away = self._button("vidkit-away", lambda job: (queue.remove if removable(job) else queue.cancel)(job.id))
        self.widget = ipywidgets.HBox([self._line, self._up, self._down, self._away], layout=looks.row)

    def show(self, job: Job, place: int | None, waiting: int) -> None:
        """place: among the `waiting` jobs, from 0; None when it is not one of them."""
        self._line.value = line_of(job, place)
        if (self.job, self.state) != (job, job.state):
            self.job, self.state = job, job.state
            name = name_of(job)
            self._up.description = f"Move up: {name}"
            self._down.description = f"Move down: {name}"
            self._away.description = f"{'Remove' if removable(job) else 'Cancel'}: {name}"
            for button in (self._up, self._down, self._away):
                button.tooltip = button.description
        self._set(self._up, shown=place is not None, disabled=not place)
        self._set(self._down, shown=place is not None, disabled=place == waiting - 1)
        self._set(self._away, shown=True, disabled=job.cancelling)

    def _button(self, kind: str, act: Callable[[Job], None]) -> ipywidgets.Button:
        button = ipywidgets.Button(layout=self._looks.button, style=self._looks.style)
        button.add_class("vidkit-sign")  # its words are its name, the stylesheet shows a sign for them
        button.add_class(kind)

        def on_click(_: ipywidgets.Button) -> None:
            if self.job is not None:
                act(self.job)

        button.on_click(on_click)
        return button

    def _set(self, button: ipywidgets.Button, *, shown: bool, disabled: bool) -> None:
        layout = self._looks.button if shown else self._looks.none
        if button.layout is not layout:
            button.layout = layout
        button.disabled = disabled


def removable(job: Job) -> bool:
    return job.state != "running"


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def name_of(job: Job) -> str:
    prompt = " ".join(job.params.prompt.split())
    prompt = prompt if len(prompt) <= PROMPT_SHOWN else prompt[: PROMPT_SHOWN - 1] + "…"
    return f"{prompt}, seed {job.params.seed}"


def line_of(job: Job, place: int | None) -> str:
    words = html.escape(state_in_words(job, place))
    return f'<b class="vidkit-state">{words}</b> <span class="vidkit-job">{html.escape(name_of(job))}</span>'


def state_in_words(job: Job, place: int | None) -> str:
    took = f" in {in_words(job.seconds)}" if job.seconds is not None else ""
    if job.state == "queued":
        return "Waiting from an earlier session." if job.held else f"Waiting, number {(place or 0) + 1}."
    if job.state == "running":
        return running_in_words(job)
    if job.state == "failed" and job.error is not None:
        return f"Failed: {job.error.message}"
    return {"done": f"Done{took}.", "known": "Was made before.", "cancelled": "Cancelled."}.get(job.state, job.state)


def running_in_words(job: Job) -> str:
    if job.cancelling:
        return "Cancelling…"
    progress = job.progress
    if progress is None:
        return "Starting…"
    parts = [f"Running, {progress.progress} %"]
    if progress.step is not None and progress.steps is not None:
        parts.append(f"step {min(progress.step + 1, progress.steps)} of {progress.steps}")
    else:
        parts.append(progress.message.rstrip(".…"))
    if progress.eta_seconds is not None:
        parts.append(f"about {in_words(progress.eta_seconds)} left")
    return ", ".join(parts) + "."
