"""Camera moves: how a picture moves under one, and which one a seed's noise stands for.

`tiny-svd`: the move is a *function of the initial noise* (noise and clip are drawn as a pair). Denoising then has one
right answer at every noise level, where an independent draw would make a small model average over all moves, which is
what dissolves clips. Any coupling whose noise is still standard normal leaves the sampler valid (Liu, Gong & Liu,
"Flow Straight and Fast", ICLR 2023), so plain diffusers samples these models as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.motion import MEAN_RADIUS

from .prompts import MOVES

#: mean displacement from first to last frame at motion bucket 255, as a fraction of the width
AMPLITUDE = 0.10

CODE_CHANNELS = 4

#: the moves that words choose, as unit vectors: pan x, pan y, zoom, rotation of the view
_COMPONENTS = {
    "zoom in": (2, 1.0),
    "zoom out": (2, -1.0),
    "pan left": (0, -1.0),
    "pan right": (0, 1.0),
    "tilt up": (1, -1.0),
    "tilt down": (1, 1.0),
    "rotate clockwise": (3, -1.0),  # the picture turns clockwise: the view the other way
    "rotate counterclockwise": (3, 1.0),
}


def checkerboard(height: int, width: int, device: torch.device | str) -> Tensor:
    """(height, width) of +1 and -1. Pictures have next to no energy at this frequency, so noise is read off it well."""
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)[None, :]
    return (1 - 2 * ((x + y) % 2)).float()


def read_code(noise: Tensor) -> Tensor:
    """The four standard normal numbers that noise (batch, frames, channels, height, width) carries in its first frame,
    one in each of the first four channels."""
    height, width = noise.shape[-2:]
    board = checkerboard(height, width, noise.device)
    return (noise[:, 0, :CODE_CHANNELS] * board).sum((-1, -2)) / (height * width) ** 0.5


def boost_code(noise: Tensor, boost: float) -> Tensor:
    """Noise with its code made `boost` times as loud (1: unchanged): training starts loud and ends at 1."""
    height, width = noise.shape[-2:]
    board = checkerboard(height, width, noise.device)
    louder = (boost - 1) * read_code(noise) / (height * width) ** 0.5
    noise = noise.clone()
    noise[:, 0, :CODE_CHANNELS] += louder[:, :, None, None] * board
    return noise


def move_from_code(code: Tensor) -> Tensor:
    """Unit vectors (batch, 4): pan x, pan y, zoom, rotation. Cubing lets the largest component dominate."""
    return functional.normalize(code**3, dim=-1)


def named_moves(device: torch.device | str) -> Tensor:
    """(moves, 4): the vector of each of prompts.MOVES; a static shot's is zero."""
    table = torch.zeros(len(MOVES), 4, device=device)
    for row, name in enumerate(MOVES):
        if name in _COMPONENTS:
            component, sign = _COMPONENTS[name]
            table[row, component] = sign
    return table


def affine_path(move: Tensor, displacement: Tensor, frames: int) -> Tensor:
    """Sampling transforms (batch, frames, 2, 3) for `affine_grid`; identity at frame 0, uniform speed.

    displacement: (batch,) a move's mean displacement over the picture at the last frame, as a fraction of the width (a
    zoom's to first order).
    """
    amount = displacement[:, None] * torch.linspace(0, 1, frames, device=move.device)
    pan_x, pan_y = (2 * amount * move[:, i, None] for i in (0, 1))
    scale = torch.exp(-amount * move[:, 2, None] / MEAN_RADIUS)
    angle = amount * move[:, 3, None] / MEAN_RADIUS
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([torch.stack([cos, -sin, pan_x], -1), torch.stack([sin, cos, pan_y], -1)], -2)


def warp(pictures: Tensor, path: Tensor) -> Tensor:
    """Pictures, or latents, (batch, channels, h, w) along a path (batch, frames, 2, 3), mirrored at the border.

    What a move uncovers is the mirror image: a clip is a function of its first frame, nothing is guessed.
    """
    frames, (height, width) = path.shape[1], pictures.shape[-2:]
    y, x = pixel_centres(height, pictures)[:, None], pixel_centres(width, pictures)
    grid = path[..., None, None, :, 0] * x[..., None] + path[..., None, None, :, 1] * y[..., None]
    grid = grid + path[..., None, None, :, 2]
    source = pictures[:, None].expand(-1, frames, -1, -1, -1).flatten(0, 1)
    moved = functional.grid_sample(source, grid.flatten(0, 1), padding_mode="reflection", align_corners=False)
    return moved.unflatten(0, path.shape[:2])


def pixel_centres(size: int, like: Tensor) -> Tensor:
    """(size,) from just over -1 to just under 1, as `affine_grid(align_corners=False)` has them."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1


def warp_clip(pictures: Tensor, path: Tensor, size: int) -> Tensor:
    """Clips (batch, frames, 3, size, size) of pictures (batch, 3, S, S), S a multiple of size (anti-aliasing)."""
    moved = warp(pictures, path)
    return functional.avg_pool2d(moved.flatten(0, 1), moved.shape[-1] // size).unflatten(0, moved.shape[:2])
