"""What an examination found, and how it is told: fine, worth a note, or a problem; and what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Status = Literal["ok", "note", "problem"]

#: columns of the table, for terminals and for pasting into a report
WIDTH: Final = 100


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    topic: what was looked at, in a word or two; what: in sentences; remedies: what to do, best first; stops: it keeps
    vidkit from making clips; data: its figures for programs, JSON-able, camelCase keys.
    """

    topic: str
    status: Status
    what: str
    remedies: Sequence[str] = ()
    stops: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "status": self.status,
            "what": self.what,
            "remedies": list(self.remedies),
            "stops": self.stops,
            "data": dict(self.data),
        }


def ok(topic: str, what: str, **data: Any) -> Finding:
    return Finding(topic, "ok", what, data=data)


def note(topic: str, what: str, *remedies: str, **data: Any) -> Finding:
    return Finding(topic, "note", what, remedies, data=data)


def problem(topic: str, what: str, *remedies: str, stops: bool = False, **data: Any) -> Finding:
    return Finding(topic, "problem", what, remedies, stops, data)


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines of at most `WIDTH` columns: status, topic, what it is, and indented under it what to do."""
    topics = max((len(finding.topic) for finding in findings), default=0)
    for finding in findings:
        head = f"{finding.status:7}  {finding.topic:{topics}}  "
        yield from wrapped(finding.what, head, " " * len(head))
        for remedy in finding.remedies:
            yield from wrapped(remedy, " " * len(head) + "-> ", " " * (len(head) + 3))


def wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [first]


def tally(findings: Sequence[Finding]) -> str:
    """How many problems and notes, in words."""
    numbers = Counter(finding.status for finding in findings)
    told = [plural(numbers[status], status) for status in ("problem", "note") if numbers[status]]
    return " and ".join(told) or "no problems"


def plural(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 else "")
