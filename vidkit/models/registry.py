"""The registry of models, `models.json` in the models folder: names for models wherever they lie.

Its shape: families, in them entries by name, and a list of custom ones.

    {"svd": {"svd-xt": {"path": "D:\\\\models\\\\svd-xt", "type": "svd", "size": "10GB", "description": "...",
                        "source": "stabilityai/...", "nsfw": false, "sha256": "..."}},
     "custom": [{"name": "mine", "path": "..."}]}

Programs on Windows share this file. So it is changed entry by entry: what is not understood is kept, and so is the way
in which paths are written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from vidkit.errors import InputError, SetupError
from vidkit.files import typed_write_errors, written_whole
from vidkit.paths import is_windows_path, local_path, on_drive, wsl_to_windows_path
from vidkit.settings import Settings

FILE_NAME: Final = "models.json"
CUSTOM: Final = "custom"

#: what a name may be, so that it is never taken for a path, a bundled model, an option or the end of a name in a list
NAME: Final = re.compile(r"[^\s/\\,:~.\-][^/\\,:\x00-\x1f]{0,99}")

Content = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A registered model. path: on this machine; written: as the file has it; fields: all that the file says of it."""

    name: str
    family: str
    path: Path
    written: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_missing(self) -> bool:
        """Whether nothing is at its path, or nothing that can be reached."""
        try:
            return not self.path.exists()
        except OSError:
            return True

    def text(self, key: str) -> str:
        """A field (type, size, description, source, sha256, ...) as text, "" where it is not told."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""


def registry_file(settings: Settings) -> Path:
    return settings.models / FILE_NAME


def registered(settings: Settings) -> list[Entry]:
    """All entries, in the file's order; none where there is no file.

    Raises:
        SetupError: `invalid_config`, when the file is not of the known shape; it is left as it is.
    """
    file = registry_file(settings)
    return list(entries_of(read_document(file), file))


def find_registered(wanted: str, settings: Settings) -> Entry | None:
    """The entry of a name, or of FAMILY/NAME; one whose model is there first. Raises as `registered`."""
    matches = [one for one in registered(settings) if wanted in (one.name, f"{one.family}/{one.name}")]
    return min(matches, key=lambda one: one.is_missing, default=None)


def register(settings: Settings, path: Path, name: str, family: str, **fields: Any) -> Entry:
    """Put a model into the registry. One that is there by its path gets the new name, family and fields.

    fields: those that are None are left out. Several processes may do so at once: none loses the other's entry.

    Raises:
        InputError: `invalid_value`: no name, or one that another model has.
        SetupError: `invalid_config`, as `registered`; `output_not_writable`. CriticalError: `disk_full`.
    """
    check_name(name)
    given = {key: value for key, value in fields.items() if value is not None}
    file = registry_file(settings)

    def put(content: Content) -> Entry:
        entries = list(entries_of(content, file))
        before = next((one for one in entries if is_same_place(one.path, path)), None)
        refuse_taken(name, (one for one in entries if one is not before))
        written = before.written if before else as_written(path, entries)
        kept = dict(before.fields) if before else {}
        kept.pop("name", None)
        entry = Entry(name, family, path, written, {**kept, "path": written, **given})
        stays = before is not None and before.family == family and (family == CUSTOM or before.name == name)
        if before is not None and not stays:
            take(content, before, file)
        place(content, entry, file)
        return entry

    return change(file, put)


def refuse_taken(name: str, others: Iterable[Entry]) -> None:
    """Raises:
    InputError: `invalid_value`: one of the other models has the name.
    """
    taken = next((one for one in others if one.name == name), None)
    if taken is not None:
        raise InputError(
            "invalid_value",
            f"The registry has another model of the name {name!r}: {taken.written}.",
            ["Give the new one another name: --name NAME", f"Or take it off: vidkit models remove {name}"],
        )


def unregister(settings: Settings, wanted: str) -> Entry:
    """Take a model off the registry, by its name, FAMILY/NAME or path; its files stay.

    Raises:
        SetupError: `model_not_found`, when the registry has none of that name; and as `register`.
    """
    file = registry_file(settings)

    def remove(content: Content) -> Entry:
        entries = list(entries_of(content, file))
        named = [one for one in entries if wanted in (one.name, f"{one.family}/{one.name}", one.written)]
        found = named or [one for one in entries if is_same_place(one.path, Path(wanted))]
        if not found:
            raise SetupError(
                "model_not_found",
                f"The registry {file} has no model {wanted[:200]!r}.",
                [
                    *(f"Did you mean {name}?" for name in get_close_matches(wanted, [one.name for one in entries], 2)),
                    "See vidkit models list for the names",
                ],
            )
        take(content, found[0], file)
        return found[0]

    return change(file, remove)


def check_name(name: str) -> None:
    """Raises:
    InputError: `invalid_value`.
    """
    if not NAME.fullmatch(name) or name != name.rstrip():
        raise InputError(
            "invalid_value",
            f"{name[:200]!r} cannot be a model's name.",
            ["Use up to 100 letters, digits, spaces, dots and hyphens; no slash, comma or colon"],
        )


# --- the file


def read_document(file: Path) -> Content:
    """The whole file, {} where there is none. UTF-8, with a byte order mark or without, or UTF-16."""
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=without_doubles)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_registry(file, str(error)) from error
    if not isinstance(content, dict):
        raise invalid_registry(file, "expected a JSON object")
    return content


def without_doubles(pairs: list[tuple[str, Any]]) -> Content:
    """Of two entries of one name JSON keeps the last: writing would lose the first."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def entries_of(content: Content, file: Path) -> Iterator[Entry]:
    """What has a path is an entry; anything else in the file is not ours, and kept."""
    for family, group in content.items():
        if isinstance(group, dict):
            for name, fields in group.items():
                if isinstance(fields, dict) and "path" in fields:
                    yield entry_of(name, family, fields, file)
        elif family == CUSTOM and isinstance(group, list):
            for fields in group:
                if isinstance(fields, str):
                    yield entry_of("", family, {"path": fields}, file)
                elif isinstance(fields, dict) and "path" in fields:
                    yield entry_of(str(fields.get("name", "")), family, fields, file)


def entry_of(name: str, family: str, fields: Content, file: Path) -> Entry:
    """name "": told by the path. Relative paths are relative to the models folder."""
    written = fields["path"]
    if not isinstance(written, str) or not written or "\0" in written:
        raise invalid_registry(file, f"the path of {name or family!r} is {written!r}")
    try:
        path = file.parent.absolute() / local_path(written)
    except InputError as error:
        if not is_windows_path(written):
            raise invalid_registry(file, f"the path {written!r} leads nowhere: {error}") from error
        path = file.parent.absolute() / written  # on a drive that is not here now: missing like any other
    return Entry(name or path.stem, family, path, written, fields)


def place(content: Content, entry: Entry, file: Path) -> None:
    """Put an entry into the content, in the place of the one of its name and family if there is one."""
    group = content.setdefault(entry.family, [] if entry.family == CUSTOM else {})
    fields = dict(entry.fields)
    if isinstance(group, dict):
        group[entry.name] = fields
    elif isinstance(group, list):
        index = next((index for index, one in enumerate(group) if is_same(one, entry, file)), len(group))
        group[index : index + 1] = [{"name": entry.name, **fields}]
    else:
        raise invalid_registry(file, f"{entry.family!r} holds no entries")


def take(content: Content, entry: Entry, file: Path) -> None:
    """Take an entry out of the content."""
    group = content[entry.family]
    if isinstance(group, dict):
        del group[entry.name]
    else:
        group[:] = [one for one in group if not is_same(one, entry, file)]


def is_same(one: Any, entry: Entry, file: Path) -> bool:
    """Whether an item of the custom list is this entry."""
    return any(other.written == entry.written for other in entries_of({CUSTOM: [one]}, file))


def is_same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place, whether anything is there or not."""
    return os.path.realpath(one) == os.path.realpath(other)


def as_written(path: Path, entries: list[Entry]) -> str:
    """How a new path is written: as Windows reads it where the others are, if it lies on one of its drives."""
    windows = wsl_to_windows_path(str(path))
    shared = any(is_windows_path(one.written) for one in entries) and on_drive(windows)
    return windows if shared else str(path)


def change(file: Path, act: Callable[[Content], Entry]) -> Entry:
    """Read the file, change its content and write it whole, while no other process does. Raises what `act` raises."""
    with typed_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            content = read_document(file)
            entry = act(content)
            # a lone surrogate, of a file name that is no Unicode, becomes its escape
            text = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
            with written_whole(file, durable=True) as temporary:
                temporary.write_bytes(text + b"\n")
    return entry


def invalid_registry(file: Path, reason: str) -> SetupError:
    return SetupError(
        "invalid_config",
        f"The registry of models {file} cannot be read: {reason}.",
        [f"Mend {file}: it is left as it is", "Or move it away; models in the models folder need no registry"],
    )
