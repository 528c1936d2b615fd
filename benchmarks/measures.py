"""The numbers of one clip, taken from the frames that a viewer gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from benchmarks.motion import fit_motion, psnr
from vidkit import GenerationParams
from vidkit.container import Frames

#: frames between two that are compared in a long clip
LEG = 16
#: 8-bit levels: what compression alone changes from one frame to the next; a smaller median is no measure of motion
QUIET = 1.0
#: pixels at a width of 128: what is left after it are the masses of light and colour
BLUR = 4.0


@dataclass(frozen=True)
class Clip:
    """A clip, measured.

    request: what was asked for. frames, width: what came. steps: denoising steps of the resolved request.
    seconds: from the request to the finished file; warm: its model was in memory before.
    first_frame: dB against the fitted picture; blurred: dB of the first frame against the fitted picture blurred.
    displacement, move, coherence: first frame to last, as `benchmarks.motion.Motion`'s displacement, move and psnr.
    legs: mean coherence (dB) of pairs of frames LEG apart, end to end. jump: see `largest_jump`.
    """

    request: GenerationParams
    frames: int
    width: int
    steps: int
    seconds: float
    warm: bool
    first_frame: float
    blurred: float
    displacement: float
    move: str
    coherence: float
    legs: float
    jump: float


def measure(
    request: GenerationParams, frames: Frames, picture: Image.Image, *, steps: int, seconds: float, warm: bool
) -> Clip:
    """All numbers of a clip.

    Args:
        frames: RGB, uint8, `(frames, size, size, 3)`, at least two, size from 32 pixels.
        picture: the fitted input picture, of the frames' size.
    """
    count, size = frames.shape[:2]
    clip = as_tensor(frames)
    soft = picture.filter(ImageFilter.GaussianBlur(BLUR * size / 128))
    stops = [*range(0, count - 1, LEG), count - 1]
    starts, ends = [0, *stops[:-1]], [count - 1, *stops[1:]]  # the whole clip, then its legs
    motion = fit_motion(clip[starts], clip[ends])
    return Clip(
        request=request,
        frames=count,
        width=size,
        steps=steps,
        seconds=seconds,
        warm=warm,
        first_frame=float(psnr(clip[:1], as_tensor(np.asarray(picture)[None]))),
        blurred=float(psnr(clip[:1], as_tensor(np.asarray(soft)[None]))),
        displacement=float(motion.displacement[0]),
        move=motion.move[0],
        coherence=float(motion.psnr[0]),
        legs=float(motion.psnr[1:].mean()),
        jump=largest_jump(frames),
    )


def largest_jump(frames: Frames) -> float:
    """The largest change from one frame to the next over the usual one: the maximum of the mean absolute difference
    over its median (at least QUIET). 1 is a steady clip; a seam, a flash or a cut stands out."""
    changes = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    return float(changes.max() / max(np.median(changes), QUIET))


def as_tensor(frames: Frames) -> Tensor:
    """(frames, 3, height, width) in [0, 1]."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 255
