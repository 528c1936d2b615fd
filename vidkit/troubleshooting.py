"""The table of error codes as text for people: the page docs/troubleshooting.md, and one code at a time.

`python -m vidkit.troubleshooting > docs/troubleshooting.md` writes the page anew.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from typing import Final

from vidkit.errors import CATEGORIES, CODES, EXIT_CANCELLED, EXIT_CODES, Category, ErrorKind, InputError

HEAD: Final = """\
# Troubleshooting

Every error that vidkit gives has a code and belongs to one of four categories. The answer itself says what was wrong,
with the value, and its suggestions are reckoned from your request: take those first. This page says what each code
means in general; `vidkit explain CODE` prints the same without a browser.

*Printed from `vidkit/error_codes.py` by `python -m vidkit.troubleshooting`: change it there.*
"""


def page() -> str:
    """The whole page, Markdown."""
    return "\n".join([HEAD, *contents(), *(line for category in CODES for line in section(category))]) + "\n"


def contents() -> Iterator[str]:
    yield "| category | exit code | codes |"
    yield "|---|---|---|"
    for category, codes in CODES.items():
        links = ", ".join(f"[`{code}`](#{code})" for code in codes)
        yield f"| {category} | {exit_codes(category)} | {links} |"
    yield ""


def exit_codes(category: Category) -> str:
    """What the command line ends with."""
    code = str(EXIT_CODES[category])
    return f"{code} (cancelled: {EXIT_CANCELLED})" if "cancelled" in CODES[category] else code


def section(category: Category) -> Iterator[str]:
    yield f"## {category.capitalize()} errors: exit code {exit_codes(category)}"
    yield ""
    yield CATEGORIES[category]
    yield ""
    for code, kind in CODES[category].items():
        yield f"### {code}"
        yield ""
        yield from entry(kind)
        yield ""


def entry(kind: ErrorKind) -> Iterator[str]:
    yield f"**{kind.title}.** {kind.meaning}"
    yield ""
    yield f"*Why:* {kind.why}"
    yield ""
    yield from (f"- {remedy}" for remedy in kind.remedies)


def explained(code: str) -> str:
    """One code's entry.

    Raises:
        InputError: `invalid_value`, for what is no code.
    """
    for category, codes in CODES.items():
        if code in codes:
            head = f"{code} ({category} error, exit code {EXIT_CODES[category]})"
            return "\n".join([head, "", *entry(codes[code])])
    known = [known for codes in CODES.values() for known in codes]
    near = difflib.get_close_matches(code, known, n=2, cutoff=0.5)
    raise InputError(
        "invalid_value",
        f"{code!r} is no code of an error.",
        [*(f"vidkit explain {known}" for known in near), f"The codes are {', '.join(known)}"],
    )


if __name__ == "__main__":
    sys.stdout.write(page())
