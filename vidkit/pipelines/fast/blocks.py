"""Transformer blocks: diffusers' `BasicTransformerBlock` and SVD's `TemporalBasicTransformerBlock`.

Their own forwards where they are of another kind than those of the two families' UNets: with an IP-adapter, masks,
adaptive norms.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from vidkit.pipelines.fast.attention import Texts, add_attention, is_plain, of_one_token, over_frames, over_tokens
from vidkit.pipelines.fast.operations import add_fed_forward, as_often, layer_norm, mix_fed_forward, sum_of, with_rows
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
    return (
        block.is_res
        and block.attn2 is not None
        and block._chunk_size is None
        and is_plain(block.attn1)
        and is_plain(block.attn2)
    )


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
    """A `BasicTransformerBlock`'s forward. hidden_states: (rows, tokens, channels), written into. texts: None: none are
    kept."""
    is_masked = attention_mask is not None or encoder_attention_mask is not None
    if is_masked or cross_attention_kwargs or not is_basic(block):
        own: torch.Tensor = plain(block)(
            as_often(hidden_states, encoder_hidden_states), attention_mask, encoder_hidden_states,
            encoder_attention_mask, timestep, cross_attention_kwargs, class_labels, added_cond_kwargs,
        )  # fmt: skip
        return own
    hidden, owed = add_attention(block.attn1, block.norm1, hidden_states, partial(over_positioned, block, block.attn1))
    hidden = as_often(hidden, encoder_hidden_states)
    if block.attn2 is not None and encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1:
        owed = sum_of(of_one_token(block.attn2, encoder_hidden_states)[:, 0], owed)
    elif block.attn2 is not None:
        hidden, owed = add_second_attention(block, texts, hidden, owed, encoder_hidden_states)
    return add_fed_forward(block.ff, block.norm3, hidden, owed, own=True)


def add_second_attention(
    block: Any, texts: Texts | None, hidden: torch.Tensor, owed: torch.Tensor | None, context: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """To the context, or without one among the tokens again; as `add_attention`."""
    attention = block.attn2
    if context is None:
        attend = partial(over_positioned, block, attention)
    elif texts is None:
        normed = positioned(block, layer_norm(block.norm2, hidden, owed))
        return hidden.add_(attention(normed, encoder_hidden_states=context)), owed
    else:
        attend = partial(over_text, block, texts, context)
    return add_attention(attention, block.norm2, hidden, attend, owed)


def over_positioned(block: Any, attention: Any, normed: torch.Tensor) -> torch.Tensor:
    return over_tokens(attention, positioned(block, normed))


def over_text(block: Any, texts: Texts, context: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
    return texts.attended(block.attn2, positioned(block, normed), context)


def positioned(block: Any, normed: torch.Tensor) -> torch.Tensor:
    """With what tells a motion module which frame is which."""
    return normed if block.pos_embed is None else block.pos_embed(normed)


def motion_block(block: Any, frames: int, hidden: torch.Tensor) -> torch.Tensor:
    """A motion module's `BasicTransformerBlock` (`is_basic`) over the frames of each pixel.

    hidden: (videos x frames, pixels, channels), written into.
    """
    positions, owed = None, None
    if block.pos_embed is not None:
        positions = block.pos_embed.pe[0, :frames].to(hidden.dtype).repeat(hidden.shape[0] // frames, 1)
    for norm, attention in ((block.norm1, block.attn1), (block.norm2, block.attn2)):
        if attention is not None:
            attend = partial(over_frames, attention, frames)
            hidden, owed = add_attention(attention, norm, hidden, attend, owed, positions)
    return add_fed_forward(block.ff, block.norm3, hidden, owed, own=True)


def temporal_block(
    block: Any,
    hidden_states: torch.Tensor,
    num_frames: int,
    encoder_hidden_states: Any = None,
    positions: torch.Tensor | None = None,
    share: torch.Tensor | None = None,
) -> torch.Tensor:
    """A `TemporalBasicTransformerBlock`'s forward.

    hidden_states: (videos x frames, pixels, channels). encoder_hidden_states: (videos, 1, channels), or that for each
    pixel. positions: None, or (videos x frames, channels), which are added to the tokens first. share: None, or (1,),
    by which the result takes the place of hidden_states, which are written into.
    """
    if not is_temporal(block) or encoder_hidden_states is None or encoder_hidden_states.shape[1] != 1:
        given = hidden_states if positions is None else with_rows(hidden_states, positions)
        own: torch.Tensor = plain(block)(given, num_frames, encoder_hidden_states)
        return own if share is None else hidden_states.lerp_(own, share)
    hidden = add_fed_forward(block.ff_in, block.norm_in, hidden_states, positions)
    hidden, owed = add_attention(block.attn1, block.norm1, hidden, partial(over_frames, block.attn1, num_frames))
    videos = hidden.shape[0] // num_frames
    context = encoder_hidden_states[:: encoder_hidden_states.shape[0] // videos]
    owed = sum_of(of_one_token(block.attn2, context)[:, 0], owed)
    if share is None:
        return add_fed_forward(block.ff, block.norm3, hidden, owed, own=True)
    return mix_fed_forward(hidden_states, share, block.ff, block.norm3, hidden, owed)
