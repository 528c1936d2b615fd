"""Where nothing is: what its user may have meant, by what lies about it."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path
from typing import Final

from vidkit.errors import Remedy

#: names of a folder that are looked at
LOOKED_AT: Final = 5000

#: how alike names must be, as difflib reckons (0 to 1)
ALIKE: Final = 0.7


def near_paths(path: Path, parameter: str | None = None) -> list[str]:
    """Suggestions for a path that leads nowhere, best first. parameter: of the request (snake_case), which holds it."""
    try:
        return suggestions(path.expanduser().absolute(), path, parameter)
    except (OSError, ValueError, RuntimeError):  # names that no file system takes, folders that cannot be read
        return ["Give the full path"]


def suggestions(full: Path, given: Path, parameter: str | None) -> list[str]:
    if full.is_dir():
        told = [f"Name a file in it: {full} is a folder"]
    elif full.parent.is_dir():
        near = [name for name in alike(full.parent, full.name) if name != full.name]
        found = [said(full.with_name(name), parameter) for name in near]
        told = found or [f"Look into {full.parent}: it has nothing of a name like {full.name}"]
    else:
        folder = next(parent for parent in full.parents if parent.is_dir())
        missing = full.relative_to(folder).parts[0]
        folders = [folder / name for name in alike(folder, missing) if (folder / name).is_dir()]
        whole = [one / full.relative_to(folder / missing) for one in folders]
        told = [said(one, parameter) for one in whole if one.exists()]
        told = told or [f"Did you mean the folder {one}?" for one in folders]
        told = told or [f"Check the folder: {folder} has no {missing}"]
    return told if given.is_absolute() else [*told, f"Give the full path: this one was looked for in {Path.cwd()}"]


def said(path: Path, parameter: str | None) -> str:
    return Remedy(f"Did you mean {path}?", **({parameter: str(path)} if parameter else {}))


def alike(folder: Path, name: str) -> list[str]:
    """Names in a folder that are like this one, whatever their case; two at most."""
    names = {one.name.lower(): one.name for one in itertools.islice(folder.iterdir(), LOOKED_AT)}
    return [names[near] for near in difflib.get_close_matches(name.lower(), names, n=2, cutoff=ALIKE)]
