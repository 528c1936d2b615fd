"""The models on this machine: what each is, where it lies, whether it goes with a request. Loads none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from vidkit.errors import InputError, SetupError
from vidkit.lora_list import LORAS, quoted_name
from vidkit.models.checkpoints.findings import Kind
from vidkit.models.compatibility import why_not_together, with_article
from vidkit.models.entries import register_model
from vidkit.models.files.file_format import examine
from vidkit.models.files.folder_safety import check_folder
from vidkit.models.inspection import Inspection, inspect
from vidkit.models.listing import Listed, Origin, in_models_folder, listed_models
from vidkit.models.listing import bundled_models as listed_bundled
from vidkit.models.loading.single_file import SVD, check_pipeline_file
from vidkit.models.locate import Model, describe, locate_base, place_of
from vidkit.models.loras import describe_lora
from vidkit.models.registry import FILE_NAME, registry_file
from vidkit.near_paths import near_paths
from vidkit.params import GenerationParams, is_used
from vidkit.paths import local_path
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.animatediff import BASE_KINDS, check_adapter
from vidkit.settings import Settings

#: what a kind of model is for: the parameter that names it, the pipeline, and the architecture that it must be of
ROLES: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "Stable Video Diffusion": ("base_model", "svd", "SVD"),
    "base model": ("base_model", "animatediff", "SD 1.5"),
    "motion adapter": ("motion_adapter", "animatediff", "SD 1.5"),
    "SparseCtrl": ("controlnet", "animatediff", "SD 1.5"),
    "LoRA": (LORAS, "animatediff", "SD 1.5"),
    "motion LoRA": (LORAS, "animatediff", "SD 1.5"),
}


@dataclass(frozen=True)
class Found:
    """A model that is there. name: what a request calls it; role: the parameter that names it, None for what is no
    model that vidkit can use; problem: why it is not; inspection: what it is, where that can be told."""

    name: str
    path: Path
    role: str | None = None
    purpose: str = ""
    problem: str | None = None
    inspection: Inspection | None = field(default=None, repr=False)
    model: Model | None = field(default=None, repr=False)
    origin: Origin = "in the models folder"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.inspection.size if self.inspection is not None else 0

    @property
    def is_pia(self) -> bool:
        """Whether it is a motion adapter with input channels of its own for the picture."""
        return self.inspection is not None and self.inspection.version == "PIA"


def found_models(settings: Settings) -> list[Found]:
    """What `listed_models` lists, looked at. A registry that cannot be read is one of them, with its problem."""
    try:
        listed = listed_models(settings)
    except SetupError as error:
        broken = Found(FILE_NAME, registry_file(settings), problem=error.message, origin="registered")
        return [*bundled_models(), *map(look, in_models_folder(settings)), broken]
    return [look(one) for one in listed]


def bundled_models() -> list[Found]:
    return [look(one) for one in listed_bundled()]


def look(listed: Listed) -> Found:
    if listed.problem is not None:
        return Found(listed.name, listed.path, problem=listed.problem, origin=listed.origin)
    return replace(look_at(listed.name, listed.path), origin=listed.origin)


def look_at(name: str, path: Path) -> Found:
    """By configs and headers alone."""
    try:
        inspection = inspect(path)
    except (SetupError, OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        return Found(name, path, problem=str(error))
    role, pipeline, architecture = ROLES.get(inspection.kind, (None, "", ""))
    if role is None or (inspection.architectures and architecture not in inspection.architectures):
        problem = f"It is {with_article(inspection.title)}, which no pipeline of vidkit uses."
        return Found(name, path, problem=problem, inspection=inspection)
    try:
        model = usable(role, path, inspection)
    except (SetupError, OSError) as error:
        return Found(name, path, problem=str(error), inspection=inspection)
    what = "base model" if role == "base_model" else inspection.title.partition(" for ")[0]
    return Found(name, path, role, f"{what} of {pipeline}", inspection=inspection, model=model)


def usable(role: str, path: Path, inspection: Inspection) -> Model:
    """Raises SetupError `invalid_model`, when something is wrong with a model of the right kind."""
    model = describe_lora(path) if role == LORAS else describe(path)
    if path.is_dir():
        check_folder(path)
    elif role == "base_model":
        check_pipeline_file(inspection)
    if role == "base_model" and model.kind not in (SVD, *BASE_KINDS):
        told = f"{path} is made for {model.kind}, which vidkit has no use for."
        raise SetupError("invalid_model", told, [f"Choose a {SVD}, or a base for animatediff"])
    if lacks := inspection.details.get("lacks"):
        raise SetupError("invalid_model", f"{path} lacks {', '.join(lacks)}.", [examine(path)])
    return model


def add_model(written: str, settings: Settings) -> Found:
    """Register a model by its path, once it is seen to be one.

    Raises:
        SetupError: `model_not_found`; `invalid_model`, naming what it is instead; `invalid_config`, when the registry
            is broken; `output_not_writable`.
        InputError: `invalid_value` for an empty path. CriticalError: `disk_full`.
    """
    if not written.strip():
        raise InputError("invalid_value", "There is no path.", ["Give the folder of a model, or a file of weights"])
    try:
        path = place_of(local_path(written.strip()))
        is_there = path.exists()
    except OSError:  # names that no file system takes
        is_there = False
    if not is_there:
        raise SetupError(
            "model_not_found", f"There is nothing at {written.strip()[:200]!r}.", near_paths(Path(written.strip()))
        )
    found = look_at(str(path), path)
    if found.problem is not None:
        raise SetupError("invalid_model", found.problem, ["Give a model that vidkit uses"])
    entry = register_model(settings, inspect(path))
    return replace(found, name=entry.name, origin="registered")


# --- whether a model goes with a request


def why_not(found: Found, params: GenerationParams, settings: Settings) -> str | None:
    """Why a request cannot use a model beside what else it names; None when it can. Some milliseconds."""
    if found.problem is not None or found.role is None:
        return found.problem
    if not is_used(found.role, params.pipeline, params.conditioning):
        mode = f" with conditioning {params.conditioning}" if params.pipeline == "animatediff" else ""
        return f"{params.pipeline}{mode} has no use for it."
    wanted = params.replace(**{found.role: quoted_name(found.name) if found.role == LORAS else found.name})
    try:
        FAMILIES[params.pipeline].models(wanted, settings)
    except (InputError, SetupError) as error:
        if blamed := [one.message for one in error.problems if found.role in one.concerns]:
            return blamed[0]
        # what else is missing or wrong is not this model's fault; it must still fit the base
        return None if found.role == "base_model" else why_not_alone(found, wanted, settings)
    return None


def why_not_alone(found: Found, wanted: GenerationParams, settings: Settings) -> str | None:
    """Why a part of animatediff does not go with the base model and the conditioning, whatever else is named."""
    if found.model is None or found.inspection is None:
        return found.problem
    try:
        if found.role == "motion_adapter":
            check_adapter(found.model, wanted)
        base = locate_base(wanted, settings, BASE_KINDS, bundled="bundled:tiny-animatediff")
        return why_not_together(found.inspection, inspect(base.path))
    except SetupError as error:
        return error.message if found.role in error.concerns else None
