"""Real text files as WSL has them: its mount table and wsl.conf."""

from __future__ import annotations

from pathlib import Path

from vidkit.mounts import System

#: as WSL 2 writes them: the root file system, the drives C: and D:, a folder in memory
WSL2 = r"""60 59 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard,errors=remount-ro,data=ordered
61 60 0:28 / /mnt/wsl rw,relatime shared:1 - tmpfs none rw
75 60 0:68 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\;uid=1000;symlinkroot=/mnt/,mmap,trans=fd
76 60 0:69 / /mnt/d rw,noatime - 9p D:\134 rw,dirsync,aname=drvfs;path=D:\;uid=1000;symlinkroot=/mnt/,mmap,trans=fd
"""


def system(folder: Path, mountinfo: str = WSL2, wsl_conf: str | None = None) -> System:
    """The files in a folder, which hold these texts."""
    found = System(folder / "mountinfo", folder / "wsl.conf", folder / "virtiofs")
    found.mountinfo.write_text(mountinfo, encoding="utf-8")
    if wsl_conf is not None:
        found.wsl_conf.write_text(wsl_conf, encoding="utf-8")
    return found


def drive_mount(source: str, point: str, root: str = "/") -> str:
    r"""A line of the table for a drive or share of WSL 2: source `D:\`, `UNC\server\share`."""
    point, root = (path.replace(" ", r"\040") for path in (point, root))
    return f"80 60 0:70 {root} {point} rw,noatime - 9p drvfs rw,aname=drvfs;path={source};uid=0,mmap\n"
