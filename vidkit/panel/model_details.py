"""What a model's files say of it, as the panel shows it. Reads headers, no weights."""

from __future__ import annotations

from typing import Any

from vidkit.models.checkpoints.words import in_words
from vidkit.panel.model_list import Found


def details(found: Found) -> dict[str, Any]:
    """Place, what it is, class, size, licence, parameters and precision; what vidkit's card says of it."""
    told: dict[str, Any] = {"path": str(found.path), "origin": found.origin}
    if found.inspection is not None:
        told |= in_words(found.inspection)
    if found.model is not None:
        card = found.model.card
        told |= {key: value for key, value in card.items() if key == "licence"}
        told |= {f"card: {key}": value for key, value in card.items() if key != "licence"}
    if found.problem is not None:
        told["problem"] = found.problem
    return told
