"""Sweep folders with real small clips: what a runner leaves behind, without its hours."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidkit.params import GenerationParams
from vidkit.video import write_video

HOSTILE_PROMPT = "</script><script>alert('x')</script> \"quotes\" 'single' <b>&amp; ${HOME} `id` 🎈 \u2028 <!-- é"


def moving_bar(frames: int, width: int = 64, height: int = 48, *, hue: int = 0) -> npt.NDArray[np.uint8]:
    """A bar that walks to the right over a ramp: frame, clip and direction can be told from a look."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    clip[..., 2] = np.linspace(40, 160, height, dtype=np.uint8)[None, :, None]
    clip[..., 1] = (hue * 47) % 200
    for number in range(frames):
        start = round(number * (width - width // 8) / max(1, frames - 1))
        clip[number, :, start : start + width // 8, 0] = 250
    return clip


def write_run(
    root: Path,
    axes: Mapping[str, Any],
    *,
    error: Mapping[str, Any] | None = None,
    size: tuple[int, int] = (64, 48),
    **more: Any,
) -> dict[str, Any]:
    """A run folder, done or failed. more: parameters of its request. Returns its manifest."""
    given = {"image_path": "example:photo", "prompt": "waves", "num_frames": 12, "fps": 8, "seed": 3, **more}
    params = GenerationParams(**{**given, "width": size[0], "height": size[1], **axes})
    request = params.to_record()
    key = hashlib.sha256(json.dumps(request).encode()).hexdigest()
    folder = root / key[:16]
    folder.mkdir(parents=True)
    manifest = {
        "schemaVersion": 1, "key": key, "status": "failed" if error else "done", "axes": dict(axes), "request": request,
        "seed": params.seed, "models": {"baseModel": {"name": "tiny-svd", "sha256": "ab" * 32}},
        "pictures": [{"name": "photo.jpg", "sha256": "cd" * 32}], "versions": {"torch": "2.11"}, "plan": {},
        "notes": [f"guidanceScale is ignored: seed {params.seed}"],
        "timing": {"load": 0.0, "denoise": 4.1, "decode": 0.8, "total": 5.4 + params.seed / 10}, "peakMemoryGiB": None,
        "metrics": {} if error else measured(params), "files": {}, "started": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:00:05+00:00", "attempts": 1, "error": error,
    }  # fmt: skip
    if not error:
        frames = moving_bar(params.num_frames or 12, *size, hue=params.seed)
        write_video(frames, folder / "clip.mp4", fps=params.fps, output_format="mp4", record=None)
        Image.fromarray(frames[0]).save(folder / "poster.png")
        (folder / "notebook.ipynb").write_text("{}", encoding="utf-8")
        manifest["files"] = {"clip": "clip.mp4", "poster": "poster.png", "notebook": "notebook.ipynb"}
    name = "failure.json" if error else "manifest.json"
    (folder / name).write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def measured(params: GenerationParams) -> dict[str, float]:
    """Made-up measures that tell points apart: motion grows with the bucket, flicker falls with the seed."""
    return {
        "motion": params.motion_bucket_id / 60 + params.seed / 100,
        "flicker": 2.0 - params.seed / 10,
        "sharpness": 0.02 * (1 + params.seed),
        "firstFramePsnr": 30.0 - params.motion_bucket_id / 100,
        "firstFrameSsim": 0.9,
    }


def write_plan(root: Path, axes: Mapping[str, Sequence[Any]], keys: Mapping[str, str], name: str = "bars") -> None:
    """plan.json of a full grid. keys: by the JSON of a point's axes; a point without one was never run."""
    points = []
    for index, values in enumerate(itertools.product(*axes.values())):
        point = dict(zip(axes, values, strict=True))
        entry = {"index": index, "axes": point, "repeat": 1, "seed": point.get("seed", 3)}
        if key := keys.get(json.dumps(point)):
            entry["key"] = key
        points.append(entry)
    plan = {
        "schemaVersion": 1,
        "name": name,
        "axes": [{"name": n, "values": list(v)} for n, v in axes.items()],
        "points": points,
    }
    (root / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def copy_run(root: Path, manifest: Mapping[str, Any], source: Path, axes: Mapping[str, Any]) -> str:
    """Another run with the files of an existing one. Returns its key."""
    request = GenerationParams(**manifest["request"]).replace(**axes)
    key = hashlib.sha256(json.dumps(request.to_record()).encode()).hexdigest()
    shutil.copytree(source, root / key[:16])
    changed = {**manifest, "key": key, "axes": dict(axes), "request": request.to_record(), "metrics": measured(request)}
    (root / key[:16] / "manifest.json").write_text(json.dumps(changed), encoding="utf-8")
    return key
