"""What the manifest of a finished clip says, whoever made it: a sweep's notebook or the panel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from vidkit.params import GenerationParams

#: what is no overhead of a run: a clip made by hand costs it too. wait: for other processes on the device
WORK: Final = ("wait", "load", "encode", "denoise", "decode", "write")

#: of a record, what stands in the manifest under the same name
RECORDED: Final = ("models", "pictures", "versions", "plan", "safetyChecker")


def finished_content(
    params: GenerationParams,
    record: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    seconds: float,
    files: Mapping[str, str],
    metrics: Mapping[str, float | None] | None = None,
    metrics_seconds: float | None = None,
) -> dict[str, Any]:
    """A manifest without its key, axes and beginning.

    params: what the record of a bare clip does not say; record, metadata: of the `GenerationResult`; seconds: all that
    the run took; files: plain names by role; metrics_seconds: spent on them, if any were measured.
    """
    timing = {phase: spent for phase, spent in metadata["timing"].items() if phase in WORK}
    if metrics_seconds is not None:
        timing["metrics"] = metrics_seconds
    timing["overhead"] = seconds - sum(timing.values())
    return {
        "status": "done",
        "request": record.get("request", params.to_wire()),
        "seed": metadata["seed"],
        **{name: record[name] for name in RECORDED if name in record},
        "notes": metadata["notes"],
        "peakMemoryGiB": metadata["vramUsed"] or None,  # 0 on a CPU, where it is not measured
        "metrics": dict(metrics or {}),
        "files": dict(files),
        **ended(seconds, timing),
    }


def ended(seconds: float, timing: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The end of a run: `timing` (seconds by phase, and in all) and `finished`."""
    rounded = {phase: round(spent, 3) for phase, spent in {**(timing or {}), "total": seconds}.items()}
    return {"timing": rounded, "finished": datetime.now(UTC).isoformat()}
