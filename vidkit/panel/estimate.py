"""How long a clip will take, from what others took on this machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from vidkit.models.locate import BUNDLED_PREFIX
from vidkit.panel.history import Entry
from vidkit.params import GenerationParams

#: of the newest runs with the model, so many are looked at; machines, drivers and other load change
LOOKED_AT: Final = 60
#: of those, the ones whose work is nearest: a small clip says little of a large one
TAKEN: Final = 9

#: seconds grow with these: denoising with all of the work, these with the pixels; the rest (overhead) stays
WITH_PIXELS: Final = ("encode", "decode", "write", "metrics")


def seconds_for(
    params: GenerationParams, model: str, entries: Iterable[Entry], *, device: str | None = None
) -> float | None:
    """Seconds that a resolved request will take, once its model is loaded; None when no such clip was made before.

    The median over runs of the same model, family and conditioning, denoising scaled by steps, frames and pixels.

    Args:
        model: the base model's SHA-256 or name.
        entries: newest first, as `History.entries` gives them.
        device: "cpu" or "cuda"; None: where the newest of them ran.
    """
    alike = [entry for entry in entries if is_alike(entry, params, model)]
    device = device or next((found for entry in alike if (found := device_of(entry))), None)
    runs = islice((entry for entry in alike if device_of(entry) == device), LOOKED_AT)
    wanted = params.to_record()
    known = [scaled for entry in runs if (scaled := distance_and_seconds(entry, wanted)) is not None]
    nearest = sorted(known)[:TAKEN]
    return statistics.median(seconds for _, seconds in nearest) if nearest else None


def is_alike(entry: Entry, params: GenerationParams, model: str) -> bool:
    """Whether a run had the same model, family and conditioning."""
    request, base = entry.manifest.request, entry.manifest.models.get("baseModel", {})
    name = base.get("name", "")
    return (
        model in (base.get("sha256"), name, name.removeprefix(BUNDLED_PREFIX))
        and request.get("pipeline") == params.pipeline
        and (params.pipeline == "svd" or request.get("conditioning") == params.conditioning)
    )


def device_of(entry: Entry) -> str | None:
    """None for a bare clip, which does not say."""
    return entry.manifest.plan.get("device")


def distance_and_seconds(entry: Entry, wanted: Mapping[str, Any]) -> tuple[float, float] | None:
    """How far the work of a run is from the wanted one (factors of e), and what the wanted one would take by it."""
    made = {phase: seconds for phase, seconds in entry.manifest.timing.items() if seconds is not None}
    before, after = work(entry.manifest.request), work(wanted)
    if not before or not after or "total" not in made:
        return None
    factor, pixels = after / before, volume(wanted) / volume(entry.manifest.request)
    denoising = made.get("denoise", 0.0)
    with_pixels = sum(made.get(phase, 0.0) for phase in WITH_PIXELS)
    waited = made.get("wait", 0.0) + made.get("load", 0.0)
    rest = max(made["total"] - waited - denoising - with_pixels, 0.0)
    return abs(math.log(factor)), denoising * factor + with_pixels * pixels + rest


def volume(request: Mapping[str, Any]) -> float:
    """Frames times pixels; 0 when the request, of a bare clip, does not say."""
    return float((request.get("numFrames") or 0) * (request.get("width") or 0) * (request.get("height") or 0))


def work(request: Mapping[str, Any]) -> float:
    """Steps times frames times pixels; twice that with guidance, less where strength leaves steps out."""
    steps = float(request.get("numInferenceSteps") or 0)
    if request.get("pipeline") == "animatediff":
        guided = (request.get("guidanceScale") or 1) > 1
        steps *= (request.get("strength") or 1) if request.get("conditioning") == "init" else 1
    else:
        guided = (request.get("maxGuidanceScale") or 1) > 1
    return steps * volume(request) * (2 if guided else 1)
