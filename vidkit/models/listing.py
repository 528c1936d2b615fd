"""The models on this machine by the names that requests call them: bundled, in the models folder, registered, defaults.

Listing looks at names alone; `look_at` tells what one of them is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidkit.confinement import check_model_allowed
from vidkit.errors import InputError, SetupError, VidkitError
from vidkit.models.folder_scan import candidates
from vidkit.models.inspection import Inspection, inspect
from vidkit.models.locate import BUNDLED_FOLDER, BUNDLED_PREFIX, find
from vidkit.models.registry import Entry, is_same_place, registered
from vidkit.settings import Settings

Origin = Literal["ships with vidkit", "in the models folder", "registered", "default of the settings"]


@dataclass(frozen=True)
class Listed:
    """A model that a request can name. name: how; entry: what the registry says of it; problem: why it is not there."""

    name: str
    path: Path
    origin: Origin
    entry: Entry | None = None
    problem: str | None = None


def listed_models(settings: Settings) -> list[Listed]:
    """All of them, each place once. A registered model in the models folder goes by its registered name.

    Raises:
        SetupError: `invalid_config`: the registry is broken.
    """
    bundled = bundled_models()
    entries = [listed_entry(entry, settings) for entry in registered(settings)]
    inside = [one for one in in_models_folder(settings) if not is_among(one.path, entries)]
    known = [*bundled, *inside, *entries]
    return [*known, *defaults_elsewhere(settings, known)]


def bundled_models() -> list[Listed]:
    folders = sorted(path for path in BUNDLED_FOLDER.iterdir() if path.is_dir())
    return [Listed(BUNDLED_PREFIX + path.name, path, "ships with vidkit") for path in folders]


def in_models_folder(settings: Settings) -> list[Listed]:
    return [Listed(name, path, "in the models folder") for name, path in candidates(settings.models)]


def listed_entry(entry: Entry, settings: Settings) -> Listed:
    if entry.is_missing:
        return Listed(entry.name, entry.path, "registered", entry, f"Nothing is at {entry.written}.")
    try:
        check_model_allowed(entry.path, settings, "model", entry.written)
    except InputError as error:
        return Listed(entry.name, entry.path, "registered", entry, error.message)
    return Listed(name_of(entry, settings), entry.path, "registered", entry)


def name_of(entry: Entry, settings: Settings) -> str:
    """What leads a request to an entry: its name, FAMILY/NAME where another model has that name, or its path."""
    for name in (entry.name, f"{entry.family}/{entry.name}"):
        try:
            if is_same_place(find(name, settings, "model"), entry.path):
                return name
        except VidkitError:
            continue
    return str(entry.path)


def defaults_elsewhere(settings: Settings, known: list[Listed]) -> Iterator[Listed]:
    """The settings' default models that are none of the others, also those that are not there."""
    for family, name in settings.default_models.items():
        try:
            path = find(name, settings, f"default model of {family}")
        except VidkitError as error:
            yield Listed(name, Path(name), "default of the settings", problem=error.message)
            continue
        if not is_among(path, known):
            yield Listed(name, path, "default of the settings")


def look_at(listed: Listed) -> tuple[Inspection | None, str | None]:
    """What it is, or why nobody can tell; by its configs and headers alone."""
    if listed.problem is not None:
        return None, listed.problem
    try:
        return inspect(listed.path), None
    except SetupError as error:
        return None, error.message


def is_among(path: Path, listed: list[Listed]) -> bool:
    return any(is_same_place(path, one.path) for one in listed)
