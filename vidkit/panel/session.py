"""What a kernel keeps while panels come and go: its queue of clips, and the history on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from vidkit.device import chosen_device
from vidkit.errors import VidkitError
from vidkit.panel.estimate import seconds_for
from vidkit.panel.history import Entry, History
from vidkit.panel.queue import JobQueue
from vidkit.params import GenerationParams
from vidkit.settings import Settings, home


@dataclass
class Session:
    """device, device_problem: what computes on this machine, once it is known (`find_device`)."""

    queue: JobQueue
    history: History
    device: str | None = None
    device_problem: VidkitError | None = None
    _entries: Sequence[Entry] | None = field(default=None, repr=False)

    def estimate(self, params: GenerationParams, model: str) -> float | None:
        """Seconds that a resolved request will take, by what has run here."""
        if self._entries is None:
            self._entries = self.history.entries()
        return seconds_for(params, model, self._entries)

    def forget_entries(self) -> None:
        """Runs have changed on disk."""
        self._entries = None

    def find_device(self) -> None:
        """Load torch and look for a GPU: seconds, so not in a callback."""
        try:
            self.device = chosen_device()
        except VidkitError as error:
            self.device_problem = error


_session: Session | None = None
_making = threading.Lock()


def the_session(*, threaded: bool) -> Session:
    """This process's session. threaded: whether jobs run in a thread of their own; decided by who comes first."""
    global _session
    with _making:
        if _session is None:
            settings = Settings()
            queue = JobQueue(settings.runs, home() / "panel", threaded=threaded)
            _session = Session(queue, History(settings.runs, settings.cache))
        return _session
