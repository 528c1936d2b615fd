"""The panel as widgets: the parts of this folder put together, and what each does to the others."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import ipywidgets

from vidkit import generation
from vidkit.errors import VidkitError
from vidkit.logs import log_unless_chosen
from vidkit.panel.acknowledgement_view import AcknowledgementView
from vidkit.panel.compare import ComparePlayer, Difference, request_differences
from vidkit.panel.control_base import Control
from vidkit.panel.copy_as import CopyView
from vidkit.panel.history import Entry, params_of
from vidkit.panel.history_view import HistoryView
from vidkit.panel.keys import PanelKeys
from vidkit.panel.model_view import ModelView
from vidkit.panel.number_controls import SeedControl
from vidkit.panel.outlook import Outlook, outlook_of
from vidkit.panel.picture_view import PictureView
from vidkit.panel.plan_view import PlanView
from vidkit.panel.preferences import load_request, save_request
from vidkit.panel.prompt_view import PromptView, warm_up
from vidkit.panel.queue import Job
from vidkit.panel.queue_view import QueueView
from vidkit.panel.request_form import RequestForm
from vidkit.panel.run_view import RunView, status
from vidkit.panel.session import Session
from vidkit.panel.subshells import answer_while_busy
from vidkit.panel.sweep_view import SweepView
from vidkit.params import GenerationParams
from vidkit.record import request_from_clip
from vidkit.settings import settings_or_defaults

logger = logging.getLogger("vidkit")

#: seconds without a change after which the settings are kept
QUIET: Final = 1.0


class LivePanel:
    """See `ControlPanel`. What touches widgets holds `lock`: cells, the page's callbacks and jobs are three threads."""

    def __init__(self, params: GenerationParams | None, session: Session, *, foreground: bool) -> None:
        self.lock = threading.RLock()
        self._session, self._foreground = session, foreground
        self._settings = settings_or_defaults()
        log_unless_chosen()
        self._outlook: Outlook | None = None
        self._saving: threading.Timer | None = None
        restored, notes = load_request()
        self._said = ipywidgets.HTML(value=status(" ".join(notes)))

        self.pictures = {
            "image_path": PictureView(
                "image_path", "Picture", folder=self._settings.pictures, lock=self.lock, on_clip=self.restore_clip
            ),
            "last_image_path": PictureView(
                "last_image_path", "Last picture", folder=self._settings.pictures, lock=self.lock, optional=True
            ),
        }
        self.prompts = PromptView(lock=self.lock)
        self.models = ModelView(lock=self.lock, settings=self._settings, on_choose=self._preload, apply=self.change)
        special: dict[str, Control] = {
            **self.pictures,
            "prompt": self.prompts.prompt,
            "negative_prompt": self.prompts.negative_prompt,
            **self.models.controls,
        }
        self.form = RequestForm(params or restored, lock=self.lock, special=special)
        self.plan = PlanView(self.change)
        self.acknowledgement = AcknowledgementView(lock=self.lock, on_given=self.refresh)
        self.player = ComparePlayer()
        self.stage = RunView(session.queue, self.player, lock=self.lock, on_run=self._on_run, apply=self.change)
        self.queue = QueueView(session.queue, lock=self.lock)
        self.sections = Sections(
            {
                "History": self._history,
                "Prompts": lambda: self.prompts.widget,
                "Models": lambda: self.models.widget,
                "Sweep": self._sweep,
                "Copy as": self._copy,
            },
            {"History": self._refresh_history, "Models": self.models.refresh},
            self.lock,
        )
        self.history: HistoryView | None = None
        self.copy: CopyView | None = None
        self.sweep: SweepView | None = None
        self.widget = self._layout()
        self.form.on_change(self.refresh)
        for control in self.models.controls.values():
            control.on_change(lambda name: self._preload())
        self._stop_listening = session.queue.listen(self._on_job)
        self.refresh()
        threading.Thread(target=self._find_device, name="vidkit-device", daemon=True).start()
        atexit.register(self.save)

    def _layout(self) -> ipywidgets.Widget:
        style = ipywidgets.HTML(f"<style>{stylesheet()}</style>", layout={"display": "none"})
        left = ipywidgets.VBox([self.form.widget], layout={"flex": "1.4 1 420px", "min_width": "0"})
        right = ipywidgets.VBox(
            [self.plan.widget, self.acknowledgement.widget, self.stage.widget, self.queue.widget],
            layout={"flex": "1 1 270px", "min_width": "0"},
        )
        left.add_class("vidkit-column")
        right.add_class("vidkit-column")
        columns = ipywidgets.HBox([left, right], layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        panel = ipywidgets.VBox([style, PanelKeys(), self._said, columns, self.sections.widget])
        panel.add_class("vidkit-panel")
        return panel

    # --- the request

    @property
    def params(self) -> GenerationParams:
        return self.form.params

    @params.setter
    def params(self, params: GenerationParams) -> None:
        with self.lock:
            self.form.params = params

    def change(self, changes: Mapping[str, Any]) -> None:
        """Apply a remedy's changes."""
        with self.lock:
            self.form.change(**changes)

    def refresh(self) -> None:
        """After any change: what the request comes to now, told at the controls and in the plan."""
        with self.lock:
            settings = settings_or_defaults()  # they may have changed since, above all what was acknowledged
            outlook = outlook_of(self.params, settings, self._session.estimate, self._session.device)
            self._outlook = outlook
            if outlook.limits is not None:
                self.form.narrow(outlook.limits)
            resolved = outlook.resolved.params if outlook.resolved is not None else None
            problems = list(outlook.problems)
            for number, picture in enumerate(self.pictures.values()):
                if (problem := picture.show(resolved, number)) is not None:
                    problems.append(problem)
            self.prompts.tell(self.params, outlook.models, outlook.limits)
            self.models.tell(self.params, outlook.models)
            homeless = self.form.show_problems(problems)
            self.acknowledgement.show(problems)
            self.plan.show(outlook, self._session.device_problem, homeless)
            blocking = [problem.message for problem in (*problems, *self.form.invalid)]
            if self._session.device_problem is not None:
                blocking.append(self._session.device_problem.message)
            self.stage.can_run(" ".join(blocking) or None)
            if self.copy is not None:
                self.copy.show(self.params)
            if self.sweep is not None:
                self.sweep.show(self.params)
            answer_while_busy(self.widget)
            self._save_soon()

    def restore_clip(self, clip: Path) -> None:
        """Take the settings of a former clip; the clip is the picture. What is no clip of ours stays a picture."""
        with self.lock:
            try:
                self.params = GenerationParams(**request_from_clip(clip))
            except VidkitError as error:
                self._say(f"Only the picture of {clip.name} is used: {error.message}")
            else:
                self._say(f"All settings of {clip.name} are restored.")

    def restore(self, params: GenerationParams) -> None:
        self.params = params
        self._say("Settings and picture are restored.")

    # --- running

    def submit(self) -> Job:
        """Queue the request as it is now."""
        return self.submit_this(self.params)

    def submit_this(self, params: GenerationParams) -> Job:
        job = self._session.queue.submit(params)
        if self._foreground:
            self._session.queue.run_here()
        return job

    def _on_run(self) -> None:
        self.submit()

    def _on_job(self, job: Job) -> None:
        with self.lock:
            answer_while_busy(self.widget)
            seed = self.form.control("seed")
            if isinstance(seed, SeedControl):
                seed.drawn(job.params.seed)
        if job.state in ("done", "known", "failed"):
            self._session.forget_entries()
            self.refresh()

    def _preload(self) -> None:
        """Load the request's models in the background, if it could run."""
        if not self._foreground and self._outlook is not None and self._outlook.resolved is not None:
            self._session.queue.preload(
                self.params, self._preloaded, lambda progress: self.models.say(progress.message)
            )

    def _preloaded(self, error: VidkitError | None) -> None:
        loaded = ", ".join(generation.loaded_models())
        self.models.say(f"Loaded: {loaded}." if error is None else f"Not loaded: {error.message}")

    def _find_device(self) -> None:
        """What takes too long for a callback; then everything is told again."""
        if self._outlook is not None and self._outlook.models is not None:
            warm_up(self._outlook.models)
        self._session.find_device()
        self.refresh()

    # --- the sections, built when they are first opened

    def _history(self) -> ipywidgets.Widget:
        self.history = HistoryView(
            self._session.history,
            lock=self.lock,
            queue=self._session.queue,
            on_restore=self.restore,
            on_rerun=self.submit_this,
            on_pin=self._pin,
            on_play=self._play,
        )
        return self.history.widget

    def _refresh_history(self) -> None:
        """Sweeps, and other kernels, add to it."""
        self._session.forget_entries()
        if self.history is not None:
            self.history.refresh()

    def _sweep(self) -> ipywidgets.Widget:
        self.sweep = SweepView(
            self.params,
            lock=self.lock,
            estimate=self._seconds,
            background=not self._foreground,
        )
        return self.sweep.widget

    def _copy(self) -> ipywidgets.Widget:
        self.copy = CopyView(self.params, lock=self.lock)
        return self.copy.widget

    def _seconds(self) -> float | None:
        return self._outlook.seconds if self._outlook is not None else None

    def _play(self, entry: Entry) -> None:
        self.player.show(entry.clip, left_label=label_of(entry))

    def _pin(self, left: Entry, right: Entry | None) -> None:
        if right is None:
            self._play(left)
        else:
            self.player.show(
                left.clip, right.clip, label_of(left), label_of(right), differences=differences_of(left, right)
            )

    # --- keeping

    def _save_soon(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
        self._saving = threading.Timer(QUIET, self.save)
        self._saving.daemon = True
        self._saving.start()

    def save(self) -> None:
        """Keep the settings; what stands in the way is said, and ends nothing."""
        try:
            save_request(self.params)
        except (VidkitError, OSError) as error:
            logger.warning("the panel's settings could not be kept: %s", error)
            self._say(f"The settings could not be kept: {error}")

    def _say(self, text: str) -> None:
        with self.lock:
            self._said.value = status(text)

    def close(self) -> None:
        """Take the panel off the page; its queue goes on."""
        atexit.unregister(self.save)
        self._stop_listening()
        for part in (self.stage, self.queue, self.models, self.history, self.sweep):
            if part is not None:
                part.close()
        self.save()
        ipywidgets.Widget.close(self.widget)


class Sections:
    """One of several parts at a time, each built when it is first opened; none at first.

    again: what to do when a part is opened once more, as what it shows may have changed on the disk.
    """

    def __init__(
        self,
        builders: Mapping[str, Callable[[], ipywidgets.Widget]],
        again: Mapping[str, Callable[[], None]],
        lock: threading.RLock,
    ) -> None:
        self._builders, self._again, self._lock = builders, again, lock
        self._built: dict[str, ipywidgets.Widget] = {}
        self._place = ipywidgets.VBox([])
        self.choice = ipywidgets.ToggleButtons(options=list(builders), value=None, description="Show")
        self.choice.observe(self._on_choice, "value")
        self.widget = ipywidgets.VBox([self.choice, self._place])

    def _on_choice(self, change: Mapping[str, Any]) -> None:
        name = change["new"]
        with self._lock:
            if name is not None and name not in self._built:
                self._built[name] = self._builders[name]()
            elif name is not None and name in self._again:
                self._again[name]()
            self._place.children = [self._built[name]] if name is not None else []
            answer_while_busy(self._place)


def differences_of(left: Entry, right: Entry) -> list[Difference] | None:
    """None where a clip does not hold its settings."""
    try:
        return request_differences(params_of(left), params_of(right))
    except VidkitError as error:
        logger.info("the settings of two clips cannot be compared: %s", error)
        return None


def stylesheet() -> str:
    folder = resources.files("vidkit.panel")
    parts = sorted(folder.joinpath("style.d").iterdir(), key=lambda part: part.name)
    return "\n".join(part.read_text(encoding="utf-8") for part in parts if part.name.endswith(".css"))


def label_of(entry: Entry) -> str:
    return f"seed {entry.manifest.seed}, {entry.run.name[:6]}"
