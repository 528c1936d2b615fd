"""Paths between Windows and its Linux (WSL): `D:\\Videos`, `/mnt/d/Videos`, `\\\\wsl.localhost\\Ubuntu\\home\\me`."""

from __future__ import annotations

import os
import re
from typing import Final

#: also behind the prefix of long paths, \\?\D:\..., and of devices, \\.\D:\...
DRIVE: Final = re.compile(r"^(?:[\\/]{2,}[?.][\\/]+)?([A-Za-z]):(.*)$", re.DOTALL)
#: a distribution's files as Windows sees them; older Windows says wsl$
SHARE: Final = re.compile(r"^[\\/]{2,}(?:wsl\$|wsl\.localhost)[\\/]+([^\\/]+)(.*)$", re.DOTALL | re.IGNORECASE)
#: where WSL mounts drives; only single letters are drives (/mnt/wsl is none)
MOUNTED: Final = re.compile(r"^/mnt/([A-Za-z])(/.*)?$", re.DOTALL)


def windows_to_wsl_path(path: str) -> str:
    r"""`D:\VideoGenerator\models` as `/mnt/d/VideoGenerator/models`; `\\wsl$\Ubuntu\home\me` as `/home/me`.

    Slashes may lean either way and may be doubled; one at the end is dropped. Any other path (relative, or already of
    Linux) only gets its slashes turned.
    """
    if share := SHARE.match(path):
        return slashed(share[2]) or "/"
    if drive := DRIVE.match(path):
        rest = slashed(drive[2])
        return f"/mnt/{drive[1].lower()}" + (rest if rest.startswith("/") or not rest else f"/{rest}")
    return path.replace("\\", "/")


def wsl_to_windows_path(path: str) -> str:
    r"""`/mnt/d/VideoGenerator` as `D:\VideoGenerator`; other absolute paths as the share of this distribution.

    Where the distribution is unknown (`WSL_DISTRO_NAME`), and for relative paths, only slashes are turned.
    """
    if mounted := MOUNTED.match(path):
        return f"{mounted[1].upper()}:\\" + (mounted[2] or "").strip("/").replace("/", "\\")
    distribution = os.environ.get("WSL_DISTRO_NAME")
    if distribution and path.startswith("/") and not path.startswith("//"):
        return f"\\\\wsl.localhost\\{distribution}" + path.rstrip("/").replace("/", "\\")
    return path.replace("/", "\\")


def normalize_path(path: str, *, on_windows: bool = os.name == "nt") -> str:
    """A path of either system as this one's. One that already is, is left as it is."""
    if on_windows:
        return wsl_to_windows_path(path) if path.startswith("/") and not SHARE.match(path) else path
    return windows_to_wsl_path(path) if is_windows_path(path) else path


def is_windows_path(path: str) -> bool:
    r"""Whether no path of Linux looks like this: a drive, a share, or backslashes and no slash."""
    drive = DRIVE.match(path)
    rooted = drive is not None and drive[2][:1] in ("", "\\", "/")
    return rooted or SHARE.match(path) is not None or ("\\" in path and "/" not in path)


def slashed(path: str) -> str:
    return re.sub(r"[\\/]+", "/", path).rstrip("/")
