"""Models that lie outside of the models folder and were added by their paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from vidkit.files import written_whole
from vidkit.runs.folder import typed_write_errors
from vidkit.settings import home


def list_file() -> Path:
    """Where they are remembered. Not in config.json, which may be shared: these paths lead anywhere."""
    return home() / "panel" / "models.json"


def added_paths() -> list[Path]:
    """Those that are still there. A damaged list is an empty one: the next model that is added begins a new list."""
    try:
        content = json.loads(list_file().read_text(encoding="utf-8"))
        return [path for path in map(Path, content["paths"]) if path.exists()]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def remember_model(path: Path) -> None:
    """Put a path at the end of the list. Raises SetupError `output_not_writable`, CriticalError `disk_full`."""
    change_list(lambda paths: [*(one for one in paths if one != path), path])


def forget_model(path: Path) -> None:
    """Take a path off the list; the model itself stays. Raises SetupError `output_not_writable`."""
    change_list(lambda paths: [one for one in paths if one != path])


def change_list(change: Callable[[list[Path]], list[Path]]) -> None:
    file = list_file()
    with typed_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            paths = [str(path) for path in change(added_paths())]
            with written_whole(file) as temporary:
                temporary.write_text(json.dumps({"paths": paths}, indent=1) + "\n", encoding="utf-8")
