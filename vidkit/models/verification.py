"""Whether a model's files still are what they were: read anew and held against every hash that is known of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkit.errors import SetupError
from vidkit.models.files.content_hash import hash_file, hash_model, hashed_files, noted_hash
from vidkit.models.inspection import inspect
from vidkit.models.listing import Listed
from vidkit.settings import Settings


@dataclass(frozen=True)
class Verified:
    """What came of it. message: what was compared, or what is wrong; sha256: of the model as it is now, if readable."""

    name: str
    path: Path
    ok: bool
    message: str
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": str(self.path),
            "ok": self.ok,
            "message": self.message,
            "sha256": self.sha256,
        }


def verify(listed: Listed, settings: Settings, check: Callable[[], None] = lambda: None) -> Verified:
    """Read all files of a model. check: called between blocks; may raise to stop."""
    if listed.problem is not None:
        return Verified(listed.name, listed.path, False, listed.problem)
    try:
        inspect(listed.path)  # a file that was cut off, or a part that is not there
        known = {file: known_hashes(file, settings) for file in hashed_files(listed.path)}
        sha256 = hash_model(listed.path, settings, check, anew=True)
        wrong = [line for file in known for line in differences(file, known[file], settings)]
    except SetupError as error:
        return Verified(listed.name, listed.path, False, error.message)
    registered = listed.entry.text("sha256") if listed.entry else ""
    if registered and registered != sha256:
        wrong.append(f"its hash is {sha256}, the registry has {registered}")
    if wrong:
        return Verified(listed.name, listed.path, False, "; ".join(wrong) + ". Fetch it again.", sha256)
    return Verified(listed.name, listed.path, True, compared(known, registered), sha256)


def known_hashes(file: Path, settings: Settings) -> dict[str, str]:
    """What is known of a file, by who says so."""
    known = {}
    content = file.resolve().name  # the hub's cache calls large files by their hash
    if file.is_symlink() and re.fullmatch("[0-9a-f]{64}", content):
        known["the hub"] = content
    if (noted := noted_hash(file, settings)) is not None:
        known["an earlier look"] = noted
    return known


def differences(file: Path, known: dict[str, str], settings: Settings) -> Iterator[str]:
    for source, expected in known.items():
        if hash_file(file, settings) != expected:
            yield f"{file.name} has another content than {source} says"


def compared(known: dict[Path, dict[str, str]], registered: str) -> str:
    sources = dict.fromkeys(source for by_source in known.values() for source in by_source)
    named = [*(["the registry"] if registered else []), *sources]
    if not named:
        return "Readable; nothing is known to compare it with. Its hash is noted for the next time."
    return f"As {' and '.join(named)} {'say' if len(named) > 1 else 'says'}."
