"""Attention as diffusers' `AttnProcessor2_0` computes it, over what lies in memory as it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from vidkit.pipelines.fast import fused, fused_products
from vidkit.pipelines.fast.capture import outside
from vidkit.pipelines.fast.kernels import attended
from vidkit.pipelines.fast.operations import begun, ended

if TYPE_CHECKING:
    import torch


def is_plain(attention: Any) -> bool:
    """Whether it is a transformer block's of the kind that is computed here: no IP-adapter's, no norm or sum of its
    own."""
    return is_usual(attention) and attention.group_norm is None and not attention.residual_connection


def is_over_pictures(attention: Any) -> bool:
    """Whether it is an autoencoder's, with a norm and a sum of its own."""
    has_norm = type(attention.group_norm).__name__ == "GroupNorm"
    return is_usual(attention) and has_norm and attention.residual_connection


def is_usual(attention: Any) -> bool:
    return (
        type(attention.processor).__name__ == "AttnProcessor2_0"
        and all(getattr(attention, norm) is None for norm in ("spatial_norm", "norm_q", "norm_k"))
        and not attention.norm_cross
        and attention.rescale_output_factor == 1
    )


def add_attention(
    attention: Any,
    norm: Any,
    tokens: torch.Tensor,
    attend: Callable[[torch.Tensor], torch.Tensor],
    shift: torch.Tensor | None = None,
    *,
    own: bool = False,
) -> torch.Tensor:
    """tokens + a layer of their norm. attend: all of the layer but its last product. shift, own: as of `begun`."""
    last = attention.to_out[0]
    normed, total = begun(norm, tokens, last, shift=shift, own=own)
    return ended(total, last, attend(normed))


def over_tokens(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Each row's tokens among themselves: (rows, tokens, channels), before the layer's last product."""
    return joined(*(by_heads(attention, part) for part in projected(attention, tokens)))


def over_frames(attention: Any, frames: int, tokens: torch.Tensor) -> torch.Tensor:
    """Each pixel's frames among themselves: (videos x frames, pixels, channels), before the layer's last product."""
    import torch

    given = projected(attention, tokens)
    if fused.takes(tokens) and frames <= fused_products.MOST_FRAMES:
        return fused_products.over_frames(*given, frames, attention.heads)
    result = given[0].new_empty(given[0].shape)
    for target, *parts in zip(*(torch.split(whole, frames) for whole in (result, *given)), strict=True):
        target.copy_(joined(*(by_heads(attention, part.transpose(0, 1)) for part in parts)).transpose(0, 1))
    return result


def projected(attention: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values. On a GPU in one product, which reads the tokens once: 0.50 for 1.05 ms of SVD's largest
    maps on an H200. Their weights are put together each time, which takes next to no time there, and are not kept."""
    import torch

    layers = attention.to_q, attention.to_k, attention.to_v
    if tokens.device.type == "cpu" or any(
        type(layer) is not torch.nn.Linear or layer.bias is not None for layer in layers
    ):
        return attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens)
    query, key, value = torch.nn.functional.linear(tokens, torch.cat([layer.weight for layer in layers])).chunk(3, -1)
    return query, key, value


def of_one_token(attention: Any, context: torch.Tensor) -> torch.Tensor:
    """What any query gets of a single token: the softmax over one key is 1. context: (rows, 1, channels)."""
    constant: torch.Tensor = attention.to_out[0](attention.to_v(context))
    return constant


def by_heads(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """(rows, tokens, channels) to (rows, heads, tokens, channels of a head), a view."""
    return tokens.view(*tokens.shape[:2], attention.heads, -1).transpose(1, 2)


def joined(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(rows, heads, tokens, channels of a head) each, to (rows, tokens, channels)."""
    return attended(query, key, value).transpose(1, 2).flatten(2)


class Texts:
    """Keys and values of a clip's texts, computed once for each layer of a network.

    diffusers' pipelines repeat a text for every frame, and pass the same tensor at each step: what is kept goes with
    it. Frames that have their text in common are one row of queries.
    """

    def __init__(self) -> None:
        self._context: Any = None
        self._starts: list[int] = []
        self._found: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
        self._layers: list[Any] = []  # that have read a text: all at once read the next one

    def attended(self, attention: Any, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """tokens: (rows, tokens, channels); context: (rows, words, channels). Before the layer's last product."""
        if self._context is None or self._context() is not context:
            outside(lambda: self._begin(context), context)
        if attention not in self._found:
            self._layers.append(attention)
            outside(lambda: self._read(attention, context), context)
        query = attention.to_q(tokens).reshape(len(self._starts), -1, attention.inner_dim)
        found = joined(by_heads(attention, query), *self._found[attention])
        return found.reshape(*tokens.shape[:2], -1)

    def _begin(self, context: torch.Tensor) -> None:
        self._found.clear()
        self._context = ref(context, lambda _: self._found.clear())
        self._starts = first_rows(context)
        for attention in self._layers:
            self._read(attention, context)

    def _read(self, attention: Any, context: torch.Tensor) -> None:
        text = context[self._starts]
        self._found[attention] = by_heads(attention, attention.to_k(text)), by_heads(attention, attention.to_v(text))


def first_rows(context: torch.Tensor) -> list[int]:
    """Where each text begins, if all are repeated as often; else all rows."""
    count = context.shape[0]
    differs = (context[1:] != context[:-1]).flatten(1).any(1).tolist()  # waits for the device, once a clip
    starts = [0, *(row for row, is_other in enumerate(differs, 1) if is_other)]
    lengths = {end - start for start, end in zip(starts, [*starts[1:], count], strict=True)}
    return starts if len(lengths) == 1 else list(range(count))
