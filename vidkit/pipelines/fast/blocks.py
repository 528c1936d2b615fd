"""Transformer blocks: diffusers' `BasicTransformerBlock` and SVD's `TemporalBasicTransformerBlock`.

Their own forwards where they are of another kind than those of the two families' UNets: with an IP-adapter, masks,
adaptive norms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidkit.pipelines.fast.attention import Texts, add_over_frames, is_plain, of_one_token, over_tokens
from vidkit.pipelines.fast.operations import add_rows, by_video, fed_forward, layer_norm
from vidkit.pipelines.lean.layers import plain

if TYPE_CHECKING:
    import torch


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
    hidden = over_tokens(block.attn1, positioned(block, layer_norm(block.norm1, hidden_states))).add_(hidden_states)
    if block.attn2 is not None:
        add_second_attention(block, texts, hidden, encoder_hidden_states)
    return hidden.add_(fed_forward(block.ff, layer_norm(block.norm3, hidden)))


def add_second_attention(block: Any, texts: Texts | None, hidden: torch.Tensor, context: Any) -> None:
    """To the context, or without one among the tokens again."""
    attention = block.attn2
    if context is not None and context.shape[1] == 1:
        add_rows(hidden, of_one_token(attention, context)[:, 0])
        return
    normed = positioned(block, layer_norm(block.norm2, hidden))
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
            normed = layer_norm(norm, hidden)
            if block.pos_embed is not None:
                positions = block.pos_embed.pe[0, :frames].to(normed.dtype)
                normed = add_rows(normed, positions.repeat(normed.shape[0] // frames, 1))
            add_over_frames(attention, frames, normed, hidden)
    return hidden.add_(fed_forward(block.ff, layer_norm(block.norm3, hidden)))


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
    hidden = fed_forward(block.ff_in, layer_norm(block.norm_in, hidden_states))
    if block.is_res:
        hidden += hidden_states
    add_over_frames(block.attn1, num_frames, layer_norm(block.norm1, hidden), hidden)
    videos = hidden.shape[0] // num_frames
    context = encoder_hidden_states[:: encoder_hidden_states.shape[0] // videos]
    add_rows(by_video(hidden, num_frames).flatten(1, 2), of_one_token(block.attn2, context)[:, 0])
    fed = fed_forward(block.ff, layer_norm(block.norm3, hidden))
    return hidden.add_(fed) if block.is_res else fed
