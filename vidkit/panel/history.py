"""The clips that were made, as they stand on disk: runs of the panel and of sweeps, stars, and a trash that gives back.

Nothing is kept in memory that is not on disk, so a new process sees the same; manifests are read again only when they
have changed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from vidkit.files import typed_write_errors, written_whole
from vidkit.panel.original_pictures import remembered_picture
from vidkit.panel.thumbnails import thumbnail_of
from vidkit.params import GenerationParams
from vidkit.record import remade
from vidkit.runs import Manifest, RunFolder, read_manifest, run_folders
from vidkit.runs.folder import FOLDER_NAME, has_content
from vidkit.settings import load_settings

logger = logging.getLogger("vidkit")

STARS_FILE: Final = ".stars.json"
TRASH: Final = ".trash"

#: what the filter looks for words in
SEARCHED: Final = ("prompt", "negativePrompt", "seed", "pipeline", "conditioning")


@dataclass(frozen=True)
class Entry:
    """A finished clip. sweep: the name of the sweep's folder, None for a clip of the panel; finished: ISO 8601."""

    run: RunFolder
    manifest: Manifest
    starred: bool
    sweep: str | None
    finished: str | None
    clip: Path

    @property
    def id(self) -> str:
        """Where it stands below the root: stars are kept by it."""
        return f"{self.sweep}/{self.run.name}" if self.sweep else self.run.name


@dataclass(frozen=True)
class Known:
    """A manifest that was read. stamp: tells whether it has changed; when: seconds since 1970; words: to be searched.

    entry: None when the run does not count as done."""

    stamp: tuple[int, ...]
    when: float
    words: str
    entry: Entry | None


class History:
    """The clips in the run folders of `root`, and in those of the sweeps `root/NAME`. Safe in several processes.

    Args:
        cache: the cache folder; `thumbnails/` in it may be emptied at any time.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.cache = cache / "thumbnails"
        self._known: dict[str, Known] = {}

    def entries(self, *, starred_only: bool = False, text: str = "") -> list[Entry]:
        """Newest first. text: words that must all stand in its prompt, seed, model, picture, sweep or date."""
        stars, words = self._stars(), text.lower().split()
        known = {id_: self._read(run, id_, sweep) for run, sweep, id_ in self._folders()}
        self._known = known  # what is gone is forgotten
        found = [
            (one.when, id_, replace(one.entry, starred=True) if id_ in stars else one.entry)
            for id_, one in known.items()
            if one.entry and (id_ in stars or not starred_only) and all(word in one.words for word in words)
        ]
        return [entry for _, _, entry in sorted(found, key=lambda one: one[:2], reverse=True)]

    def entry(self, run: RunFolder) -> Entry | None:
        """A run as an entry, if it is done and stands in this history."""
        return next((one for one in self.entries() if one.run.path == run.path), None)

    def star(self, entry: Entry, on: bool) -> None:
        """Raises SetupError `output_not_writable`, CriticalError `disk_full`."""
        with typed_write_errors(self.root / STARS_FILE), FileLock(self.root / f"{STARS_FILE}.lock"):
            stars = self._stars()
            changed = stars | {entry.id} if on else stars - {entry.id}
            with written_whole(self.root / STARS_FILE) as temporary:
                temporary.write_text(json.dumps(sorted(changed), indent=1) + "\n", encoding="utf-8")

    def delete(self, entry: Entry) -> None:
        """Move a run into the trash, from which `undo` brings it back, also after a restart. Raises as `star`."""
        if not entry.run.path.is_dir():
            return  # another process was faster
        # names grow, also where the clock goes back: the last one is the last deleted
        target = self.root / TRASH / f"{max(time.time_ns(), self._last_bin() + 1):020d}" / entry.id
        with typed_write_errors(target):
            target.parent.mkdir(parents=True)
            entry.run.path.rename(target)

    def undo(self) -> Entry | None:
        """Bring back what was deleted last; None when the trash is empty. Raises as `star`."""
        for bin_, trashed in self._trashed():
            back = self.root / trashed.relative_to(bin_)
            with typed_write_errors(back):
                if RunFolder(back.parent, back.name).is_done():
                    logger.info("%s was made again meanwhile; the deleted copy is dropped", back)
                else:
                    back.parent.mkdir(parents=True, exist_ok=True)
                    shutil.rmtree(back, ignore_errors=True)  # what a killed process left of making it again
                    trashed.rename(back)
                shutil.rmtree(bin_, ignore_errors=True)
            return self.entry(RunFolder(back.parent, back.name))
        return None

    def trash(self) -> tuple[int, int]:
        """How many clips the trash holds, and how many bytes."""
        trashed = [path for _, path in self._trashed()]
        files = [file for path in trashed for file in path.rglob("*") if file.is_file()]
        return len(trashed), sum(file.stat().st_size for file in files)

    def empty_trash(self) -> None:
        """For good. Raises as `star`."""
        if (self.root / TRASH).is_dir():
            with typed_write_errors(self.root / TRASH):
                shutil.rmtree(self.root / TRASH)

    def thumbnail(self, entry: Entry) -> bytes:
        """A small looped animated WebP: at most 12 frames, 160 pixels and about 60 KB.

        It takes up to a second the first time, then it is read from the cache. Raises InputError: the clip is damaged.
        """
        return thumbnail_of(entry.clip, entry.manifest.key, self.cache, fps=entry.manifest.request.get("fps", 8))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _folders(self) -> Iterator[tuple[RunFolder, str | None, str]]:
        """Run folders, each with the name of its sweep and its id."""
        for run in run_folders(self.root):
            yield run, None, run.name
        for sweep in subfolders(self.root):
            if not sweep.startswith(".") and not FOLDER_NAME.fullmatch(sweep):
                for run in run_folders(self.root / sweep):
                    yield run, sweep, f"{sweep}/{run.name}"

    def _read(self, run: RunFolder, id_: str, sweep: str | None) -> Known:
        """What is known of a run; its manifest is read when it is new or has changed."""
        try:
            folder, status = run.path.stat(), run.manifest.stat()
        except OSError:
            return Known((), 0, "", None)
        stamp = (status.st_mtime_ns, status.st_size, folder.st_mtime_ns)
        before = self._known.get(id_)
        if before and before.stamp == stamp and (before.entry is None or has_content(before.entry.clip)):
            return before
        manifest = read_manifest(run)
        if manifest is None:
            return Known(stamp, 0, "", None)
        entry = Entry(run, manifest, False, sweep, manifest.finished, run.path / manifest.files["clip"])
        return Known(stamp, moment(manifest.finished, status.st_mtime), searched(entry), entry)

    def _stars(self) -> set[str]:
        try:
            content = json.loads((self.root / STARS_FILE).read_text(encoding="utf-8"))
            return {str(id_) for id_ in content}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s cannot be read, so no clip has a star: %s", self.root / STARS_FILE, error)
            return set()

    def _trashed(self) -> list[tuple[Path, Path]]:
        """The trash's bins, newest first, each with the run folder in it."""
        found = []
        for name in sorted(subfolders(self.root / TRASH), reverse=True):
            bin_ = self.root / TRASH / name
            inside = [path for path in [*bin_.glob("*"), *bin_.glob("*/*")] if FOLDER_NAME.fullmatch(path.name)]
            found += [(bin_, path) for path in inside[:1]]
        return found

    def _last_bin(self) -> int:
        return max((int(name) for name in subfolders(self.root / TRASH) if name.isdecimal()), default=0)


def params_of(entry: Entry) -> GenerationParams:
    """All settings of a clip and its picture: the file it was made of, if that is still there; else the clip itself,
    which holds the fitted picture.

    Raises:
        InputError: its request is none that this version understands.
    """
    manifest, settings = entry.manifest, load_settings()
    record = {"request": manifest.request, "models": manifest.models, "pictures": manifest.pictures}
    request: dict[str, Any] = remade(record, entry.clip)
    for key, identity in zip(("imagePath", "lastImagePath"), manifest.pictures, strict=False):
        original = remembered_picture(identity, settings)
        bare = (manifest.model_extra or {}).get("bare")
        request[key] = original or (identity.get("name", "") if bare else request[key])
    return GenerationParams(**request)


def subfolders(folder: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return sorted(entry.name for entry in found if entry.is_dir())
    return []


def moment(finished: str | None, otherwise: float) -> float:
    """Seconds since 1970."""
    with suppress(ValueError, TypeError):
        told = datetime.fromisoformat(finished or "")
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    return otherwise


def searched(entry: Entry) -> str:
    """What the filter looks for words in, in small letters."""
    manifest = entry.manifest
    texts: Iterable[Any] = (
        *(manifest.request.get(name, "") for name in SEARCHED),
        *(model.get("name", "") for model in manifest.models.values()),
        *(picture.get("name", "") for picture in manifest.pictures),
        entry.sweep or "",
        (manifest.finished or "")[:10],
    )
    return " ".join(str(text) for text in texts).lower()
