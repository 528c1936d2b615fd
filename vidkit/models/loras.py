"""The LoRAs of a request: found, and known by their headers to go with its base model and motion adapter. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vidkit.errors import InputError, Remedy, SetupError
from vidkit.lora_list import LORAS, LoraEntry, loras_text, parse_loras
from vidkit.models.checkpoints.folders import the_weights
from vidkit.models.compatibility import why_not_together, with_article
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.models.files.folder_safety import check_folder
from vidkit.models.files.pickles import read_header
from vidkit.models.inspection import Inspection, inspect
from vidkit.models.locate import Model, find
from vidkit.models.lora_keys import Component, LoraLayer, lora_layers
from vidkit.params import GenerationParams
from vidkit.settings import Settings

#: what the LoRAs are called among a request's models: lora_1, lora_2, ... in its order
PREFIX: Final = "lora_"

KINDS: Final = ("LoRA", "motion LoRA")


def is_lora(name: str) -> bool:
    """Whether a name among a request's models is that of a LoRA."""
    return name.startswith(PREFIX)


def weights_of_loras(params: GenerationParams) -> dict[str, float]:
    """How much of each LoRA counts, by its name among the request's models."""
    return {f"{PREFIX}{number}": entry.weight for number, entry in enumerate(parse_loras(params.loras or ""), 1)}


def locate_loras(params: GenerationParams, settings: Settings, base: Model, adapter: Model) -> dict[str, Model]:
    """The request's LoRAs by name among its models; {} for none. By headers alone.

    Raises:
        SetupError: `model_not_found`; `invalid_model`, for what is no LoRA or does not go with the base model or the
            motion adapter.
        InputError: `invalid_value`, for one that is named in two ways.
    """
    entries = parse_loras(params.loras or "")
    found: dict[str, Model] = {}
    for name, entry in zip(weights_of_loras(params), entries, strict=True):
        lora = describe_lora(find(entry.name, settings, "LoRA"))
        if any(other.path.samefile(lora.path) for other in found.values()):
            raise named_twice(entry, entries)
        check_fit(lora, base, adapter)
        found[name] = lora
    return found


def describe_lora(path: Path) -> Model:
    """A LoRA's file or folder, by its header.

    Raises:
        SetupError: `invalid_model`, when it is something else, or of another method than LoRA.
    """
    inspection = inspect(lora_file(path))
    if inspection.kind not in KINDS:
        raise SetupError(
            "invalid_model",
            f"{path} is no LoRA: it is {with_article(inspection.title)}.",
            ["Take it out of loras", "Name a LoRA or a motion LoRA"],
            [LORAS],
        )
    layers_of(path)
    return Model(path.name if path.is_dir() else path.stem, path, inspection.kind)


def check_fit(lora: Model, base: Model, adapter: Model) -> None:
    """Raises SetupError `invalid_model`, naming the reason, when a LoRA does not go with the others."""
    reason = why_not_on(inspect(lora_file(lora.path)), base, adapter)
    if reason is not None:
        raise SetupError(
            "invalid_model",
            f"{lora.name} cannot be used: {reason[:1].lower()}{reason[1:]}",
            [f"Take {lora.name} out of loras", "Choose a LoRA that was made for this base model and motion adapter"],
            [LORAS, "base_model", "motion_adapter"],
        )


def why_not_on(lora: Inspection, base: Model, adapter: Model) -> str | None:
    """Why a LoRA does not go with a base model or a motion adapter; None when nothing says so."""
    reason = why_not_together(lora, inspect(base.path))
    if reason is not None or lora.kind != "motion LoRA":
        return reason
    return why_not_together(lora, inspect(adapter.path))


def layers_of(path: Path) -> tuple[LoraLayer, ...]:
    """What a LoRA changes. Raises SetupError, as `vidkit.models.lora_keys.lora_layers`."""
    return _LAYERS.get(lora_file(path), lambda file: lora_layers(read_header(file), path))


def changed_values(path: Path) -> Mapping[tuple[Component, str], int]:
    """How many weights the layers have that a LoRA changes. Raises as `layers_of`."""
    layers = layers_of(path)

    def count(file: Path) -> dict[tuple[Component, str], int]:
        header = read_header(file)
        return {
            (layer.component, layer.layer): header[layer.up][1][0] * math.prod(header[layer.down][1][1:])
            for layer in layers
        }

    return _VALUES.get(lora_file(path), count)


def lora_file(path: Path) -> Path:
    """The file of weights: the path itself, or the one in a folder.

    Raises:
        SetupError: `invalid_model`, for a folder that has none, several without one of the usual names, or is unsafe.
    """
    if path.is_file():
        return path
    check_folder(path)
    return the_weights(path)


def check_different(params: GenerationParams, hashes: Mapping[str, str]) -> None:
    """Two files with the same content are the same LoRA. hashes: by name among the request's models.

    Raises:
        InputError: `invalid_value`.
    """
    entries = dict(zip(weights_of_loras(params), parse_loras(params.loras or ""), strict=True))
    seen: dict[str, str] = {}
    for name, entry in entries.items():
        sha256 = hashes.get(name, name)  # a family that takes no LoRAs has not looked for them
        if sha256 in seen:
            raise named_twice(entry, tuple(entries.values()))
        seen[sha256] = name


def named_twice(entry: LoraEntry, entries: Sequence[LoraEntry]) -> InputError:
    without = loras_text(other for other in entries if other != entry)
    return InputError(
        "invalid_value",
        f"loras has the same LoRA twice: {entry.name!r} is another name of one before it.",
        [Remedy(f"Set loras to {without}", loras=without)],
        [LORAS],
    )


_VALUES: Final[RememberedByFile[Mapping[tuple[Component, str], int]]] = RememberedByFile(most=64)
_LAYERS: Final[RememberedByFile[tuple[LoraLayer, ...]]] = RememberedByFile(most=64)
