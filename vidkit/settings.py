"""Where vidkit keeps things, and the user's settings: environment first, then config.json.

`VIDKIT_HOME` (else the platform's data folder) holds models/ (elsewhere with `VIDKIT_MODELS`), output/, runs/,
pictures/, cache/ and config.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from vidkit.errors import SetupError
from vidkit.files import written_whole
from vidkit.limits import ResourceLimits, read_limits
from vidkit.paths import normalize_path


def home() -> Path:
    """The data folder; not created here."""
    given = os.environ.get("VIDKIT_HOME")
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("vidkit", appauthor=False))


@dataclass(frozen=True)
class Settings:
    """default_models: the model a family uses when a request names none, by family; panel: what the panel keeps.

    limits: how much a request may take of this machine.
    """

    default_models: Mapping[str, str] = field(default_factory=dict)
    panel: Mapping[str, Any] = field(default_factory=dict)
    limits: ResourceLimits = field(default_factory=ResourceLimits)

    @property
    def models(self) -> Path:
        """The models folder, with the registry `models.json` in it."""
        given = os.environ.get("VIDKIT_MODELS")
        return Path(normalize_path(given)).expanduser() if given else home() / "models"

    @property
    def output(self) -> Path:
        return home() / "output"

    @property
    def runs(self) -> Path:
        return home() / "runs"

    @property
    def pictures(self) -> Path:
        """Uploaded pictures."""
        return home() / "pictures"

    @property
    def cache(self) -> Path:
        return home() / "cache"


def load_settings() -> Settings:
    """Settings from config.json, whose absence is fine.

    Raises:
        SetupError: `invalid_config`, when the file is not a JSON object of the known shape (it is left as it is), or
            a limit in the environment is no number.
    """
    content = read_config()
    models, panel, limits = (content.get(key, {}) for key in ("defaultModels", "panel", "limits"))
    if not isinstance(models, dict) or not all(isinstance(value, str) for value in models.values()):
        raise invalid_config(config_path(), 'expected {"defaultModels": {"svd": "NAME OR PATH"}}')
    if not isinstance(panel, dict):
        raise invalid_config(config_path(), f"panel is {panel!r}, not a JSON object")
    if not isinstance(limits, dict):
        raise invalid_config(config_path(), f"limits is {limits!r}, not a JSON object")
    try:
        return Settings(models, panel, read_limits(limits))
    except ValueError as error:
        raise invalid_config(config_path(), str(error)) from error


def settings_or_defaults() -> Settings:
    """For what must open all the same; a broken settings file is told when a request needs it."""
    try:
        return load_settings()
    except SetupError:
        return Settings()


def update_settings(**changes: Any) -> None:
    """Set keys of config.json, others kept. Safe from several processes at once, written whole or not at all.

    Raises:
        SetupError: `invalid_config`, as `load_settings`.
        OSError: it cannot be written.
    """
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".config.json.lock")):
        content = read_config() | changes
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def config_path() -> Path:
    return home() / "config.json"


def read_config() -> dict[str, Any]:
    path = config_path()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_config(path, str(error)) from error
    if not isinstance(content, dict):
        raise invalid_config(path, "expected a JSON object")
    return content


def invalid_config(path: Path, reason: str) -> SetupError:
    return SetupError(
        "invalid_config", f"The settings file {path} cannot be read: {reason}.", [f"Mend or move away {path}"]
    )
