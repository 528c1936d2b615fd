"""From a name or a path in a request to a model on disk, its kind and its card. Loads nothing, needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from vidkit.errors import InputError, SetupError
from vidkit.params import Conditioning, GenerationParams, canonical_names, plain_type
from vidkit.settings import Settings

BUNDLED_FOLDER: Final = Path(__file__).parent / "bundled"
BUNDLED_PREFIX: Final = "bundled:"
CARD_FILE: Final = "vidkit.json"


@dataclass(frozen=True)
class Model:
    """A model on disk.

    kind: the class its config names ("StableVideoDiffusionPipeline", "MotionAdapter", ...), or "single file".
    card: vidkit's own `vidkit.json` in the folder, if any: name, defaults, ranges, scheduler; windowFrames (what an SVD
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

    def config(self, part: str = "") -> dict[str, Any]:
        """The config.json of a part ("unet", "vae", ...), or of the folder itself; {} for a single file."""
        return {} if self.path.is_file() else read_json(self.path / part / "config.json")


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
    """A model by `bundled:NAME`, by path, or by its name in the models folder.

    Raises:
        SetupError: `model_not_found` (nothing there) or `invalid_model` (something else there).
    """
    path = find(wanted, settings, role)
    model = describe(path)
    kinds = list(kinds)
    if model.kind not in kinds:
        raise SetupError(
            "invalid_model",
            f"{path} is no {role} for this request: it is a {model.kind}, wanted is {' or '.join(kinds)}.",
            [f"Set the {role} to a {kinds[0]}", "Choose the pipeline that fits the model"],
            [role.replace(" ", "_")],
        )
    return model


def find(wanted: str, settings: Settings, role: str) -> Path:
    if wanted.startswith(BUNDLED_PREFIX):
        candidates = [
            folder for folder in BUNDLED_FOLDER.iterdir() if folder.name == wanted.removeprefix(BUNDLED_PREFIX)
        ]
    else:
        candidates = [Path(wanted), settings.models / wanted]
    for path in candidates:
        try:
            if path.expanduser().exists():
                return path.expanduser().resolve()
        except (OSError, ValueError, RuntimeError):  # names no file system takes, users that don't exist
            continue
    bundled = ", ".join(BUNDLED_PREFIX + folder.name for folder in sorted(BUNDLED_FOLDER.iterdir()))
    raise SetupError(
        "model_not_found",
        f"The {role} {wanted[:200]!r} was not found, neither as a path nor in {settings.models}.",
        [f"Check the path of the {role}", f"Put the model into {settings.models}", f"Use a bundled model: {bundled}"],
        [role.replace(" ", "_")],
    )


def describe(path: Path) -> Model:
    """What a path is, by its configs alone.

    Raises:
        SetupError: `invalid_model`, when it is no model at all or its configs cannot be read.
    """
    if path.is_file():
        return Model(path.stem, path, "single file")
    for file in ("model_index.json", "config.json"):
        if (path / file).is_file():
            kind = read_json(path / file).get("_class_name")
            card = read_card(path / CARD_FILE) if (path / CARD_FILE).is_file() else {}
            return Model(str(card.get("name", path.name)), path, str(kind), card)
    raise SetupError(
        "invalid_model",
        f"{path} is not a diffusers model: it has neither model_index.json nor config.json.",
        ["Give the folder that holds model_index.json", "Check that the download is complete"],
    )


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


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_config(path, str(error)) from error
    if not isinstance(content, dict):
        raise invalid_config(path, "not a JSON object")
    return content


def invalid_config(path: Path, reason: str) -> SetupError:
    return SetupError("invalid_model", f"The model's file {path} cannot be read: {reason}.", ["Fetch the model again"])


def picture_path(wanted: str) -> Path:
    """`example:NAME` is a picture that ships with vidkit; all else is a path.

    Raises:
        InputError: `image_not_found` for an unknown example.
    """
    if not wanted.startswith("example:"):
        return Path(wanted).expanduser()
    folder = Path(__file__).parent.parent / "examples"
    name = wanted.removeprefix("example:")
    matches = [file for file in sorted(folder.iterdir()) if name in (file.name, file.stem)]
    if not matches:
        known = ", ".join("example:" + file.stem for file in sorted(folder.iterdir()))
        raise InputError("image_not_found", f"There is no picture {wanted!r}.", [f"Use one of {known}"])
    return matches[0]
