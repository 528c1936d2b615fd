r"""How all of vidkit reads a path that somebody wrote, of Windows or of Linux: `local_path`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidkit.errors import InputError
from vidkit.mounts import SYSTEM, System, backslashed
from vidkit.windows_names import why_unusable
from vidkit.wsl import (
    DRIVE,
    DRIVE_RELATIVE,
    WINDOWS_BY_LOOKS,
    drive_relative,
    is_windows_path,
    not_mounted,
    unreachable,
    windows_to_wsl_path,
    wsl_to_windows_path,
)

__all__ = [
    "as_asked",
    "is_windows_path",
    "local_path",
    "normalize_path",
    "on_drive",
    "path_list",
    "path_to_write",
    "windows_to_wsl_path",
    "wsl_to_windows_path",
]


def normalize_path(path: str, *, on_windows: bool = os.name == "nt", system: System = SYSTEM) -> str:
    """A path of either system as this one's. One that already is, is left as it is.

    Raises:
        InputError: as `windows_to_wsl_path`; `D:photo.jpg` on Windows too.
    """
    if DRIVE_RELATIVE.match(path):
        raise drive_relative(path)
    if on_windows:
        return (
            wsl_to_windows_path(path, system=system)
            if path.startswith("/") and not WINDOWS_BY_LOOKS.match(path)
            else path
        )
    return windows_to_wsl_path(path, system=system) if is_windows_path(path) else path


def local_path(written: str | Path, concerns: Sequence[str] = ()) -> Path:
    r"""A path that somebody wrote (in a request, a setting, a file, on the command line) as one of this system, `~`
    expanded. A file of Linux that has just this name is meant, whatever the name looks like.

    concerns: the parameters that it is of, for errors.

    Raises:
        InputError: `invalid_value`: as `windows_to_wsl_path`; a name that Windows reserves or would change
            (`D:\con.png`, `D:\clip.mp4.`); the home of a user that does not exist; a null character.
    """
    path = str(written)
    try:
        if "\0" in path:
            raise unreachable(path, "it has a null character", "Check the path")
        if os.name != "nt" and os.path.lexists(path):
            return Path(path)
        if os.name == "nt" or is_windows_path(path):
            check_names(path)
        return expanded(Path(normalize_path(path)))
    except InputError as error:
        raise InputError(error.code, error.message, error.suggestions, concerns) from error


def path_to_write(written: str | Path, concerns: Sequence[str] = ()) -> Path:
    r"""`local_path`, absolute, of what is to be written. Raises InputError as it, and for a drive that is not there:
    its folder would be made, and Windows would never see the file.
    """
    path, written = local_path(written, concerns), str(written)
    try:
        path = path.absolute()
    except FileNotFoundError as error:
        gone = unreachable(written, "the current folder, to which it is relative, is gone", "Write the whole path")
        raise InputError(gone.code, gone.message, gone.suggestions, concerns) from error
    drive = DRIVE.match(backslashed(written))
    if drive and os.name != "nt":
        folder = Path(windows_to_wsl_path(f"{drive[1]}:"))
        if path.is_relative_to(folder) and not folder.is_dir():
            raise not_mounted(written, drive[1], str(folder))
    return path


def on_drive(path: str) -> bool:
    r"""Whether an absolute path of Windows is on a drive: `D:\folder`, not `\\server\share`."""
    return DRIVE.match(path) is not None


def expanded(path: Path) -> Path:
    """With a home in place of `~`."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise unreachable(str(path), "there is no such user", "Write the whole path") from error


def path_list(text: str) -> list[str]:
    """Paths written as PATH is, or with semicolons between, which is Windows' way; a drive's colon separates none."""
    return re.findall("[^;]+" if os.name == "nt" else r"(?:[A-Za-z]:(?=[\\/]))?[^:;]+", text)


def as_asked(path: Path, asked: str | None, others: Iterable[str | None] = ()) -> str:
    r"""A file's path for whoever made a request: as Windows has it, if the request's paths are of Windows.

    asked: the path that the request gives it, which comes back as it was; others: the request's other paths.
    """
    if asked is not None and WINDOWS_BY_LOOKS.match(asked):
        return asked
    if os.name == "nt" or not any(one and is_windows_path(one) for one in (asked, *others)):
        return str(path)
    windows = wsl_to_windows_path(str(path))
    return windows if WINDOWS_BY_LOOKS.match(windows) else str(path)


def check_names(path: str) -> None:
    r"""Raises InputError `invalid_value` for names that Windows reserves or changes. `\\?\` takes them as they are, and
    on a share they are another system's.
    """
    turned = backslashed(path)
    reason = None if turned.startswith("\\\\") else why_unusable(re.sub("^[A-Za-z]:", "", turned).split("\\"))
    if reason is not None:
        raise InputError("invalid_value", f"The path {path!r} cannot be used: {reason}.", ["Choose another name"])
