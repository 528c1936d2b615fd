"""What a sweep adds to a clip's own work: vidkit's warm engine beside papermill's own, which starts a kernel per point.

    python -m benchmarks.sweep_overhead [--points N] [--json FILE]

Both engines run the same points of notebooks/generate.ipynb in turn, as `vidkit sweep` runs them (the bundled tiny-svd,
14 frames of 64x64, 2 steps; the seed is the axis). A point's overhead is its wall time less encoding the picture,
denoising, decoding, writing the clip, and the cell with the quality metrics; loading the model is overhead. The median
is over the points after the first. The table goes to stdout. Exit code: 0 when the warm engine holds its target, or 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

# Threads that spin while they wait steal time from each other on cores that other work shares. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from vidkit.sweep.notebook import WARM, Notebook, execute, read_shown

#: Seconds of overhead per point that the warm engine may have, in the median after the first point.
TARGET: Final = 0.3

NOTEBOOK: Final = Path(__file__).parent.parent / "notebooks" / "generate.ipynb"
REQUEST: Final = {
    "image_path": "example:photo",
    "prompt": "slow camera move",
    "base_model": "bundled:tiny-svd",
    "num_frames": 14,
    "num_inference_steps": 2,
    "width": 64,
    "height": 64,
}
#: what a clip made by hand costs as well; loading is not among them: a warm kernel is there to save it
WORK: Final = ("encode", "denoise", "decode", "write")
ENGINES: Final[Mapping[str, str | None]] = {"papermill": None, WARM: WARM}


@dataclass(frozen=True)
class Point:
    """One executed point, in seconds. cells: by cell id, what papermill measured."""

    wall: float
    work: float
    load: float
    metrics: float
    cells: Mapping[str, float]

    @property
    def overhead(self) -> float:
        return self.wall - self.work - self.metrics

    @property
    def outside(self) -> float:
        """What passed outside the cells: kernel start or renewal, reading, checking and writing the notebook."""
        return self.wall - sum(self.cells.values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.sweep_overhead", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=8, help="points for each engine, at least 2 (default: 8)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args(arguments)
    if options.points < 2:
        parser.error("--points must be at least 2: the first point is not counted")
    points = measured(options.points)
    print(table(points))
    if options.json:
        options.json.write_text(json.dumps(report(points), indent=2) + "\n", encoding="utf-8")
    return 0 if median_overhead(points[WARM]) <= TARGET else 1


def measured(count: int) -> dict[str, list[Point]]:
    """Each point with each engine in turn, so that both meet the machine in the same state."""
    points: dict[str, list[Point]] = {name: [] for name in ENGINES}
    import papermill  # noqa: F401  (not part of the first point's time)

    with tempfile.TemporaryDirectory(prefix="vidkit-benchmark-") as folder:
        for seed in range(count):
            for name, engine in ENGINES.items():
                point = run_point(Path(folder) / f"{name}-{seed}", seed, engine)
                points[name].append(point)
                print(f"point {seed + 1}/{count}, {name}: {point.wall:.2f} s", file=sys.stderr)
    return points


def run_point(folder: Path, seed: int, engine: str | None) -> Point:
    folder.mkdir()
    parameters = {**REQUEST, "seed": seed, "output_path": str(folder / "clip.mp4")}
    started = time.perf_counter()
    notebook = execute(NOTEBOOK, folder / "notebook.ipynb", parameters, engine)
    wall = time.perf_counter() - started
    shown = read_shown(notebook)
    timing: Mapping[str, float] = shown.result["metadata"]["timing"]
    work = sum(timing.get(phase, 0.0) for phase in WORK)
    return Point(wall, work, timing.get("load", 0.0), shown.metrics_seconds, cell_seconds(notebook))


def cell_seconds(notebook: Notebook) -> dict[str, float]:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    named = {"injected-parameters" if "injected-parameters" in tags(cell) else cell["id"]: cell for cell in cells}
    return {name: float(cell["metadata"]["papermill"]["duration"] or 0) for name, cell in named.items()}


def tags(cell: Mapping[str, Any]) -> Sequence[str]:
    return list(cell["metadata"].get("tags", ()))


def median_overhead(points: Sequence[Point]) -> float:
    return statistics.median(point.overhead for point in points[1:])


def table(points: Mapping[str, Sequence[Point]]) -> str:
    """For reading: medians after the first point, in seconds."""
    names = list(points)
    lines = ["seconds, median after the first point".ljust(46) + "".join(f"{name:>14}" for name in names)]

    def row(label: str, values: Sequence[float]) -> None:
        lines.append(label.ljust(46) + "".join(f"{value:14.3f}" for value in values))

    def medians(value: Any) -> list[float]:
        return [statistics.median(value(point) for point in points[name][1:]) for name in names]

    row("overhead per point", [median_overhead(points[name]) for name in names])
    row("  of it outside the cells", medians(lambda point: point.outside))
    row("  of it loading the model", medians(lambda point: point.load))
    for cell in points[names[0]][0].cells:
        if cell not in ("generate", "metrics"):
            row(f"  of it the cell {cell}", medians(lambda point, cell=cell: point.cells[cell]))
    row(
        "  of it the rest of the cell generate",
        medians(lambda point: point.cells["generate"] - point.work - point.load),
    )
    row("work (picture, denoising, decoding, writing)", medians(lambda point: point.work))
    row("quality metrics", medians(lambda point: point.metrics))
    row("wall time per point", medians(lambda point: point.wall))
    row("overhead of the first point", [points[name][0].overhead for name in names])
    lines.append(f"target: {WARM} at most {TARGET} s per point")
    return "\n".join(lines)


def report(points: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    return {
        "target": TARGET,
        "medianOverhead": {name: round(median_overhead(of_engine), 4) for name, of_engine in points.items()},
        "points": {name: [{**asdict(one), "overhead": one.overhead} for one in some] for name, some in points.items()},
        "request": REQUEST,
        "machine": {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("papermill", "nbclient", "ipykernel", "torch")},
    }


if __name__ == "__main__":
    sys.exit(main())
