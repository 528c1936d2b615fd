"""A plan as text: what `vidkit sweep --dry-run` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vidkit.sweep.plan import Plan, Point

#: rows of a table that is not abbreviated; a longer one shows the first and last half of them
ROWS: Final = 40
#: a prompt or path longer than this is cut in a cell, in characters
CELL: Final = 40


def describe_plan(plan: Plan, seconds_per_point: float | None, *, full: bool) -> str:
    """Summary, notes and table, a line each. seconds_per_point: measured before, or None."""
    return "\n".join([*summary(plan, seconds_per_point), "", *table(plan, full=full)])


def summary(plan: Plan, seconds_per_point: float | None) -> Iterator[str]:
    yield f"Sweep:     {plan.name}" + (f" ({plan.description})" if plan.description else "")
    yield f"Notebook:  {plan.notebook.name}"
    sizes = " x ".join(f"{name} {len(values):,}" for name, values in plan.axes.items())
    yield f"Points:    {len(plan.points):,}" + (f" ({sizes})" if sizes else "")
    yield f"Models:    loaded {'once' if plan.loads == 1 else f'{plan.loads:,} times'}"
    yield f"Estimate:  {plan.estimate(seconds_per_point)}"
    if plan.new_seeds:
        yield f"Seeds:     {len(plan.new_seeds):,} to be drawn when the sweep is started, and kept"
    yield from (f"Note:      {note}" for note in plan.notes)


def duration(points: int, seconds_per_point: float | None) -> str:
    """points x seconds in words, or why it is unknown."""
    if seconds_per_point is None:
        return "unknown, as nothing was run yet"
    return f"about {in_words(points * seconds_per_point)} ({points:,} x {seconds_per_point:.1f} s)"


def in_words(seconds: float) -> str:
    """90 s, 12 min, 3 h 20 min, 2 d 4 h: two units at most."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def table(plan: Plan, *, full: bool) -> list[str]:
    head = ["#", *plan.axes]
    points = plan.points
    if full or len(points) <= ROWS:
        return aligned(head, [cells(plan, point) for point in points])
    half = ROWS // 2
    lines = aligned(head, [cells(plan, point) for point in (*points[:half], *points[-half:])])
    note = f"... {len(points) - 2 * half:,} points left out ..."
    return [*lines[: half + 1], note, *lines[half + 1 :]]


def cells(plan: Plan, point: Point) -> list[str]:
    """Numbered from 1. A seed only just drawn is not shown: another will be when the sweep is started."""
    values = {name: cell(value) for name, value in point.axes.items()}
    if "seed" in values and point.seed in plan.new_seeds:
        values["seed"] = f"random {list(plan.axes['seed']).index(point.seed) + 1}"
    return [str(point.index + 1), *values.values()]


def cell(value: Any) -> str:
    text = "default" if value is None else f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: numbers to the right, texts to the left."""
    columns = list(zip(head, *rows, strict=True))
    lines = []
    for column in columns:
        width = max(map(len, column))
        numeric = all(is_number(text) for text in column[1:])
        lines.append([text.rjust(width) if numeric else text.ljust(width) for text in column])
    return ["  ".join(parts).rstrip() for parts in zip(*lines, strict=True)]


def is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).replace("e-", "", 1).isdigit()
