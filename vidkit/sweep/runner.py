"""A sweep from its file to its last clip: plan, run what is missing, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vidkit.confinement import check_allowed
from vidkit.paths import path_to_write
from vidkit.runs import content_keys
from vidkit.settings import load_settings
from vidkit.sweep.bar import ProgressBar
from vidkit.sweep.execute import OnBegan, Outcome, Outcomes, Task, run_task
from vidkit.sweep.interrupts import heed
from vidkit.sweep.local import Local
from vidkit.sweep.notebook import WARM
from vidkit.sweep.plan import Plan, plan_sweep
from vidkit.sweep.report import write_report
from vidkit.sweep.status import Pace, RunnerFile


class Executor(Protocol):
    """What runs points: here one after the other, or elsewhere many at once."""

    def run(self, tasks: Sequence[Task], began: OnBegan) -> Outcomes:
        """Run all, in whatever order; closing the generator stops what is running."""
        ...


@dataclass
class Summary:
    """What a run of a sweep came to. done, failed: in this run; before: settled already, or by another runner."""

    root: Path
    points: int
    before: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    report: Path | None = None


class Listener(Protocol):
    """Told of each event, in this thread."""

    def planned(self, plan: Plan, summary: Summary, missing: int) -> None: ...

    def began(self, task: Task) -> None: ...

    def ended(self, task: Task, outcome: Outcome, summary: Summary) -> None: ...

    def closed(self) -> None:
        """The last event, whatever the end."""
        ...


def run_sweep(
    file: str | Path,
    root: str | Path,
    *,
    executor: Executor | None = None,
    listener: Listener | None = None,
    retry_failed: bool = False,
    stop_on_failure: bool = False,
    report: bool = True,
    engine: str | None = WARM,
) -> Summary:
    """Run what is missing of a sweep. Safe to stop at any moment, to repeat, and to run twice at once on one folder.

    Args:
        file: the sweep's YAML file.
        root: the folder of its runs, its plan and its report; made when it is not there.
        listener: by default a bar on stderr, or in the notebook.
        retry_failed: run points again that failed before.
        stop_on_failure: end at the first point that fails; else failures are recorded, and the others are run.
        engine: papermill engine; None is papermill's own, with a new kernel for each point.

    Raises:
        InputError, SetupError: the sweep cannot be run as it is; nothing has started.
        CriticalError: `disk_full`: no point can be finished any more.
        KeyboardInterrupt: finished points are kept.
    """
    started, root = time.monotonic(), path_to_write(root)
    check_allowed(root, load_settings(), "output_path")
    plan, tasks = planned(file, root, engine)
    missing = [task for task in map(with_failures, tasks) if is_missing(task, retry_failed)]
    summary = Summary(root, len(tasks), before=len(tasks) - len(missing))
    listener = listener or ProgressBar()
    listener.planned(plan, summary, len(missing))
    try:
        run_tasks(missing, executor or Local(), listener, summary, stop_on_failure)
    except KeyboardInterrupt:
        if report:
            write_report(root)
        raise
    if report:
        summary.report = write_report(root)
    summary.seconds = time.monotonic() - started
    return summary


def planned(file: str | Path, root: Path, engine: str | None) -> tuple[Plan, list[Task]]:
    """The plan, written with the points' content keys, and what is to be run for each."""
    keys: list[str] = []

    def keys_of(plan: Plan) -> list[str]:
        keys[:] = content_keys([point.params for point in plan.points])
        return keys

    plan = plan_sweep(file, root, keys_of)
    return plan, [
        Task(root, key, point.index, point.axes, point.params, plan.notebook, engine)
        for point, key in zip(plan.points, keys, strict=True)
    ]


def with_failures(task: Task) -> Task:
    return dataclasses.replace(task, failures=task.folder.attempts())


def is_missing(task: Task, retry_failed: bool) -> bool:
    return not task.folder.is_done() and (retry_failed or not task.failures)


def run_tasks(
    tasks: Sequence[Task], executor: Executor, listener: Listener, summary: Summary, stop_on_failure: bool
) -> None:
    file, pace = RunnerFile(summary.root), Pace()
    left, last = len(tasks), time.monotonic()

    def began(task: Task) -> None:
        heed()
        file.began(task.index, task.axes)
        file.write(pace.left(left))
        listener.began(task)

    try:
        file.write(None)
        with closing(run_all(tasks, executor, began)) as outcomes:
            for task, outcome in outcomes:
                left -= 1
                count(outcome, summary)
                if outcome.state != "elsewhere":
                    pace.add(time.monotonic() - last)
                last = time.monotonic()
                file.ended(task.index)
                file.write(pace.left(left))
                listener.ended(task, outcome, summary)
                if outcome.state == "failed" and stop_on_failure:
                    break
    finally:
        file.remove()
        listener.closed()


def run_all(tasks: Sequence[Task], executor: Executor, began: OnBegan) -> Outcomes:
    """All tasks; those that another runner has come last, when it is done with them or has died over them."""
    others: list[Task] = []
    with closing(executor.run(tasks, began)) as outcomes:
        for task, outcome in outcomes:
            if outcome.state == "elsewhere" and not task.is_settled():
                others.append(task)
            else:
                yield task, outcome
    for task in others:
        began(task)
        yield task, run_task(task, wait=True)


def count(outcome: Outcome, summary: Summary) -> None:
    if outcome.state == "done":
        summary.done += 1
    elif outcome.state == "failed":
        summary.failed += 1
    else:
        summary.before += 1
