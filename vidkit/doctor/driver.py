"""What NVIDIA's driver says of its GPUs, and which graphics cards are in this machine without it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vidkit.doctor.asking import Answer, ask

#: seconds; without persistence mode the driver starts anew for each question, which takes one or two
PATIENCE: Final = 8.0

#: where it is in WSL, whose PATH may lack it
IN_WSL: Final = Path("/usr/lib/wsl/lib/nvidia-smi")

#: fields of --query-gpu; drivers before 510 don't know the last
FIELDS: Final = ("name", "uuid", "memory.total", "memory.free", "driver_version", "compute_cap")
APPS: Final = "--query-compute-apps=gpu_uuid,pid,process_name,used_memory"
AS_TABLE: Final = "--format=csv,noheader,nounits"

#: PCI vendors of cards that compute, and the class of display controllers
VENDORS: Final = {"0x10de": "NVIDIA", "0x1002": "AMD"}
DISPLAY: Final = "0x03"

MIB: Final = 2**20


@dataclass(frozen=True)
class Gpu:
    """memory in bytes, None where the driver does not say (unified memory); capability: "8.9", or ""."""

    name: str
    uuid: str
    total: int | None
    free: int | None
    capability: str


@dataclass(frozen=True)
class User:
    """A program that computes on a GPU. used: bytes, None where the driver does not say (Windows, other containers)."""

    gpu: str
    pid: int
    name: str
    used: int | None


@dataclass(frozen=True)
class Driver:
    """state "answers": the rest is known; else `words` say why it is not.

    cuda: the newest CUDA that the driver serves, "12.4", or ""; cards: vendors of the cards in this machine.
    """

    state: Literal["answers", "absent", "hangs", "fails"]
    words: str = ""
    version: str = ""
    cuda: str = ""
    gpus: Sequence[Gpu] = ()
    users: Sequence[User] = ()
    cards: Sequence[str] = ()
    is_on_path: bool = True

    @property
    def has_nvidia(self) -> bool:
        return bool(self.gpus) or "NVIDIA" in self.cards


def ask_driver() -> Driver:
    program = shutil.which("nvidia-smi")
    called = program or (str(IN_WSL) if IN_WSL.exists() else None)
    cards = tuple(graphics_cards())
    if called is None:
        return Driver("absent", "there is no nvidia-smi", cards=cards)
    gpus = ask([called, f"--query-gpu={','.join(FIELDS)}", AS_TABLE], PATIENCE)
    if gpus.status is not None and "not a valid field" in gpus.output + gpus.errors:
        gpus = ask([called, f"--query-gpu={','.join(FIELDS[:-1])}", AS_TABLE], PATIENCE)
    if not gpus.is_fine:
        return failed(gpus, cards)
    rows = rows_of(gpus, len(FIELDS) - 1)
    return Driver(
        "answers",
        version=rows[0][4] if rows else "",
        cuda=cuda_version(ask([called], PATIENCE).output),
        gpus=[Gpu(row[0], row[1], in_bytes(row[2]), in_bytes(row[3]), "".join(row[5:6])) for row in rows],
        users=list(users_of(ask([called, APPS, AS_TABLE], PATIENCE))),
        cards=cards,
        is_on_path=program is not None,
    )


def failed(answer: Answer, cards: Sequence[str]) -> Driver:
    if answer.is_late:
        return Driver("hangs", f"nvidia-smi gave no answer within {PATIENCE:g} s", cards=cards)
    # it tells its failures on standard output
    said = " ".join(f"{answer.output} {answer.errors}".split())[:300] or f"exit status {answer.status}"
    return Driver("fails", said, cards=cards)


def rows_of(answer: Answer, least: int) -> list[list[str]]:
    """The table's rows of at least so many cells."""
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.output.splitlines()]
    return [row for row in rows if len(row) >= least]


def users_of(answer: Answer) -> Iterator[User]:
    if answer.is_fine:
        for gpu, pid, *name, used in rows_of(answer, 4):  # a program's name may have commas
            if pid.isdigit():
                yield User(gpu, int(pid), ",".join(name), in_bytes(used))


def in_bytes(mebibytes: str) -> int | None:
    """A cell of memory; None for "[N/A]"."""
    return int(mebibytes) * MIB if mebibytes.isdigit() else None


def cuda_version(header: str) -> str:
    """From nvidia-smi's own page, the only place that says it."""
    found = re.search(r"CUDA (?:UMD )?Version *: *(\d+\.\d+)", header)
    return found[1] if found else ""


def graphics_cards(devices: Path = Path("/sys/bus/pci/devices")) -> list[str]:
    """Vendors of the cards that Linux sees on its bus, each once; none known elsewhere."""
    found = []
    for device in devices.glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:  # a device that just went away
            continue
        if kind.startswith(DISPLAY) and vendor in VENDORS:
            found.append(VENDORS[vendor])
    return list(dict.fromkeys(found))
