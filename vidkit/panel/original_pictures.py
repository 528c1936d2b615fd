"""Where the pictures of clips lie on this machine: manifests and clips hold names and hashes, no paths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vidkit.errors import InputError
from vidkit.files import remember
from vidkit.models.locate import picture_path
from vidkit.paths import local_path
from vidkit.record import file_identity
from vidkit.settings import Settings

EXAMPLE_PREFIX = "example:"


def remember_picture(wanted: str, identity: Mapping[str, str], settings: Settings) -> None:
    """Keep where a picture lay when a clip was made of it. wanted: as in the request; identity: `file_identity`."""
    path = wanted if wanted.startswith(EXAMPLE_PREFIX) else str(local_path(wanted).absolute())
    remember(place_of(identity["sha256"], settings), {"path": path})


def remembered_picture(identity: Mapping[str, str], settings: Settings) -> str | None:
    """The picture as a request names it, if it still lies where a clip was last made of it, unchanged."""
    sha256 = identity.get("sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, InputError):  # no entry, a broken one, or another file now
        wanted = str(json.loads(place_of(sha256, settings).read_text(encoding="utf-8"))["path"])
        if content(file_identity(picture_path(wanted))) == content(identity):
            return wanted
    return None


def place_of(sha256: str, settings: Settings) -> Path:
    return settings.cache / "pictures" / f"{sha256}.json"


def content(identity: Mapping[str, str]) -> dict[str, str]:
    return {kind: sha256 for kind, sha256 in identity.items() if kind != "name"}
