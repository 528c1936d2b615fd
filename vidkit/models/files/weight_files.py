"""The weight files of a diffusers folder: which of them are loaded. By their names alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vidkit.errors import SetupError

#: the weight files that diffusers and transformers load, whole or in shards, with or without a variant
WEIGHT_FILE: Final = re.compile(
    r"(diffusion_pytorch_model|model)(?P<early>\.fp16)?(?P<shard>-\d+-of-\d+)?(?P<late>\.fp16)?\.safetensors"
)


def weight_files(folder: Path, part: str, dtype: str) -> list[Path]:
    """Those that are loaded: the half-precision variant where it is wanted, shards where there are some.

    part: "unet", "vae", ...; "" for a folder that is one part. dtype: of the weights once loaded, "float16", ...

    Raises:
        SetupError: `invalid_model`, when there are none in safetensors format.
    """
    found = matches(folder / part)
    if not found:
        raise SetupError(
            "invalid_model",
            f"{folder / part} has no weights in safetensors format; the download may be incomplete.",
            [
                "Fetch it again, in safetensors format",
                f"Where it has pickles: vidkit models convert {folder / part}/FILE",
            ],
            ["base_model"],
        )
    variant = {file for file, match in found.items() if match["early"] or match["late"]}
    plain = set(found) - variant
    # adapters are loaded without a variant
    chosen = variant if part and wants_variant(folder, dtype) else plain
    chosen = chosen or variant or plain
    shards = {file for file in chosen if found[file]["shard"]}
    return sorted(shards or chosen)


def wants_variant(folder: Path, dtype: str) -> bool:
    """Whether half-precision files are taken where a part has both: half is wanted, or the UNet has nothing else."""
    unet = matches(folder / "unet")
    plain = [file for file, match in unet.items() if not (match["early"] or match["late"])]
    return dtype == "float16" or not plain


def matches(folder: Path) -> Mapping[Path, re.Match[str]]:
    files = folder.iterdir() if folder.is_dir() else ()
    return {file: match for file in files if (match := WEIGHT_FILE.fullmatch(file.name))}
