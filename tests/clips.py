"""Requests for the tiny models, and their frames before any video compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tiny_models import TEST_SIZE, TinyAnimateDiff

from vidkit import generation
from vidkit.params import GenerationParams
from vidkit.progress import CancelToken, OnProgress, Reporter
from vidkit.settings import load_settings

Frames = npt.NDArray[np.uint8]


def picture(size: tuple[int, int] = (TEST_SIZE, TEST_SIZE), *, value: int = 0) -> Image.Image:
    """Two ramps and one even channel: turned, mirrored or dropped, it changes the clip."""
    width, height = size
    across = np.linspace(0, 255, width)[None, :]
    down = np.linspace(0, 255, height)[:, None]
    channels = np.broadcast_arrays(down, across, float(value))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def saved(folder: Path, name: str = "picture.png", **options: Any) -> Path:
    path = folder / name
    picture(**options).save(path)
    return path


def svd_request(model: Path, image: Path, **more: Any) -> dict[str, Any]:
    small = {"width": TEST_SIZE, "height": TEST_SIZE, "num_frames": 4, "num_inference_steps": 2, "seed": 7}
    return {"pipeline": "svd", "base_model": str(model), "image_path": str(image), "prompt": "waves", **small, **more}


def animatediff_request(parts: TinyAnimateDiff, image: Path, conditioning: str = "init", **more: Any) -> dict[str, Any]:
    adapter = parts.pia_adapter if conditioning == "pia" else parts.motion_adapter
    models = {"base_model": str(parts.base), "motion_adapter": str(adapter)}
    if conditioning == "sparsectrl":
        models["controlnet"] = str(parts.sparse_controlnet)
    small = {"width": TEST_SIZE, "height": TEST_SIZE, "num_frames": 4, "num_inference_steps": 2, "seed": 7}
    common = {"pipeline": "animatediff", "conditioning": conditioning, "image_path": str(image), "prompt": "waves"}
    return {**common, **models, **small, **more}


def prepared(request: dict[str, Any], reporter: Reporter | None = None) -> generation.Job:
    return generation.prepare(GenerationParams(**request), load_settings(), reporter or Reporter(None, None))


def computed(
    request: dict[str, Any], on_progress: OnProgress | None = None, cancel: CancelToken | None = None
) -> tuple[Frames, list[str]]:
    """What `vidkit.generate` computes for a request, before it is encoded: the frames, and all notes."""
    reporter = Reporter(on_progress, cancel)
    job = prepared(request, reporter)
    frames, _, notes = generation.compute(job, reporter)
    return frames, [*job.notes, *notes]


def frames_of(request: dict[str, Any]) -> Frames:
    return computed(request)[0]


def cold() -> None:
    """Forget the warm pipeline: the next generation loads its models."""
    generation.unload()


def as_bytes(frames: npt.NDArray[Any]) -> Frames:
    """diffusers' `output_type="np"` frames, floats in [0, 1], as 8-bit levels."""
    return (frames * 255).round().astype(np.uint8)
