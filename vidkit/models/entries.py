"""What the registry says of a model that was inspected, in the words of its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vidkit.confinement import check_model_allowed
from vidkit.errors import VidkitError
from vidkit.files import typed_write_errors, written_whole
from vidkit.models.catalogue import Published
from vidkit.models.folder_scan import CUSTOM
from vidkit.models.inspection import Inspection
from vidkit.models.locate import card_file, find
from vidkit.models.registry import NAME, Entry, is_same_place, register, registered
from vidkit.settings import Settings

#: the registry's families are vidkit's pipelines
FAMILIES: Final = {"SVD": "svd", "SD 1.5": "animatediff"}
#: file names that say nothing of the model: it goes by its folder's name
GENERIC: Final = ("model", "diffusion_pytorch_model", "pytorch_model", "pytorch_lora_weights", "unet", "adapter_model")


def register_model(
    settings: Settings, inspection: Inspection, name: str | None = None, family: str | None = None, **fields: Any
) -> Entry:
    """Put an inspected model into the registry. What is None is told by the inspection. Raises as `register`.

    name: without one, a free one like its file's or folder's. A model that is registered keeps its name and family.
    """
    path = inspection.path.absolute()
    check_model_allowed(path, settings, "model")
    told = {
        "type": type_of(inspection),
        "size": in_gigabytes(inspection.size),
        "description": inspection.title,
        **{key: value for key, value in fields.items() if value is not None},
    }
    before = next((entry for entry in registered(settings) if is_same_place(entry.path, path)), None)
    name = name or (before.name if before else free_name(path, settings))
    family = family or (before.family if before else FAMILIES.get(inspection.architecture, CUSTOM))
    return register(settings, path, name, family, **told)


def type_of(inspection: Inspection) -> str:
    """As the specification calls it: svd, sd15, sdxl, motion_adapter; the others alike."""
    if inspection.kind == "Stable Video Diffusion":
        return "svd"
    if inspection.kind == "base model":
        return inspection.architecture.lower().replace(" ", "").replace(".", "") or "base_model"
    return inspection.kind.lower().replace(" ", "_").replace("-", "_")


def free_name(path: Path, settings: Settings) -> str:
    """A name that leads to this model alone: its own, its folder's for a file called model.safetensors, or numbered."""
    stem = path.stem if path.is_file() else path.name
    own = stem if stem not in GENERIC else path.parent.name
    letters = "".join(letter if NAME.fullmatch(f"a{letter}") else "-" for letter in own).strip(" .-~")[:80] or "model"
    taken = {entry.name for entry in registered(settings)}
    names = [letters, *(f"{letters}-{number}" for number in range(2, len(taken) + 4))]
    return next(name for name in names if name not in taken and leads_only_to(name, path, settings))


def leads_only_to(name: str, path: Path, settings: Settings) -> bool:
    try:
        return find(name, settings, "model").samefile(path)
    except VidkitError:
        return True


def write_card(published: Published, model: Path) -> None:
    """Put what the catalogue knows of the settings a model was made for where its card is looked for.

    A card that came with it stays. Raises SetupError `output_not_writable`, CriticalError `disk_full`.
    """
    file = card_file(model)
    if not published.card or file.exists():
        return
    card = {"name": published.name, "description": published.title, "licence": published.licence, **published.card}
    with typed_write_errors(file), written_whole(file) as temporary:
        temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def in_gigabytes(size: int) -> str:
    """Bytes as model pages give them: 4.27 GB, 77.4 MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
