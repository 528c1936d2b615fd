r"""Where Windows' drives and shares are mounted in WSL, read from the system's mount table.

Follows `wslpath` (github.com/microsoft/WSL, src/linux/init: util.cpp, drvfs.cpp; MIT): a drive is a mount of type 9p
(WSL 2, its source in the option `aname=drvfs;path=C:\`), drvfs (WSL 1) or virtiofs (its source in a link by its tag).
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: where WSL mounts drives if its configuration names no other root
DEFAULT_ROOT: Final = "/mnt/"

#: set by users whose drives are where no mount table tells, as in a container or on another machine: the folder that
#: has them as c, d, ...
DRIVES_VARIABLE: Final = "VIDKIT_DRIVES"

#: virtiofs mounts of WSL itself, of which the drives' own are made
_VIRTIOFS_PLUMBING: Final = "/run/wsl/virtiofs-mounts"

#: the tag of a virtiofs mount, or the first folder in the root of one that has many
_GUID: Final = re.compile(r"\{?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?", re.IGNORECASE)


@dataclass(frozen=True)
class System:
    """The files that tell of mounts; other files in tests."""

    mountinfo: Path = Path("/proc/self/mountinfo")
    wsl_conf: Path = Path("/etc/wsl.conf")
    #: links from virtiofs tags to their folders in Windows
    virtiofs_tags: Path = Path("/run/wsl/virtiofs")

    def mounts(self) -> list[Mount]:
        """What is mounted, in the order of mounting: later ones hide earlier ones. Empty where there is no table."""
        try:
            lines = self.mountinfo.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        except OSError:  # Windows, macOS
            return []
        return [mount for line in lines if (mount := self._mount_of(line)) is not None]

    def drives_root(self) -> str:
        """The folder in which WSL mounts drives, with a slash at its end: `root` of `[automount]`, else /mnt/."""
        config = configparser.ConfigParser(
            strict=False, interpolation=None, allow_no_value=True, inline_comment_prefixes="#", delimiters="="
        )
        try:
            config.read_string(self.wsl_conf.read_text(encoding="utf-8-sig", errors="surrogateescape"))
        except (OSError, configparser.Error):  # WSL goes on with its defaults too
            return DEFAULT_ROOT
        roots = [config[name].get("root") for name in config.sections() if name.lower() == "automount"]
        root = next((root.strip('"') for root in roots if root), DEFAULT_ROOT)
        return root.rstrip("/") + "/"

    def _mount_of(self, line: str) -> Mount | None:
        """A line of the table; None for one that is not understood (an empty source makes such lines)."""
        left, _, right = line.partition(" - ")
        where, what = left.split(), right.split(None, 2)
        if len(where) < 6 or len(what) < 3:
            return None
        root, point, source = (without_octals(field) for field in (where[3], where[4], what[1]))
        return Mount(point, self._windows_source(what[0], source, what[2], root))

    def _windows_source(self, kind: str, source: str, options: str, root: str) -> str | None:
        if kind == "9p":
            found = plan9_source(options)
        elif kind == "drvfs":
            found = source
        elif kind == "virtiofs":
            tag, root = (source, root) if _GUID.fullmatch(source) else split_root(root)
            found = self._behind_tag(tag)
        else:
            found = None
        if not found:
            return None
        found = backslashed(found).removesuffix("\\")
        return found if root == "/" else backslashed(found + root).removesuffix("\\")

    def _behind_tag(self, tag: str) -> str | None:
        try:
            return str((self.virtiofs_tags / tag).readlink()) if _GUID.fullmatch(tag) else None
        except OSError:  # not WSL's
            return None


@dataclass(frozen=True)
class Mount:
    r"""point: where it is mounted. source: what of Windows, without a backslash at its end: `D:`, `\\server\share`,
    `D:\folder`; None for what is not of Windows.
    """

    point: str
    source: str | None


SYSTEM: Final = System()


def mount_of_windows_path(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount with the longest source that a Windows path begins with, and that no later mount hides."""
    found: Mount | None = None
    longest = 0
    for mount in mounts:
        if is_inside(mount.point, _VIRTIOFS_PLUMBING):
            continue
        if found is not None and is_inside(found.point, mount.point):
            found = None
        if mount.source is None or len(mount.source) < longest:
            continue
        beginning, rest = path[: len(mount.source)], path[len(mount.source) :]
        if beginning.lower() == mount.source.lower() and rest[:1] in ("", "\\"):
            found, longest = mount, len(mount.source)
    return found


def mount_of_linux_path(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The Windows mount that a path is on; None where it is on another, be it mounted inside of one of Windows."""
    found: Mount | None = None
    for mount in mounts:
        if is_inside(path, mount.point):
            found = mount if mount.source is not None else None
    return found


def chosen_root() -> str | None:
    """The user's own folder of drives, with a slash at its end, if one is set."""
    given = os.environ.get(DRIVES_VARIABLE, "").rstrip("/")
    return f"{given}/" if given.startswith("/") else None


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or in it, by their texts. Nothing is in "/" here: that is no drive's."""
    return path.startswith(folder) and path[len(folder) : len(folder) + 1] in ("", "/")


def plan9_source(options: str) -> str | None:
    """What a 9p mount shows of Windows: `aname=drvfs;path=...` among its options; a share begins with UNC there."""
    for option in options.split(","):
        if option.startswith("aname=drvfs"):
            path = option.partition("path=")[2].partition(";")[0]
            if path.startswith("UNC\\"):
                return "\\\\" + path.removeprefix("UNC\\")
            return path if re.match("[A-Za-z]:", path) else None
    return None


def split_root(root: str) -> tuple[str, str]:
    """The tag and the rest of the root of a virtiofs mount that has many shares: /TAG/folder."""
    tag, _, rest = root.removeprefix("/").partition("/")
    return tag, f"/{rest}"


def without_octals(field: str) -> str:
    r"""Mount tables write spaces, tabs, line ends and backslashes as three octal digits: \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def backslashed(path: str) -> str:
    """With backslashes, none doubled but the two at the beginning of a share."""
    turned = path.replace("/", "\\")
    return turned[:1] + re.sub(r"\\+", r"\\", turned[1:])
