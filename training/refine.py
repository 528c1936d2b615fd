"""What both models learn: the one right clip, from any state that sampling can be in.

A clip is a function of its picture and its move, so at every noise level there is one right answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_MIN = 0.02
MAX_WEIGHT = 5.0


def per_clip(values: Tensor) -> Tensor:
    """(batch,) to (batch, 1, 1, 1, 1)."""
    return values[:, None, None, None, None]


def clean_estimate(velocity: Tensor, state: Tensor, sigma: Tensor) -> Tensor:
    """The clean latents that a v-prediction stands for, state = clean + sigma * noise (diffusers' Euler scheduler)."""
    s = per_clip(sigma)
    return state / (s**2 + 1) - velocity * s / (s**2 + 1).sqrt()


def clip_loss(estimate: Tensor, latents: Tensor, sigma: Tensor, channel_weights: Tensor) -> Tensor:
    """(batch,) squared error of the clean estimate, weighted as v-prediction weights it, but never over MAX_WEIGHT."""
    weight = ((sigma**2 + 1) / sigma**2).clamp_max(MAX_WEIGHT)
    error = (estimate - latents).square() * channel_weights[:, None, None]
    return weight * error.mean((1, 2, 3, 4))


def log_uniform(low: float | Tensor, high: Tensor) -> Tensor:
    """Noise levels (batch,) between (each of) `low` and each of `high`, evenly spread over their logarithm."""
    return low * (high / low) ** torch.rand_like(high)


def chance(probability: float, batch: int, device: torch.device) -> Tensor:
    return torch.rand(batch, device=device) < probability


def decode(vae: torch.nn.Module, latents: Tensor, frames: int) -> Tensor:
    """Pictures of latents (clips * frames, channels, h, w), by SVD's autoencoder, which mixes frames, or any other."""
    temporal = {"num_frames": frames} if hasattr(vae.decoder, "time_conv_out") else {}
    return vae.decode(latents, **temporal).sample


@torch.no_grad()
def channel_weights(vae: torch.nn.Module, latents: Tensor) -> Tensor:
    """(channels,), mean 1: how much an error in each latent channel shows in the decoded picture, squared.

    latents: (pictures, channels, h, w).
    """
    clean = decode(vae, latents, 1)
    weights = []
    for channel in range(latents.shape[1]):
        nudged = latents.clone()
        nudged[:, channel] += 0.3 * torch.randn_like(nudged[:, channel])
        weights.append((decode(vae, nudged, 1) - clean).square().mean())
    stacked = torch.stack(weights)
    return (stacked / stacked.mean()).clamp(0.2, 5.0)
