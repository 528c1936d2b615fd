"""Workers on a Ray cluster, and who does what."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vidkit.errors import CriticalError, SetupError, VidkitError
from vidkit.runs import claim, describe_error, write_failure
from vidkit.safety.screening import VARIABLE as CHECKER_VARIABLE
from vidkit.settings import load_settings
from vidkit.sweep.away import keep_run, run_away, to_send
from vidkit.sweep.execute import OnBegan, Outcome, Outcomes, Task, run_task
from vidkit.sweep.interrupts import heed
from vidkit.sweep.workers import threads_of

#: a point whose worker dies is tried again by another, once: a second death is likely the point's own doing
ATTEMPTS: Final = 2

#: so many workers that die before they could do anything end the sweep
FAILED_STARTS: Final = 3

#: seconds for the system to free what a killed worker held
FREE_SECONDS: Final = 3.0

#: seconds for idle workers to end their kernels and clear away what these had; a kernel alone takes up to 5
CLOSE_SECONDS: Final = 7.0

#: seconds between two looks at points that another runner has
LOOK_SECONDS: Final = 0.5


class Worker:
    """An actor: runs one point at a time, in its process's warm kernel.

    all_checked: the settings where the sweep was started have every clip checked, whatever this machine's say.
    """

    def __init__(self, threads: int, all_checked: bool) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets 1 for a worker with a GPU
        os.environ.update(threads_of(threads))
        os.environ.setdefault("VIDKIT_LOG_EVERYWHERE", "1")
        if all_checked:
            os.environ[CHECKER_VARIABLE] = "on"

    def sees(self, probe: Path) -> bool:
        return probe.exists()

    def run(self, task: Task, wait: bool) -> Outcome:
        return run_task(task, wait=wait)

    def run_away(self, task: Task, sent: Mapping[str, bytes]) -> tuple[Outcome, dict[str, bytes]]:
        return run_away(task, sent)

    def close(self) -> None:
        from vidkit.sweep.engine import shutdown_kernels

        shutdown_kernels()


@dataclass(eq=False)
class Hired:
    """A worker. sees: the sweep's folder, once that is known; held: the claim of a point that it runs away from it."""

    actor: Any
    sees: bool | None = None
    task: Task | None = None
    held: ExitStack = field(default_factory=ExitStack)


class Pool:
    """Workers that pull points; each that dies is replaced."""

    def __init__(self, ray: Any, workers: int | None, root: Path) -> None:
        self._ray, self._root = ray, root
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        count = workers or gpus or len(nodes)
        cpu = share(count, [int(node.get("CPU", 0)) for node in nodes if not gpus or node.get("GPU")])
        gpu = min(1, share(count, [int(node.get("GPU", 0)) for node in nodes])) if gpus else 0
        self._threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, int(cpu))
        self._all_checked = load_settings().safety.checker == "on"
        self._options = {"num_gpus": gpu, "num_cpus": 0 if gpus else cpu, "max_restarts": 0}
        self._probe = root / f".probe-{secrets.token_hex(8)}"
        self._probe.touch()
        self._waiting, self._others = deque[Task](), deque[Task]()  # others: another runner has them; they come last
        self._idle: deque[Hired] = deque()
        self._at_work: dict[Any, Hired] = {}
        self._failed_starts, self._deaths = 0, Counter[int]()
        for _ in range(count):
            self._hire()

    def run(self, tasks: Sequence[Task], began: OnBegan) -> Outcomes:
        self._waiting.extend(tasks)
        while self._waiting or self._others or any(hired.task for hired in self._at_work.values()):
            heed()
            yield from self._hand_out(began)
            if self._at_work:
                yield from self._take_in(self._ray.wait(list(self._at_work), num_returns=1, timeout=LOOK_SECONDS)[0])
            elif self._others:
                time.sleep(LOOK_SECONDS)

    def _hand_out(self, began: OnBegan) -> Outcomes:
        """A point to each idle worker; what another runner settled meanwhile needs none."""
        for _ in range(len(self._waiting) + len(self._others)):
            if not self._idle:
                return
            wait = not self._waiting
            task = (self._waiting or self._others).popleft()
            if task.is_settled():
                yield task, Outcome("elsewhere")
            elif self._start(self._idle[0], task, wait):
                self._idle.popleft()
                began(task)
            else:
                self._others.append(task)

    def _take_in(self, references: Sequence[Any]) -> Iterator[tuple[Task, Outcome]]:
        for reference in references:
            hired = self._at_work.pop(reference)
            task, outcome = hired.task, self._outcome(reference, hired)
            if task is None:
                continue
            if outcome is None:
                self._waiting.append(task)
            elif outcome.state == "elsewhere" and not task.is_settled():
                self._others.append(task)
            else:
                yield task, outcome

    def close(self) -> None:
        """End all workers; their kernels end with them. Nothing is left of the points that they were at."""
        self._probe.unlink(missing_ok=True)
        busy = list(self._at_work.values())
        if self._idle and not any(hired.task for hired in busy):  # else someone wants it to stop now
            closing = [hired.actor.close.remote() for hired in self._idle]
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for hired in [*busy, *self._idle]:
            self._ray.kill(hired.actor)
            hired.held.close()
        for hired in busy:
            if hired.task is not None:
                with ExitStack() as held:
                    taken(held, hired.task)

    def _hire(self) -> None:
        hired = Hired(self._ray.remote(Worker).options(**self._options).remote(self._threads, self._all_checked))
        self._at_work[hired.actor.sees.remote(self._probe)] = hired

    def _start(self, hired: Hired, task: Task, wait: bool) -> bool:
        """False when another runner has the point, and it cannot be waited for."""
        hired.task = task
        if hired.sees:
            reference = hired.actor.run.remote(task, wait)
        elif hired.held.enter_context(claim(task.root, task.key, failures=task.failures)).state != "ours":
            hired.task = None
            hired.held.close()
            return False
        else:
            reference = hired.actor.run_away.remote(task, to_send(task))
        self._at_work[reference] = hired
        return True

    def _outcome(self, reference: Any, hired: Hired) -> Outcome | None:
        """None: the worker has died, and another is to try. A worker that has not is idle now."""
        task, errors = hired.task, self._ray.exceptions
        with hired.held:
            hired.task = None
            try:
                result = self._ray.get(reference)
            except errors.RayTaskError as error:
                raise error.cause if isinstance(error.cause, VidkitError) else error from None
            except errors.RayError as error:
                died = error
            else:
                self._idle.append(hired)
                if task is None:
                    hired.sees, self._failed_starts = result, 0
                    return None
                if hired.sees:
                    return result  # type: ignore[no-any-return]
                keep_run(task, *result)
                return result[0]  # type: ignore[no-any-return]
        return self._replaced(task, died)

    def _replaced(self, task: Task | None, died: Exception) -> Outcome | None:
        if task is None:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise SetupError(
                    "missing_dependency",
                    f"No worker can be started on the Ray cluster: {died}",
                    ["Install the same vidkit on every machine of the cluster"],
                ) from died
        self._hire()
        if task is None:
            return None
        self._deaths[task.index] += 1
        return None if self._deaths[task.index] < ATTEMPTS else record_death(task, self._deaths[task.index])


def share(count: int, amounts: Sequence[int]) -> float:
    """The most that each of so many workers can have, when machines have these amounts: whole ones, or 1/2, 1/3, …"""
    total = sum(amounts)
    if count > total:
        return 1 / math.ceil(count / total) if total else 0
    return next(each for each in range(total // count, 0, -1) if sum(amount // each for amount in amounts) >= count)


def taken(held: ExitStack, task: Task) -> bool:
    """Claim a point whose worker was killed: it is free when that process is gone, which is at once or soon."""
    until = time.monotonic() + FREE_SECONDS
    while (got := held.enter_context(claim(task.root, task.key, failures=task.failures))).state == "busy":
        held.close()
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return got.state == "ours"


def record_death(task: Task, times: int) -> Outcome:
    """The failure of a point that no worker has survived."""
    error = CriticalError(
        "process_killed",
        f"The worker died {times} times over this point.",
        ["Look for an out-of-memory kill in the log of the worker's machine", "Make the request smaller"],
    )
    failure = describe_error(error)
    with ExitStack() as held:
        if not taken(held, task):
            return Outcome("elsewhere")
        write_failure(
            task.folder,
            {
                "key": task.key,
                "status": "failed",
                "axes": dict(task.axes),
                "request": task.params.to_wire(),
                "seed": task.params.seed,
                "attempts": task.failures + 1,
                "error": failure,
            },
        )
    return Outcome("failed", failure)
