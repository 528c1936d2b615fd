"""A request's JSON, read; of a broken one, an error that says what broke it. Loads no torch.

Nothing is repaired: a guess could make another clip than was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from vidkit.errors import InputError
from vidkit.json_mishaps import Broken, bare_name, what_broke
from vidkit.params import canonical_name

#: of a value that begins like a path of Windows: what \b \f \n \r \t have become
EATEN_BACKSLASH: Final = re.compile(r"(?:[A-Za-z]:|\\).*[\b\f\n\r\t]", re.DOTALL)
#: parameters that are texts of a person, in which a line break is one
TEXTS: Final = {"prompt", "negative_prompt", "loras"}


def parse_json(text: str | bytes, source: str) -> dict[str, Any]:
    """A JSON object; bytes may be UTF-8 or UTF-16, with a byte order mark or without.

    source: where it came from, for the error.

    Raises:
        InputError: `invalid_request`, it is empty; `invalid_json`.
    """
    if not text.strip():
        raise no_request(f" {sentence(source)} is empty.")
    try:
        content = json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text)
    except UnicodeDecodeError as error:
        raise not_utf8(error, source) from error
    except (ValueError, RecursionError) as error:
        raise broken_json(error, text, source) from error
    if not isinstance(content, dict):
        raise InputError(
            "invalid_json",
            f"{sentence(source)} is not a JSON object: {str(content)[:80]!r}.",
            ['Send an object: {"imagePath": ...}'],
        )
    for name, value in content.items():
        if isinstance(value, str) and canonical_name(name) not in TEXTS and EATEN_BACKSLASH.match(value):
            raise eaten_backslash(name, value)
    return content


def refuse_pieces(pieces: Sequence[str]) -> None:
    """What arrived as several arguments where one was expected.

    Raises:
        InputError: `invalid_json`, they are one JSON that was split. Nothing where the first is whole by itself.
    """
    if not re.match(r"""['"]?\{""", pieces[0]) and not bare_name(pieces[0]):
        return
    try:
        json.loads(pieces[0])
    except (ValueError, RecursionError) as first:
        raise broken_json(first, " ".join(pieces), "the argument", pieces) from first


def broken_json(error: Exception, text: str | bytes, source: str, pieces: Sequence[str] = ()) -> InputError:
    """What broke it. error: of reading it, or of reading its first piece."""
    shown = text if isinstance(text, str) else text.decode(json.detect_encoding(text), "replace").lstrip("\ufeff")
    if isinstance(error, json.JSONDecodeError):
        reason, position = error.msg, error.pos
    else:  # ValueError: a number of thousands of digits
        reason, position = "it is nested too deeply" if isinstance(error, RecursionError) else str(error), 0
    what, remedies = what_broke(Broken(shown, reason, position, pieces or [shown]))
    split = f" It arrived as {len(pieces)} arguments, the first of them {pieces[0][:60]!r}." if len(pieces) > 1 else ""
    return InputError("invalid_json", f"{sentence(source)} is not valid JSON: {what}.{split}", remedies)


def not_utf8(error: UnicodeDecodeError, source: str) -> InputError:
    return InputError(
        "invalid_json",
        f"{sentence(source)} is not valid JSON: it is not {error.encoding.upper()} (byte "
        f"{error.object[error.start]:#04x} at position {error.start + 1}).",
        [
            "Write it as UTF-8",
            "In PowerShell, before it pipes to a program: $OutputEncoding = [System.Text.UTF8Encoding]::new()",
            r"Or with escapes, which are plain ASCII: \u00e9",
        ],
    )


def eaten_backslash(name: str, value: str) -> InputError:
    return InputError(
        "invalid_value",
        f"{name} is {value!r}: a path with single backslashes; JSON takes \\n for a line break, \\t for a tab.",
        [r"Write each backslash of a path twice: D:\\new\\photo.jpg", "Or slashes: D:/new/photo.jpg"],
        [canonical_name(name)],
    )


def no_request(reason: str = "") -> InputError:
    return InputError(
        "invalid_request",
        f"No request was given.{reason}",
        [
            """Give it as JSON: vidkit generate '{"imagePath": "photo.jpg", "prompt": "slow zoom in"}'""",
            'Or as options: vidkit generate --image-path photo.jpg --prompt "slow zoom in"',
        ],
    )


def sentence(source: str) -> str:
    """A source as the beginning of a sentence; the rest of a file's name stays as it is."""
    return source[:1].upper() + source[1:]
