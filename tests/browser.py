"""A real Chromium for the tests of pages: what it asked for and complained of is part of each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright

_QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-sync", *_QUIET)


def launch(playwright: Playwright) -> Browser:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "these tests need Chromium: apt-get install chromium"
    return playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))


@contextmanager
def opened(browser: Browser, path: Path, hash_: str = "", **options: Any) -> Iterator[Page]:
    """A page on a local file. On leaving: no error on the console, and nothing was asked for but local files."""
    context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
    context.set_default_timeout(15_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    problems: list[str] = []
    requests: list[str] = []
    page = context.new_page()
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    context.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri() + hash_)
    yield page
    context.close()
    assert not problems, problems
    strangers = [url for url in requests if not url.startswith(("file://", "data:"))]
    assert not strangers, strangers
