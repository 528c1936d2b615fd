"""From a sweep file to the points to run: everything is checked before anything starts. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from vidkit.files import write_error
from vidkit.params import GenerationParams
from vidkit.paths import local_path
from vidkit.settings import load_settings
from vidkit.sweep.dry_run import describe_plan, duration
from vidkit.sweep.problems import Problems
from vidkit.sweep.requests import Request, checked_requests
from vidkit.sweep.seeds import PLAN_FILE, PLAN_VERSION, Seeds, kept_seeds, write_json
from vidkit.sweep.sweep_file import SweepFile, read_sweep_file

#: the axis that tells the copies of a point apart, when there are several
REPEAT: Final = "repeat"


@dataclass(frozen=True)
class Point:
    """One request of a sweep.

    index: place in the order of execution, from 0; axes: its value on each axis, in display order, texts and paths as
    written (and `repeat`, from 1, where there are several); repeat: from 1; params: with its seed drawn and absolute
    paths; no other default filled in.
    """

    index: int
    axes: Mapping[str, Any]
    repeat: int
    params: GenerationParams

    @property
    def seed(self) -> int:
        return self.params.seed


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    axes: each with its different values, in display order; points: in the order of execution; base: as written; loads:
    how often models are loaded by one process that runs the points in this order; notes: what the user should know
    (parameters without effect); new_seeds: drawn now, and in no plan file yet.
    """

    name: str
    description: str
    notebook: Path
    axes: Mapping[str, Sequence[Any]]
    points: Sequence[Point]
    base: Mapping[str, Any]
    loads: int
    notes: Sequence[str]
    new_seeds: frozenset[int]
    seeds: Seeds = field(repr=False, compare=False)

    def estimate(self, seconds_per_point: float | None) -> str:
        """How long all points take, in words. seconds_per_point: a median of earlier runs, None if there are none."""
        return duration(len(self.points), seconds_per_point)

    def table(self, *, seconds_per_point: float | None = None, full: bool = False) -> str:
        """What `--dry-run` prints: a summary and a line a point; long grids without their middle unless full."""
        return describe_plan(self, seconds_per_point, full=full)

    def to_json(self, keys: Sequence[str] = ()) -> dict[str, Any]:
        """The content of plan.json. keys: content keys of the points, if known, for the report to find their runs."""
        points = [
            {"index": point.index, "axes": dict(point.axes), "repeat": point.repeat, "seed": point.seed}
            for point in self.points
        ]
        for point, key in zip(points, keys, strict=bool(keys)):
            point["key"] = key
        return {
            "schemaVersion": PLAN_VERSION,
            "name": self.name,
            "description": self.description,
            "notebook": self.notebook.name,
            "base": dict(self.base),
            "axes": [{"name": name, "values": list(values)} for name, values in self.axes.items()],
            "notes": list(self.notes),
            "points": points,
            "axisSeeds": self.seeds.on_axis,
            "drawnSeeds": self.seeds.by_point,
        }

    def save(self, root: Path, keys: Sequence[str] = ()) -> None:
        """Write plan.json into a sweep's folder, whole or not at all. keys: as for `to_json`.

        Raises:
            SetupError: `output_not_writable`; CriticalError: `disk_full`.
        """
        try:
            write_json(root / PLAN_FILE, self.to_json(keys), durable=True)
        except OSError as error:
            raise write_error(root / PLAN_FILE, error) from error


def plan_sweep(path: str | Path, root: Path, keys_of: Callable[[Plan], Sequence[str]] | None = None) -> Plan:
    """Plan a sweep for its folder: seeds in its plan.json are kept, and it is written anew. Safe to call from several
    processes at once: all get the same seeds.

    Args:
        path: the sweep's YAML file.
        root: the sweep's folder; made if it is not there.
        keys_of: gives the content key of each point, for plan.json: by it others find a point's run.

    Raises:
        InputError: all that is wrong with the sweep, or a damaged plan.json; plan.json is left as it is then.
        SetupError: `invalid_config`, for a broken settings file; `output_not_writable`.
        CriticalError: `disk_full`.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{PLAN_FILE}.lock"):
            plan = make_plan(path, root)
            plan.save(root, keys_of(plan) if keys_of else ())
    except OSError as error:
        raise write_error(root / PLAN_FILE, error) from error
    return plan


def make_plan(path: str | Path, root: Path | None = None) -> Plan:
    """Plan a sweep without writing anything, as for a dry run.

    Args:
        path: the sweep's YAML file.
        root: the sweep's folder, whose plan.json may hold seeds drawn before.

    Raises:
        InputError, SetupError: as `plan_sweep`.
    """
    path = local_path(path)
    problems, settings, seeds = Problems(path.name), load_settings(), kept_seeds(root)
    sweep = read_sweep_file(path, problems)
    if "seed" in sweep.axes:
        sweep = replace(sweep, axes={**sweep.axes, "seed": seeds.of_axis(sweep.axes["seed"])})
    requests, notes = checked_requests(sweep, settings, problems)
    problems.raise_if_any()
    return Plan(
        name=sweep.name,
        description=sweep.description,
        notebook=sweep.notebook,
        axes=axes_of(sweep),
        points=numbered(sweep, requests, seeds),
        base=sweep.base,
        loads=count_loads(requests),
        notes=notes,
        new_seeds=frozenset(seeds.new),
        seeds=seeds,
    )


def axes_of(sweep: SweepFile) -> dict[str, list[Any]]:
    """Each axis with its different values (a zipped one may have some twice), the copies as the last axis."""
    axes = {name: list(dict.fromkeys(values)) for name, values in sweep.axes.items()}
    if sweep.repeats > 1:
        axes[REPEAT] = list(range(1, sweep.repeats + 1))
    return axes


def numbered(sweep: SweepFile, requests: Sequence[Request], seeds: Seeds) -> list[Point]:
    """The points in the order of execution: seeds drawn, copies made."""
    points: list[Point] = []
    for request in requests:
        for repeat in range(1, sweep.repeats + 1):
            params, axes = request.params, dict(request.axes)
            if params.seed == -1:
                params = params.model_copy(update={"seed": seeds.of_point(axes, repeat)})
            if sweep.repeats > 1:
                axes[REPEAT] = repeat
            points.append(Point(len(points), axes, repeat, params))
    return points


def count_loads(requests: Sequence[Request]) -> int:
    """How often models are loaded by one process that runs the points in this order."""
    needed = [
        (one.params.pipeline, one.params.conditioning, *(model.path for model in one.verdict.models.values()))
        for one in requests
    ]
    return sum(after != before for before, after in zip([None, *needed], needed, strict=False))
