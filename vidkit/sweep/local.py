"""A sweep's points on this machine, in warm kernels of this process: one after the other, or several at once.

Two at once on one GPU compute in turns (`vidkit.device_lock`): one clip's video is encoded and measured while the next
is computed. Each of them has the models loaded. Of several GPUs each worker has its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from vidkit.memory.free import visible_gpus
from vidkit.sweep.execute import OnBegan, Outcome, Outcomes, Task, run_task
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
        if self._workers == 1:
            for task in tasks:
                began(task)
                yield task, run_task(task)
        elif tasks:
            yield from at_once(workers(self._workers), tasks, began)


def workers(count: int) -> list[Worker]:
    """So many, on this machine's GPUs by turns, and with an equal share of its cores each."""
    gpus = visible_gpus()
    cores = threads_of(max(1, (os.cpu_count() or 1) // count))
    own_gpu = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] if len(gpus) > 1 else [{}]
    return [Worker(number, cores | own_gpu[number % len(own_gpu)]) for number in range(count)]


def at_once(workers: Sequence[Worker], tasks: Sequence[Task], began: OnBegan) -> Outcomes:
    """A point to each worker, and the next to whoever is done. What runs is stopped when the generator is closed."""
    waiting, idle = deque(tasks), list(reversed(workers))
    running: dict[Future[Outcome], tuple[Task, Worker]] = {}
    with ThreadPoolExecutor(len(workers)) as threads, stopped(running):
        while waiting or running:
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
def stopped(running: Mapping[Future[Outcome], object]) -> Iterator[None]:
    """In the end nothing is running any more, whatever the end; a notebook that was just to begin is stopped then."""
    from vidkit.sweep.kernel import stop_kernels  # a sweep that has nothing to run must not wait for Jupyter's modules

    try:
        yield
    finally:
        while wait(running, 0).not_done:
            stop_kernels()
            wait(running, LOOK_SECONDS)
