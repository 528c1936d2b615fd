"""Endless synthetic training pictures: "dead leaves", random shapes that occlude one another.

Occlusion, edges at every scale and 1/f texture are what natural photographs have in common (Lee, Mumford & Huang,
"Occlusion Models for Natural Images", IJCV 2001), so what is learned here carries over to photographs, and no
photograph's licence touches the weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def leaf_mask(x: Tensor, y: Tensor, count: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """One random shape a picture: its coverage (count, size, size) in [0, 1], and its own two coordinates."""
    device = x.device
    per_picture = (count, 1, 1)
    cx, cy = (uniform(-0.1, 1.1, *per_picture, device=device) for _ in range(2))
    angle = uniform(0, 2 * math.pi, *per_picture, device=device)
    radius = scale * torch.exp(0.6 * torch.randn(per_picture, device=device))
    aspect = torch.exp(0.5 * torch.randn(per_picture, device=device))
    power = torch.exp(uniform(math.log(1.0), math.log(8.0), *per_picture, device=device))
    u = ((x - cx) * angle.cos() + (y - cy) * angle.sin()) / (radius * aspect)
    v = ((y - cy) * angle.cos() - (x - cx) * angle.sin()) / (radius / aspect)
    rho = (u.abs().clamp_min(1e-4) ** power + v.abs().clamp_min(1e-4) ** power) ** (1 / power)
    wobble = 0.25 * torch.rand(per_picture, device=device) * (torch.rand(per_picture, device=device) < 0.5)
    lobes = torch.randint(2, 7, per_picture, device=device)
    rho = rho * (1 + wobble * torch.cos(lobes * torch.atan2(v, u)))
    softness = torch.exp(uniform(math.log(0.0015), math.log(0.015), *per_picture, device=device)) / radius
    softness = torch.where(torch.rand(per_picture, device=device) < 0.2, softness * 6, softness.clamp_max(0.05))
    return torch.sigmoid((1 - rho) / softness), u, v


def dead_leaves(count: int, size: int, leaves: int = 120, device: torch.device | str = "cpu") -> Tensor:
    """Random pictures (count, 3, size, size), float in [0, 1]."""
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = axis[None, :, None], axis[None, None, :]
    palette = palette_colours(count, 8, device)
    textures = torch.stack([one_over_f_noise(count, size, slope, device) for slope in (0.6, 1.0, 1.5)])
    sky = palette[:, :2, :, None, None]
    canvas = sky[:, 0] + (sky[:, 1] - sky[:, 0]) * y[:, None]
    canvas = canvas + 0.06 * textures[2][:, None]
    rows = torch.arange(count, device=device)
    for leaf in range(leaves):
        scale = 0.45 * (0.012 / 0.45) ** (leaf / max(leaves - 1, 1))  # large behind, small in front
        coverage, u, v = leaf_mask(x, y, count, scale)
        colour = palette[rows, torch.randint(8, (count,), device=device)]
        colour = (colour + 0.12 * torch.randn(count, 3, device=device))[:, :, None, None]
        slope_u, slope_v = (0.15 * torch.randn(count, 1, 1, device=device) for _ in range(2))
        shade = 1 + slope_u * u.clamp(-2, 2) + slope_v * v.clamp(-2, 2)
        grain = textures[torch.randint(3, (count,), device=device), rows.roll(leaf + 1)]
        grain = grain * (0.12 * torch.rand(count, 1, 1, device=device) ** 2)
        layer = colour * shade[:, None] + grain[:, None]
        canvas = canvas + coverage[:, None] * (layer - canvas)
    light = 1 + 0.25 * textures[2].roll(1, 0)[:, None] * torch.rand(count, 1, 1, 1, device=device)
    contrast = uniform(0.7, 1.6, count, 1, 1, 1, device=device)
    brightness = uniform(-0.12, 0.12, count, 1, 1, 1, device=device)
    return ((canvas * light - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


class PicturePool:
    """A pool of dead-leaves pictures kept as bytes on the device, handed out in random crops and flips."""

    def __init__(self, count: int, size: int, device: torch.device | str, batch: int = 32) -> None:
        parts = []
        for start in range(0, count, batch):
            pictures = dead_leaves(min(batch, count - start), size, device=device)
            parts.append((pictures * 255).round().byte())
        self.pictures = torch.cat(parts)

    def draw(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) in [-1, 1]: random pictures, cropped to 40-100 % of the side, and flipped."""
        device = self.pictures.device
        chosen = self.pictures[torch.randint(len(self.pictures), (count,), device=device)].float() / 127.5 - 1
        crop = uniform(0.4, 1.0, count, device=device)
        flip = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        theta = torch.zeros(count, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1] = crop * flip, crop
        theta[:, :, 2] = (1 - crop)[:, None] * uniform(-1, 1, count, 2, device=device)
        turned = (torch.rand(count, device=device) < 0.3)[:, None, None]
        theta = torch.where(turned, theta.flip(1), theta)
        grid = torch.nn.functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
        return torch.nn.functional.grid_sample(chosen, grid, padding_mode="reflection", align_corners=False)
