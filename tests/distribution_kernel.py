"""The normal distribution as Triton's kernels compute it, beside the same in double precision."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vidkit.pipelines.fast.triton_products import normal_distribution


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def distribution(source, target, count: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, count)
    tl.store(target + place, normal_distribution(tl.load(source + place)))


def largest_error(nearest: float, furthest: float) -> float:
    """So far from 0."""
    above = torch.linspace(nearest, furthest, 1 << 13)
    source = torch.cat([above, -above])
    target = torch.full_like(source, torch.nan)
    distribution[(1,)](source, target, len(source))
    return float((target.double() - torch.special.ndtr(source.double())).abs().max())
