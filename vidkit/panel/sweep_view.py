"""From the present settings to a sweep: axes and their values, what that comes to, its file, and running it."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ipywidgets

from vidkit.errors import VidkitError
from vidkit.panel.control_base import help_of
from vidkit.panel.outlook import Outlook, outlook_of
from vidkit.panel.run_view import status
from vidkit.panel.subshells import answer_while_busy
from vidkit.panel.sweep_draft import (
    SweepDraft,
    axis_names,
    parameters_folder,
    plan_draft,
    plan_in_words,
    problem_lines,
    proposed_name,
    proposed_values,
    seconds_of,
    with_free_name,
    write_draft,
)
from vidkit.panel.sweep_process import SweepProcess, running_sweeps, start_sweep
from vidkit.panel.sweep_progress import SweepProgress
from vidkit.params import GenerationParams, describe_values
from vidkit.settings import settings_or_defaults
from vidkit.sweep.axes import REPLACEMENT

FORMS: Final = "1, 2, 5 · 1..10 · 1..10 (+2) · 0..1 [5]"
#: lines of problems
SHOWN: Final = 12


class SweepView:
    """Follows the panel's form by `show`.

    estimate: seconds of one clip with the present settings, None when not known; background: whether threads can update
    widgets here.
    """

    def __init__(
        self,
        params: GenerationParams,
        *,
        lock: threading.RLock,
        estimate: Callable[[], float | None],
        background: bool = True,
    ) -> None:
        self._params, self._lock, self._background = params, lock, background
        self._estimate = estimate
        self._axes: dict[str, str] = {}
        self._lines: dict[str, ipywidgets.HBox] = {}
        self._proposed, self._proposed_name = "", proposed_name([])
        self._wanted, self._planning, self._starting = 0, False, False
        self._runs: list[SweepProgress] = []
        self._make_controls()
        self.show(params)
        for sweep in running_sweeps(settings_or_defaults().runs):
            self._follow(sweep)

    def _make_controls(self) -> None:
        auto = ipywidgets.Layout(width="auto")
        wide = ipywidgets.Layout(width="auto", flex="1 1 200px", min_width="0")
        wrap = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        self._auto, self._wrap, self._line = auto, wrap, ipywidgets.Layout(flex="1 1 auto", min_width="0")
        self.axis = ipywidgets.Dropdown(description="Axis", options=axis_names(self._params), value="seed")
        self.values = ipywidgets.Text(description="Values", layout=wide)
        self.add = ipywidgets.Button(description="Add axis", layout=auto)
        self._help = ipywidgets.HTML()
        self._axis_lines = ipywidgets.VBox([])
        self._plan = ipywidgets.HTML(value=status(""))
        self.name = ipywidgets.Text(description="Name", value=self._proposed_name, layout=wide)
        self.write = ipywidgets.Button(description="Write file", layout=auto, disabled=True)
        self.run = ipywidgets.Button(description="Run sweep", layout=auto, button_style="primary", disabled=True)
        self.again = ipywidgets.Button(description="Refresh sweeps", layout=auto)
        self._said = ipywidgets.HTML(value=status(""))
        self._run_lines = ipywidgets.VBox([])
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HTML("Every combination of the axes' values becomes a clip; all else is as set above."),
                ipywidgets.HBox([self.axis, self.values, self.add], layout=wrap),
                self._help,
                self._axis_lines,
                self._plan,
                ipywidgets.HBox([self.name, self.write, self.run], layout=wrap),
                *([] if self._background else [self.again]),
                self._said,
                self._run_lines,
            ]
        )
        self.widget.add_class("vidkit-sweep")
        self.axis.observe(lambda _: self._on_axis(), "value")
        self.add.on_click(lambda _: self._on_add())
        self.name.observe(lambda _: self._replan(), "value")
        self.write.on_click(lambda _: self._begin(self._write))
        self.run.on_click(lambda _: self._begin(self._start))
        self.again.on_click(lambda _: self.refresh())

    # --- what the panel tells

    def show(self, params: GenerationParams) -> None:
        """The settings are these now."""
        with self._lock:
            self._params = params
            self._outlook = outlook_now(params)
            names = axis_names(params)
            if list(self.axis.options) != names:
                before = self.axis.value
                self.axis.options = names
                self.axis.value = before if before in names else "seed"
            self._propose()
            self._replan()

    def refresh(self) -> None:
        """Look at the sweeps that run; by itself it is done every second, where that is possible."""
        for run in self._runs:
            run.refresh()

    def close(self) -> None:
        """Sweeps go on."""
        for run in self._runs:
            run.close()

    # --- axes

    @property
    def draft(self) -> SweepDraft:
        """What the form says now."""
        return SweepDraft(self._params, dict(self._axes), self.name.value.strip())

    def _on_axis(self) -> None:
        """Another axis is to be given: its values so far, or a proposal."""
        with self._lock:
            self.values.value = self._proposed = ""
            self._propose()

    def _propose(self) -> None:
        """Fill in values, unless the user has written some."""
        name = self.axis.value
        if self.values.value == self._proposed:
            self._proposed = self._axes.get(name) or proposed_values(name, self._outlook, settings_or_defaults())
            self.values.value = self._proposed
        self._help.value = f'<span class="vidkit-hint">{html.escape(axis_help(name, self._params))}</span>'

    def _on_add(self) -> None:
        with self._lock:
            name, written = self.axis.value, self.values.value.strip()
            if not written:
                self._say(f"Write some values for {name} first.")
                return
            self._axes[name] = written
            self._show_axes()
            self._say(f"{name} is an axis now.")

    def _on_remove(self, name: str) -> None:
        with self._lock:
            self._axes.pop(name, None)
            self._show_axes()
            self._say(f"{name} is no axis any more.")

    def _show_axes(self) -> None:
        for name in [name for name in self._lines if name not in self._axes]:
            line = self._lines.pop(name)
            for child in (*line.children, line):
                child.close()
        for name, written in self._axes.items():
            if name not in self._lines:
                self._lines[name] = self._axis_line(name)
            self._lines[name].children[0].value = f"<b>{name}</b>: {html.escape(written)}"
        self._axis_lines.children = list(self._lines.values())
        answer_while_busy(self._axis_lines)
        self._replan()

    def _axis_line(self, name: str) -> ipywidgets.HBox:
        button = ipywidgets.Button(description=f"Remove {name}", layout=self._auto)
        button.on_click(lambda _: self._on_remove(name))
        return ipywidgets.HBox([ipywidgets.HTML(layout=self._line), button], layout=self._wrap)

    # --- plan

    def _replan(self) -> None:
        """Thousands of points take a second: in a thread, one at a time, only the newest is shown."""
        with self._lock:
            self._wanted += 1
            if not self._background:
                self._plan_newest()
            elif not self._planning:
                self._planning = True
                threading.Thread(target=self._plan_newest, name="vidkit sweep plan", daemon=True).start()

    def _plan_newest(self) -> None:
        while True:
            with self._lock:
                wanted, draft, outlook = self._wanted, self.draft, self._outlook
                is_proposed = draft.name == self._proposed_name
            name, words, is_good = self._planned(draft, outlook, is_proposed)
            with self._lock:
                if wanted == self._wanted:
                    self._planning = False
                    self._show_plan(draft, name, words, is_good)
                    return

    def _planned(self, draft: SweepDraft, outlook: Outlook, is_proposed: bool) -> tuple[str, str, bool]:
        """The name it should have, what there is to say in HTML, and whether it can be run."""
        if not draft.axes:
            name = proposed_name([]) if is_proposed else draft.name
            return name, status("No axes yet: choose one, look at its values, and add it."), False
        settings = settings_or_defaults()
        try:
            if is_proposed:
                fresh = SweepDraft(draft.params, draft.axes, proposed_name(draft.axes))
                draft = with_free_name(fresh, parameters_folder(Path.cwd()), settings.runs)
            plan = plan_draft(draft, settings.runs)
            resolved = outlook.resolved.params if outlook.resolved is not None else None
            words = plan_in_words(plan, seconds_of(plan, self._estimate(), resolved))
        except VidkitError as error:
            return draft.name, problems_html(error, draft.file_name), False
        except Exception as error:  # noqa: BLE001  (or the plan shown would silently be the one before)
            return draft.name, status(f"It cannot be planned: {type(error).__name__}: {error}"), False
        return draft.name, status(words) + lines_html([f"Note: {note}" for note in plan.notes]), True

    def _show_plan(self, draft: SweepDraft, name: str, words: str, is_good: bool) -> None:
        self._plan.value = words
        self.write.disabled = self.run.disabled = not is_good or self._starting
        if name != draft.name:
            self._proposed_name = name
            self.name.value = name  # which plans once more: seeds that are kept are found by the name

    # --- file and run

    def _begin(self, act: Callable[[], None]) -> None:
        """Do what takes longer than a callback may, one thing at a time."""
        with self._lock:
            if self._starting:
                return
            self._starting = True
            self.write.disabled = self.run.disabled = True
        if self._background:
            threading.Thread(target=self._act, args=(act,), name="vidkit sweep start", daemon=True).start()
        else:
            self._act(act)

    def _act(self, act: Callable[[], None]) -> None:
        try:
            act()
        except VidkitError as error:
            self._say(" ".join([error.message, *error.suggestions]))
        except Exception as error:  # noqa: BLE001  (the last one to hear of it in this thread)
            self._say(f"That did not work: {type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._starting = False
            self._replan()

    def _write(self) -> None:
        if (file := self._written()) is not None:
            self._say(f"Written: {file}. Also by hand: vidkit sweep {file}")

    def _written(self) -> Path | None:
        """The draft's file; None when its name belongs to another sweep: that is said, and another name proposed."""
        with self._lock:
            draft = self.draft
        runs, folder = settings_or_defaults().runs, parameters_folder(Path.cwd())
        plan_draft(draft, runs)
        free = with_free_name(draft, folder, runs)
        if free.name == draft.name:
            return write_draft(draft, folder, runs)
        with self._lock:
            self.name.value = free.name
        self._say(
            f"{draft.name} is another sweep, and is left as it is. This one is called {free.name} now: press again."
        )
        return None

    def _start(self) -> None:
        file = self._written()
        if file is None:
            return
        root = settings_or_defaults().runs / file.stem
        if any(run.sweep.root == root and not run.is_over for run in self._runs):
            self._say(f"{file.stem} is running already.")
            return
        self._follow(start_sweep(file, root))
        self._say(f"Started: {file}. It goes on when this page or the kernel is closed.")

    def _follow(self, sweep: SweepProcess) -> None:
        with self._lock:
            for run in [run for run in self._runs if run.is_over]:
                self._runs.remove(run)
                run.close()
                ipywidgets.Widget.close(run.widget)
            stop = f"Stop sweep {sweep.name}" if self._runs else "Stop sweep"
            self._runs.insert(0, SweepProgress(sweep, lock=self._lock, background=self._background, stop=stop))
            self._run_lines.children = [run.widget for run in self._runs]
            answer_while_busy(self._run_lines)
        if not self._background:
            self._runs[0].refresh()

    def _say(self, text: str) -> None:
        with self._lock:
            self._said.value = status(text)


def axis_help(name: str, params: GenerationParams) -> str:
    if name == REPLACEMENT:
        return "Search and replace: the first text is looked for in the prompt, and replaced by each."
    now: Any = getattr(params, name)
    present = "" if now in (None, "") or (name == "seed" and now == -1) else f" Now {now!r:.60}."
    forms = f" Forms: {'random [4] · ' if name == 'seed' else ''}{FORMS}." if "number" in describe_values(name) else ""
    parts = " Texts are parted by ||." if "prompt" in name else ""
    return f"{help_of(name)}{present} Values: {describe_values(name)}.{forms}{parts}"


def problems_html(error: VidkitError, source: str) -> str:
    """All that is wrong, and what to do."""
    lines = problem_lines(error, source)
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    words = [*(f"⚠ Problem: {line}" for line in lines[:SHOWN]), *more]
    words += [f"→ {text}" for text in error.suggestions[:SHOWN]]
    return f'<div class="vidkit-problem" role="status" aria-live="polite">{lines_html(words)}</div>'


def lines_html(lines: list[str]) -> str:
    return "".join(f"<div>{html.escape(line)}</div>" for line in lines)


def outlook_now(params: GenerationParams) -> Outlook:
    return outlook_of(params, settings_or_defaults(), lambda resolved, model: None)
