"""What running a request would come to: problems, time, memory. Quick, and nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vidkit.device import GIB, Plan
from vidkit.errors import CriticalError, InputError, SetupError, VidkitError
from vidkit.files import free_disk_bytes
from vidkit.params import GenerationParams, Limits, is_used
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.resolving import Resolved, resolve_request
from vidkit.settings import Settings, home
from vidkit.sweep.dry_run import in_words

#: bytes: below it a clip of some hundred frames with its intermediate files may not find room
ENOUGH_DISK: Final = GIB

#: (resolved request, the base model's file or folder name) -> seconds, None while nothing is known
Estimate = Callable[[GenerationParams, str], float | None]


@dataclass(frozen=True)
class Outlook:
    """What is known of a request before it runs.

    limits, resolved: None where the models or the request do not allow them; problems: what stands in the way of
    running it; seconds: estimated, None while no like request has run here.
    """

    params: GenerationParams
    models: Models | None = None
    limits: Limits | None = None
    resolved: Resolved | None = None
    problems: Sequence[VidkitError] = ()
    seconds: float | None = None


def outlook_of(params: GenerationParams, settings: Settings, estimate: Estimate) -> Outlook:
    """Some milliseconds: the models' configs are read, not their weights."""
    problems = list(disk_problems(home()))
    family = FAMILIES[params.pipeline]
    try:
        models = family.models(params, settings)
    except (InputError, SetupError) as error:
        return Outlook(params, problems=[*problems, *error.problems])
    try:
        limits = family.limits(params, models)
        found = resolve_request(params, settings, models)
    except (InputError, SetupError) as error:
        return Outlook(params, models, limits_of(params, models), problems=[*problems, *error.problems])
    seconds = estimate(found.params, models["base_model"].path.name)
    return Outlook(params, models, limits, found, problems, seconds)


def limits_of(params: GenerationParams, models: Models) -> Limits | None:
    """What the models narrow, whatever of the request they refuse."""
    try:
        return FAMILIES[params.pipeline].limits(params, models)
    except (InputError, SetupError):
        return None


def disk_problems(folder: Path) -> list[VidkitError]:
    """Said before the run: a full disk at its end costs the clip."""
    free = free_disk_bytes(folder)
    if free >= ENOUGH_DISK:
        return []
    return [
        CriticalError(
            "disk_full",
            f"{free / GIB:.2f} GiB are free where clips are kept ({folder}).",
            ["Free some space", "Set VIDKIT_HOME to a folder on another disk"],
        )
    ]


def request_in_words(params: GenerationParams, model: str) -> str:
    """A resolved request in one line."""
    frames = params.num_frames or 0
    steps = f"{params.num_inference_steps} steps"
    if is_used("strength", params.pipeline, params.conditioning):
        steps += f" at strength {params.strength:g}"
    return (
        f"{model}: {frames} frames of {params.width}x{params.height}, {frames / params.fps:.3g} s at {params.fps} "
        f"frames/s; {steps}; decoded {min(params.decode_chunk_size, frames)} at once"
    )


def time_in_words(seconds: float | None) -> str:
    if seconds is None:
        return "How long it takes is known after the first clip of this model."
    return f"About {in_words(seconds)}, as earlier clips of this model took."


def device_in_words(plan: Plan | None, problem: VidkitError | None) -> str:
    if problem is not None:
        return problem.message
    if plan is None:
        return "Looking for a GPU…"
    if plan.device == "cpu":
        return (
            "No GPU is used: everything runs on the CPU. The bundled models are made for that; full-size models take "
            "hours for a clip."
        )
    return "Runs on the GPU in half precision" + (
        ", all of the model on it." if plan.offload == "none" else ", one part of the model on it at a time."
    )
