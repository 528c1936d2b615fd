"""The plan file of a sweep, and the seeds it keeps: drawn once, so that a sweep planned again is the same sweep."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vidkit.errors import InputError
from vidkit.files import written_whole
from vidkit.params import MAX_SEED

PLAN_FILE: Final = "plan.json"
PLAN_VERSION: Final = 1


def identity(axes: Mapping[str, Any], repeat: int) -> str:
    """What a point is told by from one planning to the next: its axis values and the number of its copy."""
    return json.dumps({**axes, "repeat": repeat}, sort_keys=True, ensure_ascii=False)


@dataclass
class Seeds:
    """Seeds drawn before, and a source of new ones.

    by_point: by `identity`; those of points that are no longer in the plan stay, so that a narrowed axis can be widened
    again. on_axis: the seeds drawn for a seed axis, in its order. new: those drawn in this planning.
    """

    by_point: dict[str, int] = field(default_factory=dict)
    on_axis: list[int] = field(default_factory=list)
    new: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._taken = {*self.by_point.values(), *self.on_axis}

    def of_point(self, axes: Mapping[str, Any], repeat: int) -> int:
        key = identity(axes, repeat)
        if key not in self.by_point:
            self.by_point[key] = self._draw()
        return self.by_point[key]

    def of_axis(self, values: Iterable[int]) -> list[int]:
        """A seed axis with each -1 replaced: the first by the first that was drawn, and so on."""
        fixed, drawn, number = list(values), [], 0
        self._taken.update(fixed)
        for value in fixed:
            if value != -1:
                drawn.append(value)
                continue
            if number == len(self.on_axis):
                self.on_axis.append(self._draw())
            drawn.append(self.on_axis[number])
            number += 1
        return drawn

    def _draw(self) -> int:
        while (seed := secrets.randbelow(MAX_SEED + 1)) in self._taken:
            pass
        self._taken.add(seed)
        self.new.add(seed)
        return seed


def kept_seeds(root: Path | None) -> Seeds:
    """The seeds in a sweep folder's plan.json; none without it.

    Raises:
        InputError: `invalid_request`, when it is damaged: its seeds are those of finished clips, so it is left alone.
    """
    path = root / PLAN_FILE if root else None
    if path is None or not path.exists():
        return Seeds()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schemaVersion"] > PLAN_VERSION:
            raise ValueError(f"it is of version {content['schemaVersion']}, written by a later vidkit")
        by_point = {str(key): whole(seed) for key, seed in content["drawnSeeds"].items()}
        return Seeds(by_point, [whole(seed) for seed in content["axisSeeds"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            "invalid_request",
            f"{path} holds the seeds of this sweep, and cannot be read ({type(error).__name__}: {error}).",
            [f"Restore {path.name}", "Choose another output folder", f"Move {path.name} away: new seeds are drawn"],
        ) from error


def whole(seed: Any) -> int:
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"{seed!r} is no seed")
    return seed


def write_json(path: Path, content: Mapping[str, Any], *, durable: bool = False) -> None:
    """Whole or not at all. durable: also after a power cut, for some milliseconds. Raises OSError."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
    with written_whole(path, durable=durable) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # a lone surrogate becomes its JSON escape
