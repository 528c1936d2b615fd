"""From a name or a path in a request to a model on disk, its kind and its card. Loads nothing, needs no torch."""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from vidkit.confinement import check_model_allowed, is_allowed, not_allowed
from vidkit.errors import InputError, Remedy, SetupError
from vidkit.models.catalogue import find_published, not_of_a_card
from vidkit.models.files.config_files import invalid_config, read_json
from vidkit.models.folder_scan import CUSTOM, candidates
from vidkit.models.inspection import inspect
from vidkit.models.loading.single_file import config_folder_of, config_of
from vidkit.models.registry import FILE_NAME, Entry, find_registered, registered
from vidkit.params import Conditioning, GenerationParams, canonical_names, plain_type
from vidkit.paths import is_windows_path, local_path
from vidkit.settings import Settings

#: models of the models folder that are looked at for one of the right kind
LOOKED_AT: Final = 20

BUNDLED_FOLDER: Final = Path(__file__).parent / "bundled"
BUNDLED_PREFIX: Final = "bundled:"
#: a model's card: in its folder; of a model in one file beside it, under its name and a dot
CARD_FILE: Final = "vidkit.json"


@dataclass(frozen=True)
class Model:
    """A model on disk.

    kind: the class its config names ("StableVideoDiffusionPipeline", "MotionAdapter", ...); of a model in one file the
    class that a folder of the same model would name.
    card: vidkit's own `vidkit.json` (`card_file`), if any: name, defaults, ranges, scheduler; windowFrames (what an SVD
    model holds at once); conditionings (those that a PIA motion adapter serves).
    """

    name: str
    path: Path
    kind: str
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_bundled(self) -> bool:
        return self.path.is_relative_to(BUNDLED_FOLDER)

    @property
    def stored_name(self) -> str:
        """How a request names it again, without its path: bundled:NAME, or its name in the models folder."""
        return BUNDLED_PREFIX + self.path.name if self.is_bundled else self.path.name

    def card_defaults(self) -> dict[str, Any]:
        return canonical_names(self.card.get("defaults", {}))

    def card_ranges(self) -> dict[str, tuple[float, float]]:
        return {name: (low, high) for name, (low, high) in canonical_names(self.card.get("ranges", {})).items()}

    @property
    def configs(self) -> Path:
        """The folder of its configurations: its own, or for a pipeline in one file that which fits it."""
        return config_folder_of(self.path, self.kind) if self.path.is_file() else self.path

    def config(self, part: str = "") -> dict[str, Any]:
        """The configuration of a part ("unet", "vae", ...; "" for a model that is one part)."""
        if self.path.is_file():
            return config_of(self.path, self.kind, part)
        return read_json(self.path / part / "config.json")


def locate_base(params: GenerationParams, settings: Settings, kinds: Iterable[str], bundled: str) -> Model:
    """The base model of a request: the one it names, else the settings' for the family, else the bundled one.

    Raises:
        SetupError: `model_not_found`; `invalid_model`, when it is not one of `kinds`.
    """
    wanted = params.base_model or settings.default_models.get(params.pipeline)
    if wanted is None and not (BUNDLED_FOLDER / bundled.removeprefix(BUNDLED_PREFIX)).is_dir():
        raise SetupError(
            "model_not_found",
            f"No base model: the request names none, the settings have no default for {params.pipeline} and none is "
            "bundled.",
            ["Set baseModel to a model folder", f'Set defaultModels in the settings: {{"{params.pipeline}": "NAME"}}'],
        )
    return locate(wanted or bundled, settings, kinds, role="base model")


def locate(wanted: str, settings: Settings, kinds: Iterable[str], role: str) -> Model:
    """A model by all names that `find` takes.

    Raises:
        SetupError: `model_not_found` (nothing there) or `invalid_model` (something else there); and as `find`.
    """
    kinds = list(kinds)
    try:
        path = find(wanted, settings, role)
    except SetupError as error:
        if error.code == "model_not_found":
            error.suggestions += would_do(settings, kinds, parameter_of(role))
        raise
    model = describe(path)
    if model.kind not in kinds:
        raise SetupError(
            "invalid_model",
            f"{path} is no {role} for this request: it is a {model.kind}, wanted is {' or '.join(kinds)}.",
            [*would_do(settings, kinds, parameter_of(role)), use_of(model, wanted)],
            [role.replace(" ", "_")],
        )
    return model


def use_of(model: Model, wanted: str) -> str:
    """What a model that is no base model, or no part of this kind, is for."""
    if "UNet" in model.kind:
        return f"Or put it in a base model's: vidkit models combine BASE {shlex.quote(wanted)} --name NAME"
    return f"Or choose the pipeline that uses a {model.kind}"


def would_do(settings: Settings, kinds: Collection[str], parameter: str) -> list[str]:
    """Models that are here and of the kind that is wanted, three at most, the user's own first."""
    own = itertools.islice(candidates(settings.models), LOOKED_AT)
    bundled = ((BUNDLED_PREFIX + folder.name, folder) for folder in sorted(BUNDLED_FOLDER.iterdir()))
    fitting = (name for name, path in itertools.chain(own, bundled) if kind_of(path) in kinds)
    return [Remedy(f"Use {name}, which is here", **{parameter: name}) for name in itertools.islice(fitting, 3)]


def kind_of(path: Path) -> str | None:
    """None for what is no model, or a broken one."""
    try:
        return describe(path).kind
    except SetupError:
        return None


def find(wanted: str, settings: Settings, role: str) -> Path:
    """Where a model lies: `bundled:NAME`; a path, of Windows too; a name in the models folder, or in its folder
    `custom`; a name in the registry. role: what it is wanted as, for errors.

    Raises:
        SetupError: `model_not_found`; `invalid_config`, when only the registry can know it and that is broken.
        InputError: `invalid_value`, for what can be no path here (`vidkit.paths.local_path`); `path_not_allowed`,
            whether something is there or not.
    """
    if wanted.startswith(BUNDLED_PREFIX):
        name = wanted.removeprefix(BUNDLED_PREFIX)
        places = [folder for folder in BUNDLED_FOLDER.iterdir() if folder.name == name]
    else:
        places = places_of(wanted, settings, parameter_of(role))
    parameter, is_refused = parameter_of(role), False
    for place in places:
        try:
            if not is_allowed(place, settings, model=True):  # whether anything is there is not told either
                is_refused = is_refused or place.parent != Path()  # a mere name means none in the current folder
            elif place.exists():
                check_model_allowed(place, settings, parameter, wanted)
                return place_of(place)
        except OSError:  # names that no file system takes
            continue
    entry = None if wanted.startswith(BUNDLED_PREFIX) else find_registered(wanted, settings)
    if entry is not None:
        check_model_allowed(entry.path, settings, parameter, wanted)
        if not entry.is_missing:
            return place_of(entry.path)
    if is_refused:
        raise not_allowed(wanted, settings, parameter)
    raise not_found(wanted, settings, role, entry)


def places_of(wanted: str, settings: Settings, parameter: str) -> list[Path]:
    """Where a model of this path or name may lie: none for what no file can be called.

    Raises:
        InputError: `invalid_value`, for a path of Windows that leads nowhere here.
    """
    try:
        path = local_path(wanted, [parameter])
    except InputError:
        if is_windows_path(wanted):
            raise
        return []
    return [folder / path for folder in (Path(), settings.models, settings.models / CUSTOM)]


def place_of(path: Path) -> Path:
    """An absolute path without links, but for the last part: a model goes by the name of the link that leads to it."""
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def parameter_of(role: str) -> str:
    return "loras" if role == "LoRA" else role.replace(" ", "_")


def not_found(wanted: str, settings: Settings, role: str, entry: Entry | None) -> SetupError:
    """entry: the registry's, of a model that is not where it says."""
    parameter = parameter_of(role)
    takes_name = parameter in GenerationParams.model_fields and parameter != "loras"
    bundled = [BUNDLED_PREFIX + folder.name for folder in sorted(BUNDLED_FOLDER.iterdir()) if role != "LoRA"]
    if entry is not None:
        told = f"The registry says that the {role} {entry.name!r} is at {entry.written}, but nothing is there."
        remedies = [f"Register it where it is now: vidkit models add PATH --name {entry.name}"]
    else:
        told = (
            f"The {role} {wanted[:200]!r} was not found: it is no path, and neither {settings.models} nor the registry "
            f"{FILE_NAME} in it has that name."
        )
        known = bundled if wanted.startswith(BUNDLED_PREFIX) else [*bundled, *known_names(settings)]
        near = difflib.get_close_matches(wanted[:200], known, n=2)
        remedies = [Remedy(f"Did you mean {name}?", **({parameter: name} if takes_name else {})) for name in near]
        if not near:
            remedies.append(f"Check the path of the {role}; vidkit models list shows what is here")
    published = find_published(wanted)
    if published is not None:
        remedies.insert(0, f"Fetch it: vidkit models download {published.name}")
    remedies.append(f"Put the model into {settings.models}")
    return SetupError("model_not_found", told, remedies, [parameter])


def known_names(settings: Settings) -> list[str]:
    """What models are called in the models folder and in the registry."""
    return [*(name for name, _ in candidates(settings.models)), *(one.name for one in registered(settings))]


def describe(path: Path) -> Model:
    """What a path is, by its configs or its header alone.

    Raises:
        SetupError: `invalid_model`, when it is no model at all or its configs cannot be read.
    """
    own = card_file(path)
    if path.is_file():
        found = inspect(path)
        return Model(path.stem, path, found.class_name or found.kind, read_card(own) if own.is_file() else {})
    for file in ("model_index.json", "config.json"):
        if (path / file).is_file():
            kind = read_json(path / file).get("_class_name")
            card = read_card(own) if own.is_file() else {}
            return Model(str(card.get("name", path.name)), path, str(kind), card)
    raise SetupError(
        "invalid_model",
        f"{path} is not a diffusers model: it has neither model_index.json nor config.json.",
        ["Give the folder that holds model_index.json", "Check that the download is complete"],
    )


def card_file(model: Path) -> Path:
    """Where the card of a model is, whether there is one or not."""
    return model / CARD_FILE if model.is_dir() else model.with_name(f"{model.stem}.{CARD_FILE}")


def read_card(path: Path) -> dict[str, Any]:
    """vidkit's own card of a model, checked: what is wrong in it must not look like the request's fault."""
    card = read_json(path)
    defaults, ranges = card.get("defaults", {}), card.get("ranges", {})
    if not isinstance(defaults, dict) or not isinstance(ranges, dict):
        raise invalid_config(path, "defaults and ranges must be JSON objects")
    try:
        GenerationParams(**{"image_path": "any", "prompt": "any", **canonical_names(defaults)})
    except InputError as error:
        raise invalid_config(path, error.message) from error
    if wrong := not_of_a_card(defaults):
        raise invalid_config(path, f"defaults has {', '.join(wrong)}, which requests alone decide")
    for name, bounds in canonical_names(ranges).items():
        numeric = plain_type(GenerationParams.model_fields[name]) in (int, float)
        if not (
            numeric and isinstance(bounds, list) and [type(bound) in (int, float) for bound in bounds] == [True] * 2
        ):
            raise invalid_config(path, f"the range of {name} must be [lowest, highest]")
    check_own_keys(path, card)
    return card


def check_own_keys(path: Path, card: Mapping[str, Any]) -> None:
    """The keys that are no parameters. (The scheduler is checked when it is made: only diffusers knows them.)"""
    frames = card.get("windowFrames", 2)
    if type(frames) is not int or frames < 2:
        raise invalid_config(path, f"windowFrames is {frames!r}, not a whole number of at least 2")
    served, known = card.get("conditionings", ["init"]), get_args(Conditioning)
    if not isinstance(served, list) or not served or any(mode not in known for mode in served):
        raise invalid_config(path, f"conditionings is {served!r}, not a list of some of {', '.join(known)}")


def picture_path(wanted: str, parameter: str = "image_path") -> Path:
    """`example:NAME` is a picture that ships with vidkit; all else is a path.

    Raises:
        InputError: `image_not_found` for an unknown example, and for what no file can be called; `invalid_value`, for
            a path of Windows that leads nowhere here.
    """
    if not wanted.startswith("example:"):
        try:
            return local_path(wanted, [parameter])
        except InputError as error:
            if is_windows_path(wanted):
                raise
            raise InputError("image_not_found", error.message, error.suggestions, [parameter]) from error
    folder = Path(__file__).parent.parent / "examples"
    name = wanted.removeprefix("example:")
    matches = [file for file in sorted(folder.iterdir()) if name in (file.name, file.stem)]
    if not matches:
        known = ", ".join("example:" + file.stem for file in sorted(folder.iterdir()))
        raise InputError("image_not_found", f"There is no picture {wanted!r}.", [f"Use one of {known}"])
    return matches[0]
