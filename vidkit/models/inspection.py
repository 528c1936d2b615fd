"""What a model file or folder is, told from its keys, shapes and configs: nothing is loaded, nothing is guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from vidkit.errors import SetupError
from vidkit.models.checkpoints.findings import Finding, Kind
from vidkit.models.checkpoints.folders import inspect_folder
from vidkit.models.checkpoints.keys import Keys
from vidkit.models.checkpoints.kinds import counted, recognized
from vidkit.models.files.file_format import invalid
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.models.files.pickles import read_header
from vidkit.models.files.safetensors_header import Header
from vidkit.near_paths import near_paths

__all__ = ["Inspection", "Kind", "Layout", "inspect", "inspect_header"]

Layout = Literal["diffusers folder", "single file"]


@dataclass(frozen=True)
class Inspection:
    """What a model is.

    kind: what it is for. architecture: the family that it belongs to or goes with: "SD 1.5", "SD 2", "SDXL", "SVD",
    "Flux", ...; "" where the file does not say, "A or B" where it leaves two. version: of motion adapters "v1", "v2",
    "v3", "SDXL", "PIA"; else "".
    class_name: the class that a folder's config names; for a single file the one that a folder of the same thing would
    name ("StableDiffusionPipeline", "MotionAdapter", ...); "" for what has none (LoRAs, IP-Adapters, embeddings).
    dtypes: of the weights ("float16", ...), most values first. parameters: values in all weights. size: bytes on disk.
    details: what else it says, in the words of diffusers' configs where they have one: block_out_channels (tuple),
    cross_attention_dim, in_channels, motion_max_seq_length, num_frames, rank, ema, lacks (parts that a base model
    should have), naming (of the keys: "original", "diffusers", "kohya", ...), ...
    """

    path: Path
    kind: Kind
    architecture: str
    version: str
    class_name: str
    layout: Layout
    dtypes: tuple[str, ...]
    parameters: int
    size: int
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.architecture.split(" or ")) if self.architecture else ()

    @property
    def title(self) -> str:
        """In words: "SD 1.5 base model", "motion adapter v2 for SD 1.5", "LoRA for SDXL"."""
        if self.kind in ("refiner", "Stable Video Diffusion"):
            return "SDXL refiner" if self.kind == "refiner" else self.kind
        if self.kind.endswith(("model", "encoder")) or self.kind in ("UNet", "transformer", "upscaler"):
            return f"{self.architecture} {self.kind}".strip()
        named = f"{self.kind} {self.version}" if self.version.startswith("v") else self.kind
        named = f"PIA {named}" if self.version == "PIA" else named
        return f"{named} for {self.architecture}" if self.architecture else named


def inspect(path: Path) -> Inspection:
    """What a file or folder is, by its headers and configs alone. Under a second, whatever its size.

    Raises:
        SetupError: `model_not_found`; `invalid_model` for what cannot be read, is no model, or is of a kind unknown
            here.
    """
    try:
        if path.is_dir():
            return as_inspection(path, "diffusers folder", *inspect_folder(path), size_of(path))
        if path.is_file():
            return _INSPECTED.get(path, inspect_file)
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror or error}", "Check the file's permissions") from error
    raise SetupError("model_not_found", f"There is no model at {str(path)!r}.", near_paths(path))


def inspect_file(path: Path) -> Inspection:
    return inspect_header(read_header(path), path, path.stat().st_size)


def inspect_header(header: Header, path: Path, size: int = 0) -> Inspection:
    """A file by its keys, dtypes and shapes alone. path: named in errors; size: bytes on disk, as the caller knows.

    Raises:
        SetupError: `invalid_model`, when nothing known has such keys.
    """
    keys = Keys(header)
    return as_inspection(path, "single file", recognized(keys, path), counted(keys.header), size)


def as_inspection(path: Path, layout: Layout, found: Finding, values: Counter[str], size: int) -> Inspection:
    """values: how many weights there are of each dtype."""
    return Inspection(
        path=path,
        kind=found.kind,
        architecture=found.architecture,
        version=found.version,
        class_name=found.class_name,
        layout=layout,
        dtypes=tuple(dtype for dtype, _ in values.most_common()),
        parameters=values.total(),
        size=size,
        details=found.details,
    )


def size_of(path: Path) -> int:
    """Bytes on disk, of a file or of all in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


_INSPECTED: Final[RememberedByFile[Inspection]] = RememberedByFile(most=256)
