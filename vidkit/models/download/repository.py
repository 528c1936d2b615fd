"""Which files of a hub repository are needed: one set of weights in the safest, smallest form that there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from vidkit.errors import InputError, SetupError

#: the weights that diffusers and transformers load, whole or in shards, in half precision or not
WEIGHTS: Final = re.compile(
    r"(diffusion_pytorch_model|model|pytorch_model)(?P<early>\.fp16)?(-\d+-of-\d+)?(?P<late>\.fp16)?"
    r"\.(?P<format>safetensors|bin)(?P<index>\.index)?(\.fp16)?(\.json)?"
)
CHECKPOINTS: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
TEXTS: Final = (".json", ".txt", ".model")
#: AnimateDiff's pipelines take no safety checker
NOT_NEEDED: Final = ("safety_checker",)
LISTED: Final = 12


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. sha256: of those that are stored with LFS; blob_id: the git object of the others."""

    name: str
    size: int
    sha256: str | None
    blob_id: str | None

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.name).parent)


def wanted_files(repo: str, files: Sequence[HubFile], patterns: Sequence[str]) -> list[HubFile]:
    """Those that match the patterns ("*.json", "unet/*"); without patterns, what loading needs.

    Raises:
        SetupError: `model_not_found`, when a pattern matches nothing.
        InputError: `invalid_value`, when it has to be said which.
    """
    for file in files:
        check_name(repo, file.name)
    if patterns:
        for pattern in patterns:
            if not any(fnmatchcase(file.name, pattern) for file in files):
                raise SetupError(
                    "model_not_found",
                    f"{repo} has no file {pattern}.",
                    [f"It has {listed(file.name for file in files)}"],
                )
        return [file for file in files if any(fnmatchcase(file.name, pattern) for pattern in patterns)]
    if any(file.name in ("model_index.json", "config.json") for file in files):
        return of_folder(files)
    checkpoints = [file for file in files if file.name.endswith(CHECKPOINTS)]
    if len(checkpoints) == 1:
        return checkpoints
    if not checkpoints:
        raise SetupError(
            "invalid_model", f"{repo} holds no model: {listed(file.name for file in files)}.", ["Check its page"]
        )
    raise InputError(
        "invalid_value",
        f"{repo} holds {len(checkpoints)} models: say which.",
        [
            f"vidkit models download {repo}/{checkpoints[0].name}",
            f"There are {listed(one.name for one in checkpoints)}",
        ],
    )


def of_folder(files: Sequence[HubFile]) -> list[HubFile]:
    """Of a diffusers folder: the texts, and of each part one set of weights."""
    is_pipeline = any(file.name == "model_index.json" for file in files)
    wanted = [file for file in files if file.name.endswith(TEXTS) and not WEIGHTS.fullmatch(base_name(file))]
    for folder in sorted({file.folder for file in files}):
        if PurePosixPath(folder).parts[:1] in [(name,) for name in NOT_NEEDED]:
            continue
        if is_pipeline and folder == ".":
            continue  # whole checkpoints beside the parts hold the same once more
        wanted += best_weights([file for file in files if file.folder == folder], half_first=is_pipeline)
    return wanted


def best_weights(files: Sequence[HubFile], *, half_first: bool) -> list[HubFile]:
    """One set of a folder's weights: safetensors before pickles; of a pipeline's parts, half precision first."""
    sets: dict[tuple[bool, bool], list[HubFile]] = {}
    for file in files:
        if (match := WEIGHTS.fullmatch(base_name(file))) is not None:
            half = ".fp16" in base_name(file)
            sets.setdefault((match["format"] == "bin", half != half_first), []).append(file)
    complete = [key for key, members in sets.items() if any(not one.name.endswith(".json") for one in members)]
    return sets[min(complete)] if complete else []


def base_name(file: HubFile) -> str:
    return PurePosixPath(file.name).name


def check_name(repo: str, name: str) -> None:
    """Raises:
    SetupError: `invalid_model`: the name leads out of the folder.
    """
    parts = name.split("/")
    if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise SetupError(
            "invalid_model", f"{repo} lists a file {ascii(name)[:120]}, which leads outside.", ["Don't use this source"]
        )


def listed(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return (", ".join(known[:LISTED]) or "nothing") + more
