"""GroupNorm in slices: its statistics over the whole first, then slices are normalised with them.

The norms of temporal layers take mean and variance over all frames and all pixels of a video, so a slice's own would be
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: mean and variance of each channel's group, at least float32
Statistics = tuple["torch.Tensor", "torch.Tensor"]


def group_statistics(parts: Sequence[torch.Tensor], groups: int) -> Statistics:
    """Of all parts of a video together: the variance is the mean of the variances and the variance of the means.

    parts: (any, channels, ...) each, of the same size but for the last.
    """
    import torch

    moments = [channel_moments(part) for part in parts]
    means, variances = (torch.stack(both).view(len(parts), groups, -1) for both in zip(*moments, strict=True))
    total = sum(part.numel() for part in parts)
    share = means.new_full((len(parts), 1, 1), parts[0].numel() / total)  # filled there: a copy would be waited for
    share[-1].fill_(parts[-1].numel() / total)
    share /= means.shape[2]
    mean = (share * means).sum((0, 2), keepdim=True)
    variance = (share * (variances + (means - mean) ** 2)).sum((0, 2), keepdim=True)
    return mean.expand_as(means[:1]).flatten(), variance.expand_as(means[:1]).flatten()


def channel_moments(part: torch.Tensor) -> Statistics:
    """Mean and variance of each channel, in float32 without a copy of the part in float32.

    In half precision by sums, whose rounding is far below that of the values; `var_mean` would round its result to
    half, and overflow.
    """
    import torch

    axes = [axis for axis in range(part.ndim) if axis != 1]
    if part.dtype.itemsize >= 4:
        variance, mean = torch.var_mean(part, axes, correction=0)
        return mean, variance
    count = part.numel() // part.shape[1]
    mean = part.sum(axes, dtype=torch.float32) / count
    length = torch.linalg.vector_norm(part, dim=axes, dtype=torch.float32)
    return mean, (length * (length / count) - mean**2).clamp_(min=0)


def group_norm(module: Any, hidden: torch.Tensor, statistics: Statistics | None = None) -> torch.Tensor:
    """A GroupNorm's forward that also takes statistics. The module is called for it, as its weights may be on the
    device only within its call.

    Normalising with given statistics is what a batch norm does when it is not trained. Its parameters are of
    the statistics' type: so it takes inputs in half precision on every device. Not cuDNN's, which copies a slice that
    is not contiguous.
    """
    import torch

    if statistics is None:
        plain: torch.Tensor = type(module).forward(module, hidden)
        return plain
    weight, bias = (parameter.to(statistics[0].dtype) for parameter in (module.weight, module.bias))
    return torch.batch_norm(hidden, weight, bias, *statistics, False, 0.0, module.eps, False)
