"""What fast forwards are made of: torch's own operations, or one Triton kernel where several would be (`fused`).

Maps are (pictures, channels, height, width), or planes (videos, channels, frames, pixels); of both, channels lie
together in memory. What a function says it writes into may also come back untouched, so take its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vidkit.pipelines.fast import fused
from vidkit.pipelines.lean.temporal import silu

if TYPE_CHECKING:
    import torch

#: Bytes of a feed-forward layer's inner values that a CPU computes at once: with as many beside them they are still in
#: a core's cache (2 MiB on most of today's servers, 1 to 2 on desktops) when they are read again.
CACHED_BYTES: Final = 1 << 20


def as_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(pictures, channels, height, width) to (pictures, pixels, channels)."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def as_maps(tokens: torch.Tensor, height: int) -> torch.Tensor:
    return tokens.view(tokens.shape[0], height, -1, tokens.shape[2]).permute(0, 3, 1, 2)


def by_video(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """(videos x frames, ...) to (videos, frames, ...), a view."""
    return tokens.view(-1, frames, *tokens.shape[1:])


# --- norms ------------------------------------------------------------------------------------------------------------


def group_norm(
    norm: Any, maps: torch.Tensor, added: torch.Tensor | None = None, *, activate: bool = False
) -> torch.Tensor:
    """A `GroupNorm` of maps to which something is added first, and with `activate` SiLU of it. May write into the maps.

    added: (pictures, channels), of planes (videos x frames, channels), or (channels,).
    """
    if fused.takes(maps):
        return as_maps(fused.group_norm(norm, as_tokens(maps), added, activate), maps.shape[2])
    if added is not None:
        pictures = 1 if added.dim() == 1 else maps.shape[0]
        maps += added.view(pictures, -1, maps.shape[1]).transpose(1, 2)[..., None]
    result: torch.Tensor = norm(maps)
    return silu(result) if activate else result


def layer_norm(norm: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A `LayerNorm` of (..., channels)."""
    if fused.takes(tokens) and norm.elementwise_affine and norm.bias is not None:
        return fused.layer_norm(norm, tokens.contiguous())
    result: torch.Tensor = norm(tokens)
    return result


# --- convolutions: a bias is added with what follows, where that is one kernel ----------------------------------------


def convolved(convolution: Any, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A `Conv2d`'s result without its bias, and that; or with it, and None."""
    import torch

    if not fused.takes(maps):
        return convolution(maps), None
    options = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    result = torch.nn.functional.conv2d(maps, convolution.weight, None, *options)
    return channels_last(result), convolution.bias


def over_time(convolution: Any, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same of a `Conv3d` over three frames of each pixel.

    As a convolution over planes of frames and pixels on a CPU; on an H200 three products of matrices are as fast as
    that where it is at its best (0.69 for 0.67 ms), and up to 1.8 times as fast elsewhere.
    """
    import torch

    if not fused.takes(planes):
        weight = convolution.weight[..., 0]
        return torch.nn.functional.conv2d(planes, weight, convolution.bias, padding=(1, 0)), None
    before, same, after = (convolution.weight[:, :, frame, 0, 0].t() for frame in range(3))
    tokens = as_tokens(planes)
    result = tokens @ same
    pixels = planes.shape[3]
    for target, source in zip(result, tokens, strict=True):
        target[pixels:].addmm_(source[:-pixels], before)
        target[:-pixels].addmm_(source[pixels:], after)
    return as_maps(result, planes.shape[2]), convolution.bias


def channels_last(maps: torch.Tensor) -> torch.Tensor:
    import torch

    return maps.contiguous(memory_format=torch.channels_last)


# --- sums -------------------------------------------------------------------------------------------------------------


def sum_of(*terms: torch.Tensor | None) -> torch.Tensor | None:
    """Of those that are there; None of none."""
    there = [term for term in terms if term is not None]
    return sum(there[1:], there[0]) if there else None


def add_maps(
    target: torch.Tensor, other: torch.Tensor, bias: torch.Tensor | None = None, shares: torch.Tensor | None = None
) -> torch.Tensor:
    """target + shares x (other + bias), written into the target. shares: (videos, frames), of planes."""
    if fused.takes(target):
        tokens, more = as_tokens(target), as_tokens(other)
        if shares is not None:  # each frame has its own
            tokens, more = (rows.view(shares.numel(), -1, rows.shape[2]) for rows in (tokens, more))
            shares = shares.reshape(-1)
        fused.weighted_sum(tokens, more, bias, shares, tokens)
        return target
    if bias is not None:
        other = other + bias[:, None, None]
    return target.add_(other) if shares is None else target.addcmul_(other, shares[:, None, :, None])


def add_rows(target: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """To each token of a row the same, written into the target. target: (all, tokens, channels); rows: (all,
    channels)."""
    if fused.takes(target):
        return fused.weighted_sum(target, None, rows, None, target)
    return target.add_(rows[:, None])


def with_rows(tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The same into a new tensor."""
    import torch

    if fused.takes(tokens):
        return fused.weighted_sum(tokens, None, rows, None, torch.empty_like(tokens))
    return tokens + rows[:, None]


def add_tokens(target: torch.Tensor, other: torch.Tensor) -> None:
    """Written into the target. Both (all, tokens, channels); the other may lie otherwise in memory."""
    if fused.takes(target):
        fused.weighted_sum(target, other, None, None, target)
    else:
        target += other


def mix(target: torch.Tensor, other: torch.Tensor, shares: torch.Tensor) -> None:
    """By its share, the other for the target, which is written into. Both (all, tokens, channels); shares: (all,)."""
    if fused.takes(target):
        fused.weighted_sum(target, other, None, shares, target, towards=True)
    else:
        target.lerp_(other, shares[:, None, None])


# --- feed-forward layers ----------------------------------------------------------------------------------------------


def fed_forward(layer: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A `FeedForward`'s forward."""
    gate = layer.net[0]
    if type(gate).__name__ == "GEGLU" and len(layer.net) == 3:
        if fused.takes(tokens):
            inner = fused.gated(gate.proj(tokens))
            result: torch.Tensor = layer.net[2](inner)
            return result
        if tokens.device.type == "cpu":
            return fed_in_slices(layer, tokens)
    own: torch.Tensor = layer(tokens)
    return own


def fed_in_slices(layer: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A slice at a time, and each half of a GEGLU's by itself: halves of one tensor are not contiguous, and take twice
    as long."""
    import torch

    gate = layer.net[0]
    weights = gate.proj.weight.chunk(2)
    biases = (None, None) if gate.proj.bias is None else gate.proj.bias.chunk(2)
    rows = tokens.flatten(0, -2)
    at_once = max(1, CACHED_BYTES // (weights[0].shape[0] * rows.dtype.itemsize))
    result = rows.new_empty((rows.shape[0], layer.net[2].out_features))
    for part, target in zip(torch.split(rows, at_once), torch.split(result, at_once), strict=True):
        value, share = (torch.nn.functional.linear(part, *own) for own in zip(weights, biases, strict=True))
        target.copy_(layer.net[2](torch.nn.functional.gelu(share).mul_(value)))
    return result.view(*tokens.shape[:-1], -1)
