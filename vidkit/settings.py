"""Where vidkit keeps things, and the user's settings: the environment first, then config.json, then the defaults.

`VIDKIT_HOME` (else the platform's data folder) holds models/ (elsewhere with `VIDKIT_MODELS`), output/, runs/, logs/,
pictures/, cache/ and config.json. All settings stand in `Settings`, one line each: see `settings_schema.setting`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vidkit.config_file import config_path, home, read_config, update_settings
from vidkit.errors import SetupError, VidkitError
from vidkit.limits import ResourceLimits
from vidkit.params import PipelineName
from vidkit.paths import local_path
from vidkit.settings_look import IN_FILE, Look, entries_of, look_at
from vidkit.settings_schema import Entry, LowerCase, Part, PlainNumber, UpperCase, setting

__all__ = ["Settings", "config_path", "home", "load_settings", "settings_or_defaults", "update_settings"]


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
    megabytes: Annotated[float, Field(gt=0, le=1e6), PlainNumber] = setting(
        5.0, "MB that a log file may have; then it is generation.log.1, and a new one begins.", "VIDKIT_LOG_MEGABYTES"
    )
    files: Annotated[int, Field(ge=2, le=1000), PlainNumber] = setting(
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
    panel_mode: str = setting(
        "", "The control panel: live, foreground or static; else as the notebook allows.", "VIDKIT_PANEL", in_file=False
    )
    default_models: dict[PipelineName, str] = setting(
        dict, "By family, the model that it uses where a request names none: a name or a path."
    )
    allowed_folders: list[WholeFolder] | None = setting(
        None,
        "Folders that a request's pictures, models and clips must lie in, beside the data folder; null in config.json: "
        "anywhere.",
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


def all_settings() -> tuple[Entry, ...]:
    return entries_of(Settings)


def look(content: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Look[Settings]:
    """The settings with this content of config.json, and what is wrong in it."""
    return look_at(Settings, content, environment)


def wrong_setting(found: Look[Settings]) -> SetupError:
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
