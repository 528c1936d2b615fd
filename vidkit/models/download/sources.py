"""What a user asks for: a name of the catalogue, a repository of the hub or a file in it, or an address."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

import httpx
from huggingface_hub import constants

from vidkit.errors import InputError, SetupError
from vidkit.models.catalogue import Published, catalogue, find_published
from vidkit.models.download.address import UrlSource, url_source
from vidkit.models.download.hub import HubSource
from vidkit.models.download.problems import did_you_mean

#: ORGANISATION/NAME, then @REVISION and /FILE, each if wanted
REPOSITORY: Final = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/(.+))?")
HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})


@dataclass(frozen=True)
class Wish:
    """source: where it comes from. name: what it is called here, unless the user says otherwise; None: as the server
    calls it. published: its entry in the catalogue.
    """

    source: HubSource | UrlSource
    name: str | None = None
    published: Published | None = None

    @property
    def shown(self) -> str:
        """The source, as the registry notes it: without anything secret."""
        if self.published is not None:
            return self.published.source
        if isinstance(self.source, UrlSource):
            return self.source.shown
        return self.source.noted

    @property
    def key(self) -> str:
        """Tells sources apart, also addresses of which not all may be shown."""
        whole = str(self.source.url) if isinstance(self.source, UrlSource) else self.source.noted
        return hashlib.sha256(whole.encode()).hexdigest()[:16]


def wish(wanted: str) -> Wish:
    """Raises:
    SetupError: `model_not_found`: the catalogue has no such name. InputError: `invalid_value`.
    """
    wanted = wanted.strip()
    if (published := find_published(wanted)) is not None:
        return of_catalogue(published)
    if re.match(r"[\w+.-]+://", wanted):
        return of_address(wanted)
    match = REPOSITORY.fullmatch(wanted)
    if match is not None and not wanted.startswith("."):
        return of_hub(match[1], match[2], match[3])
    nearest = nearest_names(wanted)
    raise SetupError(
        "model_not_found",
        f"The catalogue has no model {wanted[:200]!r}.",
        [
            *did_you_mean(nearest),
            "See vidkit models list for the names",
            "Or give a repository of the hub (ORGANISATION/NAME) or an address (https://...)",
            "For a model on this machine: vidkit models add PATH",
        ],
    )


def of_catalogue(published: Published) -> Wish:
    if published.repository is None:
        return Wish(url_source(str(published.url)), published.name, published)
    return Wish(HubSource(published.repository, files=published.files), published.name, published)


def of_hub(repo: str, revision: str | None, file: str | None) -> Wish:
    files = (file,) if file else ()
    name = PurePosixPath(file).stem if file else repo.partition("/")[2]
    return Wish(HubSource(repo, revision, files, tuple(nearest_names(repo))), name)


def of_address(given: str) -> Wish:
    """A page or a file of the hub is asked of the hub's client, all else of its server."""
    source = url_source(given)
    endpoint = httpx.URL(constants.ENDPOINT)
    if source.url.host not in HUB_HOSTS and (source.url.host, source.url.port) != (endpoint.host, endpoint.port):
        return Wish(source)
    parts = [unquote(part) for part in source.url.path.strip("/").split("/")]
    if len(parts) < 2 or parts[0] in ("datasets", "spaces", "api"):
        raise InputError("invalid_value", f"{source.shown} is no model of the hub.", ["Give it as ORGANISATION/NAME"])
    revision = parts[3] if len(parts) > 3 and parts[2] in ("resolve", "blob", "tree", "raw") else None
    file = "/".join(parts[4:]) if revision and parts[2] != "tree" else ""
    return of_hub("/".join(parts[:2]), None if revision == "main" else revision, file or None)


def nearest_names(wanted: str) -> list[str]:
    """Names of the catalogue that are like the one given, by themselves or by their repository."""
    names = {one.name: one.name for one in catalogue()}
    names |= {one.repository.lower(): one.name for one in catalogue() if one.repository}
    near = difflib.get_close_matches(wanted.lower(), names, n=3, cutoff=0.5)
    near += [name for name in names if "/" not in name and len(wanted) > 2 and wanted.lower() in name]
    return list(dict.fromkeys(names[one] for one in near))[:3]
