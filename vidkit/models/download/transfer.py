"""One file over HTTP, however often the connection breaks: it goes on where it stopped, and is what its hash says."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import httpx

from vidkit.errors import InputError
from vidkit.files import typed_write_errors
from vidkit.models.download.problems import CUT_SHORT, failed, no_network
from vidkit.models.download.progress import Meter
from vidkit.models.files.file_format import START_BYTES

#: seconds before each new try; they begin anew whenever more of the file has come than ever before
PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: where nothing has answered yet there is probably no network: a person waits
FIRST_TRIES: Final = 2
#: seconds for a connection, and without a byte, before it counts as broken
TIMEOUT: Final = httpx.Timeout(30.0, connect=15.0)
#: answers after which another try makes sense
TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
#: seconds that a server may ask us to wait; beyond, the user decides
LONGEST_WAIT: Final = 60.0
MAX_REDIRECTS: Final = 10
HASH_BLOCK: Final = 1 << 22
#: names of this machine: what goes there goes over no network
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Order:
    """A file to fetch.

    what: its name in messages. secrets: headers (Authorization) that only the address's own origin may see. size
    (bytes) and sha256 (hex): what it has to be, where that is known. validator: the ETag or date of the bytes that are
    there already, from the answer that they came with.
    """

    what: str
    url: httpx.URL
    secrets: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    sha256: str | None = None
    validator: str | None = None


class Receiver(Protocol):
    """Who gets the file, and may refuse it by raising."""

    def on_answer(self, response: httpx.Response) -> None:
        """Each answer that brings the file, before its bytes."""

    def on_start(self, start: bytes) -> None:
        """The first bytes, as many as say what a file is; what is refused here is deleted."""

    def refusal(self, response: httpx.Response) -> Exception:
        """The error for an answer of 400 and above that no other try will mend."""


class Broken(Exception):  # noqa: N818  (a pause, not an error to anybody outside)
    """Try again, after `wait` seconds if the server says so. finally_: what to raise when that did not help."""

    def __init__(self, reason: str, wait: float | None = None, finally_: Exception | None = None) -> None:
        super().__init__(reason)
        self.wait, self.finally_ = wait, finally_


class Part:
    """The beginning of a file on the disk, and the hash of its bytes as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._sha256 = hashlib.sha256()

    def read(self) -> None:
        """Take up what an earlier transfer has left."""
        self.size, self._sha256 = 0, hashlib.sha256()
        if self.path.is_file():
            with self.path.open("rb") as file:
                while block := file.read(HASH_BLOCK):
                    self._sha256.update(block)
                    self.size += len(block)

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.size, self._sha256 = 0, hashlib.sha256()

    def count(self, block: bytes) -> None:
        self._sha256.update(block)
        self.size += len(block)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


async def transfer(client: httpx.AsyncClient, order: Order, path: Path, meter: Meter, receiver: Receiver) -> str:
    """Fetch a file to `path`, from where an earlier try left it; returns its SHA-256 (hex).

    What has come stays at `path` when this is cancelled or fails, but for bytes that are known to be wrong.

    Raises:
        SetupError: `no_network`, `download_failed` (broken for good, cut short, another hash or size), or what
            the receiver raises; `output_not_writable`.
        CriticalError: `disk_full`.
    """
    part = Part(path)
    with typed_write_errors(path):
        if order.sha256 is None and order.validator is None:
            part.drop()  # nothing tells whether the server still has the same file
        await asyncio.to_thread(part.read)
        meter.present(part.size)
        began = part.size
        await Tries(client, order, part, meter, receiver).run()
        if order.sha256 in (None, part.sha256):
            return part.sha256
        actual, size = part.sha256, part.size
        part.drop()
        meter.present(-size)
    if began:  # what an earlier try has left may be what is wrong
        return await transfer(client, order, path, meter, receiver)
    raise failed(
        order.what,
        f"its SHA-256 is {actual}, it should be {order.sha256}: it is not the published file, and was deleted",
        "Try again; if it happens again, don't use this source",
    )


class Tries:
    """The same request until its file is whole, with longer and longer pauses where nothing comes."""

    def __init__(self, client: httpx.AsyncClient, order: Order, part: Part, meter: Meter, receiver: Receiver) -> None:
        self._client, self._order, self._part, self._meter = client, order, part, meter
        self._receiver = receiver
        self._validator = order.validator
        self._answered = False

    async def run(self) -> None:
        failures, most = 0, self._part.size
        while self._order.size is None or self._part.size != self._order.size:
            try:
                await self._once()
                return
            except httpx.InvalidURL as error:
                told = f"{self._order.what} has no valid address: {error}."
                raise InputError("invalid_value", told, ["Copy the address from the model's page again"]) from error
            except (httpx.TransportError, Broken) as error:
                failures = 0 if self._part.size > most else failures + 1
                most = max(most, self._part.size)
                if failures >= (len(PAUSES) if self._answered else FIRST_TRIES):
                    raise self._gave_up(error) from error
                wait = error.wait if isinstance(error, Broken) else None
                wait = PAUSES[max(failures - 1, 0)] if wait is None else wait
                self._meter.say(f"{self._order.what}: {in_short(error)}; trying again in {wait:g} s")
                await asyncio.sleep(wait)

    def _gave_up(self, error: Exception) -> Exception:
        if isinstance(error, Broken) and error.finally_ is not None:
            return error.finally_
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            return no_network(error.request.url.host, in_short(error))
        return failed(self._order.what, in_short(error), CUT_SHORT)

    async def _once(self) -> None:
        asked = self._part.size
        headers = {"Accept-Encoding": "identity"}
        if asked:
            headers["Range"] = f"bytes={asked}-"
            if self._order.sha256 is None and self._validator is not None:
                headers["If-Range"] = self._validator
        async with answer_to(self._client, self._order, headers) as response:
            self._answered = True
            if response.status_code == 416 and asked:
                self._beyond_the_end(response)
                return
            if response.status_code in TRY_AGAIN and (wait := patience(response)) is not None:
                raise Broken(
                    f"the server answers with HTTP {response.status_code}", wait, self._receiver.refusal(response)
                )
            if response.status_code not in (200, 206):
                raise self._receiver.refusal(response)
            total = self._begin(response, asked)
            self._receiver.on_answer(response)
            await self._receive(response, total)
        if total is not None and self._part.size < total:
            raise Broken(f"it was cut short after {self._part.size} of {total} bytes")

    def _beyond_the_end(self, response: httpx.Response) -> None:
        """Nothing lies behind what is here: it is complete, or longer than the file."""
        total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
        if total is None or int(total[1]) != self._part.size:
            self._from_the_start()
            raise Broken("the server has another file now")

    def _begin(self, response: httpx.Response, asked: int) -> int | None:
        """Where the bytes of an answer belong; returns the file's size, if the server tells it."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise failed(self._order.what, "the server sends it compressed, which was not asked for", "Try again later")
        length = response.headers.get("Content-Length", "")
        rest = int(length) if length.isdecimal() else None
        if response.status_code == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != asked:
                self._from_the_start()
                raise Broken("the server sends another part than it was asked for")
            total = int(found[2]) if found[2] != "*" else None if rest is None else asked + rest
        else:
            self._from_the_start()
            total = rest
        if self._order.size is not None and total is not None and total != self._order.size:
            self._from_the_start()
            raise failed(self._order.what, f"it has {total} bytes on the server, it should have {self._order.size}")
        self._validator = validator_of(response) or self._validator
        if self._meter.total is None:
            self._meter.total = total
        return self._order.size if self._order.size is not None else total

    def _from_the_start(self) -> None:
        self._meter.present(-self._part.size)
        self._part.drop()

    async def _receive(self, response: httpx.Response, total: int | None) -> None:
        self._part.path.parent.mkdir(parents=True, exist_ok=True)
        start = None if self._part.size else b""
        with self._part.path.open("ab") as file:
            async for block in response.aiter_raw():
                file.write(block)
                self._part.count(block)
                self._meter.arrived(len(block))
                if total is not None and self._part.size > total:
                    self._from_the_start()
                    raise failed(self._order.what, f"more came than the {total} bytes that it should have")
                if start is not None:
                    start += block
                    if len(start) >= START_BYTES:
                        self._look(start)
                        start = None
        if start is not None:
            self._look(start)

    def _look(self, start: bytes) -> None:
        try:
            self._receiver.on_start(start)
        except Exception:
            self._from_the_start()
            raise


@asynccontextmanager
async def answer_to(
    client: httpx.AsyncClient, order: Order, headers: Mapping[str, str]
) -> AsyncIterator[httpx.Response]:
    """The answer at the end of all redirects. Secrets go to the first address's origin alone.

    Raises:
        SetupError: `download_failed`, when redirects lead nowhere, or where they must not.
    """
    url = order.url
    for _ in range(MAX_REDIRECTS):
        secrets = order.secrets if origin(url) == origin(order.url) else {}
        request = client.build_request("GET", url, headers={**headers, **secrets})
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if not response.has_redirect_location:
                yield response
                return
            url = redirected(order.what, url, response.headers["Location"])
        finally:
            await response.aclose()
    raise failed(order.what, f"its address leads through more than {MAX_REDIRECTS} others")


def redirected(what: str, url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = url.join(location).copy_with(username=None, password=None)
    except httpx.InvalidURL as error:
        raise failed(what, f"the server leads to an address that is none ({error})") from error
    if target.scheme not in ("http", "https"):
        raise failed(what, f"the server leads to an address of the kind {target.scheme}:, which is not followed")
    if url.scheme == "https" and target.scheme == "http":
        raise failed(what, f"the server leads from https to {target.host} without encryption")
    return target


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def validator_of(response: httpx.Response) -> str | None:
    """What says later that the server still has the same bytes. Weak ETags promise only similar ones."""
    tag: str = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    date: str | None = response.headers.get("Last-Modified")
    return date


def patience(response: httpx.Response) -> float | None:
    """Seconds to wait before another try; None when that is too long to wait by itself."""
    given = response.headers.get("Retry-After", "")
    wait = float(given) if given.isdecimal() else PAUSES[1]
    return wait if wait <= LONGEST_WAIT else None


def in_short(error: Exception) -> str:
    """Why, without an address: one may hold a secret."""
    if isinstance(error, httpx.TimeoutException):
        return "nothing came in time"
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
