"""What breaks a request's JSON on its way here, told from what arrives. Loads no torch.

Shells and clients change an argument before it arrives: they take quotes away, leave some that they should have taken,
split it, cut it off.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vidkit.params import GenerationParams, canonical_name

#: `"motionAdapter":"D:\\models\\animatediff\","imagePath":`: the quote behind a backslash ends no text
BACKSLASH_BEFORE_QUOTE: Final = re.compile(
    r'"(?P<name>\w+)"\s*:\s*"(?P<value>(?:[^"\\]|\\[^"])*)\\"\s*(?:,\s*(?="\w+"\s*:)|\}\s*$)'
)
#: of a first piece, `{"prompt":"say \\go`: a text that it ends in, with a backslash that belongs to nothing
LONE_BACKSLASH: Final = re.compile(r'"(?P<name>\w+)"\s*:\s*"(?:[^"\\]|\\\\)*\\[^"\\](?:[^"\\]|\\.)*$')
#: `{imagePath:`, and `imagePath:`, which a Unix shell makes of an unquoted {"imagePath": ..., ...}
BARE_NAME: Final = re.compile(r"(?P<brace>\{?)\s*(?P<name>[A-Za-z]\w*)\s*:")
TYPOGRAPHIC_QUOTE: Final = re.compile("[\u2018-\u201f\u00ab\u00bb]")
#: what can stand at the end of a text that was cut off
UNFINISHED: Final = re.compile(r"-|\.|[eE][+-]?|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|u[0-9a-fA-F]{0,4}")

ON_STANDARD_INPUT: Final = "Send the request on standard input, where nothing is quoted: vidkit generate -"
AS_FILE: Final = "Or write it into a file: vidkit generate --request FILE"
AS_OPTIONS: Final = 'Give options, which every shell leaves whole: vidkit generate --image-path FILE --prompt "TEXT"'
IN_CMD: Final = r'In cmd.exe: vidkit generate "{\"imagePath\": \"photo.jpg\", \"prompt\": \"slow zoom in\"}"'
IN_POWERSHELL: Final = """In PowerShell: '{"imagePath": "photo.jpg", "prompt": "slow zoom in"}' | vidkit generate -"""
IN_UNIX: Final = """In a Unix shell: vidkit generate '{"imagePath": "photo.jpg", "prompt": "slow zoom in"}'"""


@dataclass(frozen=True)
class Broken:
    """JSON that cannot be read. pieces: the arguments that it arrived as, one where it was not split."""

    text: str
    reason: str
    position: int
    pieces: Sequence[str]


#: what happened, and the remedies; None: not this
Diagnosis = Callable[[Broken], tuple[str, list[str]] | None]


def what_broke(broken: Broken) -> tuple[str, list[str]]:
    """What happened to it, and the remedies, best first."""
    found = (diagnosis(broken) for diagnosis in DIAGNOSES)
    return next(answer for answer in found if answer is not None)


def backslash_before_quote(broken: Broken) -> tuple[str, list[str]] | None:
    r"""A path ended in a backslash, which JSON writes `\\"`. A client that puts a backslash before each quote makes
    `\\\"` of it, and Windows' rules for command lines (CommandLineToArgvW) halve backslashes before a quote: `\"`.
    """
    found = list(BACKSLASH_BEFORE_QUOTE.finditer(broken.text))
    if not found:
        return None
    names = " and ".join(match["name"] for match in found)
    what = (
        rf"it was broken at a backslash before a quote, at the end of {names} (...{found[0]['value'][-24:]}\"), so "
        rf'that the text does not end there. JSON writes a backslash at the end of a text as \\"; where a client puts '
        rf"a backslash before each quote, that becomes \\\", of which Windows leaves \""
    )
    without = (
        rf"Give {match['name']} without the backslash at its end: {match['value']}".replace("\\\\", "\\")
        for match in found
    )
    return what, [*without, ON_STANDARD_INPUT]


def single_quotes_kept(broken: Broken) -> tuple[str, list[str]] | None:
    if not broken.text.startswith("'"):
        return None
    what = (
        "it begins with a single quote. In cmd.exe single quotes quote nothing: they are passed on, and the double "
        "ones are taken away"
    )
    return what, [AS_OPTIONS, IN_CMD, ON_STANDARD_INPUT]


def quotes_taken(broken: Broken) -> tuple[str, list[str]] | None:
    match = bare_name(broken.text)
    if match is None:
        return None
    what = (
        f"the quotes around its names are gone ({match[0].strip()}). The shell took them: Windows PowerShell and "
        "PowerShell up to 7.2 drop double quotes inside an argument, a Unix shell and cmd.exe drop those that are not "
        "themselves quoted"
    )
    return what, [AS_OPTIONS, IN_POWERSHELL, IN_CMD, IN_UNIX]


def single_quoted_names(broken: Broken) -> tuple[str, list[str]] | None:
    if not re.match(r"\{\s*'", broken.text):
        return None
    return "its texts are in single quotes; JSON knows only double ones", [AS_OPTIONS, IN_CMD, IN_UNIX]


def typographic_quotes(broken: Broken) -> tuple[str, list[str]] | None:
    match = TYPOGRAPHIC_QUOTE.match(broken.text, broken.position)
    if not match:
        return None
    what = f"character {broken.position + 1} is a typographic quote ({match[0]}), as word processors write them"
    return what, ['Write plain double quotes: "']


def split_at_backslash(broken: Broken) -> tuple[str, list[str]] | None:
    r"""A text with a quote in it, which some JSON writers make `\"`: a client that puts a backslash before each quote
    makes `\\"` of it, which is for Windows a backslash, and the end of what is quoted.
    """
    match = LONE_BACKSLASH.search(broken.pieces[0]) if len(broken.pieces) > 1 else None
    if match is None:
        return None
    what = (
        f"it was split at a backslash before a quote, inside {match['name']} ({match[0][-24:]}). A client that puts a "
        "backslash before each quote has to double those that stand there already"
    )
    return what, [f"Leave quotes and backslashes out of {match['name']}", ON_STANDARD_INPUT, AS_FILE]


def split_at_spaces(broken: Broken) -> tuple[str, list[str]] | None:
    if len(broken.pieces) < 2:
        return None
    return "it was split at its spaces, since no quotes held it together", [AS_OPTIONS, IN_CMD, IN_POWERSHELL, IN_UNIX]


def cut_off(broken: Broken) -> tuple[str, list[str]] | None:
    """Whether more text could have followed where reading failed."""
    rest = broken.text[broken.position :].strip()
    if rest and not broken.reason.startswith("Unterminated string") and not UNFINISHED.fullmatch(rest):
        return None
    what = (
        f"it ends in the middle, after {len(broken.text):,} characters: it was cut off, or a quote or brace is missing "
        "at its end. As an argument at most 8,191 characters arrive by cmd.exe, 32,767 on Windows, 131,071 on Linux"
    )
    return what, [ON_STANDARD_INPUT, AS_FILE]


def single_backslashes(broken: Broken) -> tuple[str, list[str]] | None:
    if "escape" not in broken.reason:
        return None
    names = re.findall(r'"(\w+)"\s*:\s*"', broken.text[: broken.position])
    where = f" in {names[-1]}" if names else ""
    what = f"a backslash stands alone{where}, {at(broken)}"
    return what, [r"Write each backslash of a path twice: D:\\Images\\photo.jpg", "Or slashes: D:/Images/photo.jpg"]


def raw_line_break(broken: Broken) -> tuple[str, list[str]] | None:
    if "control character" not in broken.reason:
        return None
    what = f"a text in it holds a raw line break or tab, at character {broken.position + 1}"
    return what, [r"Write a line break inside a text as \n, a tab as \t"]


def several_documents(broken: Broken) -> tuple[str, list[str]] | None:
    if broken.reason != "Extra data":
        return None
    what = (
        f"something follows after its end, at character {broken.position + 1}: {broken.text[broken.position :][:40]!r}"
    )
    return what, ["Send one request; several, one a line, take: vidkit generate --jsonl"]


def name_of_a_file(broken: Broken) -> tuple[str, list[str]] | None:
    if "\n" in broken.text or len(broken.text) > 1024 or not os.path.isfile(broken.text):  # noqa: PTH113  (raises for no text)
        return None
    remedies = [f"A file with a request: vidkit generate --request {broken.text}"]
    remedies += [f'A picture: vidkit generate --image-path {broken.text} --prompt "TEXT"']
    return f"it is the name of a file, {broken.text}", remedies


def anything_else(broken: Broken) -> tuple[str, list[str]]:
    return f"{broken.reason}, {at(broken)}", ["Check quotes, commas and backslashes", ON_STANDARD_INPUT]


#: the first that fits is told; those that are certain come first
DIAGNOSES: Final[Sequence[Diagnosis]] = (
    backslash_before_quote,
    single_quotes_kept,
    quotes_taken,
    single_quoted_names,
    typographic_quotes,
    split_at_backslash,
    split_at_spaces,
    cut_off,
    single_backslashes,
    raw_line_break,
    several_documents,
    name_of_a_file,
    anything_else,
)


def bare_name(text: str) -> re.Match[str] | None:
    """The name without quotes that a text begins with; without a brace before it only one of ours."""
    match = BARE_NAME.match(text)
    return (
        match if match and (match["brace"] or canonical_name(match["name"]) in GenerationParams.model_fields) else None
    )


def at(broken: Broken) -> str:
    """Where reading failed, in words."""
    return f"at character {broken.position + 1}: {broken.text[broken.position :][:40]}"
