"""Which files are opened while something runs, by Python or by a library that asks Python to.

Whatever reads weights shows: vidkit opens their files in Python, and each library reads a config before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], (str, bytes)):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_listen)


@contextmanager
def opened(*folders: Path) -> Iterator[set[str]]:
    """The files of these folders that are opened meanwhile, by their paths in them; filled at the end."""
    global _opened
    found: set[str] = set()
    _opened = []
    try:
        yield found
    finally:
        paths, _opened = _opened, None
    for path in map(Path, paths):
        found |= {f"{folder.name}/{path.relative_to(folder)}" for folder in folders if path.is_relative_to(folder)}
