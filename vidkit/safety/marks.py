"""Models that the registry marks as made for adult pictures: `"nsfw": true`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidkit.errors import SetupError
from vidkit.models.files.content_hash import hash_model, hashed_bytes
from vidkit.models.locate import Model
from vidkit.models.registry import Entry, is_same_place, registered
from vidkit.settings import Settings


def marked_model(
    models: Mapping[str, Model], settings: Settings, hashes: Mapping[str, str] | None = None
) -> tuple[str, Entry] | None:
    """The first of a request's models that is marked, by its place whatever the request calls it: its parameter, and
    the entry that marks it.

    hashes: SHA-256 of the models, where they are known: a copy of a marked model is marked too. A marked model of which
        the registry has no hash is hashed once, where it has as many bytes as one of these.

    Raises:
        SetupError: `invalid_config`, for a broken registry: nobody knows then what is marked.
    """
    own = {name: model for name, model in models.items() if not model.is_bundled}
    if not own:
        return None
    for entry in registered(settings):
        if not is_marked(entry.fields.get("nsfw")):
            continue
        for name, model in own.items():
            if is_same_place(entry.path, model.path) or is_copy(model.path, (hashes or {}).get(name), entry, settings):
                return name, entry
    return None


def is_copy(path: Path, sha256: str | None, entry: Entry, settings: Settings) -> bool:
    """Whether a model is an entry's by its content. sha256: of the model, None where it is not known."""
    if sha256 is None:
        return False
    if entry.text("sha256"):
        return sha256 == entry.text("sha256").lower()
    with suppress(SetupError):  # an entry that cannot be read, or is not there, tells of no content
        same_size = not entry.is_missing and hashed_bytes(entry.path) == hashed_bytes(path)
        return same_size and hash_model(entry.path, settings) == sha256
    return False


def is_marked(value: Any) -> bool:
    """Other programs write this file: what is not plainly a no is a mark."""
    return str(value).strip().lower() not in ("none", "false", "no", "0", "")
