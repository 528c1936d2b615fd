"""Whether the large libraries' modules are compiled once, or by each process anew.

pip compiles what it installs, uv only where it is told to, and many container images forbid Python to do so later
(PYTHONDONTWRITEBYTECODE). Then each start takes twice as long (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from vidkit.files import existing_folder
from vidkit.finding import Finding, note, ok

TOPIC: Final = "bytecode"

#: Some 3,000 modules of these are imported before a clip; of each, two that are. An installer compiles all or none.
LIBRARIES: Final[Mapping[str, Sequence[str]]] = {
    "torch": ("__init__.py", "nn/modules/module.py"),
    "diffusers": ("__init__.py", "models/modeling_utils.py"),
    "transformers": ("__init__.py", "modeling_utils.py"),
}


def findings() -> Iterator[Finding]:
    anew = {name: folder for name in LIBRARIES if (folder := folder_of(name)) and is_compiled_anew(name, folder)}
    if not anew:
        yield ok(TOPIC, "Libraries are compiled once, not by each process.")
        return
    reason = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else "their folder cannot be written"
    what = f"{', '.join(anew)}: each process compiles the modules anew, since {reason}. A start takes twice as long."
    places = " ".join(f'"{folder}"' for folder in dict.fromkeys(folder.parent for folder in anew.values()))
    compile_them = f"{sys.executable} -m compileall -q {places}"
    keep_them = "Set PYTHONPYCACHEPREFIX to a folder that can be written and stays, and not PYTHONDONTWRITEBYTECODE"
    remedies = (compile_them, keep_them) if all(map(can_be_written, anew.values())) else (keep_them, compile_them)
    yield note(TOPIC, what, *remedies, libraries=list(anew))


def folder_of(package: str) -> Path | None:
    """None: it is not installed, or not as source files in a folder."""
    spec = importlib.util.find_spec(package)
    origin = spec.origin if spec else None
    return Path(origin).parent if origin and origin.endswith(".py") else None


def is_compiled_anew(package: str, folder: Path) -> bool:
    """Whether it is not compiled, nor will be by the first process that imports it."""
    files = [folder / name for name in LIBRARIES[package] if (folder / name).is_file()]
    compiled = [Path(importlib.util.cache_from_source(str(file))) for file in files]
    if all(file.exists() for file in compiled):
        return False
    return sys.dont_write_bytecode or not all(map(can_be_written, compiled))


def can_be_written(place: Path) -> bool:
    """A folder, or one that would be made."""
    return os.access(existing_folder(place), os.W_OK)
