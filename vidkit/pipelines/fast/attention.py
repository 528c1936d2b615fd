"""Attention as diffusers' `AttnProcessor2_0` computes it, over what lies in memory as it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from vidkit.pipelines.fast import fused, fused_products
from vidkit.pipelines.fast.capture import outside
from vidkit.pipelines.fast.kernels import attended
from vidkit.pipelines.fast.operations import ended, layer_norm, owed_by, sum_of

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
    owed: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """x + a layer of norm(x) + shift, where x = tokens + owed: again as tokens and what is still to be added to them.

    So on a GPU nothing is read and written for the sake of a bias alone. tokens: (all, tokens, channels), written into.
    attend: all of the layer but its last product. owed: (1, channels). shift: as of `layer_norm`.
    """
    last = attention.to_out[0]
    tokens = ended(tokens, last, attend(layer_norm(norm, tokens, owed, shift)))
    return tokens, sum_of(owed, owed_by(last, tokens))


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
    maps on an H200."""
    import torch

    if tokens.device.type == "cpu" or not is_one_product(attention):
        return attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens)
    query, key, value = torch.nn.functional.linear(tokens, whole(projections(attention))).chunk(3, -1)
    return query, key, value


def is_one_product(attention: Any) -> bool:
    """Whether queries, keys and values can be computed of the same tokens at once."""
    import torch

    layers = attention.to_q, attention.to_k, attention.to_v
    return all(
        type(layer) is torch.nn.Linear and layer.bias is None and layer.in_features == attention.to_q.in_features
        for layer in layers
    )


def projections(attention: Any) -> list[torch.Tensor]:
    return [layer.weight for layer in (attention.to_q, attention.to_k, attention.to_v)]


def whole(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """All rows: without a copy where the matrices lie one behind the other, as `lay_together` leaves them; the sums
    that LoRAs put in their place do not."""
    import torch

    first, place = matrices[0], matrices[0].storage_offset()
    for matrix in matrices:
        its_own = matrix.untyped_storage().data_ptr(), matrix.storage_offset(), matrix.is_contiguous()
        if its_own != (first.untyped_storage().data_ptr(), place, True):
            return torch.cat(list(matrices))
        place += matrix.numel()
    return first.as_strided((sum(map(len, matrices)), first.shape[1]), first.stride())


def lay_together(attention: Any) -> None:
    """Weights of queries, keys and values one behind the other in memory, or they would be copied for each product."""
    import torch

    weights = projections(attention)
    together = torch.split(torch.cat(weights), [len(weight) for weight in weights])
    for weight, part in zip(weights, together, strict=True):
        weight.data = part


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
    it, and where the same tensor has another text later, the same keys and values have what is read of that. Frames
    that have their text in common are one row of queries.
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

    def _begin(self, context: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        starts = first_rows(context)
        if self._context is None or self._context() is not context or starts != self._starts:
            self._found.clear()
        self._context, self._starts = ref(context, lambda _: self._found.clear()), starts
        return [self._read(attention, context) for attention in self._layers]

    def _read(self, attention: Any, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        text = context[self._starts]
        read = by_heads(attention, attention.to_k(text)), by_heads(attention, attention.to_v(text))
        for kept, now in zip(self._found.setdefault(attention, read), read, strict=True):
            if kept is not now:
                kept.copy_(now)
        return self._found[attention]


def first_rows(context: torch.Tensor) -> list[int]:
    """Where each text begins, if all are repeated as often; else all rows."""
    count = context.shape[0]
    differs = (context[1:] != context[:-1]).flatten(1).any(1).tolist()  # waits for the device, once a clip
    starts = [0, *(row for row, is_other in enumerate(differs, 1) if is_other)]
    lengths = {end - start for start, end in zip(starts, [*starts[1:], count], strict=True)}
    return starts if len(lengths) == 1 else list(range(count))
