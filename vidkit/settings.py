"""Where vidkit keeps things, and the user's settings: the environment first, then config.json, then the defaults.

`VIDKIT_HOME` (else the platform's data folder) holds models/ (elsewhere with `VIDKIT_MODELS`), output/, runs/, logs/,
pictures/, cache/ and config.json. All settings stand in `Settings`, one line each: see `settings_schema.setting`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from vidkit.config_file import config_path, home, read_config, update_settings
from vidkit.errors import SetupError, VidkitError
from vidkit.limits import ResourceLimits
from vidkit.params import PipelineName
from vidkit.paths import local_path
from vidkit.settings_schema import Entry, LowerCase, Part, PlainNumber, UpperCase, entries, part_in, setting

__all__ = ["Settings", "config_path", "home", "load_settings", "settings_or_defaults", "update_settings"]

#: where a value comes from that is in the file
IN_FILE: Final = "config.json"


def folder(given: Any) -> Any:
    """A folder as the user wrote it, as this system has it."""
    try:
        return local_path(given) if isinstance(given, str) and given else given
    except VidkitError as error:
        raise ValueError(error.message.removesuffix(".")) from error


def absolute(given: Path) -> Path:
    """A folder that is the same whatever folder a process works in."""
    if not given.is_absolute():
        raise ValueError("it is not absolute")
    return given


Folder = Annotated[Path, BeforeValidator(folder)]
WholeFolder = Annotated[Path, BeforeValidator(folder), AfterValidator(absolute)]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "OFF"], UpperCase]


class LogSettings(Part):
    """What is logged where vidkit is the application: see `logs`."""

    level: Level = setting(
        "DEBUG", "The least that goes into the log file; OFF: no file is written.", "VIDKIT_LOG_LEVEL"
    )
    console: Level = setting("WARNING", "The least that is said on stderr.", "VIDKIT_LOG_CONSOLE")
    format: Annotated[Literal["text", "json"], LowerCase] = setting(
        "text", "The log file's lines: text, or one JSON object each.", "VIDKIT_LOG_FORMAT"
    )
    private: bool = setting(False, "Whether prompts and paths' folders go into the log too.", "VIDKIT_LOG_PRIVATE")
    everywhere: bool = setting(
        False, "Whether clips that other programs make with vidkit are logged too.", "VIDKIT_LOG_EVERYWHERE"
    )
    megabytes: Annotated[float, Field(gt=0), PlainNumber] = setting(
        5.0, "MB that a log file may have; then it is generation.log.1, and a new one begins.", "VIDKIT_LOG_MEGABYTES"
    )
    files: Annotated[int, Field(ge=2), PlainNumber] = setting(
        5, "How many log files are kept, the present one included.", "VIDKIT_LOG_FILES"
    )


def moment(given: Any) -> Any:
    """A time in ISO 8601, or nothing."""
    if isinstance(given, str) and given:
        datetime.fromisoformat(given)
    return given


class SafetySettings(Part):
    """The safety checker, and what was acknowledged: see `safety`."""

    checker: Annotated[Literal["auto", "on", "off"], LowerCase] = setting(
        "auto",
        "Whether clips are checked; auto: where a checker is installed; on: else none is made; off: acknowledge it.",
        "VIDKIT_SAFETY_CHECKER",
    )
    acknowledged: Annotated[str, BeforeValidator(moment)] = setting(
        "", "When age, responsibility, consent and law were acknowledged.", changed_by="vidkit acknowledge"
    )
    acknowledged_version: Annotated[int, PlainNumber] = setting(
        0, "The version of the text that was acknowledged.", changed_by="vidkit acknowledge"
    )


class Settings(Part):
    """Every setting of vidkit. `load_settings` gives them as the user has them, `Settings()` the defaults."""

    home: Folder = setting(home, "The data folder, with config.json in it.", "VIDKIT_HOME", in_file=False)
    models_folder: Folder | None = setting(
        None, "Where models lie; where none is given, models/ in the data folder.", "VIDKIT_MODELS"
    )
    drives: WholeFolder | None = setting(
        None,
        "The folder that has Windows' drives as c, d, ...; where none is given, as WSL has mounted them.",
        "VIDKIT_DRIVES",
        in_file=False,
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], LowerCase] = setting(
        "auto", "What computes; auto: a GPU where there is one.", "VIDKIT_DEVICE", in_file=False
    )
    device_lock: str = setting(
        "",
        "Processes with the same name here take turns; else those do that share a GPU.",
        "VIDKIT_DEVICE_LOCK",
        in_file=False,
    )
    drives: str = setting(
        "",
        "Where Windows' drives are mounted in Linux; else as the mount table says.",
        "VIDKIT_DRIVES",
        in_file=False,
    )
    panel_mode: str = setting(
        "", "The control panel: live, foreground or static; else as the notebook allows.", "VIDKIT_PANEL", in_file=False
    )
    default_models: dict[PipelineName, str] = setting(
        dict, "By family, the model that it uses where a request names none: a name or a path."
    )
    allowed_folders: list[WholeFolder] | None = setting(
        None,
        "Folders that a request's pictures, models and clips must lie in, beside the data folder; null: anywhere.",
        "VIDKIT_ALLOWED_FOLDERS",
    )
    limits: ResourceLimits = ResourceLimits()
    log: LogSettings = LogSettings()
    safety: SafetySettings = SafetySettings()
    panel: dict[str, Any] = setting(dict, "What the control panel keeps.", changed_by="the control panel")

    @property
    def models(self) -> Path:
        """The models folder, with the registry `models.json` in it."""
        given = os.environ.get("VIDKIT_MODELS")
        return Path(folder(given)) if given else self.models_folder or home() / "models"

    @property
    def output(self) -> Path:
        return home() / "output"

    @property
    def runs(self) -> Path:
        return home() / "runs"

    @property
    def logs(self) -> Path:
        return home() / "logs"

    @property
    def pictures(self) -> Path:
        """Uploaded pictures."""
        return home() / "pictures"

    @property
    def cache(self) -> Path:
        return home() / "cache"


def load_settings() -> Settings:
    """Settings from environment and config.json, whose absence is fine.

    Raises:
        SetupError: `invalid_config`, when the file is not a JSON object of the known shape (it is left as it is), or
            a value in the environment is none.
    """
    found = look(read_config())
    if found.settings is None:
        raise wrong_setting(found)
    return found.settings


def settings_or_defaults() -> Settings:
    """For what must open all the same; a broken settings file is told when a request needs it."""
    try:
        return load_settings()
    except SetupError:
        return Settings()


@functools.cache
def all_settings() -> tuple[Entry, ...]:
    return tuple(entries(Settings))


@dataclass(frozen=True)
class Look:
    """What environment and config.json say.

    given: the values as they stand there, by key. origins: by key, the variable or `IN_FILE`; what is at its default is
    not in it. problems: by key, in words. unknown: the file's keys that are no setting. settings: None where there are
    problems.
    """

    given: Mapping[str, Any]
    origins: Mapping[str, str]
    problems: Mapping[str, str]
    unknown: tuple[str, ...]
    settings: Settings | None


def look(content: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Look:
    """The settings with this content of config.json."""
    in_file, unknown, problems = sorted_out(content)
    given, origins = {}, {}
    for entry in all_settings():
        if entry.variable and (text := environment.get(entry.variable)):
            given[entry.key], origins[entry.key] = entry.from_text(text), entry.variable
        elif entry.key in in_file:
            given[entry.key], origins[entry.key] = in_file[entry.key], IN_FILE
    settings = None
    try:
        settings = Settings.model_validate(nested(given))
    except ValidationError as error:
        problems |= dict(problems_in(error, origins))
    return Look(given, origins, problems, tuple(unknown), None if problems else settings)


def sorted_out(
    content: Mapping[str, Any], part: type[Part] = Settings, above: str = ""
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """The file's settings by key, its keys that are none, and problems by key."""
    known, unknown, problems = {}, [], {}
    fields = {field.alias or name: field for name, field in part.model_fields.items()}
    writable = {entry.key for entry in all_settings() if entry.in_file}
    for name, value in content.items():
        key, inner = above + name, part_in(fields[name]) if name in fields else None
        if inner is None and key in writable:
            known[key] = value
        elif inner is None and part.model_config.get("extra") == "forbid":
            problems[key] = f"{above.rstrip('.')} has {name!r}; there are {', '.join(fields)}"
        elif inner is None:
            unknown.append(key)
        elif not isinstance(value, dict):
            problems[key] = f"{key} is {value!r}, not a JSON object"
        else:
            below = sorted_out(value, inner, f"{key}.")
            known, unknown, problems = known | below[0], unknown + below[1], problems | below[2]
    return known, unknown, problems


def nested(by_key: Mapping[str, Any]) -> dict[str, Any]:
    """`{"limits.time": 3}` as `{"limits": {"time": 3}}`."""
    whole: dict[str, Any] = {}
    for key, value in by_key.items():
        *above, last = key.split(".")
        place = whole
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return whole


def problems_in(error: ValidationError, origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """By key, what is wrong, in words."""
    for one in error.errors():
        place = ".".join(map(str, one["loc"]))
        entry = next(entry for entry in all_settings() if f"{place}.".startswith(f"{entry.key}."))
        origin, value, reason = origins[entry.key], repr(one["input"]), one["msg"].removeprefix("Input should be ")
        name = place if origin == IN_FILE else origin
        if one["loc"][-1] == "[key]":
            yield entry.key, f"{entry.key} has {value}, not {reason}"
        elif one["type"] == "value_error":
            yield entry.key, f"{name} is {value}: {reason.removeprefix('Value error, ')}"
        else:
            yield entry.key, f"{name} is {value}, not {entry.values if place == entry.key else reason}"


def wrong_setting(found: Look) -> SetupError:
    """The first of the problems, and how to mend it."""
    key, problem = next(iter(found.problems.items()))
    variable = found.origins.get(key, IN_FILE)
    others = len(found.problems) - 1
    more = f" ({others} more: vidkit config)" if others else ""
    if variable != IN_FILE:
        return SetupError("invalid_config", f"{problem}{more}.", [f"Set {variable} to another value, or unset it"])
    return SetupError(
        "invalid_config",
        f"The settings file {config_path()} is not right: {problem}{more}.",
        [f"vidkit config {key} VALUE", f"vidkit config --unset {key}", f"Mend or move away {config_path()}"],
    )
