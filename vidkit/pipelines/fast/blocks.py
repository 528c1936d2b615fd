"""Transformer blocks: diffusers' `BasicTransformerBlock` and SVD's `TemporalBasicTransformerBlock`.

Their own forwards where they are of another kind than those of the two families' UNets: with an IP-adapter, masks,
adaptive norms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vidkit.pipelines.fast.attention import Texts, add_over_frames, is_plain, of_one_token, over_tokens
from vidkit.pipelines.lean.layers import plain

if TYPE_CHECKING:
    import torch

#: Bytes of a feed-forward layer's inner values that a CPU computes at once: with as many beside them they are still in
#: a core's cache (2 MiB on most of today's servers, 1 to 2 on desktops) when they are read again.
CACHED_BYTES: Final = 1 << 20


def is_basic(block: Any) -> bool:
    """Whether a `BasicTransformerBlock` is of the kind that is computed here."""
    return (
        block.norm_type == "layer_norm"
        and not block.only_cross_attention
        and block._chunk_size is None
        and all(is_plain(attention) for attention in (block.attn1, block.attn2) if attention is not None)
    )


def is_temporal(block: Any) -> bool:
    return block.attn2 is not None and block._chunk_size is None and is_plain(block.attn1) and is_plain(block.attn2)


def transformer_block(
    block: Any,
    texts: Texts | None,
    hidden_states: torch.Tensor,
    attention_mask: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    timestep: Any = None,
    cross_attention_kwargs: Any = None,
    class_labels: Any = None,
    added_cond_kwargs: Any = None,
) -> torch.Tensor:
    """A `BasicTransformerBlock`'s forward. hidden_states: (rows, tokens, channels). texts: None: none are kept."""
    is_masked = attention_mask is not None or encoder_attention_mask is not None
    if is_masked or cross_attention_kwargs or not is_basic(block):
        own: torch.Tensor = plain(block)(
            hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask, timestep,
            cross_attention_kwargs, class_labels, added_cond_kwargs,
        )  # fmt: skip
        return own
    hidden = over_tokens(block.attn1, positioned(block, block.norm1(hidden_states))).add_(hidden_states)
    if block.attn2 is not None:
        add_second_attention(block, texts, hidden, encoder_hidden_states)
    return hidden.add_(fed_forward(block.ff, block.norm3(hidden)))


def add_second_attention(block: Any, texts: Texts | None, hidden: torch.Tensor, context: Any) -> None:
    """To the context, or without one among the tokens again."""
    attention = block.attn2
    if context is not None and context.shape[1] == 1:
        hidden += of_one_token(attention, context)
        return
    normed = positioned(block, block.norm2(hidden))
    if context is None:
        hidden += over_tokens(attention, normed)
    elif texts is None:
        hidden += attention(normed, encoder_hidden_states=context)
    else:
        hidden += texts.attended(attention, normed, context)


def positioned(block: Any, normed: torch.Tensor) -> torch.Tensor:
    """With what tells a motion module which frame is which."""
    return normed if block.pos_embed is None else block.pos_embed(normed)


def motion_block(block: Any, frames: int, hidden: torch.Tensor) -> torch.Tensor:
    """A motion module's `BasicTransformerBlock` (`is_basic`) over the frames of each pixel.

    hidden: (videos x frames, pixels, channels), written into.
    """
    for norm, attention in ((block.norm1, block.attn1), (block.norm2, block.attn2)):
        if attention is not None:
            normed = norm(hidden)
            if block.pos_embed is not None:
                by_video(normed, frames).add_(block.pos_embed.pe[:, :frames, None].to(normed.dtype))
            add_over_frames(attention, frames, normed, hidden)
    return hidden.add_(fed_forward(block.ff, block.norm3(hidden)))


def temporal_block(
    block: Any, hidden_states: torch.Tensor, num_frames: int, encoder_hidden_states: Any = None
) -> torch.Tensor:
    """A `TemporalBasicTransformerBlock`'s forward.

    hidden_states: (videos x frames, pixels, channels). encoder_hidden_states: (videos, 1, channels), or that for each
    pixel.
    """
    if not is_temporal(block) or encoder_hidden_states is None or encoder_hidden_states.shape[1] != 1:
        own: torch.Tensor = plain(block)(hidden_states, num_frames, encoder_hidden_states)
        return own
    hidden = fed_forward(block.ff_in, block.norm_in(hidden_states))
    if block.is_res:
        hidden += hidden_states
    add_over_frames(block.attn1, num_frames, block.norm1(hidden), hidden)
    videos = hidden.shape[0] // num_frames
    context = encoder_hidden_states[:: encoder_hidden_states.shape[0] // videos]
    by_video(hidden, num_frames).add_(of_one_token(block.attn2, context)[:, None])
    fed = fed_forward(block.ff, block.norm3(hidden))
    return hidden.add_(fed) if block.is_res else fed


def by_video(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """(videos x frames, ...) to (videos, frames, ...), a view."""
    return tokens.view(-1, frames, *tokens.shape[1:])


def fed_forward(layer: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A `FeedForward`'s forward, on a CPU a slice at a time, and each half of a GEGLU's by itself: halves of one tensor
    are not contiguous, and take twice as long."""
    import torch

    gate = layer.net[0]
    if tokens.device.type != "cpu" or type(gate).__name__ != "GEGLU" or len(layer.net) != 3:
        own: torch.Tensor = layer(tokens)
        return own
    weights = gate.proj.weight.chunk(2)
    biases = (None, None) if gate.proj.bias is None else gate.proj.bias.chunk(2)
    rows = tokens.flatten(0, -2)
    at_once = max(1, CACHED_BYTES // (weights[0].shape[0] * rows.dtype.itemsize))
    result = rows.new_empty((rows.shape[0], layer.net[2].out_features))
    for part, target in zip(torch.split(rows, at_once), torch.split(result, at_once), strict=True):
        value, share = (torch.nn.functional.linear(part, *own) for own in zip(weights, biases, strict=True))
        target.copy_(layer.net[2](torch.nn.functional.gelu(share).mul_(value)))
    return result.view(*tokens.shape[:-1], -1)
