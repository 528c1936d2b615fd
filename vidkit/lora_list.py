"""The one text that a request names its LoRAs by: "NAME:WEIGHT, NAME:WEIGHT"."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from vidkit.errors import InputError, Remedy

#: the parameter that holds the list
LORAS: Final = "loras"

#: Beyond this nothing but noise is left of a picture; negative weights lead away from what a LoRA was trained on.
MAX_WEIGHT: Final = 4.0


@dataclass(frozen=True)
class LoraEntry:
    """A LoRA by name or path, and how much of it counts: its update of the weights is multiplied by that."""

    name: str
    weight: float = 1.0


def parse_loras(text: str) -> tuple[LoraEntry, ...]:
    """The LoRAs of a list. Without a weight: 1. A name with a comma stands in quotes: "a, b.safetensors":0.5.

    A weight is what follows the last colon, if it is a number, so that paths of Windows have their own colon.

    Raises:
        InputError: `invalid_value` for a LoRA without a name or named twice, `out_of_range` for a weight that is none.
    """
    entries = tuple(entry_of(item.strip()) for item in split_items(text) if item.strip())
    names = [entry.name for entry in entries]
    for entry in entries:
        check_entry(entry, entries)
        if names.count(entry.name) > 1:
            once = tuple({other.name: other for other in entries}.values())
            raise InputError(
                "invalid_value",
                f"loras has {entry.name!r} twice.",
                [Remedy(f"Set loras to {loras_text(once)}", loras=loras_text(once))],
                [LORAS],
            )
    return entries


def split_items(text: str) -> list[str]:
    """At commas, but for those in quotes."""
    try:
        return next(csv.reader([" ".join(text.split("\n"))], skipinitialspace=True), [])
    except csv.Error as error:  # a text longer than any list
        raise InputError("invalid_value", f"loras cannot be read: {error}.", ["Name fewer LoRAs"], [LORAS]) from error


def entry_of(item: str) -> LoraEntry:
    name, colon, tail = item.rpartition(":")
    try:
        return LoraEntry(name.strip(), float(tail)) if colon else LoraEntry(item)
    except ValueError:
        return LoraEntry(item)


def check_entry(entry: LoraEntry, entries: Iterable[LoraEntry]) -> None:
    if not entry.name:
        raise InputError(
            "invalid_value",
            f"loras has a weight, {entry.weight:g}, without a name.",
            ["Write NAME:WEIGHT, NAME:WEIGHT, for example pan-left:0.8, zoom-in:0.5"],
            [LORAS],
        )
    if -MAX_WEIGHT <= entry.weight <= MAX_WEIGHT:
        return
    nearest = 1.0 if math.isnan(entry.weight) else math.copysign(MAX_WEIGHT, entry.weight)
    mended = loras_text(LoraEntry(other.name, nearest) if other == entry else other for other in entries)
    raise InputError(
        "out_of_range",
        f"The weight of the LoRA {entry.name!r} is {entry.weight:g}; it can be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.",
        [Remedy(f"Set loras to {mended}", loras=mended)],
        [LORAS],
    )


def loras_text(entries: Iterable[LoraEntry]) -> str:
    """The list that `parse_loras` reads as these."""
    return ", ".join(f"{quoted_name(entry.name)}:{weight_text(entry.weight)}" for entry in entries)


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name


def weight_text(weight: float) -> str:
    """As short as it can be read back: 0.8, 1."""
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def with_names(text: str, change: Callable[[str], str]) -> str:
    """The same list with each name or path changed."""
    return loras_text(LoraEntry(change(entry.name), entry.weight) for entry in parse_loras(text))
