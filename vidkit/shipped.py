"""The notebooks and parameter files that ship with vidkit: where they lie, and copies of them that a user may change.

A wheel has them under share/vidkit/ of the environment (data-files in pyproject.toml); in a clone they are the
top-level folders.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from vidkit.errors import SetupError
from vidkit.files import typed_write_errors, written_whole

Shipped = Literal["notebooks", "parameters"]

#: in a folder of copies: the SHA-256 of each file as vidkit last put it there, by which a user's change is known
COPIES: Final = ".vidkit-copies.json"


def shipped(name: Shipped) -> Path:
    """The folder of that name: of the clone that vidkit runs from, else where the installer put it.

    Raises:
        SetupError: `missing_dependency`, when it is not there: the installation is not whole.
    """
    beside = Path(__file__).parents[1]
    clone = [beside / name] if (beside / "pyproject.toml").is_file() else []
    for folder in (*clone, *installed(name), beside / "share" / "vidkit" / name):  # the last: pip install --target
        if folder.is_dir():
            return folder.resolve()
    raise SetupError(
        "missing_dependency",
        f"vidkit's {name} are not there: this installation of vidkit is not whole.",
        ["Install it again: pip install --force-reinstall --no-deps, and the wheel"],
    )


def installed(name: Shipped) -> list[Path]:
    """Where the installer's own list of files has the folder."""
    try:
        files = importlib.metadata.files("vidkit") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    ending = ("share", "vidkit", name)
    return list(dict.fromkeys(Path(str(file.locate())).parent for file in files if file.parent.parts[-3:] == ending))


@dataclass
class Copies:
    """What `copy_shipped` did, as names below the folder.

    written: new, or vidkit's newer version of what was not changed; kept: changed by the user, and left so; outdated:
    those of them that vidkit has a newer version of.
    """

    folder: Path
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)


def copy_shipped(folder: Path) -> Copies:
    """Copy notebooks/ and parameters/ into a folder; what its user changed there is never written over.

    Raises:
        SetupError: `output_not_writable`; `missing_dependency`, as `shipped`. CriticalError: `disk_full`.
    """
    copies, record = Copies(folder), folder / COPIES
    with typed_write_errors(folder):
        before = read_copies(record)
        after = dict(before)
        for name, source in files_to_copy():
            content, target = source.read_bytes(), folder / name
            ours, theirs = digest(content), digest(target.read_bytes()) if target.is_file() else None
            if theirs not in (None, ours, before.get(name)):
                copies.kept.append(name)
                if ours != before.get(name):
                    copies.outdated.append(name)
                continue
            if theirs != ours:
                target.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(target) as temporary:
                    temporary.write_bytes(content)
                copies.written.append(name)
            after[name] = ours
        if after != before:
            with written_whole(record) as temporary:
                temporary.write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")
    return copies


def files_to_copy() -> Iterator[tuple[str, Path]]:
    """Each file's name below the folder of copies, and where it ships."""
    for name in get_args(Shipped):
        for source in sorted(shipped(name).iterdir()):
            if source.suffix in (".ipynb", ".yaml"):
                yield f"{name}/{source.name}", source


def read_copies(record: Path) -> dict[str, str]:
    """Without the record, or with a damaged one, whatever differs from vidkit's counts as the user's."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
