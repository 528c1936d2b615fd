"""Endless synthetic training pictures: "dead leaves", random shapes that occlude one another.

Occlusion, edges at every scale and 1/f texture are what natural photographs have in common (Lee, Mumford & Huang,
"Occlusion Models for Natural Images", IJCV 2001), so what is learned here carries over to photographs, and no
photograph's licence touches the weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def uniform(low: float, high: float, *shape: int, device: torch.device | str) -> Tensor:
    return low + (high - low) * torch.rand(*shape, device=device)


def one_over_f_noise(count: int, size: int, slope: float, device: torch.device | str) -> Tensor:
    """Textures of shape (count, size, size), zero mean, unit deviation, amplitude spectrum 1/f**slope."""
    fy = torch.fft.fftfreq(size, device=device)[:, None]
    fx = torch.fft.rfftfreq(size, device=device)[None, :]
    radius = (fy**2 + fx**2).sqrt().clamp_min(1 / size)
    white = torch.fft.rfft2(torch.randn(count, size, size, device=device))
    texture = torch.fft.irfft2(white / radius**slope, s=(size, size))
    texture = texture - texture.mean((-1, -2), keepdim=True)
    return texture / texture.std((-1, -2), keepdim=True)


def palette_colours(count: int, tones: int, device: torch.device | str) -> Tensor:
    """A palette a picture, (count, tones, 3) in [0, 1]: photographs have few hues, at many brightnesses."""
    hue = torch.rand(count, 1, 1, device=device) + 0.15 * torch.randn(count, tones, 1, device=device)
    hue = torch.where(torch.rand(count, tones, 1, device=device) < 0.25, torch.rand_like(hue), hue)
    saturation = torch.rand(count, 1, 1, device=device) * torch.rand(count, tones, 1, device=device)
    value = uniform(0.05, 1.0, count, tones, 1, device=device)
    offset = torch.tensor([0.0, 1 / 3, 2 / 3], device=device)
    chroma = 0.5 + 0.5 * torch.cos(2 * math.pi * (hue + offset))
    return value * (1 - saturation + saturation * chroma)


def draw_leaves(leaves: int, count: int, palette: Tensor) -> dict[str, Tensor]:
    """The random shapes of `count` pictures, back to front: each value is (leaves, count, 1, 1), colour (.., 3, 1, 1).

    Large behind, small in front; one in four is drawn out to a line, one in six is striped.
    """
    device = palette.device

    def rand() -> Tensor:
        return torch.rand(leaves, count, 1, 1, device=device)

    def randn() -> Tensor:
        return torch.randn(leaves, count, 1, 1, device=device)

    scale = 0.45 * (0.010 / 0.45) ** torch.linspace(0, 1, leaves, device=device)[:, None, None, None]
    radius = scale * torch.exp(0.6 * randn())
    softness = torch.exp(math.log(0.001) + math.log(15) * rand()) / radius
    tone = torch.randint(palette.shape[1], (leaves, count), device=device)
    colour = palette[torch.arange(count, device=device)[None], tone]
    return {
        "cx": 1.2 * rand() - 0.1,
        "cy": 1.2 * rand() - 0.1,
        "angle": 2 * math.pi * rand(),
        "radius": radius,
        "aspect": torch.exp(torch.where(rand() < 0.25, 1.3, 0.5) * randn()),
        "power": torch.exp(math.log(8.0) * rand()),
        "wobble": 0.25 * rand() * (rand() < 0.5),
        "lobes": torch.randint(2, 7, (leaves, count, 1, 1), device=device).float(),
        "softness": torch.where(rand() < 0.2, softness * 6, softness.clamp_max(0.05)),
        "slope_u": 0.15 * randn(),
        "slope_v": 0.15 * randn(),
        "grain": 0.14 * rand() ** 2,
        "stripes": 0.25 * rand() * (rand() < 1 / 6),
        "frequency": torch.exp(uniform(math.log(4.0), math.log(30.0), leaves, count, 1, 1, device=device)),
        "colour": (colour + 0.12 * torch.randn(leaves, count, 3, device=device))[..., None, None],
    }


def paint_leaf(canvas: Tensor, x: Tensor, y: Tensor, grain: Tensor, leaf: dict[str, Tensor]) -> Tensor:
    """The canvas (count, 3, size, size) with one more shape a picture in front; grain: (count, size, size)."""
    cos, sin = leaf["angle"].cos(), leaf["angle"].sin()
    dx, dy = x - leaf["cx"], y - leaf["cy"]
    u = (dx * cos + dy * sin) / (leaf["radius"] * leaf["aspect"])
    v = (dy * cos - dx * sin) / (leaf["radius"] / leaf["aspect"])
    power = leaf["power"]
    rho = (u.abs().clamp_min(1e-4) ** power + v.abs().clamp_min(1e-4) ** power) ** (1 / power)
    rho = rho * (1 + leaf["wobble"] * torch.cos(leaf["lobes"] * torch.atan2(v, u)))
    coverage = torch.sigmoid((1 - rho) / leaf["softness"])
    shade = 1 + leaf["slope_u"] * u.clamp(-2, 2) + leaf["slope_v"] * v.clamp(-2, 2)
    shade = shade + leaf["stripes"] * torch.tanh(3 * torch.sin(leaf["frequency"] * u))
    layer = leaf["colour"] * shade[:, None] + (grain * leaf["grain"])[:, None]
    return canvas + coverage[:, None] * (layer - canvas)


def dead_leaves(count: int, size: int, leaves: int = 200, device: torch.device | str = "cpu") -> Tensor:
    """Random pictures (count, 3, size, size), float in [0, 1]."""
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = axis[None, :, None], axis[None, None, :]
    palette = palette_colours(count, 8, device)
    textures = torch.stack([one_over_f_noise(count, size, slope, device) for slope in (0.5, 0.9, 1.4)])
    sky = palette[:, :2, :, None, None]
    canvas = sky[:, 0] + (sky[:, 1] - sky[:, 0]) * y[:, None]
    canvas = canvas + 0.06 * textures[2][:, None]
    shapes = draw_leaves(leaves, count, palette)
    paint = compiled_paint() if canvas.is_cuda else paint_leaf
    for number in range(leaves):
        grain = textures[number % 3].roll(number, 0)
        canvas = paint(canvas, x, y, grain, {name: value[number] for name, value in shapes.items()})
    light = 1 + 0.25 * textures[2].roll(1, 0)[:, None] * torch.rand(count, 1, 1, 1, device=device)
    contrast = uniform(0.7, 1.6, count, 1, 1, 1, device=device)
    brightness = uniform(-0.12, 0.12, count, 1, 1, 1, device=device)
    return ((canvas * light - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


@functools.cache
def compiled_paint() -> Callable[..., Tensor]:
    """One kernel in place of forty: pictures come ten times as fast."""
    return torch.compile(paint_leaf, dynamic=False)


class PicturePool:
    """A pool of dead-leaves pictures kept as bytes on the device, handed out in random crops and flips."""

    def __init__(self, count: int, size: int, device: torch.device | str, batch: int = 32) -> None:
        parts = []
        for start in range(0, count, batch):
            pictures = dead_leaves(min(batch, count - start), size, device=device)
            parts.append((pictures * 255).round().byte())
        self.pictures = torch.cat(parts)

    def draw(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) in [-1, 1]: random pictures, cropped to 50-100 % of the side, and flipped."""
        device = self.pictures.device
        chosen = self.pictures[torch.randint(len(self.pictures), (count,), device=device)].float() / 127.5 - 1
        crop = uniform(0.5, 1.0, count, device=device)
        flip = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        theta = torch.zeros(count, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1] = crop * flip, crop
        theta[:, :, 2] = (1 - crop)[:, None] * uniform(-1, 1, count, 2, device=device)
        turned = (torch.rand(count, device=device) < 0.3)[:, None, None]
        theta = torch.where(turned, theta.flip(1), theta)
        grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
        return functional.grid_sample(chosen, grid, padding_mode="reflection", align_corners=False)
