"""The panel's queue: one clip at a time, in a thread of its own or in the caller's; a crash loses no request."""

from __future__ import annotations

import atexit
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vidkit.errors import Cancelled, VidkitError, internal_error
from vidkit.panel.jobs import Job, JobState, with_absolute_paths
from vidkit.panel.queue_file import Kept, QueueFile
from vidkit.panel.run_clip import run_clip
from vidkit.params import MAX_SEED, GenerationParams
from vidkit.progress import CancelToken, OnProgress, Progress
from vidkit.runs import Seen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Job", "JobQueue", "JobState"]

logger = logging.getLogger("vidkit")

#: jobs that are over, kept to be shown
ENDED_SHOWN: Final = 20

Listener = Callable[[Job], None]
OnPreloaded = Callable[[VidkitError | None], None]


@dataclass(frozen=True)
class Preload:
    """A wish to have models loaded."""

    params: GenerationParams
    on_end: OnPreloaded | None
    on_progress: OnProgress | None


class JobQueue:
    """Requests in the order in which they will run. Every method may be called from any thread, and returns at once.

    Args:
        root: of the run folders.
        folder: where queues are kept (VIDKIT_HOME/panel). Requests of processes that have ended are taken over, and
            wait for `resume`.
        threaded: run jobs in a thread; else only `run_here` runs them.

    Raises:
        SetupError: `output_not_writable`, the folder; CriticalError: `disk_full`.
    """

    def __init__(self, root: Path, folder: Path, *, threaded: bool = True) -> None:
        self.root = root
        self.threaded = threaded
        self.preload_error: VidkitError | None = None
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # one job at a time, whoever runs it
        self._queued: list[Job] = []
        self._running: Job | None = None
        self._ended: deque[Job] = deque(maxlen=ENDED_SHOWN)
        self._listeners: list[Listener] = []
        self._paused = False
        self._closed = False
        self._put_back: Job | None = None
        self._wanted: Preload | None = None
        self._preloading: tuple[GenerationParams, CancelToken] | None = None
        self._thread: threading.Thread | None = None
        self._file = QueueFile(folder)
        self._adopt()
        atexit.register(self.close)

    # --- what is there -----------------------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """The running one, then the queued in order, then the last 20 that are over, newest first."""
        with self._changed:
            return [*([self._running] if self._running else []), *self._queued, *reversed(self._ended)]

    def job(self, id: str) -> Job | None:
        return next((job for job in self.jobs() if job.id == id), None)

    @property
    def paused(self) -> bool:
        """Whether nothing of the queue starts by itself: it was paused, or all of it comes from sessions that ended."""
        with self._changed:
            return self._paused or (bool(self._queued) and all(job.held for job in self._queued))

    @property
    def preloading(self) -> GenerationParams | None:
        """The request whose models are being loaded now."""
        preloading = self._preloading
        return preloading[0] if preloading else None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after each change of a job, in whatever thread made it; returns the way to stop."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    # --- what can be asked of it; an id that is not there (any more) changes nothing ---------------------------------

    def submit(self, params: GenerationParams) -> Job:
        """Add a request at the end. Its files and models are looked for when it runs.

        Raises:
            CriticalError: `disk_full`; SetupError: `output_not_writable`. It is not in the queue then.
            RuntimeError: the queue is closed.
        """
        if self._closed:
            raise RuntimeError("the queue is closed")
        seed = secrets.randbelow(MAX_SEED + 1) if params.seed == -1 else params.seed
        job = Job(with_absolute_paths(params.replace(seed=seed)))
        with self._changed:
            self._file.save(self._kept([*self._queued, job]))
            self._queued.append(job)
            self._wanted = None
            if self._preloading and not same_models(self._preloading[0], params):
                self._preloading[1].cancel()
            self._wake()
        self._tell(job)
        return job

    def cancel(self, id: str) -> None:
        """Stop a running job within a step; take a queued one off the queue."""
        with self._changed:
            job = self._running if self._running and self._running.id == id else self._queued_job(id)
            if job is None:
                return
            job.token.cancel()
            if job is not self._running:
                self._queued.remove(job)
                self._over(job, "cancelled")
        self._tell(job)

    def move(self, id: str, by: int) -> None:
        """Move a queued job by so many places, as far as there are some; below 0: it runs earlier."""
        with self._changed:
            job = self._queued_job(id)
            if job is None:
                return
            place = self._queued.index(job) + by
            self._queued.remove(job)
            self._queued.insert(max(place, 0), job)
            self._save()
        self._tell(job)

    def remove(self, id: str) -> None:
        """Forget a job that is queued or over; what it has made stays."""
        with self._changed:
            job = next((job for job in [*self._queued, *self._ended] if job.id == id), None)
            if job is None:
                return
            if job in self._queued:
                self._queued.remove(job)
                job.state = "cancelled"
                self._save()
            else:
                self._ended.remove(job)
        self._tell(job)

    def pause(self) -> None:
        """Start no further job; the running one goes on."""
        with self._changed:
            self._paused = True
        self._tell_all()

    def resume(self) -> None:
        """Start what is queued, also what comes from sessions that ended."""
        with self._changed:
            self._paused = False
            for job in self._queued:
                job.held = False
            self._wake()
        self._tell_all()

    def preload(
        self,
        params: GenerationParams,
        on_end: OnPreloaded | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Load a request's models when no job runs; one that is submitted comes first. Only the last wish counts.

        on_end, on_progress: called in the queue's thread, the one with `preload_error`, None when the models are loaded
        or the wish was dropped.
        """
        with self._changed:
            self._wanted = Preload(with_absolute_paths(params), on_end, on_progress)
            if self._preloading and not same_models(self._preloading[0], params):
                self._preloading[1].cancel()
            self._wake()

    def run_here(self) -> None:
        """Run all queued jobs in this thread. KeyboardInterrupt cancels the running one and ends it; no error."""
        try:
            while self._run_next():
                pass
        except KeyboardInterrupt:
            logger.info("interrupted: the running job is cancelled, the queued ones stay")

    def close(self, timeout: float = 10) -> None:
        """Stop; what is queued or running stays on disk, for the next process. Hold no lock that a listener takes.

        timeout: seconds to wait for the running job's next step.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            if self._running and not self._running.token.cancelled:
                self._put_back = self._running
                self._running.token.cancel()
            if self._preloading:
                self._preloading[1].cancel()
            self._changed.notify_all()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        with self._changed:
            self._file.close()
        atexit.unregister(self.close)

    # --- the worker --------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self.threaded and not self._closed and self._thread is None:
            # a daemon: a step that never ends must not keep the process
            self._thread = threading.Thread(target=self._work, name="vidkit queue", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None or self._wanted is not None)
                if self._closed:
                    return
            if not self._run_next():
                self._preload_next()

    def _next(self) -> Job | None:
        if self._paused or self._closed:
            return None
        return next((job for job in self._queued if not job.held), None)

    def _run_next(self) -> bool:
        """Run the next job, if there is one."""
        with self._turn:
            with self._changed:
                job = self._next()
                if job is None:
                    return False
                self._queued.remove(job)
                self._running, job.state, job.began = job, "running", time.monotonic()
            self._run(job)
            return True

    def _run(self, job: Job) -> None:
        state: JobState = "cancelled"  # unless it comes to another end
        try:
            self._tell(job)
            job.run, known = run_clip(
                job.params,
                self.root,
                on_progress=lambda progress: self._progressed(job, progress),
                on_preview=lambda frames: self._previewed(job, frames),
                cancel=job.token,
            )
            state = "known" if known else "done"
        except Cancelled:
            logger.info("job %s was cancelled", job.id)
        except VidkitError as error:
            logger.info("job %s failed", job.id, exc_info=True)
            state, job.error = "failed", without_frames(error)
        except Exception as error:
            logger.exception("job %s failed in a way that has no name", job.id)
            state, job.error = "failed", internal_error(error)
        finally:
            with self._changed:
                self._running, job.preview = None, None
                if job is self._put_back and state == "cancelled":
                    job.state, job.began, job.progress = "queued", None, None
                    self._queued.insert(0, job)
                else:
                    self._over(job, state)
            self._tell(job)

    def _progressed(self, job: Job, progress: Progress) -> None:
        job.progress = progress
        self._tell(job)

    def _previewed(self, job: Job, frames: npt.NDArray[np.uint8]) -> None:
        job.preview = frames
        self._tell(job)

    def _preload_next(self) -> None:
        """Load what is wanted, if anything still is."""
        with self._changed:
            if self._wanted is None:
                return
            wanted, self._wanted = self._wanted, None
            token = CancelToken()
            self._preloading = wanted.params, token
        error: VidkitError | None = None
        try:
            from vidkit.generation import preload

            preload(wanted.params, on_progress=lambda progress: self._loading_on(wanted, progress), cancel=token)
        except Cancelled:
            logger.info("loading models ahead was given up for another wish")
        except VidkitError as failure:
            error = without_frames(failure)
        except Exception as failure:
            logger.exception("loading models ahead failed in a way that has no name")
            error = internal_error(failure)
        with self._changed:
            self.preload_error, self._preloading = error, None
        on_end = wanted.on_end
        if on_end is not None:
            self._call(lambda: on_end(error))

    def _loading_on(self, wanted: Preload, progress: Progress) -> None:
        on_progress = wanted.on_progress
        if on_progress is not None:
            self._call(lambda: on_progress(progress))

    # --- parts; callers hold the lock, but for the last three --------------------------------------------------------

    def _queued_job(self, id: str) -> Job | None:
        return next((job for job in self._queued if job.id == id), None)

    def _over(self, job: Job, state: JobState) -> None:
        job.state, job.ended = state, time.monotonic()
        self._ended.append(job)
        self._save()

    def _kept(self, queued: list[Job]) -> list[Kept]:
        running = [self._running] if self._running else []
        return [Kept(job.id, job.params) for job in [*running, *queued]]

    def _save(self) -> None:
        """What cannot be written now is written at the next change. Old jobs that come back are known by then."""
        if self._file.closed:
            return  # it is another's by now
        try:
            self._file.save(self._kept(self._queued))
        except VidkitError as error:
            logger.warning("the queue's file was not brought up to date: %s", error.message)

    def _adopt(self) -> None:
        try:
            adopted = self._file.adopt()
        except VidkitError as error:
            logger.warning("requests of sessions that ended stay where they are for now: %s", error.message)
            return
        self._queued = [Job(job.params, id=job.id, held=True) for job in adopted]

    def _tell_all(self) -> None:
        for job in self.jobs():
            if not job.is_over:
                self._tell(job)

    def _tell(self, job: Job) -> None:
        """The lock must be free: a listener may wait for another that a callback holds while it asks the queue."""
        for listener in list(self._listeners):
            self._call(lambda listener=listener: listener(job))  # type: ignore[misc]

    def _call(self, listener: Callable[[], None]) -> None:
        try:
            listener()
        except Exception:
            logger.exception("a listener of the queue failed; the job goes on")


def same_models(first: GenerationParams, second: GenerationParams) -> bool:
    """Whether what is loaded for the one serves the other."""
    return all(getattr(first, name) == getattr(second, name) for name in Seen.MODELS_DEPEND_ON)


def without_frames(error: VidkitError) -> VidkitError:
    """An error that is kept must not keep the variables of where it was raised: frames of a clip, tensors."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
