"""What a request comes to on this machine: defaults filled in, models and pictures found, the seed drawn."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidkit.confinement import check_allowed
from vidkit.errors import InputError, Remedy
from vidkit.limits import check_request
from vidkit.models.locate import picture_path
from vidkit.models.loras import is_lora
from vidkit.params import MAX_SEED, GenerationParams, OutputFormat, resolve, wire_name
from vidkit.paths import local_path
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Family, Models
from vidkit.safety.screening import Screening, screening_of
from vidkit.settings import Settings
from vidkit.video import GIF_SMOOTH_FPS


@dataclass(frozen=True)
class Resolved:
    """A request with every default filled in and its seed drawn; its models and pictures found, but not yet read.

    pictures: the files of the first frame's picture and, where it is used, the last frame's. screening: how it is
    checked.
    """

    params: GenerationParams
    family: Family
    models: Models
    pictures: Sequence[Path]
    output_format: OutputFormat
    notes: Sequence[str]
    screening: Screening


def resolve_request(request: GenerationParams, settings: Settings, models: Models | None = None) -> Resolved:
    """What a request comes to on this machine, by the models' configs alone: a millisecond, no torch.

    models: those of the request, if they have been found already.

    Raises:
        InputError: what the models do not take; `over_limit`, more than the user's settings let a request take.
        SetupError: a model that is not there, or is another kind of model; as `screening_of`.
    """
    family = FAMILIES[request.pipeline]
    models = models or family.models(request, settings)
    screening = screening_of(models, settings)
    params, notes = resolve(request, family.limits(request, models))
    check_request(params, settings.limits)
    for name, model in models.items():
        if not is_lora(name) and getattr(request, name) is None:
            notes.append(f"No {wire_name(name)} was given: {model.name} was used.")
    output_format = format_of(params)
    if output_format == "gif" and params.fps > GIF_SMOOTH_FPS:
        notes.append(f"Browsers slow GIFs of over {GIF_SMOOTH_FPS} frames a second down.")
    seed = secrets.randbelow(MAX_SEED + 1) if params.seed == -1 else params.seed
    params = params.model_copy(update={"seed": seed, "output_format": output_format})
    wanted = {"image_path": params.image_path, "last_image_path": params.last_image_path}
    paths = [allowed_picture(path, parameter, settings) for parameter, path in wanted.items() if path is not None]
    if params.output_path is not None:
        check_allowed(local_path(params.output_path, ["output_path"]), settings, "output_path", params.output_path)
    if params.conditioning != "sparsectrl":
        paths = paths[:1]
    return Resolved(params, family, models, paths, output_format, [*notes, *screening.notes], screening)


def allowed_picture(wanted: str, parameter: str, settings: Settings) -> Path:
    """`picture_path`, where a policy allows it. Raises InputError as that; `path_not_allowed`."""
    path = picture_path(wanted, parameter)
    check_allowed(path, settings, parameter, wanted)
    return path


def format_of(params: GenerationParams) -> OutputFormat:
    """The container: what was asked for, else what the output path ends in, else MP4."""
    suffix = local_path(params.output_path, ["output_path"]).suffix.lower().lstrip(".") if params.output_path else ""
    formats: dict[str, OutputFormat] = {"mp4": "mp4", "gif": "gif", "webm": "webm"}
    if params.output_path and suffix not in formats:
        raise InputError(
            "invalid_value",
            f"outputPath ends in {'.' + suffix if suffix else 'nothing'}: {params.output_path}.",
            ["Let outputPath end in .mp4, .gif or .webm"],
            ["output_path"],
        )
    if params.output_format and suffix and formats[suffix] != params.output_format:
        raise InputError(
            "invalid_value",
            f"outputFormat is {params.output_format}, but outputPath ends in .{suffix}.",
            [
                f"Let outputPath end in .{params.output_format}",
                Remedy(f"Set outputFormat to {formats[suffix]}", output_format=formats[suffix]),
            ],
            ["output_path", "output_format"],
        )
    return params.output_format or formats.get(suffix, "mp4")
