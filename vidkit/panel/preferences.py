"""What was set last, kept for the next time.

In config.json (key `panel`), which is safe to share: no path that leads out of the data folder. Those are kept in
panel/paths.json, for its owner alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vidkit.errors import InputError, SetupError
from vidkit.files import written_whole
from vidkit.lora_list import LORAS, parse_loras
from vidkit.models.locate import BUNDLED_PREFIX
from vidkit.panel.original_pictures import EXAMPLE_PREFIX
from vidkit.params import SCHEMA_VERSION, GenerationParams, canonical_name, group_of, with_places
from vidkit.paths import local_path
from vidkit.record import PATH_PARAMETERS
from vidkit.settings import config_path, home, load_settings, update_settings

#: what a panel begins with: it runs as it is, with what ships
FIRST_REQUEST: Final[Mapping[str, Any]] = {"image_path": "example:photo", "prompt": "slow cinematic zoom in"}

#: how config.json names the data folder in a path
HOME: Final = "{home}/"


def load_request() -> tuple[GenerationParams, list[str]]:
    """The request kept last, or the first one; and in words what could not be restored. No file is changed."""
    try:
        panel = load_settings().panel
    except SetupError as error:
        return first_request(), [f"{error.message} The panel begins with its defaults, and what is set is not kept."]
    kept = panel.get("request", {})
    if not isinstance(kept, dict):
        return first_request(), [f"The request kept in {config_path()} is none: the next change replaces it."]
    if is_newer(kept):
        return first_request(), [newer(kept).message + " The panel begins with its defaults."]
    found, notes = read_paths()
    missing = [name for name in as_names(panel.get("paths")) if name not in found]
    if missing:
        notes.append(f"Not restored: {', '.join(missing)}; where that lies is not kept in config.json.")
    shared = {name: restored(name, value) if name in PATH_PARAMETERS else value for name, value in kept.items()}
    params, problems = valid_part({**shared, **found})
    return params, notes + problems


def save_request(params: GenerationParams) -> None:
    """Keep a request.

    Raises:
        SetupError: `invalid_config`, when config.json is damaged or its request is a newer vidkit's; it is left as it
            is.
        OSError: the data folder cannot be written.
    """
    others = dict(load_settings().panel)
    if isinstance(others.get("request"), dict) and is_newer(others["request"]):
        raise newer(others["request"])
    wire = params.to_wire()
    private: dict[str, str] = {
        name: wire[name] for name in PATH_PARAMETERS if name in wire and is_private(name, wire[name])
    }
    shared = {
        name: with_places(name, value, portable) if name in PATH_PARAMETERS else value
        for name, value in wire.items()
        if name not in private
    }
    write_paths(private)
    update_settings(panel={**others, "request": shared, "paths": sorted(private)})


def first_request() -> GenerationParams:
    return GenerationParams(**FIRST_REQUEST)


def valid_part(request: Mapping[str, Any]) -> tuple[GenerationParams, list[str]]:
    """The request without what is wrong in it (edited by hand, say), and that in words."""
    named = {**FIRST_REQUEST, **{canonical_name(name): value for name, value in request.items()}}
    try:
        return GenerationParams(**named), []
    except InputError as error:
        wrong = {name for problem in error.problems for name in problem.concerns}
        good = {
            name: value for name, value in named.items() if name in GenerationParams.model_fields and name not in wrong
        }
        notes = [f"Not restored: {problem.message}" for problem in error.problems]
        return GenerationParams(**{**FIRST_REQUEST, **good}), notes


def is_newer(kept: Mapping[str, Any]) -> bool:
    version = kept.get("schemaVersion", SCHEMA_VERSION)
    return isinstance(version, int) and version > SCHEMA_VERSION


def newer(kept: Mapping[str, Any]) -> SetupError:
    return SetupError(
        "invalid_config",
        f"The request kept in {config_path()} is a newer vidkit's (schema {kept['schemaVersion']}, this one knows "
        f"{SCHEMA_VERSION}): it is left as it is, and what is set here is not kept.",
        ["Use the newer vidkit", f"Take the key panel out of {config_path()}"],
    )


# --- paths


def paths_file() -> Path:
    return home() / "panel" / "paths.json"


def read_paths() -> tuple[dict[str, str], list[str]]:
    """The private paths by camelCase parameter, and what is wrong with their file."""
    try:
        content = json.loads(paths_file().read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, RecursionError) as error:
        return {}, [f"{paths_file()} cannot be read ({error}); the next change moves it to {damaged_file().name}."]
    return {name: value for name, value in content.items() if name in PATH_PARAMETERS and isinstance(value, str)}, []


def write_paths(private: Mapping[str, str]) -> None:
    path = paths_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    if read_paths()[1]:
        path.replace(damaged_file())
    with written_whole(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(private, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def damaged_file() -> Path:
    return paths_file().with_name("paths.json.damaged")


def is_private(name: str, value: str) -> bool:
    """Whether a parameter's path (camelCase name) leads out of the data folder; what is named like a model of the
    models folder does not."""
    if name == LORAS:
        return any(is_private("baseModel", entry.name) for entry in parse_loras(value))
    if value.startswith((BUNDLED_PREFIX, EXAMPLE_PREFIX)):
        return False
    if inside(value) is not None:
        return False
    is_name = "/" not in value and "\\" not in value and not value.startswith((".", "~"))
    return not (is_name and group_of(canonical_name(name)) == "model")


def inside(value: str) -> str | None:
    """A path below the data folder, relative to it, with slashes; None for any other."""
    try:
        path = Path(os.path.normpath(local_path(value)))
    except InputError:  # no path here
        return None
    folder = home().absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None


def portable(value: str) -> str:
    below = inside(value)
    return value if below is None else HOME + below


def restored(name: str, value: Any) -> Any:
    """As `portable` was given it; what is no value of the parameter comes back as it is, and is refused as such."""

    def place(value: str) -> str:
        return str(home().absolute() / value.removeprefix(HOME)) if value.startswith(HOME) else value

    try:
        return with_places(name, value, place) if isinstance(value, str) else value
    except InputError:
        return value


def as_names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
