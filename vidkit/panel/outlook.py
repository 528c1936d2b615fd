"""What running a request would come to: problems, time, memory. Quick, and nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidkit import generation
from vidkit.errors import CriticalError, GenerationError, InputError, SetupError, VidkitError
from vidkit.limits import check_disk
from vidkit.memory.fitting import Room
from vidkit.memory.planning import Planned, plan_request
from vidkit.params import GenerationParams, Limits, is_used
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.resolving import Resolved, resolve_request
from vidkit.settings import Settings
from vidkit.sweep.dry_run import in_words

#: (resolved request, the base model's file or folder name) -> seconds, None while nothing is known
Estimate = Callable[[GenerationParams, str], float | None]


@dataclass(frozen=True)
class Outlook:
    """What is known of a request before it runs.

    limits, resolved: None where the models or the request do not allow them; problems: what stands in the way of
    running it; seconds: estimated, None while no like request has run here; device: None while that is being found out;
    planned: how it runs in the memory that is free now; misfit: why there is no plan.
    """

    params: GenerationParams
    models: Models | None = None
    limits: Limits | None = None
    resolved: Resolved | None = None
    problems: Sequence[VidkitError] = ()
    seconds: float | None = None
    device: str | None = None
    planned: Planned | None = None
    misfit: VidkitError | None = None


def outlook_of(params: GenerationParams, settings: Settings, estimate: Estimate, device: str | None = None) -> Outlook:
    """Some milliseconds: the models' configs are read, not their weights. device: on which it is to run."""
    family = FAMILIES[params.pipeline]
    try:
        models = family.models(params, settings)
    except (InputError, SetupError) as error:
        return Outlook(params, problems=error.problems, device=device)
    try:
        limits = family.limits(params, models)
        found = resolve_request(params, settings, models)
    except (InputError, SetupError) as error:
        narrowed = limits_of(params, models)
        return Outlook(params, models, narrowed, problems=error.problems, device=device)
    seconds = estimate(found.params, models["base_model"].path.name)
    planned, misfit = plan_for(found, device)
    problems = disk_problems(found.params, settings)
    return Outlook(params, models, limits, found, problems, seconds, device, planned, misfit)


def plan_for(found: Resolved, device: str | None) -> tuple[Planned | None, VidkitError | None]:
    """The plan for the memory that is free now, or why there is none.

    That refuses nothing: until it runs, other processes may have unloaded.
    """
    if device is None:
        return None, None
    room = Room.now(device, kept_on_host=generation.kept_on_host())
    try:
        return plan_request(found.params, found.models, device, room.device, host=room.host), None
    except (GenerationError, SetupError) as error:
        return None, error


def limits_of(params: GenerationParams, models: Models) -> Limits | None:
    """What the models narrow, whatever of the request they refuse."""
    try:
        return FAMILIES[params.pipeline].limits(params, models)
    except (InputError, SetupError):
        return None


def disk_problems(params: GenerationParams, settings: Settings) -> list[VidkitError]:
    """Whether a resolved request's clip finds room among the runs. A disk that is full at its end costs the clip."""
    try:
        check_disk(params, settings.runs / "clip", settings.limits)
    except CriticalError as error:
        return [error]
    return []


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


def device_in_words(device: str | None, problem: VidkitError | None) -> str:
    if problem is not None:
        return problem.message
    if device is None:
        return "Looking for a GPU…"
    if device == "cpu":
        return (
            "No GPU is used: everything runs on the CPU. The bundled models are made for that; full-size models take "
            "hours for a clip."
        )
    return "Runs on the GPU in half precision."
