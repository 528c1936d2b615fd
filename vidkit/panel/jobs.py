"""One job of the panel's queue: a request, and what has become of it so far."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from vidkit.errors import VidkitError
from vidkit.models.locate import BUNDLED_PREFIX
from vidkit.panel.original_pictures import EXAMPLE_PREFIX
from vidkit.params import GenerationParams, with_places
from vidkit.paths import local_path
from vidkit.progress import CancelToken, Progress
from vidkit.runs import RunFolder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: known: this very clip was there already
JobState = Literal["queued", "running", "done", "known", "failed", "cancelled"]

#: parameters that say where a file lies, and the words among them that are no path
PATHS: Final = {"image_path": EXAMPLE_PREFIX, "last_image_path": EXAMPLE_PREFIX, "output_path": ""}
MODELS: Final = ("base_model", "motion_adapter", "controlnet", "loras")


@dataclass(eq=False)
class Job:
    """Read its fields; change it only through the queue, whose lock guards it.

    params: its seed drawn, its paths absolute; preview: `(frames, height, width, 3)` uint8, the last look at it while
    it runs; run: when done or known; error: when failed; held: it came from a session that ended, and waits for
    `JobQueue.resume`; cancelling: asked to stop, which takes up to a step.
    """

    params: GenerationParams
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    state: JobState = "queued"
    progress: Progress | None = None
    preview: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    run: RunFolder | None = None
    error: VidkitError | None = None
    held: bool = False
    token: CancelToken = field(default_factory=CancelToken, repr=False)
    began: float | None = field(default=None, repr=False)
    ended: float | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float | None:
        """How long it has been running, or took; None before."""
        if self.began is None:
            return None
        return (time.monotonic() if self.ended is None else self.ended) - self.began

    @property
    def cancelling(self) -> bool:
        return self.state == "running" and self.token.cancelled

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")


def with_absolute_paths(params: GenerationParams) -> GenerationParams:
    """A request that means the same in a process with another working folder."""
    found = {}
    for name, no_path in PATHS.items():
        value = getattr(params, name)
        if value is not None and not (no_path and value.startswith(no_path)):
            found[name] = str(local_path(value, [name]).absolute())
    for name in MODELS:
        if (value := getattr(params, name)) is not None:
            found[name] = with_places(name, value, absolute_model)
    return params.replace(**found)


def absolute_model(value: str) -> str:
    """A path made absolute; a name in the models folder stays one."""
    if value.startswith(BUNDLED_PREFIX):
        return value
    path = local_path(value)
    return str(path.absolute()) if path.exists() else value
