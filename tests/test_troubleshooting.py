"""The troubleshooting page: current, complete, and made of Markdown that shows as it is meant."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from vidkit.errors import CATEGORIES, CODES, EXIT_CODES, ErrorKind, InputError
from vidkit.troubleshooting import explained

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
KINDS = {code: kind for codes in CODES.values() for code, kind in codes.items()}


def test_the_page_is_current() -> None:
    """Else: python -m vidkit.troubleshooting > docs/troubleshooting.md"""
    command = [sys.executable, "-m", "vidkit.troubleshooting"]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    assert printed.replace("\r\n", "\n") == PAGE.read_text(encoding="utf-8")


def test_every_code_has_its_entry_and_every_link_leads_to_one() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    assert headings == list(KINDS)
    assert re.findall(r"\]\(#(\w+)\)", page) == headings
    assert set(CATEGORIES) == set(CODES) == set(EXIT_CODES)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_entry_says_what_why_and_what_to_do(kind: ErrorKind) -> None:
    texts = [kind.meaning, kind.why, *kind.remedies]
    assert all(text.endswith((".", "`.")) and text == text.strip() and "  " not in text for text in texts)
    assert len(texts) >= 3
    assert all(text.count("`") % 2 == 0 for text in texts)
    assert len(" ".join(texts)) < 900  # it stays short


def test_one_code_is_explained_on_the_command_line() -> None:
    told = run("explain", "out_of_memory", command=(sys.executable, "-m", "vidkit"))
    assert told.code == 0
    assert told.stdout.strip() == explained("out_of_memory")
    assert CODES["generation"]["out_of_memory"].remedies[0] in told.stdout
    with pytest.raises(InputError, match="'out_of_memry' is no code") as caught:
        explained("out_of_memry")
    assert caught.value.suggestions[0] == "vidkit explain out_of_memory"
