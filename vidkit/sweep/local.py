"""A sweep's points on this machine, in warm kernels of this process: one after the other, or several at once.

Two at once on one GPU compute in turns (`vidkit.device_lock`): one clip's video is encoded and measured while the next
is computed. Each of them has the models loaded. Of several GPUs each worker has its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from vidkit.errors import InputError
from vidkit.memory.free import visible_gpus
from vidkit.processes import cores_here
from vidkit.sweep.execute import OnBegan, Outcome, Outcomes, Task, run_task
from vidkit.sweep.interrupts import heed
from vidkit.sweep.notebook import WARM
from vidkit.sweep.workers import Worker, at_least_one, threads_of, working_as

#: seconds that are waited for at once: on Windows a wait without limit cannot be interrupted
LOOK_SECONDS = 0.5


class Local:
    """Runs points on this machine.

    Args:
        workers: how many at once.

    Raises:
        InputError: `out_of_range`.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = at_least_one(workers)

    def run(self, tasks: Sequence[Task], began: OnBegan) -> Outcomes:
        """Raises:
        InputError: `invalid_request`: several at once, with an engine that has no warm kernels.
        """
        if self._workers == 1:
            for task in tasks:
                began(task)
                yield task, run_task(task)
        elif tasks:
            check_engine(tasks[0].engine)
            yield from at_once(workers(min(self._workers, len(tasks))), tasks, began)


def check_engine(engine: str | None) -> None:
    """Raises:
    InputError: `invalid_request`: the kernels of others can be neither stopped nor given a GPU of their own.
    """
    if engine != WARM:
        raise InputError(
            "invalid_request",
            f"Several workers need the engine {WARM}, and {engine or 'papermill'} was asked for.",
            ["Leave --engine out", "Leave --workers out"],
        )


def workers(count: int) -> list[Worker]:
    """So many, on this machine's GPUs by turns, and with an equal share of its cores each. None is number 0: that is
    whoever works alone.
    """
    gpus = visible_gpus()
    cores = threads_of(max(1, cores_here() // count))
    own_gpu = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] if len(gpus) > 1 else [{}]
    return [Worker(number + 1, cores | own_gpu[number % len(own_gpu)]) for number in range(count)]


def at_once(workers: Sequence[Worker], tasks: Sequence[Task], began: OnBegan) -> Outcomes:
    """A point to each worker, and the next to whoever is done. What runs is stopped when the generator is closed."""
    waiting, idle = deque(tasks), list(reversed(workers))
    running: dict[Future[Outcome], tuple[Task, Worker]] = {}
    with ThreadPoolExecutor(len(workers)) as threads, stopped(running, workers):
        while waiting or running:
            heed()
            while waiting and idle:
                task, worker = waiting.popleft(), idle.pop()
                began(task)
                running[threads.submit(run_as, worker, task)] = task, worker
            for done in wait(running, LOOK_SECONDS, FIRST_COMPLETED).done:
                task, worker = running.pop(done)
                idle.append(worker)
                yield task, done.result()


def run_as(worker: Worker, task: Task) -> Outcome:
    with working_as(worker):
        return run_task(task)


@contextmanager
def stopped(running: Mapping[Future[Outcome], object], workers: Sequence[Worker]) -> Iterator[None]:
    """In the end nothing is running any more, whatever the end; a notebook that was just to begin is stopped then.

    Who interrupts a second time is not kept waiting: what runs is killed.
    """
    from vidkit.sweep.kernel import GRACE_SECONDS, stop_kernels  # who has nothing to run must not wait for Jupyter

    try:
        yield
    finally:
        grace = GRACE_SECONDS
        while wait(running, 0).not_done:
            try:
                stop_kernels(workers, grace)
                wait(running, LOOK_SECONDS)
            except KeyboardInterrupt:
                grace = 0.0
