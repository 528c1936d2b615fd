"""A sweep's folder as the report and the pictures see it: axes with their values in order, and every point on them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from vidkit.errors import InputError
from vidkit.lora_list import LORAS
from vidkit.params import with_places
from vidkit.runs import RunFolder
from vidkit.sweep.seeds import PLAN_FILE

Status = Literal["done", "failed", "missing"]

#: how a measure is shown where its name does not say it
MEASURE_LABELS: Final = {
    "firstFramePsnr": "first frame PSNR (dB)",
    "firstFrameSsim": "first frame SSIM",
    "seconds": "time (s)",
    "peakMemoryGiB": "peak memory (GiB)",
}

#: axes whose values are files: shown by the file's name alone
_FILES: Final = {"image_path", "last_image_path", "base_model", "motion_adapter", "controlnet", LORAS}


@dataclass(frozen=True)
class Axis:
    """What was varied. Parameters that were zipped are one axis, and each of its values is a list.

    values: in the order of the plan, else numbers ascending; labels: one short text a value.
    """

    name: str
    values: list[Any]
    labels: list[str]


@dataclass(frozen=True)
class Point:
    """One request of a sweep. at: the number of its value on each axis, None where it has none.

    manifest: the run's manifest.json or failure.json, or what the plan says of a point that was not run.
    """

    key: str
    status: Status
    at: list[int | None]
    manifest: Mapping[str, Any]
    folder: Path | None = None

    @property
    def measures(self) -> dict[str, float]:
        """The clip's metrics, and what it cost: `seconds` in all, `peakMemoryGiB`."""
        timing = self.manifest.get("timing") or {}
        cost = {"seconds": timing.get("total"), "peakMemoryGiB": self.manifest.get("peakMemoryGiB")}
        found = {**(self.manifest.get("metrics") or {}), **cost}
        return {name: float(value) for name, value in found.items() if is_number(value)}

    def file(self, name: str) -> Path | None:
        """The run's `clip`, `poster` or `notebook`, when it is there. Only files of its own folder count."""
        entry = (self.manifest.get("files") or {}).get(name)
        if self.folder is None or not entry:
            return None
        path = self.folder / re.split(r"[/\\]", str(entry))[-1]
        return path if path.is_file() else None


@dataclass(frozen=True)
class Sweep:
    """axes: swept ones first come first, those with one value included; points: in the order of the plan."""

    name: str
    axes: list[Axis]
    points: list[Point]
    has_plan: bool = field(default=False)

    def axis(self, name: str) -> int:
        """The number of an axis.

        Raises:
            InputError: `invalid_value`, naming the axes there are.
        """
        names = [axis.name for axis in self.axes]
        if name not in names:
            members = [number for number, axis in enumerate(self.axes) if name in axis.name.split(", ")]
            if not members:
                known = ", ".join(repr(known) for known in names) or "none"
                raise InputError("invalid_value", f"{name!r} is no axis of {self.name}.", [f"Use one of: {known}"])
            return members[0]
        return names.index(name)


def read_sweep(root: Path) -> Sweep:
    """All runs in a folder, and the points of its plan.json that were not run.

    Raises:
        InputError: `clip_not_found`, when it holds neither runs nor a plan.
    """
    plan = _read_json(root / PLAN_FILE) or {}
    entries = _with_planned(_read_runs(root), plan)
    if not entries:
        raise InputError(
            "clip_not_found", f"{root} holds no runs of a sweep.", ["Give the folder that vidkit sweep wrote into"]
        )
    axes = _axes(entries, plan)
    places = [{_code(value): number for number, value in enumerate(axis.values)} for axis in axes]
    points = [
        Point(
            key,
            status,
            [_position(axis, values, manifest) for axis, values in zip(axes, places, strict=True)],
            manifest,
            folder,
        )
        for key, status, manifest, folder in entries
    ]
    return Sweep(str(plan.get("name") or root.resolve().name), axes, points, has_plan=bool(plan))


_Entry = tuple[str, Status, Mapping[str, Any], Path | None]


def _read_runs(root: Path) -> dict[str, _Entry]:
    runs: dict[str, _Entry] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        run = RunFolder(root, folder.name)
        done = run.manifest
        path = done if done.is_file() else run.failure
        if not path.is_file():
            continue
        manifest = _read_json(path)
        status: Status = "done" if path == done and manifest is not None else "failed"
        if manifest is None:
            manifest = {"error": {"code": "invalid_json", "message": f"{folder.name}/{path.name} cannot be read."}}
        key = str(manifest.get("key") or folder.name)
        runs[key[:16]] = (key, status, manifest, folder)
    return runs


def _with_planned(runs: dict[str, _Entry], plan: Mapping[str, Any]) -> list[_Entry]:
    """Runs in the plan's order with what is missing between them; runs of an older plan come last.

    A planned point is known by its key, where the plan has one, else by its values and its seed.
    """
    left = dict(runs)
    by_values = {_values_code(run[2]): key for key, run in runs.items()}
    entries: list[_Entry] = []
    for point in plan.get("points") or []:
        key = str(point.get("key") or "")
        run = left.pop(key[:16] if key else by_values.get(_values_code(point), ""), None)
        entries.append(run or (key, "missing", point, None))
    return [*entries, *left.values()]


def _values_code(point: Mapping[str, Any]) -> str:
    return _code([point.get("axes") or {}, point.get("seed")])


def _axes(entries: Sequence[_Entry], plan: Mapping[str, Any]) -> list[Axis]:
    planned = {str(axis["name"]): [_code(value) for value in axis["values"]] for axis in plan.get("axes") or []}
    given: list[Mapping[str, Any]] = [entry[2].get("axes") or {} for entry in entries]
    names = dict.fromkeys([*planned, *(name for axes in given for name in axes)])
    found = []
    for group in _zipped([name for name in names if any(name in axes for axes in given)], given):
        values = _distinct([axes[name] for name in group] for axes in given if all(name in axes for name in group))
        order = planned.get(group[0], [])
        if order:
            values = sorted(values, key=partial(_rank, order))
        elif all(is_number(value[0]) for value in values):
            values.sort(key=lambda value: value[0])
        found.append(Axis(", ".join(group), values, [_label(group, value) for value in values]))
    return found


def _rank(order: list[str], value: list[Any]) -> int:
    """A value's place in the plan; what is no longer in it comes last."""
    code = _code(value[0])
    return order.index(code) if code in order else len(order)


def _zipped(names: Sequence[str], given: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Parameters that always change together, as one group each."""
    groups: list[tuple[list[str], list[int]]] = []
    for name in names:
        column = [_code(axes[name]) if name in axes else "" for axes in given]
        first: dict[str, int] = {}
        pattern = [first.setdefault(value, number) for number, value in enumerate(column)]  # equal: a bijection
        same = next((group for group, other in groups if other == pattern and len(first) > 1), None)
        if same is not None:
            same.append(name)
        else:
            groups.append(([name], pattern))
    return [group for group, _ in groups]


def _position(axis: Axis, places: Mapping[str, int], manifest: Mapping[str, Any]) -> int | None:
    axes = manifest.get("axes") or {}
    names = axis.name.split(", ")
    if not all(name in axes for name in names):
        return None
    return places[_code([axes[name] for name in names])]


def _distinct(values: Iterable[list[Any]]) -> list[list[Any]]:
    return list({_code(value): value for value in values}.values())


def _label(names: Sequence[str], values: Sequence[Any]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(short_text(value, name) for name, value in zip(names, values, strict=True))


def short_text(value: Any, name: str = "") -> str:
    """A value of an axis; of files their names alone."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        return with_places(name, value, file_name) if name in _FILES else value
    except InputError:  # written by hand
        return value


def file_name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1] or path


def is_number(value: Any) -> bool:
    """Whether it can be averaged and sorted: no bool, no NaN, no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _code(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
