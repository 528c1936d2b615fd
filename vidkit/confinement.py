"""Confinement: the folders that a request's files may lie in, if the user has set `allowedFolders`.

Without it a request may name any path. With it, what a request reads (pictures, models) and writes must lie in one of
the folders, wherever `..`, links, `~` or a path of Windows lead; vidkit's data folder, its models folder and what ships
with it are always allowed. Hard links and mounts are as good as the place where they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from vidkit.errors import InputError
from vidkit.params import GenerationParams, wire_name
from vidkit.settings import Settings, home

#: with vidkit's bundled models and pictures in it
PACKAGE: Final = Path(__file__).parent

#: entries of a model's folder whose links are looked at; `models.files.folder_safety` refuses folders with more
MOST_ENTRIES: Final = 10_000


def is_allowed(path: Path, settings: Settings, *, model: bool = False) -> bool:
    """Whether a path leads into an allowed folder, its links followed. model: also into the cache of downloads, where
    the links of fetched models lead.
    """
    if settings.allowed_folders is None:
        return True
    real = real_path(path)
    return any(lies_in(real, real_path(folder)) for folder in allowed_folders(settings, model))


def check_allowed(path: Path, settings: Settings, parameter: str, written: str | None = None) -> None:
    """Raises InputError `path_not_allowed` for a path that leads elsewhere. written: as the request has it."""
    if not is_allowed(path, settings):
        raise not_allowed(written or str(path), settings, parameter)


def check_model_allowed(path: Path, settings: Settings, parameter: str, written: str | None = None) -> None:
    """As `check_allowed`, of a model: its folder's links too; what cannot be looked at is not allowed."""
    if settings.allowed_folders is None:
        return
    try:
        for place in chain([path], links_below(path)):
            if not is_allowed(place, settings, model=True):
                raise not_allowed(written or str(path), settings, parameter)
    except OSError as error:
        reason = f"of which not all can be looked at: {error.strerror or error}"
        raise not_allowed(written or str(path), settings, parameter, reason) from error


def real_output(path: Path, settings: Settings) -> Path:
    """Where a clip is really written: under a policy its path without links, so that none can be turned elsewhere
    after it was looked at. Raises InputError `path_not_allowed`.
    """
    check_allowed(path, settings, "output_path")
    return path if settings.allowed_folders is None else real_path(path)


def temporary_parent(settings: Settings) -> Path | None:
    """Where a temporary folder may be made that requests lead into; None: where the system has its own."""
    if settings.allowed_folders is None:
        return None
    settings.cache.mkdir(parents=True, exist_ok=True)
    return settings.cache


def allowed_folders(settings: Settings, model: bool = False) -> Iterator[Path]:
    yield from settings.allowed_folders or ()
    yield from (home(), settings.models, PACKAGE)
    if model:
        from huggingface_hub.constants import HF_HUB_CACHE

        yield Path(HF_HUB_CACHE).expanduser()


def real_path(path: Path) -> Path:
    return Path(os.path.realpath(path))


def lies_in(path: Path, folder: Path) -> bool:
    """Both without links. A drive of Windows or of a Mac takes `d:\\video` for `D:\\Video`: there the folder is known
    by its number.
    """
    if path.is_relative_to(folder):
        return True
    identity = identity_of(folder)
    return identity is not None and any(identity_of(parent) == identity for parent in (path, *path.parents))


def identity_of(path: Path) -> tuple[int, int] | None:
    """None for what is not there, cannot be looked at, or is on a file system without numbers."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None


def links_below(path: Path) -> Iterator[Path]:
    """The links in a folder and in the folders that they lead to.

    Raises:
        OSError: a folder cannot be read, or there are more than `MOST_ENTRIES`.
    """
    waiting, seen, count = [path], set[Path](), 0
    while waiting:
        folder = real_path(waiting.pop())
        if folder in seen:
            continue
        seen.add(folder)
        for entry in os.scandir(folder) if folder.is_dir() else ():
            count += 1
            if count > MOST_ENTRIES:
                raise OSError(f"it holds more than {MOST_ENTRIES} files and folders")
            if entry.is_symlink():
                yield Path(entry.path)
            if entry.is_symlink() or entry.is_dir():
                waiting.append(Path(entry.path))


def not_allowed(
    written: str,
    settings: Settings,
    parameter: str,
    reason: str = "which leads out of the folders that are allowed here",
) -> InputError:
    folders: Sequence[Path] = settings.allowed_folders or ()
    places = [str(folder) for folder in folders[:3]] or [str(home())]
    name = wire_name(parameter) if parameter in GenerationParams.model_fields else parameter.replace("_", " ")
    return InputError(
        "path_not_allowed",
        f"{name} is {written[:200]!r}, {reason}.",
        [
            f"Use a path in {' or '.join(places)}",
            "Or allow its folder: VIDKIT_ALLOWED_FOLDERS, or allowedFolders in config.json",
        ],
        [parameter],
    )
