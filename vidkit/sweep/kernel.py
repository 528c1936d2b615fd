"""Warm kernels: one for each kernel name in a process, which runs notebook after notebook; or one for each worker.

A thread of its own talks with each kernel, so runs from several threads wait for one another, and no event loop or
socket is ever shared. Whoever asked for a run waits outside and can interrupt it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from jupyter_client.kernelspec import NATIVE_KERNEL_NAME
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from vidkit.sweep.interrupts import heed
from vidkit.sweep.living import LivingManager
from vidkit.sweep.workers import ALONE, Worker, this_worker

T = TypeVar("T")

logger = logging.getLogger("vidkit")

#: Seconds that an interrupted cell has to end. Half of it before it is interrupted once more: between two cells a
#: kernel does not notice the first. Then the kernel is killed.
GRACE_SECONDS: Final = 5.0

#: Seconds in which an ended kernel's run must have noticed it: nbclient looks once a second.
NOTICE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Birth:
    """What a kernel got when it was started. A run that needs another start gets a new kernel."""

    environment: dict[str, str]
    arguments: tuple[str, ...]


class WarmKernel:
    """One kernel, started by the first run. Its methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._manager: LivingManager | None = None
        self._birth: Birth | None = None
        self._running: Future[Any] | None = None
        self._is_stopping = False
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name=f"vidkit kernel {name}", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The process of the kernel; None before the first run and after `shutdown`."""
        provisioner = self._manager.provisioner if self._manager is not None else None
        return getattr(provisioner, "pid", None)

    def run(
        self,
        execute: Callable[[LivingManager], T],
        start_again: Callable[[], None],
        directory: Path,
        arguments: Sequence[str] = (),
    ) -> T:
        """Run a notebook, after the runs that other threads asked for.

        Args:
            execute: runs the notebook on the kernel of this manager, which it starts when it is not running.
            start_again: called when the kernel died in mid-run, before the second and last `execute`.
            directory: where the notebook runs.
            arguments: for the kernel's command line.

        Raises:
            DeadKernelError: the kernel died twice.
            KeyboardInterrupt: and any other that a signal raises here: the run was stopped first (`stop`); in a
                worker's thread also where another thread has stopped it, which gets the signals.
        """
        birth = Birth({**os.environ, **this_worker().environment}, tuple(arguments))
        place = str(directory.resolve())
        done = self._submit(lambda: self._run_on(birth, place, execute, start_again))
        try:
            while not done.done():
                wait([done], timeout=0.5)  # a wait without limit cannot be interrupted on Windows
                heed()
        except BaseException:
            if not done.cancel():
                self.stop()
            raise
        if self._is_stopping and this_worker() is not ALONE:
            raise KeyboardInterrupt
        return done.result()

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Interrupt the cell that runs; kill the kernel when it has not ended within these seconds.

        The run ends with the cell's KeyboardInterrupt as its error. Nothing happens when no notebook is running.
        """
        running, manager = self._running, self._manager
        if running is None or manager is None or running.done():
            return
        self._is_stopping = True
        try:
            for _ in range(2):
                _signal(manager, signal.SIGINT)
                if wait([running], timeout=grace / 2).done:
                    return
        finally:  # also when the user loses patience: a second Ctrl-C
            if not running.done():
                logger.warning("the kernel %s was killed: it did not end its cell within %g s", self.name, grace)
                _signal(manager, getattr(signal, "SIGKILL", signal.SIGTERM))
                wait([running], timeout=NOTICE_SECONDS)

    def shutdown(self) -> None:
        """Stop what runs and end the kernel; the next run starts a new one."""
        self.stop()
        wait([self._submit(self._close)], timeout=2 * NOTICE_SECONDS)

    # ------------------------------------------------- what follows runs in the kernel's own thread

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if future.set_running_or_notify_cancel():
                self._running = future
                try:
                    future.set_result(job())
                except BaseException as error:  # noqa: BLE001  (raised again where the result is asked for)
                    future.set_exception(error)
                self._running = None
            del future, job  # or the last notebook would be kept until the next

    def _run_on(
        self,
        birth: Birth,
        directory: str,
        execute: Callable[[LivingManager], T],
        start_again: Callable[[], None],
    ) -> T:
        self._is_stopping = False
        try:
            return execute(self._ready(birth, directory))
        except DeadKernelError:
            if self._is_stopping:
                raise
            logger.warning("the kernel %s died: a new one runs the notebook from its first cell", self.name)
            self._settle()
            start_again()
            return execute(self._ready(birth, directory))
        except CellTimeoutError:
            if self._manager is not None:
                self._end_cell(self._manager)
            raise
        finally:
            self._settle()

    def _ready(self, birth: Birth, directory: str) -> LivingManager:
        """A manager whose kernel lives, or is to be started."""
        if self._manager is not None and (birth != self._birth or not run_sync(self._manager.is_alive)()):
            self._close()
        if self._manager is None:
            self._manager, self._birth = LivingManager(self.name, birth.environment), birth
        self._manager.directory = directory
        return self._manager

    def _end_cell(self, manager: LivingManager) -> None:
        """After a timeout the cell still runs. A kernel that does not give it up is of no more use."""
        _signal(manager, signal.SIGINT)
        _cancel_tasks()
        try:
            run_sync(manager.client().renew)(GRACE_SECONDS)
        except DeadKernelError:
            self._close(now=True)

    def _settle(self) -> None:
        """After a run: nothing of it listens any more, and a kernel that died is cleared away."""
        _cancel_tasks()
        if self._manager is not None and not run_sync(self._manager.is_alive)():
            self._close()

    def _close(self, now: bool = False) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            run_sync(manager.close)(now=now)


def _cancel_tasks() -> None:
    """nbclient leaves tasks behind when a run ends early; they would take the next run's messages."""
    loop = ensure_event_loop()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def _signal(manager: LivingManager, number: int) -> None:
    """From any thread; no matter when the kernel has ended meanwhile."""
    provisioner = manager.provisioner
    if provisioner is not None and provisioner.has_process:
        run_sync(provisioner.send_signal)(number)


_kernels: dict[tuple[str, int], WarmKernel] = {}
_of_the_parent: list[WarmKernel] = []
_lock = threading.Lock()


def installed_name(name: str) -> str:
    """The name of a kernel's specification: Jupyter takes `python` for its own Python 3."""
    return NATIVE_KERNEL_NAME if name == "python" else name


def warm_kernel(name: str = NATIVE_KERNEL_NAME) -> WarmKernel:
    """This process's kernel of this name (python3 by default), or this thread's, in a worker's."""
    key = installed_name(name), this_worker().number
    with _lock:
        if key not in _kernels:
            _kernels[key] = WarmKernel(key[0])
        return _kernels[key]


def stop_kernels(workers: Sequence[Worker], grace: float = GRACE_SECONDS) -> None:
    """Stop what runs in the kernels of these workers (`WarmKernel.stop`): in all at once, as one may take its time."""
    numbers = {worker.number for worker in workers}
    with _lock:
        kernels = [kernel for (_, number), kernel in _kernels.items() if number in numbers]
    threads = [threading.Thread(target=kernel.stop, args=(grace,)) for kernel in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def shutdown_kernels() -> None:
    """End all kernels of this process, as happens at its end; the next run of each name starts a new one."""
    with _lock:
        kernels = list(_kernels.values())
    for kernel in kernels:  # not in threads: at the end of a process none can be started
        kernel.shutdown()


def _after_fork() -> None:
    """The kernels stay the parent's; their threads do not exist here."""
    global _lock
    _of_the_parent.extend(_kernels.values())
    _kernels.clear()
    _lock = threading.Lock()


atexit.register(shutdown_kernels)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
