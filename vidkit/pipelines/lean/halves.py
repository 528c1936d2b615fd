"""The two halves of guidance (without and with the conditioning) one after the other, not in one batch."""

from __future__ import annotations

from typing import Any

from vidkit.pipelines.lean.layers import plain
from vidkit.pipelines.lean.maps import FeatureMap, Joined


def by_halves(module: Any, sample: Any, *arguments: Any, **options: Any) -> Any:
    """A network's forward; all at once where the batch is odd.

    sample: (batch, ...). arguments, options: the others of its forward.
    """
    batch = sample.shape[0]
    if batch % 2:
        return plain(module)(sample, *arguments, **options)
    given = (sample, *arguments)
    first, second = (
        plain(module)(
            *(half(value, number, batch) for value in given),
            **{name: half(value, number, batch) for name, value in options.items()},
        )
        for number in (0, 1)
    )
    return joined(first, second)


def half(value: Any, number: int, batch: int) -> Any:
    """The first (0) or the second (1) half of what is by video or by frame, within lists and mappings too; all else is
    for both."""
    import torch

    if isinstance(value, torch.Tensor):
        by_video = value.ndim and value.shape[0] % batch == 0
        return value.chunk(2)[number] if by_video else value
    if isinstance(value, FeatureMap):
        return value.halves()[number]
    if isinstance(value, list | tuple):
        return type(value)(half(item, number, batch) for item in value)
    if isinstance(value, dict):
        return {name: half(item, number, batch) for name, item in value.items()}
    return value


def joined(first: Any, second: Any) -> Any:
    """The results of both halves in one, as the forward on all would have returned it."""
    import torch

    if isinstance(first, FeatureMap):
        return Joined([first, second])
    if isinstance(first, torch.Tensor):
        return torch.cat([first, second])
    if isinstance(first, dict):  # diffusers' outputs are dictionaries too
        return type(first)(**{name: joined(first[name], second[name]) for name in first})
    return type(first)(joined(*both) for both in zip(first, second, strict=True))
