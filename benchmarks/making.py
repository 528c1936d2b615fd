"""Requests to measured clips, through `vidkit.generate`, as a user makes them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import vidkit
from benchmarks.measures import Clip, measure
from vidkit import GenerationParams
from vidkit.container import Frames
from vidkit.errors import VidkitError
from vidkit.images import fit_image, load_image
from vidkit.video import read_frames

Outcome = Clip | VidkitError
#: a few frames (frames, height, width, 3) of the first clip of each kind of request
Strips = dict[GenerationParams, Frames]
STRIP = 6


def make_all(
    requests: Sequence[GenerationParams], tell: Callable[[GenerationParams, Outcome, int, int], None]
) -> tuple[dict[GenerationParams, Outcome], Strips]:
    """Each different request's clip, measured, or its error; and strips of frames. tell: called after each clip with
    the request, its outcome, its number and how many there are.

    Requests for one pipeline are made after each other, so that its model stays in memory.
    """
    ordered = sorted(dict.fromkeys(requests), key=pipeline)
    outcomes: dict[GenerationParams, Outcome] = {}
    strips: Strips = {}
    loaded = None
    with private_home() as folder:
        for number, request in enumerate(ordered, 1):
            try:
                clip, frames = make(request, folder / "clip.mp4", warm=pipeline(request) == loaded)
            except VidkitError as error:
                outcomes[request] = error
            else:
                outcomes[request], loaded = clip, pipeline(request)
                strips.setdefault(kind(request), frames[np.linspace(0, len(frames) - 1, STRIP).round().astype(int)])
            tell(request, outcomes[request], number, len(ordered))
    return outcomes, strips


def pipeline(request: GenerationParams) -> tuple[str, str]:
    """What must be loaded anew when it changes."""
    return request.pipeline, request.conditioning


def kind(request: GenerationParams) -> GenerationParams:
    """What is asked for, whichever the picture and the seed."""
    return request.replace(image_path="any", seed=0)


@contextmanager
def private_home() -> Iterator[Path]:
    """A folder for the clips, deleted at the end; and vidkit's home, as the user's settings may name other models."""
    before = os.environ.get("VIDKIT_HOME")
    with tempfile.TemporaryDirectory(prefix="vidkit-benchmark-") as folder:
        os.environ["VIDKIT_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("VIDKIT_HOME")
            os.environ.update({} if before is None else {"VIDKIT_HOME": before})


def make(request: GenerationParams, target: Path, *, warm: bool) -> tuple[Clip, Frames]:
    """One clip, measured, with its frames; `target` is the MP4, which is deleted.

    Raises:
        VidkitError: the request failed.
    """
    started = time.monotonic()
    result = vidkit.generate(request.replace(output_path=str(target)))
    seconds = time.monotonic() - started
    resolved, frames = result.record["request"], read_frames(target)
    target.unlink()
    picture = fit_image(load_image(request.image_path), resolved["width"], resolved["height"], request.fit)
    steps = resolved["numInferenceSteps"]
    return measure(request, frames, picture, steps=steps, seconds=seconds, warm=warm), frames
