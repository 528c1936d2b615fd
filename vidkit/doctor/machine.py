"""The system, its Python and its memory."""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from vidkit.device import GIB
from vidkit.finding import Finding, note, ok, problem
from vidkit.settings import home

#: vidkit's own promise, as in its package
OLDEST: Final = (3, 11)
NEWEST: Final = (3, 13)

#: bytes: torch, diffusers and a bundled model take 0.9 GiB of the host's memory (measured on Linux)
LEAST: Final = GIB
#: bytes: of half-precision weights, which wait in the host's memory where a GPU is short of it, and are read through it
FULL_SIZE: Final = 6 * GIB

#: a limit of cgroup v1 that is none is a number of about this size
NO_LIMIT: Final = 2**60

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")


def system() -> Iterator[Finding]:
    name, release = platform.system(), platform.release()
    topic = "system"
    data: dict[str, Any] = {"system": name, "release": release, "machine": platform.machine()}
    what = f"{platform.platform(terse=True)}, {platform.machine()}"
    if "microsoft" not in release.lower():
        yield from elsewhere(topic, what, name, data)
    elif "WSL2" not in release:
        yield problem(
            topic, f"{what}: WSL 1, which has no GPU.", "In Windows: wsl --set-version DISTRIBUTION 2", **data
        )
    else:
        yield ok(topic, f"{what} (WSL 2).", **data)
        if str(home()).startswith("/mnt/"):
            yield note(
                topic,
                f"The data folder {home()} is on a Windows disk, from which WSL reads several times slower.",
                "Set VIDKIT_HOME to a folder of Linux",
            )


def elsewhere(topic: str, what: str, name: str, data: dict[str, Any]) -> Iterator[Finding]:
    if name == "Linux":
        yield ok(topic, f"{what}.", **data)
    elif name == "Darwin":
        yield note(topic, f"{what}: vidkit is tested on Linux; Apple's GPUs (MPS) are not used.", **data)
    else:
        yield note(topic, f"{what}: vidkit is tested on Linux; WSL 2 is the surer way.", **data)


def python() -> Iterator[Finding]:
    topic, version = "Python", platform.python_version()
    data: dict[str, Any] = {"version": version, "executable": sys.executable}
    what = f"Python {version}, {sys.executable}"
    supported = f"Python {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    if struct.calcsize("P") < 8:
        yield problem(
            topic, f"{what}: of 32 bits, for which there is no torch.", f"Install {supported} of 64 bits", stops=True
        )
    elif sys.version_info[:2] < OLDEST:
        yield problem(topic, f"{what}: too old.", f"Install {supported}", stops=True, **data)
    elif sys.version_info[:2] > NEWEST:
        yield note(
            topic, f"{what}: newer than vidkit is tested with.", f"Where something fails, use {supported}", **data
        )
    else:
        yield ok(topic, f"{what}.", **data)


def memory() -> Iterator[Finding]:
    topic, seen, swap = "memory", psutil.virtual_memory(), psutil.swap_memory()
    limit = container_limit()
    total = min(seen.total, limit or seen.total)
    free = max(min(seen.available, total - container_use()) if limit else seen.available, 0)
    data: dict[str, Any] = {
        "totalBytes": seen.total,
        "availableBytes": seen.available,
        "swapBytes": swap.total,
        "containerLimitBytes": limit,
        "cpus": os.cpu_count(),
    }
    what = f"{seen.total / GIB:.1f} GiB, {free / GIB:.1f} GiB available, swap {swap.total / GIB:.1f} GiB"
    if limit:
        what += f"; this container may use {limit / GIB:.1f} GiB"
    less = "Close other programs; a smaller size and fewer frames need less"
    if free < LEAST:
        yield problem(topic, f"{what}: too little for any model.", less, **data)
    elif total < FULL_SIZE:
        yield note(topic, f"{what}: enough for the bundled models, little for full-size ones.", less, **data)
    else:
        yield ok(topic, f"{what}.", **data)
    if limit and limit < seen.available:
        yield note(
            topic,
            "vidkit plans by the machine's free memory, of which this container gets only a part.",
            f"Tell it: VIDKIT_LIMIT_MEMORY={limit / GIB * 0.9:.1f} where the CPU computes",
        )


def container_limit() -> int | None:
    """Bytes that the control group of this process may take (cgroup v2, v1), or one above it; None: no limit."""
    limits = [number_in(folder / name) for folder in own_groups() for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None and limit < NO_LIMIT), default=None)


def container_use() -> int:
    """Bytes that the control group takes of its limit now, without what is only kept of files."""
    for folder in own_groups():
        used = number_in(folder / "memory.current") or number_in(folder / "memory.usage_in_bytes")
        if used is not None:
            return max(used - files_kept(folder / "memory.stat"), 0)
    return 0


def files_kept(statistics: Path) -> int:
    try:
        rows = dict(line.split() for line in statistics.read_text().splitlines())
        return int(rows.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def own_groups() -> list[Path]:
    """The folders that tell of the control groups of this process, the innermost first."""
    try:
        rows = [line.split(":", 2) for line in OWN_CGROUP.read_text().splitlines()]
    except OSError:  # not Linux
        return []
    folders = []
    for _, controllers, path in (row for row in rows if len(row) == 3):
        if controllers in ("", "memory"):
            root = CGROUPS / controllers
            here = root / path.lstrip("/")
            folders += [folder for folder in (here, *here.parents) if folder.is_relative_to(root)]
    return folders


def number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there; "max"
        return None
