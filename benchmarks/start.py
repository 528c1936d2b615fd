"""From process start to the first denoising step, phase by phase, beside plain diffusers in a fresh process.

    python -m benchmarks.start RESULTS.json [--repeats 8] [--published] [--device cuda] [--speed fast]

`vidkit generate` is run as a user runs it, its progress tells the time, and it is stopped at its first step. Plain
diffusers loads and calls the same pipeline, as its documentation does. They take turns; the first run of each, which
reads what is not yet in the page cache and hashes the models, is not counted. --published: models of the published
sizes, whose weights are holes in their files, for the bundled ones.

--speed: how long until processes compute at this speed level's full rate, in clips of the models' own size: vidkit
alone, up to the third step, every process counted in its order. The first one may have to compile kernels, which those
after it find on the disk.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: what vidkit's progress says as a phase ends, in their order
VIDKIT: dict[str, str] = {
    "process, own modules": "Checking the request",
    "request": "Loading libraries",
    "torch": "Loading model",
    "libraries, weights": "Processing image",
    "picture": "Denoising step 1",
}
STEPS_OF_SPEED: dict[str, str] = {"first step": "Denoising step 2", "second step": "Denoising step 3"}
PICTURE = Path(__file__).parent.parent / "vidkit" / "examples" / "photo.jpg"
SIZE = {"width": 128, "height": 128}
FRAMES, STEPS = 8, 8


# --- vidkit -----------------------------------------------------------------------------------------------------------


def vidkit_start(request: Mapping[str, Any], folder: Path, until: Mapping[str, str] = VIDKIT) -> dict[str, float]:
    """Seconds of each phase of `vidkit generate`, which is stopped as the last of them ends."""
    wanted = {**request, "outputPath": str(folder / "clip.mp4"), "overwrite": True, "imagePath": str(PICTURE)}
    command = [sys.executable, "-m", "vidkit", "generate", json.dumps({**wanted, "prompt": "zoom in", "seed": 1})]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ends: dict[str, float] = {}
    told = []
    for line in process.stderr or ():
        told.append(line)
        for phase, message in until.items():
            if phase not in ends and f'"message": "{message}' in line:
                ends[phase] = time.perf_counter() - began
        if len(ends) == len(until):
            process.terminate()
            break
    process.communicate()
    if len(ends) < len(until):
        raise SystemExit("".join(told))
    return phases(ends)


# --- plain diffusers, in a process of its own -------------------------------------------------------------------------


def plain_start(models: Mapping[str, str], device: str) -> dict[str, float]:
    """Seconds of each phase of plain diffusers, up to its first denoising step."""
    command = [sys.executable, "-m", "benchmarks.start", "--plain", json.dumps(models), "--device", device]
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout.splitlines()[-1])
    return phases({phase: at - began for phase, at in told.items()})


def plain(models: Mapping[str, str], device: str) -> None:
    """Prints when each phase ended, in seconds since the epoch."""
    ends = {"process": time.time()}
    import torch

    ends["torch"] = time.time()
    import diffusers
    from diffusers.utils import load_image

    options = {"dtype": torch.float16 if device == "cuda" else torch.float32, "local_files_only": True}
    base = models["baseModel"]
    arguments: dict[str, Any] = {**SIZE, "num_inference_steps": STEPS}
    if models["pipeline"] == "svd":
        pipe = diffusers.StableVideoDiffusionPipeline.from_pretrained(base, **options).to(device)
        arguments |= {"image": load_image(str(PICTURE)), "num_frames": FRAMES}
    else:
        # the bundled adapter has input channels of its own, which this pipeline does not feed
        motion = diffusers.MotionAdapter.from_pretrained(models["motionAdapter"], conv_in_channels=None, **options)
        cls = diffusers.AnimateDiffVideoToVideoPipeline
        pipe = cls.from_pretrained(base, motion_adapter=motion, **options).to(device)
        picture = load_image(str(PICTURE)).resize((SIZE["width"], SIZE["height"]))
        arguments |= {"video": [picture] * FRAMES, "prompt": "zoom in"}
    ends["libraries, weights"] = time.time()

    def stop(*_: Any) -> None:
        ends["picture"] = time.time()
        print("\n" + json.dumps(ends), flush=True)
        os._exit(0)

    pipe.unet.register_forward_pre_hook(stop)
    pipe(**arguments)


# --- what is measured -------------------------------------------------------------------------------------------------


def phases(ends: Mapping[str, float]) -> dict[str, float]:
    """From when each ended to how long each took; and the whole."""
    at = [0.0, *ends.values()]
    took = {phase: end - before for phase, end, before in zip(ends, at[1:], at[:-1], strict=True)}
    return {"seconds": round(at[-1], 3)} | {phase: round(seconds, 3) for phase, seconds in took.items()}


def measure(models: Mapping[str, Mapping[str, str]], device: str, repeats: int) -> Iterator[dict[str, Any]]:
    for name, request in models.items():
        rows: dict[str, list[dict[str, float]]] = {"plain": [], "vidkit": []}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(repeats + 1):
                rows["plain"].append(plain_start(request, device))
                size = {**SIZE, "numFrames": FRAMES, "numInferenceSteps": STEPS}
                rows["vidkit"].append(vidkit_start(request | size, Path(folder)))
        yield {name: {way: summary(found[1:]) for way, found in rows.items()}}


def measure_speed(models: Mapping[str, Mapping[str, str]], speed: str, processes: int) -> Iterator[dict[str, Any]]:
    for name, request in models.items():
        with tempfile.TemporaryDirectory() as folder:
            wanted = {**request, "numInferenceSteps": STEPS, "speed": speed}
            rows = [vidkit_start(wanted, Path(folder), VIDKIT | STEPS_OF_SPEED) for _ in range(processes)]
        yield {name: {speed: rows}}


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    best, seconds = min(rows, key=lambda row: row["seconds"]), [row["seconds"] for row in rows]
    return {"best": best, "median": round(statistics.median(seconds), 3), "all": seconds}


def bundled() -> dict[str, dict[str, str]]:
    folder = PICTURE.parents[1] / "models" / "bundled"
    return requests({"svd": "tiny-svd", "base": "tiny-animatediff", "adapter": "tiny-motion-adapter"}, folder)


def published(folder: Path) -> dict[str, dict[str, str]]:
    import diffusers

    from benchmarks.memory_models import make_published_svd, make_sd15, save_part

    make_published_svd(folder / "svd")
    make_sd15(folder / "sd15")
    save_part(folder / "motion_adapter", diffusers.MotionAdapter, {})
    return requests({"svd": "svd", "base": "sd15", "adapter": "motion_adapter"}, folder)


def requests(names: Mapping[str, str], folder: Path) -> dict[str, dict[str, str]]:
    path = {part: str(folder / name) for part, name in names.items()}
    return {
        "svd": {"pipeline": "svd", "baseModel": path["svd"]},
        "animatediff": {"pipeline": "animatediff", "baseModel": path["base"], "motionAdapter": path["adapter"]},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--published", action="store_true", help="models of the published sizes")
    parser.add_argument("--speed", choices=["exact", "fast", "turbo"], help="how soon processes compute at full rate")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain(json.loads(options.plain), options.device)
        return 0
    from benchmarks.memory import about_this_machine
    from vidkit.doctor import bytecode

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ |= {"VIDKIT_HOME": str(folder / "home"), "VIDKIT_DEVICE": options.device}
        content = about_this_machine() | {"cores": os.cpu_count(), "load": [round(os.getloadavg()[0], 1)]}
        content["compiled_anew"] = [one for found in bytecode.findings() for one in found.data.get("libraries", ())]
        models = published(folder) if options.published else bundled()
        if options.speed:
            parts = measure_speed(models, options.speed, options.repeats)
        else:
            parts = measure(models, options.device, options.repeats)
        for part in parts:
            content["load"].append(round(os.getloadavg()[0], 1))
            content |= part
            options.results.write_text(json.dumps(content, indent=1) + "\n")
            print(json.dumps(part), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
