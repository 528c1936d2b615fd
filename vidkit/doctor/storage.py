"""The folders that vidkit writes into: whether it can, and how much room there is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vidkit.device import GIB
from vidkit.files import free_disk_bytes
from vidkit.finding import Finding, note, ok, problem
from vidkit.settings import home, settings_or_defaults

#: bytes: a request is refused when less than limits.disk (0.25 GiB) would stay free; a clip takes some MB
LEAST: Final = round(0.5 * GIB)
#: bytes: SVD-XT in half precision is 4.2 GiB, Stable Diffusion 1.5 with a motion adapter 3.5
FOR_A_MODEL: Final = 6 * GIB


def findings() -> Iterator[Finding]:
    settings = settings_or_defaults()
    elsewhere = "Set VIDKIT_HOME to a folder that you may write to"
    yield examined("data folder", home(), LEAST, elsewhere, stops=True)
    yield examined("clips", settings.output, LEAST, elsewhere, stops=True)
    yield examined("models folder", settings.models, FOR_A_MODEL, "Set VIDKIT_MODELS to another folder", stops=False)
    yield temporary_folder()


def temporary_folder() -> Finding:
    remedy = "Set TMPDIR (Windows: TEMP) to a folder that you may write to"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:  # it tries several, and writes into each
        return problem("temporary", f"There is no folder for temporary files: {error.strerror}.", remedy, stops=True)
    return examined("temporary", folder, LEAST, remedy, stops=True)


def examined(topic: str, folder: Path, least: int, remedy: str, *, stops: bool) -> Finding:
    """stops: whether a clip needs to be written there."""
    data: dict[str, Any] = {"folder": str(folder)}
    try:
        free = free_disk_bytes(folder)
    except OSError as error:
        return problem(topic, f"{folder}: {error.strerror or error}.", remedy, stops=stops, **data)
    what, data = f"{folder}: {free / GIB:.1f} GiB free", {**data, "freeBytes": free}
    if (why := why_not_writable(folder)) is not None:
        return problem(topic, f"{folder} cannot be written: {why}.", remedy, stops=stops, **data)
    if free < LEAST:
        return problem(topic, f"{what}: too little for a clip.", "Free some space", remedy, stops=stops, **data)
    if free < least:
        return note(topic, f"{what}: too little for a full-size model ({least / GIB:.0f} GiB).", remedy, **data)
    return ok(topic, what + ("." if folder.is_dir() else "; it is made when it is needed."), **data)


def why_not_writable(folder: Path) -> str | None:
    """None: a file can be made in it, or in the folder in which it will be made. Nothing is left behind."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    try:
        if not existing.is_dir():
            return f"{existing} is no folder"
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"vidkit")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None
