"""The data folder and the file config.json in it: read, and changed whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from vidkit.errors import InputError, SetupError
from vidkit.files import written_whole
from vidkit.paths import local_path


def home() -> Path:
    """The data folder; not created here. Raises SetupError `invalid_config`: `VIDKIT_HOME` is no path."""
    given = os.environ.get("VIDKIT_HOME")
    try:
        return local_path(given) if given else Path(platformdirs.user_data_dir("vidkit", appauthor=False))
    except InputError as error:
        raise SetupError("invalid_config", f"VIDKIT_HOME: {error.message}", error.suggestions) from error


def config_path() -> Path:
    return home() / "config.json"


def read_config() -> dict[str, Any]:
    """The file's content; nothing where there is none.

    Raises:
        SetupError: `invalid_config`, when it is no JSON object or cannot be read. It is left as it is.
    """
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


def change_config(change: Callable[[dict[str, Any]], None]) -> None:
    """Change the file's content, safe from several processes at once, written whole or not at all.

    change: is given the content as it is now, and changes that; what it raises leaves the file as it is.

    Raises:
        SetupError: `invalid_config`, as `read_config`: a broken file is never overwritten.
        OSError: it cannot be written.
    """
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".config.json.lock")):
        content = read_config()
        change(content)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def update_settings(**changes: Any) -> None:
    """Set keys of config.json, others kept. Raises as `change_config`."""
    change_config(lambda content: content.update(changes))


def invalid_config(path: Path, reason: str) -> SetupError:
    return SetupError(
        "invalid_config", f"The settings file {path} cannot be read: {reason}.", [f"Mend or move away {path}"]
    )


# --- a key with dots in the content


def value_at(content: Any, key: str, otherwise: Any = None) -> Any:
    for name in key.split("."):
        content = content.get(name, otherwise) if isinstance(content, dict) else otherwise
    return content


def put(content: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for name in above:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise InputError(
                "invalid_request",
                f"{name} is {content!r} in {config_path()}, which can hold no settings.",
                [f"vidkit config --unset {name}"],
            )
    content[last] = value


def stands_in(content: dict[str, Any], key: str) -> bool:
    """Whether `take_out` finds it: also a key with dots in its own name."""
    name, _, below = key.partition(".")
    return key in content or (isinstance(content.get(name), dict) and stands_in(content[name], below))


def take_out(content: dict[str, Any], key: str) -> None:
    name, _, below = key.partition(".")
    if key in content:
        content.pop(key)
    elif isinstance(content.get(name), dict):
        take_out(content[name], below)
        if not content[name]:
            content.pop(name)
