"""Camera moves: which one a seed's noise stands for, and how a picture moves under it.

The move is a *function of the initial noise* (noise and clip are drawn as a pair). Denoising then has one right answer
at every noise level, where an independent draw would make a small model average over all moves, which is what dissolves
clips. Any coupling whose noise is still standard normal leaves the sampler valid (Liu, Gong & Liu, "Flow Straight and
Fast", ICLR 2023), so plain diffusers samples these models as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.motion import MEAN_RADIUS

#: mean displacement from first to last frame at motion bucket 255, as a fraction of the width
AMPLITUDE = 0.11


def checkerboard(height: int, width: int, device: torch.device | str) -> Tensor:
    """(height, width) of +1 and -1. Pictures have next to no energy at this frequency, so noise is read off it well."""
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)[None, :]
    return (1 - 2 * ((x + y) % 2)).float()


def read_code(noise: Tensor) -> Tensor:
    """The four standard normal numbers that noise (batch, frames, 4, height, width) carries in its first frame."""
    height, width = noise.shape[-2:]
    board = checkerboard(height, width, noise.device)
    return (noise[:, 0] * board).sum((-1, -2)) / (height * width) ** 0.5


def boost_code(noise: Tensor, boost: float) -> Tensor:
    """Noise with its code made `boost` times as loud (1: unchanged): training starts loud and ends at 1."""
    height, width = noise.shape[-2:]
    board = checkerboard(height, width, noise.device)
    louder = (boost - 1) * read_code(noise) / (height * width) ** 0.5
    noise = noise.clone()
    noise[:, 0] += louder[:, :, None, None] * board
    return noise


def move_from_code(code: Tensor) -> Tensor:
    """Unit vectors (batch, 4): pan x, pan y, zoom, rotation. Cubing lets the largest component dominate."""
    return functional.normalize(code**3, dim=-1)


def affine_path(move: Tensor, bucket: Tensor, frames: int) -> Tensor:
    """Sampling transforms (batch, frames, 2, 3) for `affine_grid`; identity at frame 0, uniform speed.

    A move's mean displacement over the picture is AMPLITUDE * bucket / 255 of the width at the last frame (a zoom's to
    first order).
    """
    amount = AMPLITUDE * bucket[:, None] / 255 * torch.linspace(0, 1, frames, device=move.device)
    pan_x, pan_y = (2 * amount * move[:, i, None] for i in (0, 1))
    scale = torch.exp(-amount * move[:, 2, None] / MEAN_RADIUS)
    angle = amount * move[:, 3, None] / MEAN_RADIUS
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([torch.stack([cos, -sin, pan_x], -1), torch.stack([sin, cos, pan_y], -1)], -2)


def warp_clip(pictures: Tensor, path: Tensor, size: int) -> Tensor:
    """Clips (batch, frames, 3, size, size) of pictures (batch, 3, S, S), S a multiple of size, mirrored at the border.

    What a move uncovers is the picture's mirror image: the clip is a function of its first frame, nothing is guessed.
    """
    batch, frames = path.shape[:2]
    source = pictures.repeat_interleave(frames, 0)
    grid = functional.affine_grid(path.flatten(0, 1), list(source.shape), align_corners=False)
    warped = functional.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    return functional.avg_pool2d(warped, source.shape[-1] // size).unflatten(0, (batch, frames))
