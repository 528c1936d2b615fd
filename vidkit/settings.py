"""Where vidkit keeps things, and the user's settings: environment first, then config.json.

`VIDKIT_HOME` (else the platform's data folder) holds models/, output/, logs/, cache/ and config.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from vidkit.errors import SetupError


def home() -> Path:
    """The data folder; not created here."""
    given = os.environ.get("VIDKIT_HOME")
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("vidkit", appauthor=False))


@dataclass(frozen=True)
class Settings:
    """default_models: the model a family uses when a request names none, by family."""

    default_models: Mapping[str, str] = field(default_factory=dict)

    @property
    def models(self) -> Path:
        return home() / "models"

    @property
    def output(self) -> Path:
        return home() / "output"

    @property
    def cache(self) -> Path:
        return home() / "cache"


def load_settings() -> Settings:
    """Settings from config.json, whose absence is fine.

    Raises:
        SetupError: `invalid_config`, when the file is not a JSON object of the known shape; it is left as it is.
    """
    path = home() / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise invalid_config(path, str(error)) from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise invalid_config(path, str(error)) from error
    models = content.get("defaultModels", {}) if isinstance(content, dict) else None
    if not isinstance(models, dict) or not all(isinstance(value, str) for value in models.values()):
        raise invalid_config(path, 'expected {"defaultModels": {"svd": "NAME OR PATH"}}')
    return Settings(default_models=models)


def invalid_config(path: Path, reason: str) -> SetupError:
    return SetupError(
        "invalid_config", f"The settings file {path} cannot be read: {reason}.", [f"Mend or move away {path}"]
    )
