"""One run's folder: where its files are, and how its manifest is written and read."""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from vidkit.errors import VidkitError, internal_error
from vidkit.files import typed_write_errors, written_whole
from vidkit.params import OutputFormat
from vidkit.runs.manifest import Manifest
from vidkit.video import sidecar_path

logger = logging.getLogger("vidkit")

#: of the 64 hex digits of a key, so many name its folder
NAME_LENGTH: Final = 16
FOLDER_NAME: Final = re.compile(f"[0-9a-f]{{{NAME_LENGTH}}}")
LOCKS_FOLDER: Final = ".locks"
#: what a run makes; anything else in its folder is the user's
MADE: Final = ("clip.*", "poster.png", "notebook.ipynb", "manifest.json", ".*.part*")


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, whether it is there or not. key: the content key, or the folder's name, which begins it."""

    root: Path
    key: str

    @property
    def name(self) -> str:
        return self.key[:NAME_LENGTH]

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def poster(self) -> Path:
        return self.path / "poster.png"

    @property
    def notebook(self) -> Path:
        return self.path / "notebook.ipynb"

    @property
    def lock(self) -> Path:
        """Beside the run folders, so that a folder can be removed; it stays when it is no longer held."""
        return self.root / LOCKS_FOLDER / f"{self.name}.lock"

    def clip(self, output_format: OutputFormat = "mp4") -> Path:
        return self.path / f"clip.{output_format}"

    def is_done(self) -> bool:
        """Whether the run's manifest is in place, whole and of this key, and its clip beside it."""
        return read_manifest(self) is not None

    def has_failed(self) -> bool:
        """Whether the run's last attempt failed, and none has succeeded."""
        return read_failure(self) is not None and not self.is_done()

    def attempts(self) -> int:
        """How often the run has failed so far."""
        failure = read_failure(self)
        return failure.attempts if failure else 0

    def clear(self) -> None:
        """Remove what attempts have left, but a failure's report. Only for who holds the claim."""
        with suppress(FileNotFoundError):
            for pattern in MADE:
                for file in self.path.glob(pattern):
                    file.unlink(missing_ok=True)


def run_folders(root: Path) -> list[RunFolder]:
    """All runs in a root, by name; none where there is no such folder."""
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if FOLDER_NAME.fullmatch(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []
    return [RunFolder(root, name) for name in names]


def write_manifest(run: RunFolder, manifest: Manifest | Mapping[str, Any]) -> None:
    """Make a run count as done: its files reach the disk, then the manifest appears by a rename. Hold its claim.

    Raises:
        CriticalError: `disk_full`; SetupError: `output_not_writable`. Then the run does not count.
        ValueError: the manifest is not that of a run that is done, or a file it names is not there.
    """
    document = checked(run, manifest, "done")
    with typed_write_errors(run.manifest):
        for name in document.files.values():
            flush(run.path / name)
            if sidecar_path(run.path / name).is_file():
                flush(sidecar_path(run.path / name))
        write_document(run.manifest, document)
    run.failure.unlink(missing_ok=True)


def write_failure(run: RunFolder, failure: Manifest | Mapping[str, Any]) -> None:
    """Record that a run's attempt failed, its error filled in (`describe_error`). Raises as `write_manifest`."""
    document = checked(run, failure, "failed")
    with typed_write_errors(run.failure):
        run.path.mkdir(parents=True, exist_ok=True)
        write_document(run.failure, document)


def checked(run: RunFolder, document: Manifest | Mapping[str, Any], status: str) -> Manifest:
    """As it will be read back: a lone surrogate (of a file name that is no Unicode) is no text, and becomes "?"."""
    content = document.to_json() if isinstance(document, Manifest) else dict(document)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    manifest = Manifest.model_validate_json(text.encode("utf-8", "replace"))
    if manifest.status != status or not manifest.key.startswith(run.key):
        raise ValueError(f"{manifest.status} run {manifest.key} is not the {status} run {run.key}")
    missing = [name for name in manifest.files.values() if not (run.path / name).is_file()]
    if missing and status == "done":
        raise ValueError(f"{run.path} has no {', '.join(missing)}")
    return manifest


def write_document(path: Path, document: Manifest) -> None:
    text = json.dumps(document.to_json(), indent=1, ensure_ascii=False) + "\n"
    with written_whole(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for folder in (path.parent, path.parent.parent):
        flush_folder(folder)


def flush(file: Path) -> None:
    """To the disk: or a power cut could leave the manifest there and this file empty."""
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def flush_folder(folder: Path) -> None:
    """The names in a folder, to the disk; where the system has no way to (Windows), it does so by itself."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_manifest(run: RunFolder) -> Manifest | None:
    """The manifest of a run that is done; None for any other. A damaged one is named in the log, and does not count."""
    manifest, problem = read_document(run, run.manifest, "done")
    if problem:
        logger.warning("%s; the run does not count as done", problem)
    return manifest


def read_failure(run: RunFolder) -> Manifest | None:
    """The report of a run's last failure; None when there is none, or it is damaged, which the log says."""
    failure, problem = read_document(run, run.failure, "failed")
    if problem:
        logger.warning("%s; the failure does not count", problem)
    return failure


def read_document(run: RunFolder, path: Path, status: str) -> tuple[Manifest | None, str | None]:
    """A manifest, or why it does not count: (None, None) when there is none."""
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror or error}"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return None, f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}"
    if manifest.status != status or not manifest.key.startswith(run.key):
        return None, f"{path} is that of another run ({manifest.status} {manifest.key})"
    if status == "done" and not has_content(run.path / manifest.files["clip"]):
        return None, f"{path} names a clip that is missing or empty: {manifest.files['clip']}"
    return manifest, None


def has_content(file: Path) -> bool:
    with suppress(OSError):
        return file.stat().st_size > 0
    return False


def describe_error(error: Exception) -> dict[str, Any]:
    """An exception as the `error` of a failed run: code, category, message, suggestions, traceback."""
    typed = error if isinstance(error, VidkitError) else internal_error(error)
    return {
        "code": typed.code,
        "category": typed.category,
        "message": typed.message,
        "suggestions": typed.suggestions,
        "traceback": "".join(traceback.format_exception(error)),
    }
