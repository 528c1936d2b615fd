"""The points of a grid, in the order in which they are run."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vidkit.sweep.axes import MAX_POINTS
from vidkit.sweep.problems import Problems, some
from vidkit.sweep.sweep_file import SweepFile

#: What it costs to change a parameter, dearest first: models are loaded, LoRAs put around their layers, then sizes
#: change (which compiled kernels, the allocator and the fitted picture depend on). These axes go outermost by
#: themselves; all others cost nothing.
DEAR: Final = (
    ("base_model",),
    ("motion_adapter",),
    ("controlnet",),
    ("pipeline",),
    ("conditioning",),
    ("loras",),
    ("width", "height", "num_frames"),
)


def rank(name: str) -> int:
    return next((number for number, names in enumerate(DEAR) if name in names), len(DEAR))


def groups_in_order(axes: Mapping[str, Any], zips: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Axes that advance together, dear ones first, otherwise as written; a group counts as its dearest member."""
    zipped = {name: group for group in zips for name in group}
    groups = dict.fromkeys(zipped.get(name, (name,)) for name in axes)
    return sorted(groups, key=lambda group: min(map(rank, group)))


def grid(sweep: SweepFile, problems: Problems) -> list[dict[str, Any]]:
    """The values of each point by axis name in the written order, without the excluded points.

    Too large a grid, an empty one, a value that comes twice and an exclusion of nothing are added to problems.
    """
    groups = groups_in_order(sweep.axes, sweep.zips)
    rows = [list(zip(*(sweep.axes[name] for name in group), strict=True)) for group in groups]
    for group, values in zip(groups, rows, strict=True):
        check_repeated(group, values, problems)
    count = math.prod(len(values) for values in rows) * sweep.repeats
    if count > MAX_POINTS:
        sizes = " x ".join(f"{', '.join(group)} {len(values):,}" for group, values in zip(groups, rows, strict=True))
        problems.add(
            f"The grid has {count:,} points ({sizes}, repeats {sweep.repeats:,}), more than {MAX_POINTS:,}.",
            "Give fewer values, or zip axes that belong together",
            code="out_of_range",
        )
        return []
    points = list(kept(sweep, groups, rows, problems))
    if not points and not sweep.failed:
        problems.add("The grid has no points: all are excluded.", "Take some of exclude out")
    return points


def check_repeated(group: Sequence[str], values: Sequence[tuple[Any, ...]], problems: Problems) -> None:
    counts = Counter(map(repr, values))
    repeated = list(dict.fromkeys(value for value in values if counts[repr(value)] > 1))
    if repeated:
        shown = [value[0] for value in repeated] if len(group) == 1 else repeated
        problems.add(
            f"axis {', '.join(group)} has {some(shown)} more than once.",
            "Give each value once; repeats makes copies with other seeds",
            code="invalid_value",
        )


def kept(
    sweep: SweepFile, groups: Sequence[Sequence[str]], rows: Sequence[Sequence[tuple[Any, ...]]], problems: Problems
) -> Iterator[dict[str, Any]]:
    names = list(itertools.chain.from_iterable(groups))
    matched = [0] * len(sweep.excludes)
    for combination in itertools.product(*rows):
        found = dict(zip(names, itertools.chain.from_iterable(combination), strict=True))
        hits = [number for number, exclude in enumerate(sweep.excludes) if matches(found, exclude)]
        for number in hits:
            matched[number] += 1
        if not hits:
            yield {name: found[name] for name in sweep.axes}
    for number, exclude in enumerate(sweep.excludes):
        if not matched[number] and sweep.failed.isdisjoint(exclude):
            entries = ", ".join(
                f"{name} {values[0] if len(values) == 1 else values}" for name, values in exclude.items()
            )
            problems.add(f"exclude {number + 1} matches no point: {entries}.", "Correct its values, or take it out")


def matches(point: Mapping[str, Any], exclude: Mapping[str, list[Any]]) -> bool:
    return all(name in point and point[name] in values for name, values in exclude.items())
