"""How many clips a sweep makes: with one worker, two that share a GPU, and two with a GPU each.

    python -m benchmarks.throughput RESULTS.json [--clips 8] [--steps 10] [--few]

`vidkit sweep --workers`, as its user starts it. SVD at its published size, whose weights are holes in their files, so
that frames are grey and their video is written sooner than a picture's would be. The rate counts from when every worker
has had time for its first clip, so neither starting nor loading is in it.
Two GPUs are to make 1.95 times as many clips as one: exits with 1 when they don't. Where there is one GPU, or none,
that row is left out. --few: a rehearsal on the CPU with the bundled model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import make_published_svd
from vidkit.runs.folder import run_folders

#: times as many clips of two GPUs as of one
PROMISED = 1.95

#: which GPUs workers have, by case
CASES: dict[str, Sequence[str]] = {
    "one worker": ("0",),
    "two workers on one GPU": ("0", "0"),
    "two GPUs": ("0", "1"),
}

#: phases in which a clip has the GPU
ON_THE_GPU = ("encode", "denoise", "decode")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--clips", type=int, default=8, help="of each GPU")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--speeds", nargs="+", default=["fast"])
    parser.add_argument("--few", action="store_true", help="a rehearsal on the CPU with the bundled model")
    options = parser.parse_args()
    if options.clips < 3:
        parser.error("--clips: a rate counts from the second clip of two workers on, so it needs three of each GPU")
    content: dict[str, Any] = about_this_machine() | {"rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = request(folder, options.steps, options.few)
        for speed in options.speeds:
            for case, gpus in CASES.items():
                if max(map(int, gpus)) < count_of_gpus() or (options.few and "1" not in gpus):
                    made = measure(folder / f"{speed}, {case}", base | {"speed": speed}, gpus, options.clips)
                    content["rows"].append({"speed": speed, "case": case, **made})
                    options.results.write_text(json.dumps(content, indent=1) + "\n")
                    print(json.dumps(content["rows"][-1]), flush=True)
    if not content["rows"]:
        raise SystemExit("no GPU; --few rehearses on the CPU")
    rates = {(row["speed"], row["case"]): row["clips_a_minute"] for row in content["rows"]}
    for (speed, case), rate in rates.items():
        print(f"{speed:6} {case:24} {rate:6.2f} clips a minute, x{rate / rates[speed, 'one worker']:.3f}")
    two = {speed: rate for (speed, case), rate in rates.items() if case == "two GPUs"}
    return int(any(rate < PROMISED * rates[speed, "one worker"] for speed, rate in two.items()))


def count_of_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def request(folder: Path, steps: int, few: bool) -> dict[str, Any]:
    Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")  # zeros make grey clips, broken for other pictures
    common = {"pipeline": "svd", "image_path": str(folder / "grey.png"), "prompt": "x", "num_inference_steps": steps}
    if few:
        return common
    make_published_svd(folder / "svd")
    return common | {"base_model": str(folder / "svd")}


def measure(folder: Path, base: dict[str, Any], gpus: Sequence[str], clips: int) -> dict[str, Any]:
    """Clips a minute, and the median of the clips' seconds by phase."""
    folder.mkdir()
    points = clips * len(set(gpus))
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({"base": base, "axes": {"seed": f"1..{points}"}}))
    command = [sys.executable, "-m", "vidkit", "sweep", str(file), "--output", str(folder / "out"), "--no-report"]
    visible = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(gpus))}
    began = time.monotonic()
    code = subprocess.run([*command, "--workers", str(len(gpus))], env=visible, stdout=subprocess.DEVNULL).returncode
    wall = time.monotonic() - began
    runs = [run for run in run_folders(folder / "out") if run.is_done()]
    if code or len(runs) < points:
        raise SystemExit(f"{len(runs)} of {points} clips, exit code {code}")
    ends = sorted(run.manifest.stat().st_mtime for run in runs)
    rate = (points - len(gpus)) / (ends[-1] - ends[len(gpus) - 1])
    timings = [json.loads(run.manifest.read_text())["timing"] for run in runs]
    names = sorted({*chain(*timings)})
    phases = {phase: statistics.median(timing.get(phase, 0.0) for timing in timings) for phase in names}
    return {
        "clips": points,
        "seconds": round(wall, 1),
        "clips_a_minute": round(60 * rate, 3),
        "seconds_a_clip": round(1 / rate, 3),
        "seconds_on_the_gpu": round(sum(phases.get(phase, 0.0) for phase in ON_THE_GPU), 3),
        "median_seconds": phases,
    }


if __name__ == "__main__":
    raise SystemExit(main())
