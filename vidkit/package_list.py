"""Which packages bring which modules, as `importlib.metadata` lists them: read once, and noted until others are here.

diffusers and transformers ask for it as they are imported. Of some hundred packages that takes a tenth of a second, and
where files are slow, or packages many, a whole one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from vidkit.files import remember
from vidkit.settings import settings_or_defaults

#: ends of the names of the folders and files in which a package tells of itself
TOLD_IN: Final = (".dist-info", ".egg-info")


@contextmanager
def packages_listed_once() -> Iterator[None]:
    """Inside, whoever asks Python's library for the list gets the one that is read or noted."""
    read = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = functools.cache(lambda: noted_or(read))
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = read


def noted_or(read: Any) -> Mapping[str, list[str]]:
    """The list, by module. read: Python's own function."""
    installed = fingerprint()
    # a note for each environment, which other packages replace
    place = hashlib.sha256(json.dumps([sys.version, *sys.path]).encode()).hexdigest()[:16]
    note = settings_or_defaults().cache / "packages" / f"{place}.json"
    with suppress(OSError, ValueError):
        found: Any = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("installed") == installed and isinstance(found.get("list"), dict):
            listed: Mapping[str, list[str]] = found["list"]
            return listed
    listed = read()
    remember(note, {"installed": installed, "list": listed})
    return listed


def fingerprint() -> str:
    """Another one as soon as a package is installed, replaced or removed."""
    return hashlib.sha256(json.dumps([told_in(folder) for folder in sys.path]).encode()).hexdigest()


def told_in(folder: str) -> list[tuple[str, int]]:
    """None of what is no folder that can be read, such as an archive."""
    with suppress(OSError), os.scandir(folder or os.curdir) as entries:
        return sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.name.endswith(TOLD_IN))
    return []
