"""What is wrong with a sweep file, all of it, in one error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vidkit.errors import CODES, InputError, VidkitError

#: more lines than this are counted, not listed
LISTED: Final = 60


class Problems:
    """Collects problems in the order in which they are met; `raise_if_any` raises them as one `InputError`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: list[InputError] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, message: str, *suggestions: str, code: str = "invalid_request") -> None:
        self._found.append(InputError(code, message, suggestions))

    def add_error(self, where: str, error: VidkitError) -> None:
        """Another room's error, with the place in the sweep file before its message ("" for none)."""
        code = error.code if error.code in CODES["input"] else "invalid_request"
        self.add(f"{where}: {error.message}" if where else error.message, *error.suggestions, code=code)

    def raise_if_any(self) -> None:
        """Raises InputError: its code is that of the first problem, its suggestions those of all."""
        if not self._found:
            return
        suggestions = list(dict.fromkeys(remedy for problem in self._found for remedy in problem.suggestions))
        raise InputError(self._found[0].code, self._message(), suggestions)

    def _message(self) -> str:
        messages = [problem.message for problem in self._found]
        if len(messages) == 1:
            return f"{self._source}: {messages[0]}"
        lines = [f"- {message}" for message in messages[:LISTED]]
        if len(messages) > LISTED:
            lines.append(f"- and {len(messages) - LISTED} more")
        return "\n".join([f"{self._source} has {len(messages)} problems:", *lines])


def some(values: Sequence[object], shown: int = 3) -> str:
    """The first few of many values, for a message."""
    text = ", ".join(repr(value) for value in values[:shown])
    return text if len(values) <= shown else f"{text} and {len(values) - shown:,} more"
