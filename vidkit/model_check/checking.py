"""A check from start to finish: two settings, three clips, one report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vidkit.confinement import temporary_parent
from vidkit.errors import Cancelled, VidkitError
from vidkit.finding import Finding, note, ok, problem, tally
from vidkit.model_check import judging, looking
from vidkit.model_check.making import WORKER, Clip, Failed, Maker
from vidkit.model_check.request import CheckRequest
from vidkit.settings import load_settings
from vidkit.supervisor import OnEvent, Supervisor

PLAIN: Final = "as it fits"
AGAIN: Final = "the same again"
LEAN: Final = "low memory"


@dataclass(frozen=True)
class Report:
    """request: what was made, by wire name; clips: as far as they could be made."""

    model: str
    request: Mapping[str, Any]
    findings: Sequence[Finding]
    clips: Sequence[Clip] = field(default=(), repr=False)

    @property
    def is_well(self) -> bool:
        return not any(finding.status == "problem" for finding in self.findings)

    def summary(self) -> str:
        return f"{self.model}: {'all is well' if self.is_well else 'not all is well'} ({tally(self.findings)})."

    def to_json(self) -> dict[str, Any]:
        return {
            "status": "success",
            "model": self.model,
            "isWell": self.is_well,
            "summary": self.summary(),
            "request": dict(self.request),
            "findings": [finding.to_json() for finding in self.findings],
            "clips": [
                {"setting": clip.setting, "plan": clip.plan.to_json(), "metadata": dict(clip.metadata)}
                for clip in self.clips
            ],
        }


class Checking:
    """One check; `cancel` may come from a signal handler."""

    def __init__(self, wanted: CheckRequest, on_event: OnEvent) -> None:
        self._wanted, self._on_event = wanted, on_event
        self._supervisor = Supervisor(worker=WORKER)

    def cancel(self) -> None:
        self._supervisor.cancel()

    def run(self) -> Report:
        """Make the clips and judge them; nothing is left of them.

        Raises:
            Failed: a clip could not be made by the fault of the request or of this machine. What is the model's fault
                is a finding.
            Cancelled: within 5 s of `cancel`.
        """
        clips: list[Clip] = []
        with tempfile.TemporaryDirectory(prefix="vidkit-check-", dir=temporary_parent(load_settings())) as folder:
            try:
                maker = Maker(self._wanted.found, Path(folder), self._supervisor, self._on_event)
                findings = list(self._judged(maker, clips))
            except Failed as failed:
                if failed.is_typed:
                    raise
                findings = [*self._so_far(clips), failure(failed)]
            except VidkitError:
                if self._supervisor.cancelled:  # Ctrl-C ends our own ffmpeg too, which would be told as a broken clip
                    raise Cancelled() from None
                raise
            finally:
                self._supervisor.close()
        return self._report(findings, clips)

    def _judged(self, maker: Maker, clips: list[Clip]) -> Iterator[Finding]:
        made, usual = self._wanted.found.params, self._wanted.usual
        plain = self._made(maker, clips, PLAIN)
        again = self._made(maker, clips, AGAIN)
        limit = maker.low_memory_limit(plain)
        lean = self._made(maker, clips, LEAN, limit) if limit is not None else None
        yield self._what_was_made(clips)
        yield judging.speed(plain, made, usual)
        yield from execution_notes(plain, self._wanted.found.notes)
        yield judging.memory(plain)
        if lean is not None:
            yield judging.memory(lean)
        yield judging.determinism(plain, again)
        self._check_cancelled()
        if lean is not None:
            yield judging.low_memory(plain, lean, made)
        else:
            yield note(LEAN, "This clip took all measures already, or none saves enough: there is nothing to compare.")
        for finding in looking.picture(plain, made):
            self._check_cancelled()
            yield finding
        yield looking.file(plain)

    def _made(self, maker: Maker, clips: list[Clip], setting: str, limit: int | None = None) -> Clip:
        clips.append(maker.clip(setting, limit))
        return clips[-1]

    def _check_cancelled(self) -> None:
        if self._supervisor.cancelled:
            raise Cancelled

    def _what_was_made(self, clips: Sequence[Clip]) -> Finding:
        params, made = self._wanted.found.params, [clip.setting for clip in clips]
        conditioning = f" {params.conditioning}" if params.pipeline == "animatediff" else ""
        return ok(
            "clip",
            f"{params.pipeline}{conditioning}: {params.num_frames} frames of {params.width}x{params.height}, "
            f"{params.num_inference_steps} steps, seed {params.seed}; made so: {', '.join(made)}.",
        )

    def _so_far(self, clips: Sequence[Clip]) -> Iterator[Finding]:
        if clips:
            yield self._what_was_made(clips)
            yield judging.speed(clips[0], self._wanted.found.params, self._wanted.usual)
            yield from map(judging.memory, clips[:1])

    def _report(self, findings: Sequence[Finding], clips: Sequence[Clip]) -> Report:
        found = self._wanted.found
        return Report(found.models["base_model"].name, found.params.to_wire(), findings, clips)


def execution_notes(clip: Clip, known: Sequence[str]) -> Iterator[Finding]:
    """What happened while it was made, other than what the request itself brings about: attempts that failed."""
    for text in clip.metadata["notes"]:
        if text not in known:
            yield note("clip", text)


def failure(failed: Failed) -> Finding:
    response = failed.response
    return problem("clip", f"{failed.setting}: {response['error']}: {response['message']}", *response["suggestions"])
