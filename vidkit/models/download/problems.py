"""What can go wrong with a download, in words that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vidkit.errors import SetupError
from vidkit.files import disk_full, free_disk_bytes
from vidkit.models.download.progress import in_words

#: bytes that stay free: a disk filled to the brim breaks everything else that runs
SPARE: Final = 256 * 2**20

CUT_SHORT: Final = "The same command goes on where it stopped"


def no_network(host: str, reason: str) -> SetupError:
    return SetupError(
        "no_network",
        f"{host} cannot be reached: {reason or 'the connection failed'}.",
        ["Check the network connection (and HTTPS_PROXY, if a proxy is needed)", CUT_SHORT],
    )


def failed(what: str, reason: str, *suggestions: str) -> SetupError:
    return SetupError("download_failed", f"{what} could not be downloaded: {reason}.", suggestions or [CUT_SHORT])


def no_model(what: str, reason: str, *suggestions: str) -> SetupError:
    return SetupError("invalid_model", f"{what} {reason}.", suggestions)


def refused(what: str, host: str, status: int, token_variable: str | None) -> SetupError:
    """A server's answer of 400 and above to a plain address."""
    if status in (401, 403):
        login = (
            f"Put an access token for {host} into the environment variable {token_variable}"
            if token_variable
            else f"Log in to {host} with a browser, download the file there, then vidkit models add PATH"
        )
        return SetupError(
            "access_denied",
            f"{host} gives {what} only to users who may have it (HTTP {status}).",
            [login, "Check on the model's page whether a licence has to be accepted first"],
        )
    if status in (404, 410):
        return SetupError(
            "model_not_found",
            f"{host} has nothing at the address of {what} (HTTP {status}).",
            ["Copy the address of the download button from the model's page again"],
        )
    if status == 429:
        return failed(what, f"{host} gets too many requests from here (HTTP 429)", "Try again in some minutes")
    return failed(what, f"{host} answered with HTTP {status}", "Try again later")


def hub_refused(
    repo: str, endpoint: str, status: int, headers: Mapping[str, str], nearest: Sequence[str], logged_in: bool
) -> SetupError:
    """A hub's answer of 400 and above."""
    code = headers.get("X-Error-Code", "")
    page = f"{endpoint}/{repo}"
    login = "Log in: hf auth login (or set HF_TOKEN)"
    if code == "GatedRepo" or (status == 403 and code != "RepoNotFound"):
        steps = [f"Accept its licence on {page}"] + ([] if logged_in else [login])
        steps += ["Use a token of the account that has accepted it"] if logged_in else []
        return SetupError(
            "access_denied", f"{repo} is given only to users who have accepted its licence (HTTP {status}).", steps
        )
    if status == 404 or code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound") or status == 401:
        hidden = [] if logged_in else [f"If it is private: {login[0].lower()}{login[1:]}"]
        return SetupError(
            "model_not_found",
            f"There is no {repo} on {endpoint} that may be seen from here (HTTP {status}).",
            [*did_you_mean(nearest), *hidden, "Check the spelling: ORGANISATION/NAME"],
        )
    if status == 429:
        wait = headers.get("Retry-After")
        return failed(
            repo,
            f"{endpoint} gets too many requests from here (HTTP 429)",
            f"Try again in {wait} seconds" if wait else "Try again in some minutes",
            *([] if logged_in else [f"{login}; who is logged in may ask more often"]),
        )
    return failed(repo, f"{endpoint} answered with HTTP {status}", "Try again later", CUT_SHORT)


def did_you_mean(names: Sequence[str]) -> list[str]:
    return [f"Did you mean {' or '.join(names)}?"] if names else []


def check_space(what: str, needed: int, folder: Path, remedy: str) -> None:
    """Raises:
    CriticalError: `disk_full`: the disk has no room for `needed` bytes more.
    """
    free = free_disk_bytes(folder)
    if needed + SPARE > free:
        error = disk_full(
            f"{what} needs {in_words(needed)} more, but only {in_words(free)} are free in {folder}.",
            folder / what,
            needed + SPARE,
        )
        error.suggestions.insert(1, remedy)
        raise error
