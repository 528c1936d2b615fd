"""A base model with another UNet in the place of its own: a folder whose weights are links, like any other to use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any, Final

from vidkit.errors import SetupError, VidkitError
from vidkit.models.download.links import check_free, link_folder, take_away
from vidkit.models.entries import register_model
from vidkit.models.files.file_format import FETCH_AGAIN, invalid
from vidkit.models.files.pickles import read_header
from vidkit.models.files.safetensors_header import Header
from vidkit.models.files.weight_files import matches, weight_files
from vidkit.models.inspection import inspect
from vidkit.models.locate import CARD_FILE, describe, find
from vidkit.models.registry import Entry, check_name, refuse_taken, registered
from vidkit.settings import Settings

#: as diffusers calls it, in its folder
UNET_FILE: Final = "unet/diffusion_pytorch_model.safetensors"

#: configurations and vocabularies, which are copied: links out of a model's folder may lead to weights alone
TEXTS: Final = (".json", ".txt")


def combine(base: str, unet: str, name: str, settings: Settings) -> Entry:
    """Put together and register a base model, whose weights stay where they are.

    What both cards say is in its own, and what the UNet's says goes first.

    Args:
        base: a base model in diffusers' layout; unet: a file with a UNet alone, of the same shape; both by any name
            that a request takes. name: what to call the new one, in the models folder.

    Raises:
        SetupError: `model_not_found`, `invalid_model`, `output_not_writable`; InputError: `output_exists`,
            `invalid_value`; CriticalError: `disk_full`.
    """
    target = settings.models / name
    check_name(name)
    refuse_taken(name, registered(settings))  # now: what is put into the models folder is found before the registry's
    check_free(target)
    folder, file = find(base, settings, "base model"), find(unet, settings, "UNet")
    check_base(folder)
    check_unet(file, folder)
    card = json.dumps(both_cards(name, folder, file), indent=2, ensure_ascii=False) + "\n"
    others = without_unet(folder)
    weights = {inside: path for inside, path in others.items() if path.suffix == ".safetensors"}
    texts = {inside: content_of(path) for inside, path in others.items() if path.suffix in TEXTS}
    link_folder({**weights, UNET_FILE: file}, target, {**texts, CARD_FILE: card.encode()})
    try:
        return register_model(settings, inspect(target), name)
    except VidkitError:
        take_away(target)
        raise


def without_unet(folder: Path) -> dict[str, Path]:
    """The files of a base model, by their names in it: all but its UNet's weights, its card and what is hidden."""
    weights = {file.relative_to(folder) for file in matches(folder / "unet")}
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): path
        for name, path in files.items()
        if name not in weights
        and not (name.parent.name == "unet" and name.name.endswith(".index.json"))  # of weights in shards
        and name != Path(CARD_FILE)
        and not any(part.startswith(".") for part in name.parts)
    }


def content_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise invalid(file, f"cannot be read: {error}", FETCH_AGAIN) from error


def check_base(folder: Path) -> None:
    if not folder.is_dir() or not (folder / "unet" / "config.json").is_file():
        raise SetupError(
            "invalid_model",
            f"{folder} is no base model in diffusers' layout, a folder with a unet in it.",
            ["Fetch it so: vidkit models download svd-xt"],
            ["base_model"],
        )


def check_unet(file: Path, folder: Path) -> None:
    """That it is one, and has the same layers as that of the base model."""
    if not file.is_file() or file.suffix.lower() != ".safetensors":
        raise SetupError(
            "invalid_model",
            f"{file} is no UNet in one .safetensors file.",
            [f"Of a folder, name the file in it; a pickle becomes one: vidkit models convert {quote(str(file))}"],
        )
    wanted: dict[str, Any] = {}
    for part in weight_files(folder, "unet", "float16"):
        wanted |= shapes(read_header(part))
    found = shapes(read_header(file))
    if found == wanted:
        return
    key = next(key for key in [*wanted, *found] if found.get(key) != wanted.get(key))
    raise SetupError(
        "invalid_model",
        f"{file} does not fit the UNet of {folder}: {key} is {in_words(found.get(key))}, there "
        f"{in_words(wanted.get(key))}.",
        [f"See what it is: vidkit models inspect {quote(str(file))}", "Choose the base model that it was made from"],
    )


def shapes(header: Header) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, (_, shape) in header.items()}


def in_words(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else f"of shape {shape}"


def both_cards(name: str, base: Path, unet: Path) -> dict[str, Any]:
    """As one; of defaults and ranges each by itself."""
    cards: list[Mapping[str, Any]] = [describe(base).card, describe(unet).card]
    inner = {key: {**cards[0].get(key, {}), **cards[1].get(key, {})} for key in ("defaults", "ranges")}
    return {**cards[0], **cards[1], "name": name, **{key: value for key, value in inner.items() if value}}
