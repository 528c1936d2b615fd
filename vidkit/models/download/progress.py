"""How far a download is: bytes, rate and time left, told at most twice a second."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from vidkit.progress import OnProgress, Progress

#: seconds between two events
EVERY: Final = 0.5
#: seconds over which the rate is taken: long enough to be calm, short enough to follow a network that changes
WINDOW: Final = 10.0
#: seconds before a rate is told: the first blocks say nothing of it
SHORTEST: Final = 1.0
#: what is left of the bar when all bytes are there: they are still checked
ARRIVED: Final = 99


@dataclass(frozen=True)
class DownloadProgress(Progress):
    """A progress event of a download. bytes_total: None where the server does not tell it."""

    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: float | None = None

    def to_json(self) -> dict[str, Any]:
        event = super().to_json() | {"bytesDone": self.bytes_done, "bytesTotal": self.bytes_total}
        if self.bytes_per_second is not None:
            event["bytesPerSecond"] = round(self.bytes_per_second)
        return event


class Meter:
    """Counts what arrives and tells a listener. total: bytes, None while unknown; the percentage never falls."""

    def __init__(self, what: str, on_progress: OnProgress | None, total: int | None = None) -> None:
        self.what, self.total = what, total
        self.done = self.fetched = 0
        self._listener = on_progress
        self._highest = 0
        self._told = 0.0
        self._arrivals: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def present(self, count: int) -> None:
        """Bytes that are here already; negative: bytes that have to come again."""
        self.done += count

    def arrived(self, count: int) -> None:
        """Bytes that have come over the network."""
        self.done += count
        self.fetched += count
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            self._tell(now)

    def say(self, message: str, percent: int | None = None) -> None:
        """An event that is no count: what is waited for or done now."""
        self._highest = max(self._highest, percent or 0)
        if self._listener is not None:
            self._listener(DownloadProgress(self._highest, message, bytes_done=self.done, bytes_total=self.total))

    def _tell(self, now: float) -> None:
        self._arrivals.append((now, self.fetched))
        while len(self._arrivals) > 2 and now - self._arrivals[0][0] > WINDOW:
            self._arrivals.popleft()
        began, before = self._arrivals[0]
        rate = (self.fetched - before) / (now - began) if now - began >= SHORTEST else None
        left = (self.total - self.done) / rate if self.total is not None and rate else None
        if self.total:
            self._highest = max(self._highest, min(ARRIVED, 100 * self.done // self.total))
        if self._listener is not None:
            self._listener(
                DownloadProgress(
                    self._highest,
                    f"{self.what}: {self._in_words(rate, left)}",
                    eta_seconds=left,
                    bytes_done=self.done,
                    bytes_total=self.total,
                    bytes_per_second=rate,
                )
            )

    def _in_words(self, rate: float | None, left: float | None) -> str:
        of = f" of {in_words(self.total)}" if self.total is not None else ""
        parts = [f"{in_words(self.done)}{of}"]
        parts += [f"{in_words(rate)}/s"] if rate is not None else []
        parts += [f"{time_in_words(left)} left"] if left is not None else []
        return ", ".join(parts)


def in_words(count: float) -> str:
    """Bytes as model pages give them: 1.52 GB, 35.2 MB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def time_in_words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
