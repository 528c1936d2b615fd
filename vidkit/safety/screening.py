"""What the settings ask for: which pictures are checked, by what, and what is refused without an acknowledgement.

`safety.checker` of the settings is `auto` (a checker that is installed looks at every clip, and a note says where none
is; clips of bundled models alone are exempt), `on` (no checker, no clip, of bundled models neither) or `off` (which has
to be acknowledged). A request has no say in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vidkit.errors import SetupError
from vidkit.models.folder_scan import CUSTOM
from vidkit.models.locate import Model
from vidkit.models.loras import is_lora
from vidkit.models.registry import find_registered
from vidkit.safety.acknowledgement import require
from vidkit.safety.marks import marked_model
from vidkit.settings import Settings

#: of the checker, in the models folder, the registry and the catalogue
NAME: Final = "safety-checker"
INSTALL: Final = f"vidkit models download {NAME}"
VARIABLE: Final = "VIDKIT_SAFETY_CHECKER"

OFF: Final = "The safety checker is turned off: the clip is not checked."
NONE: Final = f"No safety checker is installed: the clip is not checked. To install one: {INSTALL}"


@dataclass(frozen=True)
class Screening:
    """How a request's pictures are checked. setting: `auto`, `on` or `off`; checker: where it lies, None where no
    picture is checked; sha256: of the checker; notes: for the result.
    """

    setting: str = "auto"
    checker: Path | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def shows_unchecked(self) -> bool:
        """Whether a look at the clip may be given before it is checked."""
        return self.setting != "on"

    def to_record(self) -> dict[str, Any]:
        """What a clip says of it."""
        return {"setting": self.setting, "checked": self.checker is not None, "sha256": self.sha256}


def screening_of(models: Mapping[str, Model], settings: Settings) -> Screening:
    """How a request with these models is checked on this machine; nothing is loaded.

    Raises:
        SetupError: `acknowledgement_needed`, for a model that is marked as made for adult pictures, and for turning
            the checker off; `no_safety_checker`, where the settings ask for one; `invalid_config`, for a registry that
            cannot be read.
    """
    refuse_marked(models, settings)
    setting = settings.safety.checker
    if setting == "off":
        require(settings, "Turning the safety checker off", f"Leave it on: unset {VARIABLE}, or {KEEP_ON}")
        return Screening(setting, notes=(OFF,))
    if setting == "auto" and all(model.is_bundled for model in models.values()):
        return Screening(setting)
    checker = installed_checker(settings)
    if checker is not None:
        return Screening(setting, checker)
    if setting == "on":
        raise SetupError(
            "no_safety_checker",
            f"The settings say that every clip is checked (safety.checker is on), but {settings.models} has no "
            f"safety checker, {NAME!r}.",
            [f"Install it: {INSTALL}", f"Have clips checked only where there is one: {KEEP_ON}"],
        )
    return Screening(setting, notes=(NONE,))


KEEP_ON: Final = "vidkit config safety.checker auto"


def refuse_marked(models: Mapping[str, Model], settings: Settings, hashes: Mapping[str, str] | None = None) -> None:
    """Raises:
    SetupError: `acknowledgement_needed`; `invalid_config`, as `marked_model`, whose arguments these are.
    """
    marked = marked_model(models, settings, hashes)
    if marked is None:
        return
    parameter, entry = marked
    try:
        require(settings, f"The model {entry.name!r}, which the registry marks as made for adult pictures (nsfw),",
                "Choose another model")  # fmt: skip
    except SetupError as error:
        error.concerns = ("loras",) if is_lora(parameter) else (parameter,)
        raise


def installed_checker(settings: Settings) -> Path | None:
    """The models folder's, or the registry's of that name, whether its files are there or not.

    Raises:
        SetupError: `invalid_config`, for a registry that cannot be read.
    """
    places = [settings.models / NAME, settings.models / f"{NAME}.safetensors", settings.models / CUSTOM / NAME]
    for place in places:
        if place.exists():
            return place
    entry = find_registered(NAME, settings)
    return entry.path if entry is not None else None
