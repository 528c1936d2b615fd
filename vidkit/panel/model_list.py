"""The models on this machine: what each is, where it lies, whether it goes with a request. Loads none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from vidkit.errors import InputError, SetupError
from vidkit.models.locate import BUNDLED_FOLDER, BUNDLED_PREFIX, Model, describe, find, locate_base, read_json
from vidkit.models.single_file import check_sd15_checkpoint
from vidkit.panel.added_models import added_paths, remember_model
from vidkit.params import GenerationParams, is_used
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.animatediff import BASE_KINDS, SINGLE_FILE, check_adapter
from vidkit.pipelines.family import Models
from vidkit.settings import Settings

#: what a kind of model is for: the parameter that names it, and in words
ROLES: Final[Mapping[str, tuple[str, str]]] = {
    "StableVideoDiffusionPipeline": ("base_model", "base model of svd"),
    **dict.fromkeys(BASE_KINDS, ("base_model", "base model of animatediff (Stable Diffusion 1.5)")),
    "MotionAdapter": ("motion_adapter", "motion adapter of animatediff"),
    "SparseControlNetModel": ("controlnet", "SparseCtrl model of animatediff"),
}

WEIGHTS: Final = (".safetensors", ".ckpt", ".pt", ".bin")
CONFIGS: Final = ("model_index.json", "config.json")

Origin = Literal["ships with vidkit", "in the models folder", "added by its path", "default of the settings"]


@dataclass(frozen=True)
class Found:
    """A model that is there. name: what a request calls it; role: the parameter that names it, None for what is no
    model that vidkit can use; problem: why it is not; size: bytes on disk."""

    name: str
    path: Path
    role: str | None = None
    purpose: str = ""
    size: int = 0
    problem: str | None = None
    model: Model | None = field(default=None, repr=False)
    origin: Origin = "in the models folder"

    @property
    def is_pia(self) -> bool:
        """Whether it is a motion adapter with input channels of its own for the picture."""
        if self.model is None or self.role != "motion_adapter":
            return False
        return self.model.config().get("conv_in_channels") is not None


def found_models(settings: Settings) -> list[Found]:
    """Those that ship with vidkit; those in the models folder, those added by path, and defaults that lie elsewhere."""
    found = [*bundled_models(), *(look_at(name, path) for name, path in candidates(settings.models))]
    added = [replace(look_at(str(path), path), origin="added by its path") for path in added_paths()]
    return [*found, *added, *defaults_elsewhere(settings, [*found, *added])]


def bundled_models() -> list[Found]:
    folders = sorted(path for path in BUNDLED_FOLDER.iterdir() if path.is_dir())
    return [replace(look_at(BUNDLED_PREFIX + path.name, path), origin="ships with vidkit") for path in folders]


def defaults_elsewhere(settings: Settings, found: Iterable[Found]) -> Iterator[Found]:
    """The settings' default models that are none of the others, also those that are not there."""
    known = {one.path for one in found}
    for family, name in settings.default_models.items():
        try:
            path = find(name, settings, f"default model of {family}")
        except SetupError as error:
            yield Found(name, Path(name), problem=error.message, origin="default of the settings")
            continue
        if path not in known:
            yield replace(look_at(name, path), origin="default of the settings")


def candidates(folder: Path) -> Iterator[tuple[str, Path]]:
    """What could be a model, with its name in a request: folders of one, files of weights, and both one level down."""
    for path in entries(folder):
        if path.is_file() or is_model_folder(path):
            yield path.name, path
            continue
        inside = [one for one in entries(path) if one.is_file() or is_model_folder(one)]
        yield from ((f"{path.name}/{one.name}", one) for one in inside)
        if not inside:
            yield path.name, path  # what is wrong with it is said


def entries(folder: Path) -> list[Path]:
    """Folders, and files of weights, by name; none where the folder cannot be read."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name.lower())
    except OSError:
        return []
    return [path for path in paths if not path.name.startswith(".") and (path.is_dir() or path.suffix in WEIGHTS)]


def is_model_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in CONFIGS)


def look_at(name: str, path: Path) -> Found:
    """By configs and headers alone."""
    try:
        path = path.resolve()
        model = describe(path)
        if model.kind == SINGLE_FILE:
            check_sd15_checkpoint(path)
        size = size_of(path)
    except (SetupError, OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        return Found(name, path, problem=str(error))
    if model.kind not in ROLES:
        return Found(name, path, size=size, problem=f"{model.kind} is no kind of model that vidkit uses.", model=model)
    role, purpose = ROLES[model.kind]
    found = Found(name, path, role, purpose, size, model=model)
    return replace(found, purpose="PIA motion adapter of animatediff") if found.is_pia else found


def size_of(path: Path) -> int:
    """Bytes on disk."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def add_model(written: str) -> Found:
    """Remember a model by its path, once it is seen to be one.

    Raises:
        SetupError: `model_not_found`; `invalid_model`, naming what it is instead; `output_not_writable`.
        InputError: `invalid_value` for an empty path. CriticalError: `disk_full`.
    """
    if not written.strip():
        raise InputError("invalid_value", "There is no path.", ["Give the folder of a model, or a .safetensors file"])
    try:
        path = Path(written.strip()).expanduser().resolve()
        is_there = path.exists()
    except (OSError, ValueError, RuntimeError):  # names no file system takes, users that don't exist
        is_there = False
    if not is_there:
        raise SetupError("model_not_found", f"There is nothing at {written.strip()[:200]!r}.", ["Check the path"])
    found = replace(look_at(str(path), path), origin="added by its path")
    if found.problem is not None:
        raise SetupError("invalid_model", found.problem, ["Give a diffusers folder, or a Stable Diffusion 1.5 file"])
    remember_model(path)
    return found


# --- whether a model goes with a request


def why_not(found: Found, params: GenerationParams, settings: Settings) -> str | None:
    """Why a request cannot use a model beside what else it names; None when it can. Some milliseconds."""
    if found.problem is not None or found.role is None:
        return found.problem
    if not is_used(found.role, params.pipeline, params.conditioning):
        mode = f" with conditioning {params.conditioning}" if params.pipeline == "animatediff" else ""
        return f"{params.pipeline}{mode} has no use for it."
    wanted = params.replace(**{found.role: found.name})
    try:
        return mismatch(found.role, FAMILIES[params.pipeline].models(wanted, settings))
    except (InputError, SetupError) as error:
        if blamed := [one.message for one in error.problems if found.role in one.concerns]:
            return blamed[0]
    # what else is missing or wrong is not this model's fault; it must still fit the base
    return None if found.role == "base_model" else why_not_alone(found, wanted, settings)


def why_not_alone(found: Found, wanted: GenerationParams, settings: Settings) -> str | None:
    """Why a part of animatediff does not go with the base model and the conditioning, whatever else is named."""
    if found.model is None:
        return found.problem
    try:
        if found.role == "motion_adapter":
            check_adapter(found.model, wanted)
        base = locate_base(wanted, settings, BASE_KINDS, bundled="bundled:tiny-animatediff")
        return mismatch(str(found.role), {"base_model": base, str(found.role): found.model})
    except SetupError as error:
        return error.message if found.role in error.concerns else None


def mismatch(role: str, models: Models) -> str | None:
    """Why the model of a role does not fit the others: motion modules are made for one shape of UNet."""
    base = unet_config(models["base_model"])
    for name, part in models.items():
        if name == "base_model" or role not in ("base_model", name):
            continue
        config = part.config()
        for key, what in (("block_out_channels", "channels"), ("cross_attention_dim", "text width")):
            wanted, there = config.get(key), base.get(key)
            if wanted is not None and there is not None and wanted != there:
                return f"{part.name} is for {what} {wanted}, {models['base_model'].name} has {there}."
    return None


def unet_config(base: Model) -> Mapping[str, Any]:
    if base.kind != SINGLE_FILE:
        return base.config("unet")
    return read_json(check_sd15_checkpoint(base.path) / "unet" / "config.json")
