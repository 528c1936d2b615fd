"""What the live look costs on a full-size model: denoising with it and without, in turns.

    python -m benchmarks.preview RESULT.json [--device cuda] [--steps 25] [--pairs 3]

The models are those of benchmarks.memory: published configs, weights of zeros; time depends on shapes alone. The
listener makes the animation that the panel shows. Target: 3 % of denoising.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import make_models
from benchmarks.memory_settings import Setting

TARGET = 3.0
SETTINGS = (Setting("svd", 1024, 576, 25, 4), Setting("sd15", 512, 512, 16, 4, conditioning="pia"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="the bundled tiny-svd alone: a rehearsal")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if not options.tiny:
            make_models(Path(folder))
        for setting in [Setting("bundled:tiny-svd", 128, 128, 14, 4)] if options.tiny else SETTINGS:
            rows.append(measured(setting, Path(folder), options.device, options.steps, options.pairs))
            print(rows[-1], flush=True)
            options.result.write_text(json.dumps(about_this_machine() | {"settings": rows}, indent=1) + "\n")
    return 0 if all(row["costPercent"] <= TARGET for row in rows) else 1


def measured(setting: Setting, models: Path, device: str, steps: int, pairs: int) -> dict[str, Any]:
    import torch

    from vidkit.computing import Job, denoise
    from vidkit.images import fit_image
    from vidkit.limits import ResourceLimits
    from vidkit.panel.looks import animated
    from vidkit.progress import Reporter
    from vidkit.record import load_picture
    from vidkit.resolving import resolve_request
    from vidkit.settings import load_settings
    from vidkit.warm import fresh_pipeline

    looks = 0

    def listener(frames: Any) -> None:
        nonlocal looks
        looks += 1
        animated(frames, 8)

    found = resolve_request(setting.params(models).replace(num_inference_steps=steps), load_settings())
    params, plan = found.params, setting.plan(device)
    pictures = [fit_image(load_picture(path, 0), params.width, params.height, params.fit) for path in found.pictures]
    job = Job(params, found.family, found.models, {}, pictures, [], Path(), "mp4", ResourceLimits(), found.notes)
    pipe = fresh_pipeline(job, plan)

    def seconds(on_preview: Any) -> float:
        began = time.perf_counter()
        denoise(job, pipe, Reporter(None, None), lambda: None, on_preview)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds(listener)  # warms up
    looks = 0
    times = [(seconds(None), seconds(listener)) for _ in range(pairs)]
    plain, shown = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "model": setting.model,
        "size": f"{setting.width}x{setting.height}",
        "frames": setting.frames,
        "steps": steps,
        "looksPerClip": looks / pairs,
        "seconds": round(plain, 3),
        "secondsWithPreview": round(shown, 3),
        "costPercent": round(100 * (shown / plain - 1), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
