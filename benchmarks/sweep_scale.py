"""A sweep of 2,000 points: seconds to plan it, to find that all is done, and to load its table and write its report.

    python -m benchmarks.sweep_scale [--points 2000] [--json FILE]

One clip is made; its run folder is copied for every other point (with that point's key and seed), since what is
measured does not depend on what is in the clips.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bundled_models import cpu
from vidkit.record import versions
from vidkit.runs import RunFolder, table
from vidkit.sweep.plan import make_plan
from vidkit.sweep.report import write_report
from vidkit.sweep.runner import planned, run_sweep

TARGETS = {"plan": 2.0, "resume": 2.0, "table": 1.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        seconds = measure(Path(temporary), options.points)
    for name, spent in seconds.items():
        target = f"<= {TARGETS[name]:.0f} s" if name in TARGETS else ""
        print(f"{name:28} {spent:7.2f} s  {target}")
    if options.json:
        made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": cpu(), "cores": os.cpu_count()}
        content = {**made, "versions": versions(), "points": options.points, "seconds": seconds}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(seconds[name] > target for name, target in TARGETS.items()))


def measure(folder: Path, points: int) -> dict[str, float]:
    file, root = folder / "sweep.yaml", folder / "out"
    small = {"base_model": "bundled:tiny-svd", "num_inference_steps": 1, "width": 64, "height": 64}
    base = {"image_path": "example:photo", "prompt": "x", **small}
    write(file, base, 1)
    run_sweep(file, root, report=False)
    write(file, base, points)
    fill(file, root)
    command = [sys.executable, "-m", "vidkit", "sweep", str(file), "--output", str(root), "--no-report"]
    return {
        "plan": timed(lambda: make_plan(file)),
        "resume": timed(lambda: run_sweep(file, root, report=False)),
        "resume, as a command": timed(lambda: subprocess.run(command, check=True, capture_output=True)),
        "table": timed(lambda: table(root)),
        "report": timed(lambda: write_report(root)),
    }


def write(file: Path, base: dict[str, Any], points: int) -> None:
    file.write_text(yaml.safe_dump({"base": base, "axes": {"seed": f"1..{points}"}}))


def fill(file: Path, root: Path) -> None:
    """A finished run folder for every point."""
    _, tasks = planned(file, root, None)
    made = RunFolder(root, tasks[0].key)
    manifest = json.loads(made.manifest.read_text())
    for task in tasks[1:]:
        shutil.copytree(made.path, task.folder.path)
        content = manifest | {"key": task.key, "axes": dict(task.axes), "seed": task.params.seed}
        task.folder.manifest.write_text(json.dumps(content))


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return round(time.monotonic() - started, 3)


if __name__ == "__main__":
    sys.exit(main())
