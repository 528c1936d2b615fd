"""The stage: Run and Cancel, how far the running clip is, a live look at it, and the finished clip."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Final

import ipywidgets

from vidkit.panel.compare import ComparePlayer
from vidkit.panel.looks import animated
from vidkit.panel.problems import Apply, ProblemView
from vidkit.panel.queue import Job, JobQueue
from vidkit.panel.run_clip import clip_of
from vidkit.progress import Progress
from vidkit.sweep.dry_run import in_words

#: pixels: of the live look's longer side
SHOWN: Final = 384


class RunView:
    """Shows the queue's running job and the last one that ended.

    on_run: called by the Run button; apply: applies a remedy's changes to the form.
    """

    def __init__(
        self,
        queue: JobQueue,
        player: ComparePlayer,
        *,
        lock: threading.RLock,
        on_run: Callable[[], None],
        apply: Apply,
    ) -> None:
        self._queue, self._player, self._lock, self._apply = queue, player, lock, apply
        self._job: Job | None = None
        self.run = ipywidgets.Button(description="Run", button_style="primary", tooltip="Make this clip (or queue it)")
        self.cancel = ipywidgets.Button(description="Cancel", tooltip="Stop the running clip", disabled=True)
        self._bar = ipywidgets.IntProgress(max=100, layout={"width": "auto", "flex": "1 1 120px"})
        self._words = ipywidgets.HTML(value=status("Ready."))
        self._look = ipywidgets.Image(format="webp", layout={"display": "none", "max_width": "100%"})
        self._look.add_class("vidkit-look")
        self._problem = ProblemView()
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.run, self.cancel, self._bar], layout={"flex_flow": "row wrap"}),
                self._words,
                self._problem.widget,
                self._look,
                player,
            ]
        )
        self.run.on_click(lambda _: on_run())
        self.cancel.on_click(self._on_cancel)
        self._stop_listening = queue.listen(self._on_job)
        for job in reversed(queue.jobs()):  # what runs already, when the panel is opened again
            if job.state in ("running", "done", "known", "failed"):
                self._on_job(job)

    def close(self) -> None:
        self._stop_listening()

    def can_run(self, reason: str | None) -> None:
        """reason: why not, in words; None when there is none."""
        self.run.disabled = reason is not None
        self.run.tooltip = reason or "Make this clip (or queue it)"

    def _on_cancel(self, _: ipywidgets.Button) -> None:
        job = self._job
        if job is not None:
            self._queue.cancel(job.id)
            self._words.value = status("Cancelling…")

    def _on_job(self, job: Job) -> None:
        with self._lock:
            if job.state == "running":
                self._show_running(job)
            elif (self._job is not None and job.id == self._job.id) or job.state in ("done", "known", "failed"):
                self._show_ended(job)

    def _show_running(self, job: Job) -> None:
        if self._job is None or self._job.id != job.id:
            self._problem.show(None, self._apply)
            self._bar.value = 0
            self._show_look(None)
        self._job = job
        self.cancel.disabled = False
        self.run.description = "Add to queue"
        if job.progress is not None:
            self._bar.value = job.progress.progress
            self._words.value = status(in_words_of(job.progress))
        if job.preview is not None:
            self._show_look(job)

    def _show_look(self, job: Job | None) -> None:
        if job is None or job.preview is None:
            self._look.layout.display = "none"
            return
        height, width = job.preview.shape[1:3]
        scale = SHOWN / max(height, width)
        self._look.layout.width = f"{round(width * scale)}px"
        self._look.value = animated(job.preview, job.params.fps)
        self._look.layout.display = ""

    def _show_ended(self, job: Job) -> None:
        self._job = None
        self.cancel.disabled = True
        self.run.description = "Run"
        self._show_look(None)
        self._problem.show(job.error if job.state == "failed" else None, self._apply)
        self._bar.value = 100 if job.state in ("done", "known") else 0
        self._words.value = status(ended_in_words(job))
        if job.run is not None:
            self._player.show(clip_of(job.run), left_label=f"seed {job.params.seed}")


def status(text: str) -> str:
    """Read out by screen readers as it changes."""
    return f'<span role="status" aria-live="polite">{html.escape(text)}</span>'


def in_words_of(progress: Progress) -> str:
    text = f"{progress.progress} %: {progress.message}"
    if progress.eta_seconds is not None:
        text += f" about {in_words(progress.eta_seconds)} of denoising left"
    return text


def ended_in_words(job: Job) -> str:
    if job.state == "known":
        return "This very clip was made before: here it is. For another one, change something, or unlock the seed."
    if job.state == "cancelled":
        return "Cancelled; nothing was written. Ready."
    took = f" after {in_words(job.seconds)}" if job.seconds else ""
    return f"{'Done' if job.state == 'done' else 'Failed'}{took}. Ready."
