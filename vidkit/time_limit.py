"""The time limit of one request, asked at every layer; when it has passed, its error says what would be in time."""

from __future__ import annotations

import time
from typing import Final, Literal

from vidkit.errors import GenerationError, Remedy
from vidkit.limits import how_to_raise, smaller_sizes
from vidkit.params import GenerationParams

Phase = Literal["load", "encode", "denoise", "decode"]

DOING: Final[dict[Phase, str]] = {
    "load": "loading the models",
    "encode": "encoding the picture",
    "denoise": "denoising",
    "decode": "decoding",
}

#: what is suggested takes this share of the limit, as the pace goes: the rest is for what was not measured
MARGIN: Final = 0.85

#: of a suggestion; fewer steps or frames make no clip worth seeing
FEWEST_STEPS: Final = 4
FEWEST_FRAMES: Final = 8


class TimeLimit:
    """Counts from now. seconds: None is no limit; params: what is computed."""

    def __init__(self, seconds: float | None, params: GenerationParams) -> None:
        self.seconds = seconds
        self.params = params
        self._began = time.monotonic()
        self._since: dict[Phase, float] = {"load": self._began}
        self._shares: dict[Phase, float] = {}
        self._phase: Phase = "load"

    def check(self) -> None:
        """Raises:
        GenerationError: `timeout`.
        """
        if self.seconds is not None and time.monotonic() - self._began > self.seconds:
            raise self.timeout()

    def at(self, phase: Phase, share: float = 0.0) -> None:
        """So much of a phase is done, 0 <= share <= 1. A phase that begins again is measured anew."""
        if phase != self._phase:
            self._phase, self._since[phase] = phase, time.monotonic()
        self._shares[phase] = share

    def timeout(self) -> GenerationError:
        """What to tell, at this moment."""
        share, needed = self._shares.get(self._phase, 0.0), self.needed()
        message = f"The clip was not done within the limit of {self.seconds:g} s: it was stopped while "
        message += DOING[self._phase] + (f", {share:.0%} of which was done." if share else ".")
        if needed is None:
            return GenerationError("timeout", message, [how_to_raise("time"), "Try again: what was read loads faster"])
        message += f" At this pace all of it takes about {needed:.0f} s."
        return GenerationError("timeout", message, [*self.quicker_requests(), how_to_raise("time")])

    def needed(self) -> float | None:
        """Seconds that all of it takes up to the phase of now, as far as its pace is known."""
        share = self._shares.get(self._phase, 0.0)
        if self._phase not in ("denoise", "decode") or share <= 0:
            return None
        since = self._since[self._phase]
        return since - self._began + (time.monotonic() - since) / share

    def quicker_requests(self) -> list[str]:
        """Of steps, frames and size, what would have been done in time: each alone, when the time goes with it."""
        needed, params = self.needed(), self.params
        if needed is None or self.seconds is None:
            return []
        before = self._since["denoise"] - self._began
        left = self.seconds * MARGIN - before
        denoised = needed - before if self._phase == "denoise" else self._since["decode"] - self._since["denoise"]
        found: list[str] = []
        steps = int((params.num_inference_steps or 0) * (left - (needed - before - denoised)) / denoised)
        if steps >= FEWEST_STEPS:
            found.append(Remedy(f"Set numInferenceSteps to {steps}", num_inference_steps=steps))
        share = left / (needed - before)
        frames = int((params.num_frames or 0) * share)
        if frames >= FEWEST_FRAMES:
            found.append(Remedy(f"Set numFrames to {frames}", num_frames=frames))
        if share > 0:
            width, height = params.width or 0, params.height or 0
            found += smaller_sizes(width, height, width * height * share)
        return found
