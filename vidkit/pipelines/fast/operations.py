"""What fast forwards are made of: torch's own operations, or one Triton kernel where several would be (`fused`).

Maps are (pictures, channels, height, width), or planes (videos, channels, frames, pixels); of both, channels lie
together in memory. What a function says it writes into may also come back untouched, so take its result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from vidkit.pipelines.fast import fused, fused_products
from vidkit.pipelines.lean.temporal import silu

if TYPE_CHECKING:
    import torch

#: Bytes of a feed-forward layer's inner values that a CPU computes at once: with as many beside them they are still in
#: a core's cache (2 MiB on most of today's servers, 1 to 2 on desktops) when they are read again.
CACHED_BYTES: Final = 1 << 20

#: slices of a GEGLU on a GPU where its product and gate are not one kernel
SLICES: Final = 16


def as_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(pictures, channels, height, width) to (pictures, pixels, channels)."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def as_maps(tokens: torch.Tensor, height: int) -> torch.Tensor:
    return tokens.view(tokens.shape[0], height, -1, tokens.shape[2]).permute(0, 3, 1, 2)


def as_often(rows: torch.Tensor, others: torch.Tensor | None) -> torch.Tensor:
    """As many as the others: of the two halves of guidance, one was computed (`layers.first_resnet`)."""
    import torch

    return torch.cat((rows, rows)) if others is not None and 2 * len(rows) == len(others) else rows


def by_video(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """(videos x frames, ...) to (videos, frames, ...), a view."""
    return tokens.view(-1, frames, *tokens.shape[1:])


def concatenated(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """One map with the channels of both."""
    import torch

    if not fused.takes(one):
        return torch.cat((one, other), 1)
    tokens = (as_tokens(channels_last(each)) for each in (one, other))
    return as_maps(fused.concatenated(*tokens), one.shape[2])


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


def layer_norm(
    norm: Any, tokens: torch.Tensor, added: torch.Tensor | None = None, shift: torch.Tensor | None = None
) -> torch.Tensor:
    """A `LayerNorm` of tokens + added, and shift. tokens: (all, tokens, channels); added, shift: (some, channels), each
    for as many tokens in turn."""
    if fuses(norm, tokens):
        return fused.layer_norm(norm, tokens.contiguous(), added, shift)
    result: torch.Tensor = norm(tokens if added is None else with_rows(tokens, added))
    return result if shift is None else add_rows(result, shift)


def fuses(norm: Any, tokens: torch.Tensor) -> bool:
    return fused.takes(tokens) and norm.elementwise_affine and norm.bias is not None


# --- residual layers: x + last(inner(norm(x))) ------------------------------------------------------------------------


def begun(
    norm: Any, tokens: torch.Tensor, last: Any, added: torch.Tensor | None = None, *, own: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into a residual layer, norm(tokens + added), and what its last product is added to by `ended`.

    tokens: (all, tokens, channels). last: the layer's last product, or None where it is not known. added: (some,
    channels), each for as many tokens in turn. own: the tokens may be written into.
    """
    import torch

    if fuses(norm, tokens):
        tokens = tokens.contiguous()
        more = last.bias if adds_itself(last) else None
        total = tokens if own else torch.empty_like(tokens)
        return fused.layer_norm(norm, tokens, added, total=total, more=more), total
    if added is not None:
        tokens = (add_rows if own else with_rows)(tokens, added)
    normed: torch.Tensor = norm(tokens)
    if fused.takes(tokens) and adds_itself(last):
        tokens = tokens.clone() if last.bias is None else tokens + last.bias
    return normed, tokens


def ended(total: torch.Tensor, last: Any, inner: torch.Tensor) -> torch.Tensor:
    """With the last product added, on a GPU within it, and without its bias: 0.62 for 0.86 ms of SVD's largest maps on
    an H200. The total is written into there."""
    if fused.takes(total) and adds_itself(last):
        total = total.contiguous()
        total.view(-1, total.shape[-1]).addmm_(inner.reshape(-1, inner.shape[-1]), last.weight.t())
        return total
    result: torch.Tensor = last(inner)
    return result.add_(total)


def owed_by(last: Any, tokens: torch.Tensor) -> torch.Tensor | None:
    """The bias that `ended` leaves out, (1, channels)."""
    is_left_out = fused.takes(tokens) and adds_itself(last) and last.bias is not None
    return last.bias[None] if is_left_out else None


def begun_maps(norm: Any, maps: torch.Tensor, last: Any) -> torch.Tensor:
    """The same of a residual layer over maps, which begins with a `GroupNorm`; the maps are what `ended_maps` adds to.
    May write into them."""
    if fused.takes(maps):
        return as_maps(fused.group_norm(norm, as_tokens(maps), None, False, more=last.bias), maps.shape[2])
    return group_norm(norm, maps)


def ended_maps(total: torch.Tensor, last: Any, tokens: torch.Tensor) -> torch.Tensor:
    """last: as of `projected`. tokens: (pictures, pixels, channels)."""
    if fused.takes(total):
        as_tokens(total).flatten(0, 1).addmm_(tokens.flatten(0, 1), last.weight.flatten(1).t())
        return total
    return as_maps(projected(last, tokens), total.shape[2]).add_(total)


def projected(projection: Any, tokens: torch.Tensor) -> torch.Tensor:
    """By a linear layer, or by what is the same, a convolution over one pixel."""
    import torch

    return torch.nn.functional.linear(tokens, projection.weight.flatten(1), projection.bias)


def adds_itself(last: Any) -> bool:
    """Whether a layer is a product of matrices and nothing else, so that what it is added to can be summed up in it."""
    import torch

    return type(last) is torch.nn.Linear


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
    before, same, after = convolution.weight[..., 0, 0].permute(2, 1, 0).contiguous()  # as `laid_out`
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
    """To as many tokens in turn the same, written into the target. target: (all, tokens, channels), contiguous; rows:
    (some, channels)."""
    groups = target.view(rows.shape[0], -1, target.shape[-1])
    if fused.takes(target):
        fused.weighted_sum(groups, None, rows, None, groups)
    else:
        groups.add_(rows[:, None])
    return target


def with_rows(tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The same into a new tensor."""
    import torch

    groups = tokens.reshape(rows.shape[0], -1, tokens.shape[-1])
    if fused.takes(tokens):
        return fused.weighted_sum(groups, None, rows, None, torch.empty_like(groups)).view(tokens.shape)
    return (groups + rows[:, None]).view(tokens.shape)


# --- feed-forward layers ----------------------------------------------------------------------------------------------


def add_fed_forward(
    layer: Any, norm: Any, tokens: torch.Tensor, added: torch.Tensor | None = None, *, own: bool = False
) -> torch.Tensor:
    """tokens + added + a `FeedForward` of their norm. added, own: as of `begun`."""
    if is_gated(layer) and fused.takes(tokens):
        normed, total = begun(norm, tokens, layer.net[2], added, own=own)
        return ended(total, layer.net[2], gated(layer.net[0].proj, normed))
    normed, total = begun(norm, tokens, None, added, own=own)
    is_cut = is_gated(layer) and tokens.device.type == "cpu"
    result: torch.Tensor = fed_in_slices(layer, normed) if is_cut else layer(normed)
    return result.add_(total)


def mix_fed_forward(
    target: torch.Tensor, share: torch.Tensor, layer: Any, norm: Any, tokens: torch.Tensor, added: torch.Tensor | None
) -> torch.Tensor:
    """By its share, what `add_fed_forward` gives for the target: that is written into, as are the tokens. share: (1,).

    On a GPU within the norm and the last product: a sum of its own would read both and write one.
    """
    last = layer.net[2]
    if not (is_gated(layer) and fuses(norm, tokens) and adds_itself(last)):
        return target.lerp_(add_fed_forward(layer, norm, tokens, added, own=True), share)
    target = target.contiguous()
    normed = fused.layer_norm(norm, tokens.contiguous(), added, total=target, more=last.bias, share=share)
    inner = gated(layer.net[0].proj, normed)
    target.view(-1, target.shape[-1]).addmm_(inner.flatten(0, -2), (last.weight * share).t())
    return target


def is_gated(layer: Any) -> bool:
    """Whether a `FeedForward` is a GEGLU and a product."""
    return type(layer.net[0]).__name__ == "GEGLU" and len(layer.net) == 3


def gated(projection: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A GEGLU's value times GELU of its gate. Where that is not one kernel, in slices: of all tokens the two are twice
    as large as the result."""
    import torch

    if block := fused_products.block_for(tokens, projection):
        return fused_products.geglu(tokens, projection, block)
    rows = tokens.flatten(0, -2)
    result = rows.new_empty((rows.shape[0], projection.out_features // 2))
    at_once = math.ceil(rows.shape[0] / SLICES)
    for part, target in zip(torch.split(rows, at_once), torch.split(result, at_once), strict=True):
        target.copy_(fused.gated(projection(part)))
    return result.view(*tokens.shape[:-1], -1)


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
