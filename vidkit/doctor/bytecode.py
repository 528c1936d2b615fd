"""Whether the large libraries' modules are compiled once, or by each process anew.

pip compiles what it installs, uv only where it is told to, and many container images forbid Python to do so later
(PYTHONDONTWRITEBYTECODE). Then each start takes twice as long (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vidkit.finding import Finding, note, ok

TOPIC: Final = "bytecode"

#: some 3,000 modules of these are imported before a clip
LIBRARIES: Final = ("torch", "diffusers", "transformers")


def findings() -> Iterator[Finding]:
    anew = {name: folder for name in LIBRARIES if (folder := folder_of(name)) and not is_compiled_once(folder)}
    if not anew:
        yield ok(TOPIC, "Libraries are compiled once, not by each process.")
        return
    reason = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else "their folder cannot be written"
    what = f"{', '.join(anew)}: each process compiles the modules anew, since {reason}. A start takes twice as long."
    places = " ".join(f'"{folder}"' for folder in dict.fromkeys(folder.parent for folder in anew.values()))
    yield note(
        TOPIC,
        what,
        f"{sys.executable} -m compileall -q {places}",
        "Or unset PYTHONDONTWRITEBYTECODE, and set PYTHONPYCACHEPREFIX to a folder that can be written and stays",
        libraries=list(anew),
    )


def folder_of(package: str) -> Path | None:
    """None: it is not installed, or not as files in a folder."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin and Path(spec.origin).is_file() else None


def is_compiled_once(folder: Path) -> bool:
    """Whether it is compiled, or will be by the first process that imports it."""
    compiled = Path(importlib.util.cache_from_source(str(folder / "__init__.py")))
    if compiled.exists():
        return True
    can_be_written = sys.pycache_prefix is not None or os.access(folder, os.W_OK)
    return can_be_written and not sys.dont_write_bytecode
