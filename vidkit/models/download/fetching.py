"""One download from the name to the registered model; reads as a recipe."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

import vidkit
from vidkit.errors import InputError, SetupError
from vidkit.models.download.address import UrlSource, fetch_address
from vidkit.models.download.cancelling import run_until_cancelled
from vidkit.models.download.hub import HubSource, fetch_repository, hub_cache
from vidkit.models.download.links import check_free, link_model, remove_links, take_away
from vidkit.models.download.locks import locked
from vidkit.models.download.progress import Meter
from vidkit.models.download.repository import HubFile
from vidkit.models.download.sources import Wish, wish
from vidkit.models.download.transfer import TIMEOUT
from vidkit.models.entries import register_model, write_card
from vidkit.models.files.content_hash import hash_model, note_hash
from vidkit.models.files.file_format import PICKLES, file_format
from vidkit.models.inspection import Inspection, inspect
from vidkit.models.registry import Entry, check_name, refuse_taken, registered
from vidkit.progress import CancelToken, OnProgress
from vidkit.settings import Settings

#: in the models folder: what has come of files that are not yet whole, and a lock for each source
UNFINISHED: Final = ".downloads"
AGENT: Final = {"User-Agent": f"vidkit/{vidkit.__version__}"}


@dataclass(frozen=True)
class Downloaded:
    """A model that is here now. fetched: bytes that came over the network; sha256: its content hash (hex)."""

    name: str
    path: Path
    inspection: Inspection
    sha256: str
    fetched: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "status": "success",
            "name": self.name,
            "path": str(self.path),
            "kind": self.inspection.kind,
            "architecture": self.inspection.architecture,
            "sha256": self.sha256,
            "size": self.inspection.size,
            "fetched": self.fetched,
            "notes": list(self.notes),
        }


def download(
    wanted: str,
    settings: Settings,
    *,
    name: str | None = None,
    sha256: str | None = None,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> Downloaded:
    """Fetch a model and register it. One that is here already is not fetched again.

    What has come stays when this is cancelled, fails or is killed: the same call goes on from there.

    Args:
        wanted: a name of the catalogue, ORGANISATION/NAME (then @REVISION and /FILE, each if wanted) of the Hugging
            Face hub, or an address (https://...).
        name: what to call it here; else as the catalogue or the server does.
        sha256: for an address: what the file's hash has to be (hex).

    Raises:
        InputError: `invalid_value`, `output_exists`.
        SetupError: `model_not_found`, `access_denied`, `no_network`, `download_failed` (broken for good, or not the
            published file), `invalid_model` (what came is no model), `output_not_writable`, `invalid_config`.
        CriticalError: `disk_full`, where the size is known before it begins.
        Cancelled: the token was set.
    """
    wished = wish(wanted)
    if name is not None:
        check_name(name)
    errand = Errand(
        wished,
        settings,
        name or wished.name,
        checked_sha256(sha256, wished),
        Meter(name or wished.name or wished.shown, on_progress),
        cancel or CancelToken(),
    )
    if (known := errand.already_here(name)) is not None:
        return known
    with quiet_logs():
        return run_until_cancelled(errand.run(name), errand.cancel)


@dataclass(frozen=True)
class Errand:
    """One download. name: what it will be called; None: as the server calls it."""

    wished: Wish
    settings: Settings
    name: str | None
    sha256: str | None
    meter: Meter
    cancel: CancelToken

    async def run(self, wanted_name: str | None) -> Downloaded:
        folder = self.settings.models / UNFINISHED / self.wished.key
        async with locked(folder.with_suffix(".lock"), self.meter):
            if (known := self.already_here(wanted_name)) is not None:  # another process was faster
                return known
            if self.name is not None:
                self.check_registry(self.name)
            async with httpx.AsyncClient(timeout=TIMEOUT, headers=AGENT) as client:
                if isinstance(self.wished.source, UrlSource):
                    inspection, licence = await self.from_address(client, self.wished.source, folder), None
                else:
                    inspection, licence = await self.from_hub(client, self.wished.source)
            self.meter.say(f"{inspection.path.name}: reading its hash", 99)
            sha256 = hash_model(inspection.path, self.settings, self.cancel.check)
            entry = self.enter(inspection, sha256, licence)
        self.meter.say(f"{entry.name} is here: {inspection.title}", 100)
        notes = tuple(remarks(self.wished, inspection, entry))
        return Downloaded(entry.name, inspection.path, inspection, sha256, self.meter.fetched, notes)

    async def from_address(self, client: httpx.AsyncClient, source: UrlSource, folder: Path) -> Inspection:
        return await fetch_address(client, source, self.settings, self.meter, folder, self.name, self.sha256)

    async def from_hub(self, client: httpx.AsyncClient, source: HubSource) -> tuple[Inspection, str | None]:
        """Into the hub's cache, and linked from the models folder; returns what it is, and its licence."""
        target = self.settings.models / str(self.name)
        remove_links(target, hub_cache())
        check_free(target)
        fetched = await fetch_repository(client, source, self.settings, self.meter, self.cancel.check)
        path = link_model(fetched.folder, [file.name for file in fetched.files], target)
        note_hashes(path, fetched.files, self.settings)
        try:
            inspection = inspect(path)
        except SetupError:
            take_away(path)
            raise
        if self.wished.published is not None:
            write_card(self.wished.published, path)
        return inspection, fetched.licence

    # --- the registry

    def already_here(self, wanted_name: str | None) -> Downloaded | None:
        """The registry's model of the same source (and name, if one is wanted), if all of it is there.

        Raises:
            SetupError: `invalid_model`, when its files are there and are a model no more.
        """
        entries = [entry for entry in registered(self.settings) if is_of(entry, self.wished)]
        entries = [entry for entry in entries if wanted_name in (None, entry.name) and is_whole(entry.path)]
        if not entries:
            return None
        known = entries[0]
        try:
            inspection = inspect(known.path)
        except SetupError as error:
            remedy = f"Take it away, then fetch it again: vidkit models remove {known.name} --files"
            raise SetupError(error.code, error.message, [remedy]) from error
        sha256 = known.text("sha256") or hash_model(known.path, self.settings, self.cancel.check)
        self.meter.say(f"{known.name} is here already", 100)
        note = f"It was here already ({known.path}); to fetch it anew: vidkit models remove {known.name} --files"
        return Downloaded(known.name, known.path, inspection, sha256, 0, (note,))

    def check_registry(self, name: str) -> None:
        """Raises:
        InputError: `invalid_value`: another model goes by that name; told before anything is fetched.
        """
        check_name(name)
        refuse_taken(name, (entry for entry in registered(self.settings) if not is_of(entry, self.wished)))

    def enter(self, inspection: Inspection, sha256: str, licence: str | None) -> Entry:
        """Put it into the registry."""
        published = self.wished.published
        return register_model(
            self.settings,
            inspection,
            self.name,
            published.family if published else None,
            description=published.title if published else None,
            source=self.wished.shown,
            sourceKey=self.wished.key,
            catalogue=published.name if published else None,
            licence=published.licence if published else licence,
            nsfw=True if published and published.nsfw else None,
            sha256=sha256,
        )


def is_of(entry: Entry, wished: Wish) -> bool:
    """Whether an entry is this source's. Of those that others wrote, the source alone is known: whole repositories."""
    if (key := entry.text("sourceKey")) or isinstance(wished.source, UrlSource):
        return key == wished.key
    return entry.text("source") == wished.source.repo and wished.source.is_whole


def is_whole(path: Path) -> bool:
    """Whether all is there; links into the hub's cache break when that is cleared."""
    return path.is_file() or (path.is_dir() and all(file.exists() for file in path.rglob("*")))


def note_hashes(path: Path, files: Sequence[HubFile], settings: Settings) -> None:
    """Large files were hashed as they came, or when they were found in the cache."""
    for file in files:
        if file.sha256 is not None:
            note_hash(path if path.is_file() else path / file.name, file.sha256, settings)


def remarks(wished: Wish, inspection: Inspection, entry: Entry) -> Iterator[str]:
    """What to know of it now."""
    if isinstance(wished.source, UrlSource):
        yield from wished.source.notes
    if inspection.path.is_file() and file_format(inspection.path) in PICKLES:
        yield (
            f"{entry.name} is a pickle, a format that can hold code; vidkit reads its weights alone. As safetensors it "
            f"is safe everywhere and loads faster: vidkit models convert {entry.name}"
        )
    if wished.published is not None:
        for need in wished.published.needs:
            yield f"It needs {need.what}" + (f" ({', '.join(need.names)})." if need.names else ".")
        if wished.published.before_use:
            yield wished.published.before_use


# ---


def checked_sha256(sha256: str | None, wished: Wish) -> str | None:
    """Raises:
    InputError: `invalid_value`.
    """
    if sha256 is None:
        return None
    if not isinstance(wished.source, UrlSource):
        raise InputError(
            "invalid_value", "A hash is given for addresses alone; the hub lists its files' hashes.", ["Leave it out"]
        )
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError(
            "invalid_value", f"{sha256[:80]!r} is no SHA-256: that has 64 digits from 0 to f.", ["Copy it again"]
        )
    return sha256.lower()


@contextmanager
def quiet_logs() -> Iterator[None]:
    """HTTP clients log addresses, which may hold a token or a signature."""
    loggers = [logging.getLogger(name) for name in ("httpx", "httpcore", "httpx2", "httpcore2")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
