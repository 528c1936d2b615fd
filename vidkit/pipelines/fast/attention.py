"""Attention as diffusers' `AttnProcessor2_0` computes it, over what lies in memory as it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from vidkit.pipelines.fast.kernels import attended
from vidkit.pipelines.fast.operations import add_tokens

if TYPE_CHECKING:
    import torch


def is_plain(attention: Any) -> bool:
    """Whether it is of the kind that is computed here: no IP-adapter's, no norms or sums of its own."""
    return (
        type(attention.processor).__name__ == "AttnProcessor2_0"
        and all(getattr(attention, norm) is None for norm in ("group_norm", "spatial_norm", "norm_q", "norm_k"))
        and not (attention.norm_cross or attention.residual_connection)
        and attention.rescale_output_factor == 1
    )


def over_tokens(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Each row's tokens among themselves: (rows, tokens, channels)."""
    return joined(attention, *(by_heads(attention, part) for part in projected(attention, tokens)))


def add_over_frames(attention: Any, frames: int, tokens: torch.Tensor, target: torch.Tensor) -> None:
    """Each pixel's frames among themselves, added to `target`. Both (videos x frames, pixels, channels)."""
    import torch

    given = projected(attention, tokens)
    for video, *parts in zip(*(torch.split(whole, frames) for whole in (target, *given)), strict=True):
        found = joined(attention, *(by_heads(attention, part.transpose(0, 1)) for part in parts))
        add_tokens(video, found.transpose(0, 1))


def projected(attention: Any, tokens: torch.Tensor) -> Sequence[torch.Tensor]:
    """Queries, keys and values. On a GPU in one product, which reads the tokens once: 0.50 for 1.05 ms of SVD's largest
    maps on an H200. Their weights are put together each time, which takes next to no time there, and are not kept."""
    import torch

    layers = attention.to_q, attention.to_k, attention.to_v
    if tokens.device.type == "cpu" or any(
        type(layer) is not torch.nn.Linear or layer.bias is not None for layer in layers
    ):
        return [layer(tokens) for layer in layers]
    return torch.nn.functional.linear(tokens, torch.cat([layer.weight for layer in layers])).chunk(3, -1)


def of_one_token(attention: Any, context: torch.Tensor) -> torch.Tensor:
    """What any query gets of a single token: the softmax over one key is 1. context: (rows, 1, channels)."""
    constant: torch.Tensor = attention.to_out[0](attention.to_v(context))
    return constant


def by_heads(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """(rows, tokens, channels) to (rows, heads, tokens, channels of a head), a view."""
    return tokens.view(*tokens.shape[:2], attention.heads, -1).transpose(1, 2)


def joined(attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(rows, heads, tokens, channels of a head) each, to the layer's result (rows, tokens, channels)."""
    found = attended(query, key, value)
    result: torch.Tensor = attention.to_out[0](found.transpose(1, 2).flatten(2))
    return result


class Texts:
    """Keys and values of a clip's texts, computed once for each layer.

    diffusers' pipelines repeat a text for every frame, and pass the same tensor at each step: what is kept goes with
    it. Frames that have their text in common are one row of queries.
    """

    def __init__(self) -> None:
        self._context: Any = None
        self._starts: list[int] = []
        self._found: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def attended(self, attention: Any, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """tokens: (rows, tokens, channels); context: (rows, words, channels)."""
        if self._context is None or self._context() is not context:
            self._begin(context)
        if attention not in self._found:
            texts = context[self._starts]
            self._found[attention] = (
                by_heads(attention, attention.to_k(texts)),
                by_heads(attention, attention.to_v(texts)),
            )
        query = attention.to_q(tokens).reshape(len(self._starts), -1, attention.inner_dim)
        return joined(attention, by_heads(attention, query), *self._found[attention]).reshape(tokens.shape)

    def _begin(self, context: torch.Tensor) -> None:
        self._found.clear()
        self._context = ref(context, lambda _: self._found.clear())
        self._starts = first_rows(context)


def first_rows(context: torch.Tensor) -> list[int]:
    """Where each text begins, if all are repeated as often; else all rows."""
    count = context.shape[0]
    differs = (context[1:] != context[:-1]).flatten(1).any(1).tolist()  # waits for the device, once a clip
    starts = [0, *(row for row, is_other in enumerate(differs, 1) if is_other)]
    lengths = {end - start for start, end in zip(starts, [*starts[1:], count], strict=True)}
    return starts if len(lengths) == 1 else list(range(count))
