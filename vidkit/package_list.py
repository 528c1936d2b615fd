"""Which packages bring which modules, as `importlib.metadata` lists them: read once, and noted until others are here.

diffusers and transformers ask for it as they are imported. Of some hundred packages that takes a tenth of a second, and
where files are slow, or packages many, a whole one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vidkit.files import remember, remembered
from vidkit.settings import settings_or_defaults

logger = logging.getLogger("vidkit")

#: ends of the names of the folders and files in which a package tells of itself
TOLD_IN: Final = (".dist-info", ".egg-info")

Packages = Mapping[str, list[str]]


@contextmanager
def packages_listed_once() -> Iterator[None]:
    """Inside, whoever asks Python's library for the list gets the one that is read or noted."""
    read = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = functools.cache(lambda: noted_or(read))
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = read


def noted_or(read: Callable[[], Packages]) -> Packages:
    """The list, by module. read: Python's own function."""
    try:
        note, installed = note_file(), fingerprint()
    except Exception as error:  # noqa: BLE001  an odd path, no data folder: it goes without a note
        logger.info("the list of packages is not noted: %s", error)
        return read()
    found = remembered(note)
    if found.get("installed") == installed and isinstance(found.get("list"), dict):
        listed: Packages = found["list"]
        return listed
    listed = read()
    remember(note, {"installed": installed, "list": listed})
    return listed


def note_file() -> Path:
    """One for each environment."""
    name = hashlib.sha256(f"{sys.version} {sys.prefix}".encode()).hexdigest()[:16]
    return settings_or_defaults().cache / "packages" / f"{name}.json"


def fingerprint() -> str:
    """Another one as soon as a package is installed, replaced or removed. A script's own folder makes no difference."""
    told = [(os.fspath(place), there) for place in sys.path if (there := told_in(place))]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def told_in(place: str) -> list[tuple[str, int]]:
    """What is there that tells of packages, and when it was changed. Of an archive, the archive; nothing of nothing."""
    place = place or os.curdir
    try:
        with os.scandir(place) as entries:
            return sorted(
                (entry.name, entry.stat(follow_symlinks=False).st_mtime_ns)
                for entry in entries
                if entry.name.endswith(TOLD_IN)
            )
    except NotADirectoryError:
        return [(place, Path(place).stat().st_mtime_ns)]
    except FileNotFoundError:
        return []
