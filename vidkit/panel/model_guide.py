"""How models come to this machine, and what it can do with them, in words. Asks no network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vidkit.device import GIB
from vidkit.panel.model_list import Found
from vidkit.settings import Settings

#: what of a repository is needed: half precision alone where it has both
HALF: Final = ("*.json", "*.txt", "*.fp16.safetensors")
WHOLE: Final = ("config.json", "diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class Wanted:
    """A published model. family: that it is for; gib: its download; includes: patterns of the files to fetch."""

    family: str
    purpose: str
    repository: str
    gib: float
    includes: tuple[str, ...]
    note: str

    def command(self, models: Path) -> str:
        """A line for a terminal that fetches it into the models folder."""
        patterns = " ".join(f'--include "{pattern}"' for pattern in self.includes)
        folder = models / self.repository.rsplit("/", 1)[1]
        return f'hf download {self.repository} --local-dir "{folder}" {patterns}'


#: sizes: rough, to be held against the free disk space; the files were not fetched for them
WANTED: Final = (
    Wanted(
        "svd",
        "SVD-XT, 25 frames of 1024 x 576",
        "stabilityai/stable-video-diffusion-img2vid-xt",
        4.2,
        HALF,
        "its licence has to be accepted on its page; then log in with hf auth login",
    ),
    Wanted(
        "animatediff",
        "Stable Diffusion 1.5, the base model",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        2.6,
        HALF,
        "or any model made from it, also as one .safetensors file",
    ),
    Wanted(
        "animatediff",
        "motion adapter for conditioning init and sparsectrl",
        "guoyww/animatediff-motion-adapter-v1-5-3",
        1.6,
        WHOLE,
        "Apache-2.0",
    ),
    Wanted(
        "animatediff",
        "SparseCtrl for conditioning sparsectrl",
        "guoyww/animatediff-sparsectrl-rgb",
        1.9,
        WHOLE,
        "Apache-2.0",
    ),
    Wanted(
        "animatediff",
        "PIA motion adapter for conditioning pia",
        "openmmlab/PIA-condition-adapter",
        1.6,
        WHOLE,
        "Apache-2.0",
    ),
)


def advice(family: str, found: Iterable[Found], settings: Settings) -> list[str]:
    """What the user should know now: no model but the bundled one, no GPU, little room."""
    told = []
    if has_only_bundled(family, found):
        told.append(
            f"For {family} there is only the bundled demonstration model. Below is how to get a full-size one; its "
            f"folder belongs into {settings.models}, or its path is added here."
        )
    if not has_gpu():
        told.append(
            "No NVIDIA GPU was found: clips are computed on the CPU. The bundled models are made for that; a full-size "
            "model takes hours for a clip."
        )
    short = [wanted for wanted in WANTED if wanted.family == family and wanted.gib > free_gib(settings.models)]
    if short:
        names = ", ".join(f"{wanted.repository} ({wanted.gib:g} GiB)" for wanted in short)
        told.append(f"{free_gib(settings.models):.1f} GiB are free in {settings.models}: too little for {names}.")
    return told


def has_only_bundled(family: str, found: Iterable[Found]) -> bool:
    bases = [one for one in found if one.role == "base_model" and one.model is not None and not one.model.is_bundled]
    return not any(f"base model of {family}" in one.purpose for one in bases)


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver to use, without loading torch."""
    if os.environ.get("VIDKIT_DEVICE", "auto").lower() == "cpu":
        return False
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def free_gib(folder: Path) -> float:
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(existing).free / GIB


def wanted_for(family: str) -> Sequence[Wanted]:
    return [wanted for wanted in WANTED if wanted.family == family]
