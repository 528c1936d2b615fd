"""A model at a plain address: into the models folder, once its first bytes and its header say that it is one."""

from __future__ import annotations

import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import httpx

from vidkit.errors import InputError, SetupError
from vidkit.files import typed_write_errors, written_whole
from vidkit.models.download.problems import check_space, no_model, refused
from vidkit.models.download.progress import Meter
from vidkit.models.download.transfer import LOOPBACK, Order, transfer, validator_of
from vidkit.models.files.content_hash import note_hash
from vidkit.models.files.file_format import DESCRIPTIONS, PICKLES, file_format, format_of
from vidkit.models.inspection import Inspection, inspect
from vidkit.settings import Settings

#: the environment variable with the user's access token for a model-sharing site; it goes to that host alone
TOKENS: Final[dict[str, str]] = {
    "civitai.com": "CIVITAI_API_TOKEN",
    "www.civitai.com": "CIVITAI_API_TOKEN",
    "civitai.green": "CIVITAI_API_TOKEN",
}
PICKLE_SUFFIXES: Final = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES: Final = (".safetensors", *PICKLE_SUFFIXES)
#: answers of these types bring a page or a message, no weights
NO_WEIGHTS: Final = re.compile(r"text/|application/(json|xml|xhtml|problem|javascript|pdf)|image/|video/|audio/")
COPY_THE_BUTTON: Final = "Copy the address of the page's download button (not that of the page itself)"


@dataclass(frozen=True)
class UrlSource:
    """url: without user, password and fragment. secrets: headers for its origin. shown: without what may be secret."""

    url: httpx.URL
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return str(self.url.copy_with(query=None))

    @property
    def token_variable(self) -> str | None:
        return TOKENS.get(self.url.host)

    @property
    def notes(self) -> tuple[str, ...]:
        if self.url.scheme == "https" or self.url.host in LOOPBACK:
            return ()
        return ("It came without encryption (http): what was sent may have been changed on the way.",)


def url_source(given: str) -> UrlSource:
    """An address as the user gave it; a token for its host is taken from the environment.

    Raises:
        InputError: `invalid_value`.
    """
    shown = given.partition("?")[0]
    try:
        url = httpx.URL(given.strip())
    except httpx.InvalidURL as error:
        raise InputError("invalid_value", f"{shown!r} is no valid address: {error}.", ["Copy it again"]) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(
            "invalid_value",
            f"Models are fetched over https, not from {url.scheme or 'nowhere'}://.",
            ["Give an address that begins with https://", "For a file on this machine: vidkit models add PATH"],
        )
    secrets = {}
    token = os.environ.get(TOKENS.get(url.host, ""), "").strip()
    if url.userinfo:
        secrets["Authorization"] = "Basic " + b64encode(unquote(url.userinfo.decode()).encode()).decode()
    elif token:
        secrets["Authorization"] = f"Bearer {token}"
    if secrets and url.scheme == "http" and url.host not in LOOPBACK:
        raise InputError(
            "invalid_value", f"A password or token would go to {url.host} without encryption.", ["Use https://"]
        )
    return UrlSource(download_address(url.copy_with(username=None, password=None, fragment=None)), secrets)


def download_address(url: httpx.URL) -> httpx.URL:
    """The address of the file behind a model's page, where it is known how to tell it.

    Raises:
        InputError: `invalid_value`: a page of several files.
    """
    if url.host not in TOKENS or not re.match(r"/models/\d+", url.path):
        return url
    version = url.params.get("modelVersionId", "")
    if not version.isdecimal():
        raise InputError(
            "invalid_value", f"{url.copy_with(query=None)} is a page, which may offer several files.", [COPY_THE_BUTTON]
        )
    return url.copy_with(path=f"/api/download/models/{version}", query=None)


async def fetch_address(
    client: httpx.AsyncClient,
    source: UrlSource,
    settings: Settings,
    meter: Meter,
    folder: Path,
    name: str | None,
    sha256: str | None,
) -> Inspection:
    """Fetch a file into the models folder; returns what it is.

    folder: what has come is kept there until it is whole. name: of the model, instead of the one that the server tells.
    sha256: what its hash has to be.

    Raises:
        SetupError: `model_not_found`, `access_denied`, `no_network`, `download_failed`, `invalid_model`,
            `output_not_writable`. InputError: `output_exists`, `invalid_value`. CriticalError: `disk_full`.
    """
    with typed_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    begun = Begun(source, folder, settings.models, name, meter)
    order = Order(source.shown, source.url, source.secrets, sha256=sha256, validator=begun.state.get("validator"))
    actual = await transfer(client, order, begun.part, meter, begun)
    meter.say(f"{begun.name}: looking at what it is", 99)
    found = begun.finish()
    note_hash(found.path, actual, settings)
    return found


class Begun:
    """A file that comes: what the server has said of it, kept beside its bytes so that another process can go on."""

    def __init__(self, source: UrlSource, folder: Path, models: Path, wanted: str | None, meter: Meter) -> None:
        self._meter = meter
        self._source, self._folder, self._models, self._wanted = source, folder, models, wanted
        self.part = folder / "part"
        self.state = self._read_state()
        self.name = str(self.state.get("name", ""))

    # --- what `transfer` asks of a receiver

    def on_answer(self, response: httpx.Response) -> None:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if NO_WEIGHTS.match(kind):
            raise no_model(self._source.shown, f"leads to a page or text ({kind}), not to a model file", *self._login())
        self.name = self._meter.what = self._wanted or name_of(response)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal():
            check_space(self.name, int(length), self._models, "Set VIDKIT_MODELS to a folder on a larger disk")
        for suffix in SUFFIXES if Path(self.name).suffix not in SUFFIXES else [""]:
            self._check_free(self._models / (self.name + suffix))
        self._write_state({"validator": validator_of(response), "name": self.name, "source": self._source.shown})

    def on_start(self, start: bytes) -> None:
        found = format_of(start)
        if found != "safetensors" and found not in PICKLES:
            raise no_model(self._source.shown, f"is {DESCRIPTIONS[found]}", *self._login())

    def refusal(self, response: httpx.Response) -> SetupError:
        # a site may send its files from another host, whose refusal is not about the user's token
        asked = response.request.url.host == self._source.url.host
        return refused(
            self._source.shown,
            response.request.url.host,
            response.status_code,
            self._source.token_variable if asked else None,
        )

    # ---

    def finish(self) -> Inspection:
        """All bytes are there: give them their name, look at them, and only then put them among the models.

        Raises:
            SetupError: `invalid_model`: the file is none that vidkit knows; it is deleted.
        """
        with typed_write_errors(self._models):
            named = self._folder / with_suffix(self.name, self.part)
            self.part.replace(named)
            try:
                found = inspect(named)
            except SetupError:
                shutil.rmtree(self._folder)
                raise
            target = self._models / named.name
            self._check_free(target)
            named.replace(target)
            shutil.rmtree(self._folder)
        return inspect(target) if found.path != target else found

    def _check_free(self, target: Path) -> None:
        if target.exists():
            raise InputError(
                "output_exists",
                f"{target} exists already.",
                ["Give the new one another name: --name NAME", f"Or take the old one away: {target}"],
            )

    def _login(self) -> list[str]:
        variable = self._source.token_variable
        return [COPY_THE_BUTTON] + (
            [f"If the site asks for a login: put an access token into {variable}"]
            if variable
            else ["If the site asks for a login: download it with a browser, then vidkit models add PATH"]
        )

    @property
    def _state_file(self) -> Path:
        return self._folder / "state.json"

    def _read_state(self) -> dict[str, Any]:
        try:
            content = json.loads(self._state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}  # nothing has come yet, or it is not known what: it begins anew
        return content if isinstance(content, dict) else {}

    def _write_state(self, state: Mapping[str, Any]) -> None:
        with written_whole(self._state_file) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")


def name_of(response: httpx.Response) -> str:
    """The file's name: what the server says, else the end of its address.

    Raises:
        SetupError: `download_failed`: the name leads elsewhere.
    """
    given = disposition_name(response.headers.get("Content-Disposition", ""))
    if given is None:
        given = unquote(response.request.url.path.rstrip("/").rpartition("/")[2])
    return checked_name(given)


def disposition_name(header: str) -> str | None:
    """`filename` of a Content-Disposition header, the extended form (RFC 6266) first."""
    extended = re.search(r"filename\*\s*=\s*[\w-]+'[^']*'([^;]+)", header, re.IGNORECASE)
    if extended is not None:
        return unquote(extended[1].strip().strip('"'))
    plain = re.search(r'filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]+))', header, re.IGNORECASE)
    if plain is None:
        return None
    return re.sub(r'\\(["\\])', r"\1", plain[1]) if plain[1] is not None else plain[2].strip()


def checked_name(name: str) -> str:
    """A file name that is nothing else, on no system.

    Raises:
        SetupError: `download_failed`.
    """
    stem = name.partition(".")[0].upper()
    reserved = stem in {"CON", "PRN", "AUX", "NUL"} or re.fullmatch(r"(COM|LPT)\d", stem)
    if not re.fullmatch(r"[^\s.~\-/\\:*?\"<>|,\x00-\x1f][^/\\:*?\"<>|,\x00-\x1f]{0,119}", name) or reserved:
        raise SetupError(
            "download_failed",
            f"The server gives the file a name that is not safe to use: {ascii(name)[:160]}.",
            ["Give it a name: --name NAME"],
        )
    return name.rstrip(" .")


def with_suffix(name: str, path: Path) -> str:
    """The name with the suffix of what the file is: the content counts, not what the server calls it."""
    found = file_format(path)
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
    if found == "safetensors":
        return stem + ".safetensors"
    return name if Path(name).suffix.lower() in PICKLE_SUFFIXES else stem + ".ckpt"
