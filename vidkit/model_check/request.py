"""The request of a check: which family a model is of, and a clip of it that is short enough to be made three times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vidkit.errors import InputError, Remedy
from vidkit.limits import smaller_sizes
from vidkit.memory.free import expected_device
from vidkit.models.inspection import inspect
from vidkit.models.locate import find
from vidkit.params import GenerationParams, PipelineName
from vidkit.resolving import Resolved, resolve_request
from vidkit.settings import Settings

#: what is asked for where the user does not say
USUAL: Final[dict[str, Any]] = {"image_path": "example:photo", "prompt": "slow zoom in", "seed": 7}


@dataclass(frozen=True)
class Short:
    """At most so many frames, steps and pixels of a frame, unless the user asks for others."""

    frames: int
    steps: int
    pixels: int | None = None


#: by device. On a GPU SVD's own 14 frames and size: a card with 25 TFLOP/s takes some 40 s for such a clip. On a CPU
#: what a full-size model makes in some minutes; the bundled models need seconds.
SHORT: Final = {"cuda": Short(14, 10), "cpu": Short(8, 6, pixels=256 * 256)}


@dataclass(frozen=True)
class CheckRequest:
    """found: the clip to make, with every default filled in; usual: the clip that the model makes by itself."""

    found: Resolved
    usual: GenerationParams


def check_request(model: str | None, given: Mapping[str, Any], settings: Settings) -> CheckRequest:
    """What a check makes.

    Args:
        model: all that `baseModel` takes; None: the family's default.
        given: other parameters of the user's, by snake_case name.

    Raises:
        InputError, SetupError: as `vidkit.generate`; a model that is no base model.
    """
    request = {**USUAL, **given}
    if model is not None:
        request |= {"base_model": model, "pipeline": given.get("pipeline") or family_of(model, settings)}
    params = GenerationParams(**request)
    limits = settings.limits.model_copy(update={"frames": None, "pixels": None})  # they are for what is made
    usual = resolve_request(params, settings.model_copy(update={"limits": limits}))
    return CheckRequest(resolve_request(params.replace(**shorter(usual, given)), settings), usual.params)


def family_of(model: str, settings: Settings) -> PipelineName:
    """Raises:
    InputError: `invalid_value`: a part, such as a motion adapter, or a base model of another family.
    """
    found = inspect(find(model, settings, "base model"))
    if found.kind == "Stable Video Diffusion":
        return "svd"
    if found.kind == "base model":
        return "animatediff"
    parameter = {"motion adapter": "--motion-adapter", "LoRA": "--loras", "SparseCtrl": "--controlnet"}.get(found.kind)
    raise InputError(
        "invalid_value",
        f"{model} is no base model but another kind: {found.title}.",
        [
            f"Give it with its base model: vidkit check BASE {parameter} {model}" if parameter else "Name a base model",
            "See which models are here: vidkit models list",
        ],
        ["base_model"],
    )


def shorter(usual: Resolved, given: Mapping[str, Any]) -> dict[str, int]:
    """What is changed of the clip that the model makes by itself, but for what the user gave."""
    params, short = usual.params, SHORT[expected_device()]
    ranges = usual.family.limits(params, usual.models).ranges
    changes = {}
    for name, most in (("num_frames", short.frames), ("num_inference_steps", short.steps)):
        least = round(ranges.get(name, (1, 1))[0])
        if name not in given and (getattr(params, name) or 1) > most:
            changes[name] = max(most, least)
    width, height = params.width or 0, params.height or 0
    if short.pixels is not None and width * height > short.pixels and not given.keys() & {"width", "height"}:
        for smaller in smaller_sizes(width, height, short.pixels):
            changes |= smaller.changes if isinstance(smaller, Remedy) else {}
    return changes
