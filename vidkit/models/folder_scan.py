"""What could be a model in a folder, told by names alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

WEIGHTS: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
CONFIGS: Final = ("model_index.json", "config.json")
#: the folder in the models folder for what users bring; its models go by their own names
CUSTOM: Final = "custom"


def candidates(folder: Path) -> Iterator[tuple[str, Path]]:
    """What could be a model, with its name in a request: folders of one, files of weights, and both one level down."""
    for path in entries(folder):
        if path.is_file() or is_model_folder(path):
            yield path.name, path
            continue
        inside = [one for one in entries(path) if one.is_file() or is_model_folder(one)]
        yield from ((f"{path.name}/{one.name}", one) for one in inside)
        if not inside and path.name != CUSTOM:
            yield path.name, path  # what is wrong with it is said


def entries(folder: Path) -> list[Path]:
    """Folders, and files of weights, by name; none where the folder cannot be read."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name.lower())
    except OSError:
        return []
    return [path for path in paths if not path.name.startswith(".") and (path.is_dir() or is_weights(path))]


def is_weights(path: Path) -> bool:
    return path.suffix.lower() in WEIGHTS


def is_model_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in CONFIGS)
