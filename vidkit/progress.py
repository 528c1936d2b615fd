"""Progress events and the cancel token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import Cancelled
from vidkit.time_limit import Phase, TimeLimit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Progress:
    """One progress event. progress: percent, 0 to 100, never falling within a request; eta_seconds: of denoising."""

    progress: int
    message: str
    step: int | None = None
    steps: int | None = None
    eta_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        event: dict[str, Any] = {"progress": self.progress, "message": self.message}
        if self.step is not None:
            event |= {"step": self.step, "steps": self.steps}
        if self.eta_seconds is not None:
            event["etaSeconds"] = round(self.eta_seconds, 1)
        return event


OnProgress = Callable[[Progress], None]

#: called with all frames as they are now, `(frames, height, width, 3)` uint8, small
OnPreview = Callable[["npt.NDArray[np.uint8]"], None]


class CancelToken:
    """Set from any thread (or signal handler); the generation stops at its next step."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises:
        Cancelled: when the token has been set.
        """
        if self.cancelled:
            raise Cancelled()


#: percent from which on a request has the device and computes; before, it may be waiting for others
COMPUTING: Final = 10

#: percent at which all frames are computed
COMPUTED: Final = 95


class Reporter:
    """Tells one request's listener how far it is, and stops it when its token is set or its time is up.

    The bar's shares: checking to 5 %, loading to 20 %, denoising to 85 %, decoding to 95 %, encoding to 100 %: no two
    events are more than 5 % apart. An event that would not move the bar is left out, so a listener gets at most about
    a hundred.
    """

    LOADING = (COMPUTING, 14.9)
    DENOISING = (20, 85)
    DECODING = (85, COMPUTED)

    def __init__(
        self, on_progress: OnProgress | None, cancel: CancelToken | None, *, loading_to: float | None = None
    ) -> None:
        """loading_to: percent at which loading ends, where nothing comes after it."""
        self._listener = on_progress
        self._loading = (self.LOADING[0], loading_to or self.LOADING[1])
        self._cancel = cancel
        self._highest = -1
        self._waiting = ""
        self._started: float | None = None
        self._limit: TimeLimit | None = None

    def check(self) -> None:
        """Raises:
        Cancelled: when the token has been set.
        GenerationError: `timeout`.
        """
        if self._cancel is not None:
            self._cancel.check()
        if self._limit is not None:
            self._limit.check()

    @contextmanager
    def limited(self, limit: TimeLimit) -> Iterator[None]:
        """What is done here has to be done in time."""
        self._limit = limit
        try:
            yield
        finally:
            self._limit = None

    def begin(self, phase: Phase) -> None:
        """A phase of computing begins, or begins again after a failed attempt."""
        self._started = None
        if self._limit is not None:
            self._limit.at(phase)

    def done(self) -> None:
        """The clip stands under its name: too late to stop, so the token is not asked any more."""
        self._tell(100, "Complete!")

    def tell(self, progress: float, message: str, **more: Any) -> None:
        """Raises:
        Cancelled: when the token has been set.
        """
        self.check()
        self._tell(progress, message, **more)

    def _tell(self, progress: float, message: str, **more: Any) -> None:
        percent = int(progress)
        if percent <= self._highest:
            return
        self._highest = percent
        if self._listener is not None:
            self._listener(Progress(percent, message, **more))

    def loading(self, done: int, total: int) -> None:
        """While models are read from disk: `done` bytes of `total`."""
        low, high = self._loading
        mib = 2**20
        share = done / max(total, 1)
        self.tell(low + (high - low) * share, f"Loading model: {done / mib:,.0f} of {total / mib:,.0f} MiB...")

    def waiting(self, message: str) -> None:
        """While others have the device: who, each once; the bar stays where it is.

        Raises:
            Cancelled: when the token has been set.
        """
        self.check()
        if message != self._waiting and self._listener is not None:
            self._listener(Progress(max(self._highest, 0), message))
        self._waiting = message

    def step(self, done: float, steps: int) -> None:
        """While denoising: `done` steps (a fraction inside a step) of `steps`."""
        low, high = self.DENOISING
        if self._limit is not None:
            self._limit.at("denoise", done / steps)
        now = time.monotonic()
        if self._started is None:
            self._started = now
        whole = int(done)
        eta = (now - self._started) / done * (steps - done) if whole else None
        message = f"Denoising step {min(whole + 1, steps)}/{steps}..."
        self.tell(low + (high - low) * done / steps, message, step=whole, steps=steps, eta_seconds=eta)

    def decoded(self, done: float, frames: int) -> None:
        """While decoding: `done` frames (a fraction inside a chunk) of `frames`."""
        low, high = self.DECODING
        if self._limit is not None:
            self._limit.at("decode", done / frames)
        self.tell(low + (high - low) * done / frames, f"Decoding frame {int(done)}/{frames}...")
