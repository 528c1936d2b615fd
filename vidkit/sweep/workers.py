"""Workers: what several at once share of a machine, and whose notebooks run in which kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from vidkit.errors import InputError


@dataclass(frozen=True)
class Worker:
    """One of several threads that run notebooks at once, each in kernels of its own. number: 0 for `ALONE`.

    environment: variables that these kernels have beside the process's.
    """

    number: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


ALONE: Final = Worker()

_worker: ContextVar[Worker] = ContextVar("worker", default=ALONE)


def this_worker() -> Worker:
    """Which one this thread is; `ALONE`: none of several."""
    return _worker.get()


@contextmanager
def working_as(worker: Worker) -> Iterator[None]:
    """What this thread runs in here goes to the worker's kernels."""
    token = _worker.set(worker)
    try:
        yield
    finally:
        _worker.reset(token)


def at_least_one(workers: int) -> int:
    """Raises:
    InputError: `out_of_range`.
    """
    if workers < 1:
        raise InputError("out_of_range", f"workers is {workers}.", ["Set workers to 1 or more, or leave it out"])
    return workers


def threads_of(cores: int) -> dict[str, str]:
    """Variables for a process that computes on a share of the machine's cores, unless the user has said how many.

    Threads that spin while they wait would take the other processes' time.
    """
    usual = {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "passive"}
    return {name: os.environ.get(name, value) for name, value in usual.items()}
