"""How a clip moves: the similarity transform that carries its first frame to its last, and how well it does so."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: mean distance of a unit square's points from its centre: (sqrt(2) + ln(1 + sqrt(2))) / 6
MEAN_RADIUS = 0.38260

MOVES = ("pan right", "pan left", "tilt down", "tilt up", "zoom in", "zoom out", "rotate left", "rotate right")


@dataclass(frozen=True)
class Motion:
    """Fitted motion of a batch of clips, first frame to last.

    parameters: (batch, 4): shift of the view x and y in half-widths, log of its scale (negative: zoom in), its
        rotation in radians; displacement: (batch,) mean over the picture, as a fraction of the width; psnr: (batch,)
        dB over the overlap; move: the name of the largest component, or "static" under 0.5 % of the width.
    """

    parameters: Tensor
    displacement: Tensor
    psnr: Tensor
    move: list[str]


def similarity(parameters: Tensor) -> Tensor:
    """`affine_grid` transforms (batch, 2, 3) of (batch, 4) parameters."""
    x, y, log_scale, angle = parameters.unbind(-1)
    cos, sin = log_scale.exp() * angle.cos(), log_scale.exp() * angle.sin()
    return torch.stack([torch.stack([cos, -sin, x], -1), torch.stack([sin, cos, y], -1)], -2)


def overlap_error(first: Tensor, last: Tensor, parameters: Tensor) -> Tensor:
    """Mean squared error (batch,) of the moved first frame against the last, where the first frame has a picture."""
    grid = functional.affine_grid(similarity(parameters), list(last.shape), align_corners=False)
    moved = functional.grid_sample(first, grid, mode="bicubic", padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1 - 1 / last.shape[-1]).all(-1)[:, None].float()
    return ((moved - last) ** 2 * inside).sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3))).clamp_min(1)


def starting_points(device: torch.device) -> Tensor:
    """Still, and each of the eight moves at 3, 6 and 10 % mean displacement: (25, 4)."""
    unit = torch.tensor([2.0, 2.0, 1 / MEAN_RADIUS, 1 / MEAN_RADIUS], device=device).diag()
    moves = torch.cat([unit, -unit])
    return torch.cat([torch.zeros(1, 4, device=device)] + [amount * moves for amount in (0.03, 0.06, 0.10)])


def fit_motion(first: Tensor, last: Tensor, iterations: int = 120) -> Motion:
    """Fit a similarity transform to each pair of frames (batch, 3, height, width) in [0, 1].

    Coarse search on blurred, quartered frames, then Adam on a blurred and on the full frame from the best two starts.
    """
    small = [functional.avg_pool2d(frame, 4) for frame in (first, last)]
    starts = starting_points(first.device)
    errors = torch.stack([overlap_error(*small, start.expand(len(first), 4)) for start in starts], 1)
    candidates = starts[errors.argsort(1)[:, :2]]
    results = []
    with torch.enable_grad():
        for k in range(2):
            parameters = candidates[:, k].clone().requires_grad_()
            optimiser = torch.optim.Adam([parameters], lr=0.01)
            for step in range(iterations):
                pool = 4 if step < iterations // 3 else 2 if step < 2 * iterations // 3 else 1
                for group in optimiser.param_groups:
                    group["lr"] = 0.01 * (1 - step / iterations) + 2e-4
                pair = (
                    (functional.avg_pool2d(first, pool), functional.avg_pool2d(last, pool))
                    if pool > 1
                    else (first, last)
                )
                optimiser.zero_grad()
                overlap_error(*pair, parameters).sum().backward()
                optimiser.step()
            results.append(parameters.detach())
    finals = torch.stack([overlap_error(first, last, result) for result in results], 1)
    best = finals.argmin(1)
    rows = torch.arange(len(first), device=first.device)
    parameters = torch.stack(results, 1)[rows, best]
    return Motion(
        parameters,
        mean_displacement(parameters),
        -10 * finals[rows, best].clamp_min(1e-10).log10(),
        name_moves(parameters),
    )


def mean_displacement(parameters: Tensor, samples: int = 64) -> Tensor:
    """Mean displacement (batch,) over the picture, as a fraction of the width."""
    size = [len(parameters), 1, samples, samples]
    still = functional.affine_grid(similarity(torch.zeros_like(parameters)), size, align_corners=False)
    moved = functional.affine_grid(similarity(parameters), size, align_corners=False)
    return (moved - still).norm(dim=-1).mean((1, 2)) / 2


def name_moves(parameters: Tensor) -> list[str]:
    """The largest of the four components, each as the mean displacement it causes, named as a camera move."""
    weights = torch.tensor([0.5, 0.5, MEAN_RADIUS, MEAN_RADIUS], device=parameters.device)
    parts = parameters * weights * torch.tensor([1, 1, -1, 1], device=parameters.device)
    names = []
    for row in parts.tolist():
        k = max(range(4), key=lambda i: abs(row[i]))
        names.append("static" if abs(row[k]) < 0.005 else MOVES[2 * k + (row[k] < 0)])
    return names


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """dB (batch,) between pictures (batch, 3, height, width) in [0, 1]."""
    return -10 * ((a - b) ** 2).mean((1, 2, 3)).clamp_min(1e-10).log10()
