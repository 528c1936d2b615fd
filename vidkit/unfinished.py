"""What a process leaves half-made when it is ended in the midst of a clip: found by its number, and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidkit.files import partial_files
from vidkit.paths import local_path
from vidkit.settings import settings_or_defaults


def remove_unfinished(request: Mapping[str, Any], pid: int) -> None:
    """The partial files that process `pid` wrote for this request (camelCase keys); others' stay."""
    for part in partial_files(output_folder(request), pid):
        with contextlib.suppress(OSError):  # a folder that has gone or changed; the answer matters more
            part.unlink()


def output_folder(request: Mapping[str, Any]) -> Path:
    path = request.get("outputPath")
    return local_path(path).absolute().parent if path else settings_or_defaults().output
