r"""Windows' paths as WSL's and back: `D:\Videos`, `/mnt/d/Videos`, `\\wsl.localhost\Ubuntu\home\me`.

The translation is that of `wslpath` (github.com/microsoft/WSL, src/linux/init/wslpath.cpp and util.cpp; MIT), but for
what stands in the docstrings here.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Final

from vidkit.errors import InputError
from vidkit.mounts import (
    DRIVES_VARIABLE,
    SYSTEM,
    System,
    backslashed,
    chosen_root,
    mount_of_linux_path,
    mount_of_windows_path,
)
from vidkit.windows_names import escaped, without_escapes

#: of long paths, \\?\D:\... and \\?\UNC\server\share, and of devices, \\.\D:\...; what follows is taken literally
_PREFIX: Final = re.compile(r"\\\\[?.]\\(UNC(?=\\))?", re.IGNORECASE)
DRIVE: Final = re.compile(r"([A-Za-z]):(\\.*)?", re.DOTALL)
DRIVE_RELATIVE: Final = re.compile(r"[A-Za-z]:[^\\/]", re.DOTALL)
#: a distribution's files as Windows sees them; older Windows says wsl$
_DISTRIBUTION: Final = re.compile(r"\\\\(?:wsl\$|wsl\.localhost)\\([^\\]+)(.*)", re.DOTALL | re.IGNORECASE)
WINDOWS_BY_LOOKS: Final = re.compile(r"[A-Za-z]:([\\/]|\Z)|\\\\|//([?.]|wsl\$|wsl\.localhost)[\\/]", re.IGNORECASE)


def windows_to_wsl_path(path: str, *, system: System = SYSTEM) -> str:
    r"""`D:\VideoGenerator\models` as `/mnt/d/VideoGenerator/models`; `\\wsl$\Ubuntu\home\me` as `/home/me`.

    As `wslpath -u`: drives and shares are where the mount table has them; slashes lean either way and may be doubled;
    `.` and `..` are resolved by the text; characters stay as they are, but in a distribution's own files, where escapes
    of forbidden ones are taken back. Unlike it:

    - A slash at the end is dropped (`D:\` is `/mnt/d`), and `D:` is the drive: clients trim `D:\` to it.
    - Where no drive at all is mounted, or `VIDKIT_DRIVES` names a folder, a drive is in that folder, else in the root
      of /etc/wsl.conf, else in /mnt, by its small letter.
    - Paths of Linux, and relative ones without backslashes, are left as they are.
    - Without `WSL_DISTRO_NAME` any distribution's share is this one's.

    Raises:
        InputError: `invalid_value`, where wslpath fails: `D:photo.jpg` (relative to a drive's current folder), a drive
            or share that is not mounted, another distribution's files, a device, `..` above the top.
    """
    if not path or (path.startswith("/") and not WINDOWS_BY_LOOKS.match(path)):
        return path
    turned = backslashed(path)
    prefix = _PREFIX.match(turned)
    full = turned[prefix.end() :] if prefix else turned
    if prefix and prefix[1]:
        full = "\\" + full
    if DRIVE_RELATIVE.match(full):
        raise drive_relative(path)
    if full.startswith("\\") and not full.startswith("\\\\"):
        full = current_drive(path, system) + full
    if drive := DRIVE.fullmatch(full):
        return drive_path(drive[1], joined(path, drive[2] or "", "\\"), path, system)
    if full.startswith("\\\\"):
        return share_path(joined(path, full, "\\"), path, system)
    if prefix:
        raise unreachable(path, "it names a device or a volume", "Use the letter of its drive: D:\\folder\\file")
    return joined(path, full, "/") if "\\" in path else path


def wsl_to_windows_path(path: str, *, system: System = SYSTEM) -> str:
    r"""`/mnt/d/VideoGenerator` as `D:\VideoGenerator`; other absolute paths as the share of this distribution.

    As `wslpath -w`: links of what is there are followed; characters that Windows forbids become those which WSL shows
    for them. Unlike it, a slash at the end is dropped, relative paths stay relative, and paths of Windows, and those of
    a distribution whose name is not known (`WSL_DISTRO_NAME`), only get their slashes turned.
    """
    if not path.startswith("/"):
        return path.replace("/", "\\") if is_windows_path(path) else escaped(path.rstrip("/"))
    if path.startswith("//"):  # a share, with its slashes turned
        return path.replace("/", "\\")
    plain = posixpath.normpath(path)
    if found := drive_below(chosen_root(), plain):
        return found
    mounts, plain = system.mounts(), followed(plain)
    mount = mount_of_linux_path(plain, mounts)
    if mount is not None and mount.source is not None:
        rest = escaped(plain[len(mount.point) :])
        return mount.source + (rest or ("\\" if DRIVE.fullmatch(mount.source) else ""))
    if not any(one.source for one in mounts) and (found := drive_below(system.drives_root(), plain)):
        return found
    distribution = os.environ.get("WSL_DISTRO_NAME")
    return f"\\\\wsl.localhost\\{distribution}{escaped(plain)}" if distribution else plain.replace("/", "\\")


def is_windows_path(path: str) -> bool:
    r"""Whether no path of Linux looks like this: with a drive, a share, or backslashes and no slash."""
    looks = WINDOWS_BY_LOOKS.match(path) or DRIVE_RELATIVE.match(path)
    return looks is not None or ("\\" in path and "/" not in path)


# --- parts of the translation


def drive_path(letter: str, rest: str, written: str, system: System) -> str:
    r"""rest: `/folder/file`, or "" for the drive itself."""
    root, mounts = chosen_root(), system.mounts()
    mount = None if root else mount_of_windows_path(f"{letter}:" + rest.replace("/", "\\"), mounts)
    if mount is not None and mount.source is not None:
        return mount.point + rest[len(mount.source) - len("D:") :]
    if root is None and any(one.source and DRIVE.fullmatch(one.source) for one in mounts):
        raise not_mounted(written, letter, f"{system.drives_root()}{letter.lower()}")
    return f"{root or system.drives_root()}{letter.lower()}{rest}"


def share_path(rest: str, written: str, system: System) -> str:
    r"""rest: `/server/share/file`."""
    path = "\\" + rest.replace("/", "\\")
    mount = mount_of_windows_path(path, system.mounts())
    if mount is not None and mount.source is not None:
        return mount.point + path[len(mount.source) :].replace("\\", "/")
    distribution, own = _DISTRIBUTION.fullmatch(path), os.environ.get("WSL_DISTRO_NAME")
    if distribution is None:
        share = "\\".join(path.split("\\")[:4])
        remedy = f"Mount it: sudo mount -t drvfs '{share}' /mnt/share"
        raise unreachable(written, f"the share {share} is not mounted", remedy)
    if own and distribution[1].lower() != own.lower():
        raise unreachable(
            written, f"it is of the distribution {distribution[1]}, and this is {own}", "Copy it to a drive of Windows"
        )
    return without_escapes(distribution[2].replace("\\", "/")) or "/"


def joined(written: str, path: str, start: str) -> str:
    r"""The folders of a path with slashes between, `.` and `..` resolved. start: `/` if it is relative, else `\`."""
    kept: list[str] = []
    for part in path.split("\\"):
        if part == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif part == ".." and start == "\\":
            raise unreachable(written, "its .. lead above its drive or share", "Write the path without ..")
        elif part not in ("", "."):
            kept.append(part)
    if start == "\\":
        return "".join(f"/{part}" for part in kept)
    return "/".join(kept) or "."


def followed(path: str) -> str:
    """Without links, if it is there; a path that is not, or cannot be looked at, as it is."""
    try:
        return os.path.realpath(path, strict=True) if os.name != "nt" else path
    except OSError:
        return path


def drive_below(root: str | None, path: str) -> str | None:
    r"""`/mnt/d/folder` as `D:\folder`, root being `/mnt/`; None for other paths. Only single letters are drives."""
    if root is None or not path.startswith(root) or not re.match("[A-Za-z](/|$)", path[len(root) :]):
        return None
    letter, rest = path[len(root)].upper(), escaped(path[len(root) + 1 :])
    return f"{letter}:" + (rest or "\\")


def current_drive(path: str, system: System) -> str:
    r"""The drive of the current folder, `D:`, from which `\folder` is reckoned."""
    drive = DRIVE.match(wsl_to_windows_path(str(Path.cwd()), system=system))
    if drive is None:
        raise unreachable(path, "it is relative to the current drive, and there is none", f"Write the drive: D:{path}")
    return f"{drive[1]}:"


def drive_relative(path: str) -> InputError:
    return InputError(
        "invalid_value",
        f"The path {path[:200]!r} is relative to the current folder of drive {path[0].upper()}:, which is not known.",
        [f"Write the whole path: {path[:2]}\\{path[2:200]}"],
    )


def not_mounted(path: str, letter: str, folder: str) -> InputError:
    drive = f"{letter.upper()}:"
    return unreachable(
        path,
        f"the drive {drive} is not mounted",
        f"Mount it: sudo mkdir -p {folder} && sudo mount -t drvfs {drive} {folder}",
        f"Set {DRIVES_VARIABLE} to the folder that has the drives as c, d, ...",
    )


def unreachable(path: str, reason: str, *remedies: str) -> InputError:
    return InputError("invalid_value", f"The path {path[:200]!r} cannot be used: {reason}.", remedies)
