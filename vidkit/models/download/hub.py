"""Models of a Hugging Face hub, into the hub's own cache, where other tools find them too.

The client resolves names, holds the tokens and lays out the cache. Only the large files are moved here: the client
deletes what it has of a file when it is stopped, and over plain HTTP it does not look at the hash.
"""

from __future__ import annotations

import asyncio
import glob
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from huggingface_hub import HfApi, constants, get_token, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.errors import HTTPError as HubConnectionError  # type: ignore[attr-defined]  # its client's own
from huggingface_hub.file_download import are_symlinks_supported, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
from tqdm import tqdm

import vidkit
from vidkit.errors import InputError, SetupError, VidkitError
from vidkit.models.download.locks import locked
from vidkit.models.download.problems import check_space, failed, hub_refused, no_network
from vidkit.models.download.progress import Meter
from vidkit.models.download.repository import HubFile, wanted_files
from vidkit.models.download.transfer import Order, transfer
from vidkit.models.files.content_hash import hash_file
from vidkit.settings import Settings

#: files of a repository that come at the same time
AT_ONCE: Final = 4


@dataclass(frozen=True)
class HubSource:
    """repo: "ORGANISATION/NAME". files: patterns of those wanted, none: what loading needs. nearest: similar names."""

    repo: str
    revision: str | None = None
    files: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is a folder, not one file of several in the repository."""
        return len(self.files) != 1 and self.revision is None

    @property
    def noted(self) -> str:
        """What tells sources apart."""
        revision = f"@{self.revision}" if self.revision else ""
        return self.repo + revision + (f"/{','.join(self.files)}" if self.files else "")


@dataclass(frozen=True)
class Fetched:
    """folder: the snapshot in the hub's cache; files: what was wanted of it; licence: as the repository's card says."""

    folder: Path
    files: tuple[HubFile, ...]
    licence: str | None


def hub_cache() -> Path:
    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


class Silent(tqdm):  # type: ignore[type-arg]
    """The client's bars, which nobody sees."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.pop("name", None)
        super().__init__(*arguments, **{**options, "disable": True})


async def fetch_repository(
    client: httpx.AsyncClient, source: HubSource, settings: Settings, meter: Meter, check: Callable[[], None]
) -> Fetched:
    """Fetch what is needed and not yet here. check: raises to stop a long reading of files.

    Raises:
        SetupError: `model_not_found`, `access_denied`, `no_network`, `download_failed`, `output_not_writable`.
        InputError: `invalid_value`. CriticalError: `disk_full`, before it begins or when it fills up meanwhile.
    """
    repository = await asyncio.to_thread(listing_of, source)
    wanted = wanted_files(source.repo, repository.files, source.files)
    large = [file for file in wanted if file.sha256 is not None]
    meter.total = sum(file.size for file in large)
    missing = await asyncio.to_thread(repository.not_here, large, settings, meter, check)
    needed = sum(file.size - repository.begun(file) for file in missing)
    remedy = "Set HF_HOME to a folder on a larger disk"
    check_space(source.repo, needed, repository.cache, remedy)
    await all_of([repository.fetch(client, file, meter) for file in missing], AT_ONCE)
    meter.say(f"{source.repo}: putting it in order")
    folder = await asyncio.to_thread(repository.complete, wanted)
    await asyncio.to_thread(check_small, source.repo, folder, wanted)
    return Fetched(folder, tuple(wanted), repository.licence)


class Repository:
    """A repository as the hub lists it now, and its place in the cache."""

    def __init__(self, source: HubSource, commit: str, files: Sequence[HubFile], licence: str | None) -> None:
        self._source, self._commit, self.files, self.licence = source, commit, files, licence
        self.cache = hub_cache()
        self._name = repo_folder_name(repo_id=source.repo, repo_type="model")

    @property
    def _blobs(self) -> Path:
        return self.cache / self._name / "blobs"

    def snapshot_file(self, file: HubFile) -> Path:
        return self.cache / self._name / "snapshots" / self._commit / file.name

    def place(self, file: HubFile) -> Path:
        """Where the bytes of a large file belong: under their hash, which snapshots link to where links can be made."""
        if are_symlinks_supported(self.cache):
            return self._blobs / str(file.sha256)
        return self.snapshot_file(file)

    def part(self, file: HubFile) -> Path:
        return self._blobs / f"{file.sha256}.incomplete"

    def begun(self, file: HubFile) -> int:
        try:
            return self.part(file).stat().st_size
        except FileNotFoundError:
            return 0

    def not_here(
        self, files: Sequence[HubFile], settings: Settings, meter: Meter, check: Callable[[], None]
    ) -> list[HubFile]:
        """Those of the large files that are not in the cache, or not what they should be: then they are taken out."""
        missing = []
        for file in files:
            known = [path for path in (self.snapshot_file(file), self.place(file)) if path.is_file()]
            if known and hash_file(known[0].resolve(), settings, check) == file.sha256:
                meter.present(file.size)
                continue
            for path in known:
                path.resolve().unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            missing.append(file)
        return missing

    async def fetch(self, client: httpx.AsyncClient, file: HubFile, meter: Meter) -> None:
        """One large file, under the lock that the hub's client takes for it."""
        place = self.place(file)
        async with locked(self.cache / ".locks" / self._name / f"{file.sha256}.lock", meter):
            if place.is_file():  # another process was faster
                meter.present(file.size)
                return
            order = Order(
                f"{file.name} of {self._source.repo}",
                httpx.URL(hf_hub_url(self._source.repo, file.name, revision=self._commit, endpoint=constants.ENDPOINT)),
                secrets=authorization(),
                size=file.size,
                sha256=file.sha256,
            )
            await transfer(client, order, self.part(file), meter, self)
            place.parent.mkdir(parents=True, exist_ok=True)
            self.part(file).replace(place)

    # what `transfer` asks of a receiver: names, sizes and hashes are known before
    def on_answer(self, response: httpx.Response) -> None:
        return

    def on_start(self, start: bytes) -> None:
        return

    def refusal(self, response: httpx.Response) -> SetupError:
        return refusal(self._source, response.status_code, response.headers)

    def complete(self, wanted: Sequence[HubFile]) -> Path:
        """The small files, and the snapshot's folder; returns it."""
        with typed_hub_errors(self._source):
            folder = snapshot_download(
                self._source.repo,
                revision=self._source.revision,
                allow_patterns=[glob.escape(file.name) for file in wanted],
                endpoint=constants.ENDPOINT,
                cache_dir=self.cache,
                library_name="vidkit",
                library_version=vidkit.__version__,
                tqdm_class=Silent,  # type: ignore[arg-type]
                max_workers=AT_ONCE,
            )
        return Path(folder)


def listing_of(source: HubSource) -> Repository:
    """Asks the hub."""
    with typed_hub_errors(source):
        info = HfApi(endpoint=constants.ENDPOINT, library_name="vidkit", library_version=vidkit.__version__).model_info(
            source.repo, revision=source.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    files = [
        HubFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None, one.blob_id)
        for one in info.siblings or ()
    ]
    licence = info.card_data.get("license") if info.card_data is not None else None
    return Repository(source, str(info.sha), files, licence if isinstance(licence, str) else None)


class typed_hub_errors:  # noqa: N801  (a context manager, read as one)
    """The client's errors as ours."""

    def __init__(self, source: HubSource) -> None:
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (ours := as_ours(self._source, error)) is not None:
            raise ours from error


def as_ours(source: HubSource, error: BaseException) -> VidkitError | None:
    host = httpx.URL(constants.ENDPOINT).host
    if isinstance(error, HFValidationError):
        return InputError(
            "invalid_value", f"{source.repo!r} is no name of a repository.", ["Give it as ORGANISATION/NAME"]
        )
    if isinstance(error, HfHubHTTPError):
        return refusal(source, error.response.status_code, error.response.headers)
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return as_ours(source, error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):
        return SetupError(
            "no_network",
            "The hub's client is kept off the network (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set).",
            ["Unset both for this command"],
        )
    if isinstance(error, HubConnectionError):
        return no_network(host, str(error).partition("\n")[0].rstrip("."))
    if isinstance(error, OSError | ValueError):
        return failed(source.repo, str(error).partition("\n")[0].rstrip("."))
    return None


def refusal(source: HubSource, status: int, headers: Any) -> SetupError:
    return hub_refused(source.repo, constants.ENDPOINT, status, headers, source.nearest, bool(get_token()))


def authorization() -> dict[str, str]:
    headers = build_hf_headers(library_name="vidkit", library_version=vidkit.__version__)
    return {name: value for name, value in headers.items() if name.lower() == "authorization"}


def check_small(repo: str, folder: Path, wanted: Sequence[HubFile]) -> None:
    """Raises:
    SetupError: `download_failed`: a small file is not what the hub lists; it was taken out of the cache.
    """
    for file in wanted:
        if file.sha256 is not None or file.blob_id is None:
            continue
        path = folder / file.name
        content = path.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() != file.blob_id:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise failed(f"{file.name} of {repo}", "it is not what the hub lists, and was deleted", "Try again")


async def all_of(works: Sequence[Coroutine[Any, Any, None]], at_once: int) -> None:
    """Several at the same time; the first error stops the others."""
    seats = asyncio.Semaphore(at_once)

    async def seated(work: Coroutine[Any, Any, None]) -> None:
        async with seats:
            await work

    tasks = [asyncio.ensure_future(seated(work)) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for work in works:
            work.close()
