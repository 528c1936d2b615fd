"""What a run says of itself: one shape for manifest.json (done) and failure.json (failed)."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


def plain_name(name: str) -> str:
    """A file of the run's own folder: a manifest from elsewhere must not lead out of it."""
    if name in ("", ".", "..") or PurePath(name.replace("\\", "/")).name != name:
        raise ValueError(f"{name!r} is no plain file name")
    return name


FileName = Annotated[str, AfterValidator(plain_name)]


class Manifest(BaseModel):
    """One run, on disk with camelCase keys; keys it does not know are kept.

    key: the content key, 64 hex digits. axes: the sweep's names and this point's values. request: resolved, camelCase,
    without paths. models, pictures, versions, plan, notes, safetyChecker: as in a clip's record. timing: seconds by
    phase: wait (for other processes on the device), load, encode, denoise, decode, write, metrics, overhead, total.
    peak_memory_gib: None where it was not measured (CPU). metrics: as `ClipMetrics.to_json`. files: plain names by
    role: clip, poster, notebook. started, finished: ISO 8601, to be read only; durations are in timing. error: code,
    category, message, suggestions, traceback.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    schema_version: int = 1
    key: str = Field(pattern="^[0-9a-f]{64}$")
    status: Literal["done", "failed"]
    axes: dict[str, Any] = {}
    request: dict[str, Any] = {}
    seed: int | None = None
    models: dict[str, dict[str, str]] = {}
    pictures: list[dict[str, str]] = []
    versions: dict[str, str] = {}
    plan: dict[str, Any] = {}
    notes: list[str] = []
    timing: dict[str, float | None] = {}
    peak_memory_gib: float | None = Field(None, alias="peakMemoryGiB")
    metrics: dict[str, float | None] = {}
    files: dict[str, FileName] = {}
    started: str | None = None
    finished: str | None = None
    attempts: int = Field(1, ge=1)
    error: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if self.status == "done" and "clip" not in self.files:
            raise ValueError("a run that is done names its clip in files")
        if (self.status == "failed") != (self.error is not None):
            raise ValueError("a run has an error when it failed, and only then")
        return self

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)
