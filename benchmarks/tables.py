"""Results as Markdown, for pages that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], column: str, cell: Callable[[Mapping[str, Any]], str]) -> str:
    """A line for each "way" of the rows, a column for each value that they have under `column`."""
    columns, ways = (list(dict.fromkeys(row[key] for row in rows)) for key in (column, "way"))
    cells = {(row["way"], row[column]): cell(row) for row in rows}
    lines = [["way", *columns], ["---"] * (len(columns) + 1)]
    lines += [[way, *(cells.get((way, name), "") for name in columns)] for way in ways]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
