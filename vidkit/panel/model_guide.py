"""How models come to this machine, and what it can do with them, in words. Asks no network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidkit.files import free_disk_bytes
from vidkit.models.catalogue import Published, catalogue
from vidkit.panel.model_list import Found
from vidkit.settings import Settings


def advice(family: str, found: Iterable[Found], settings: Settings) -> list[str]:
    """What the user should know now: no model but the bundled one, no GPU, little room."""
    told = []
    if has_only_bundled(family, found):
        told.append(
            f"For {family} there is only the bundled demonstration model. Below is how to get a full-size one; one "
            f"that is on this machine belongs into {settings.models}, or its path is added here."
        )
    if not has_gpu():
        told.append(
            "No NVIDIA GPU was found: clips are computed on the CPU. The bundled models are made for that; a full-size "
            "model takes hours for a clip."
        )
    free = free_gigabytes(settings.models)
    short = [one for one in published_for(family) if one.gigabytes > free]
    if short:
        names = ", ".join(f"{one.name} ({one.gigabytes:g} GB)" for one in short)
        told.append(f"{free:.1f} GB are free in {settings.models}: too little for {names}.")
    return told


def has_only_bundled(family: str, found: Iterable[Found]) -> bool:
    bases = [one for one in found if one.role == "base_model" and one.model is not None and not one.model.is_bundled]
    return not any(f"base model of {family}" in one.purpose for one in bases)


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver to use, without loading torch."""
    if os.environ.get("VIDKIT_DEVICE", "auto").lower() == "cpu":
        return False
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def free_gigabytes(folder: Path) -> float:
    return free_disk_bytes(folder) / 1e9


def published_for(family: str) -> Sequence[Published]:
    """The catalogue's models of a family that can be chosen once they are here."""
    return [one for one in catalogue() if one.family == family and one.before_use is None]
