"""What inspection tells of a model, as a table that a person reads."""

from __future__ import annotations

from typing import Any

from vidkit.models.checkpoints.licence import licence_beside
from vidkit.models.entries import in_gigabytes
from vidkit.models.inspection import Inspection


def in_words(found: Inspection) -> dict[str, str]:
    """What it is, class, layout, size, licence, parameters and precision, and all else that its files say."""
    told = {
        "is": found.title,
        "class": found.class_name or "none of diffusers' own",
        "layout": found.layout,
        "size": in_gigabytes(found.size),
        "parameters": f"{found.parameters / 1e6:,.1f} million, {', '.join(found.dtypes)}",
        "licence": licence_beside(found.path) or "unknown: see where it was fetched from",
    }
    return told | {key.replace("_", " "): written(value) for key, value in found.details.items()}


def written(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
