"""Layers of the UNets and decoders around transformer blocks, with channels last: what is a map for a convolution, and
tokens for a transformer, is the same memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from vidkit.pipelines.fast import fused, fused_products
from vidkit.pipelines.fast.attention import over_tokens
from vidkit.pipelines.fast.blocks import is_basic, is_temporal, motion_block
from vidkit.pipelines.fast.operations import (
    add_maps,
    as_often,
    as_tokens,
    begun_maps,
    by_video,
    channels_last,
    concatenated,
    convolved,
    ended_maps,
    group_norm,
    over_time,
    projected,
    sum_of,
)
from vidkit.pipelines.lean.layers import plain
from vidkit.pipelines.lean.temporal import frame_positions, silu, temporal_shares
from vidkit.pipelines.watch import layers_in_turn

if TYPE_CHECKING:
    import torch

#: Pixels of a map that is upsampled within its convolution. There, four convolutions have borders of their own, which
#: cost more than is saved of small maps: on an H200 a map of 18 x 32 takes 2.5 for 5.8 ms, one of 16 x 16 0.8 for 1.6,
#: and one of 9 x 16 1.7 for 1.5.
LEAST_PIXELS_FOLDED: Final = 256

#: what diffusers sets on motion modules' blocks where FreeU is on
FREE_U: Final = ("s1", "s2", "b1", "b2")


def as_planes(maps: torch.Tensor, frames: int) -> torch.Tensor:
    """(videos x frames, channels, height, width) to (videos, channels, frames, pixels), of channels last too."""
    return by_video(as_tokens(maps), frames).permute(0, 3, 1, 2)


def first_convolution(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = plain(module)(channels_last(hidden))
    return result


def last_convolution(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What leaves the network lies in memory as diffusers' own."""
    result: torch.Tensor = plain(module)(hidden)
    return result.contiguous()


def last_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The `GroupNorm` before the last convolution, with the activation behind it (`last_activation`)."""
    if fused.takes(hidden):
        return group_norm(module, channels_last(hidden), activate=True)
    return silu(plain(module)(hidden))


def last_activation(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Done already."""
    return hidden


def upsampling(module: Any, hidden_states: torch.Tensor, output_size: Any = None, *more: Any) -> torch.Tensor:
    """An `Upsample2D`'s forward, on a GPU within its convolution. On a CPU that takes 20.5 for 23.8 ms of so small a
    part of a clip that it was left out."""
    convolution: Any = getattr(module, "conv" if module.name == "conv" else "Conv2d_0", None)
    height, width = hidden_states.shape[2:]
    rows, columns = (2 * height, 2 * width) if output_size is None else output_size
    is_doubled = module.interpolate and rows in (2 * height, 2 * height - 1) and columns in (2 * width, 2 * width - 1)
    is_usual = module.norm is None and is_over_neighbours(convolution)
    if not (is_doubled and is_usual and fused.takes(hidden_states)):
        own: torch.Tensor = plain(module)(hidden_states, output_size, *more)
        return own
    source = channels_last(hidden_states)
    if (rows, columns) == (2 * height, 2 * width) and height * width >= LEAST_PIXELS_FOLDED:
        return fused_products.upsampled(convolution, source)
    result: torch.Tensor = convolution(fused_products.doubled(source, rows, columns))
    return result


def is_over_neighbours(convolution: Any) -> bool:
    """Whether it is a convolution over a pixel and the eight around it, and nothing else."""
    import torch

    return type(convolution) is torch.nn.Conv2d and (
        convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation, convolution.groups,
        convolution.padding_mode,
    ) == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")  # fmt: skip


def picture_attention(module: Any, hidden_states: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:
    """An autoencoder's `Attention` over pixels."""
    if not fused.takes(hidden_states) or hidden_states.dim() != 4:
        own: torch.Tensor = plain(module)(hidden_states, *more, **options)
        return own
    source = channels_last(hidden_states)
    tokens = as_tokens(begun_maps(module.group_norm, source, module.to_out[0]))
    return ended_maps(source, module.to_out[0], over_tokens(module, tokens))


def resnet(module: Any, input_tensor: torch.Tensor, temb: Any = None) -> torch.Tensor:
    """A `ResnetBlock2D`'s forward."""
    # an autoencoder's is "group", and has no embedding
    if module.time_embedding_norm == "scale_shift" or module.upsample or module.downsample or module.skip_time_act:
        own: torch.Tensor = plain(module)(input_tensor, temb)
        return own
    source = channels_last(input_tensor)
    hidden, bias = convolved(module.conv1, group_norm(module.norm1, source, activate=True))
    hidden = group_norm(module.norm2, hidden, sum_of(embedded(module, module.nonlinearity, temb), bias), activate=True)
    hidden, bias = convolved(module.conv2, hidden)
    if module.conv_shortcut is not None:
        source, bias_too = convolved(module.conv_shortcut, source)
        bias = sum_of(bias, bias_too)
    hidden = add_maps(hidden, source, bias)
    return hidden if module.output_scale_factor == 1 else hidden.div_(module.output_scale_factor)


def first_resnet(module: Any, is_guided: Callable[[], bool], input_tensor: torch.Tensor, temb: Any = None) -> Any:
    """Of a UNet whose halves of guidance differ by their texts alone: one half, as both are the same until then.

    What follows, a `transformer`, returns both.
    """
    if is_guided():
        input_tensor, temb = input_tensor.chunk(2)[0], temb.chunk(2)[0]
    return resnet(module, input_tensor, temb)


def embedded(module: Any, nonlinearity: Any, temb: torch.Tensor | None) -> torch.Tensor | None:
    """What a resnet's time embedding adds to each channel of each picture."""
    if temb is None or module.time_emb_proj is None:
        return None
    found: torch.Tensor = module.time_emb_proj(nonlinearity(temb).flatten(0, -2))
    return found


def spatio_temporal_resnet(
    module: Any, hidden_states: torch.Tensor, temb: Any = None, image_only_indicator: Any = None
) -> torch.Tensor:
    """A `SpatioTemporalResBlock`'s forward: what the temporal block adds is mixed in by its share."""
    if module.temporal_res_block.conv_shortcut is not None:
        own: torch.Tensor = plain(module)(hidden_states, temb, image_only_indicator)
        return own
    spatial = channels_last(resnet(module.spatial_res_block, hidden_states, temb))
    frames = image_only_indicator.shape[-1]
    planes = as_planes(spatial, frames)
    shares = temporal_shares(module.time_mixer, image_only_indicator, spatial)
    temporal = module.temporal_res_block
    added = embedded(temporal, module.spatial_res_block.nonlinearity, temb)
    hidden, bias = over_time(temporal.conv1, group_norm(temporal.norm1, planes, activate=True))
    hidden = group_norm(temporal.norm2, hidden, sum_of(added, bias), activate=True)
    hidden, bias = over_time(temporal.conv2, hidden)
    add_maps(planes, hidden, bias, shares)
    return spatial


def up_block(
    module: Any,
    hidden_states: torch.Tensor,
    res_hidden_states_tuple: Sequence[torch.Tensor],
    temb: Any = None,
    *,
    upsample_size: Any = None,
    num_frames: int = 1,
    image_only_indicator: Any = None,
    **text: Any,
) -> torch.Tensor:
    """The forward of either family's up blocks, with and without attention, as their UNets call them."""
    of_frames = {} if image_only_indicator is None else {"image_only_indicator": image_only_indicator}
    if any(getattr(module, scale, None) for scale in FREE_U):
        own: torch.Tensor = plain(module)(
            hidden_states, res_hidden_states_tuple, temb, upsample_size=upsample_size, num_frames=num_frames, **text
        )
        return own
    skips, hidden = list(res_hidden_states_tuple), hidden_states
    for layer, attention, motion in layers_in_turn(module):
        hidden = concatenated(hidden, skips.pop())  # on its own, so that what it is made of goes before the layer
        hidden = layer(hidden, temb, **of_frames)
        if attention is not None:
            (hidden,) = attention(hidden, **text, **of_frames, return_dict=False)
        if motion is not None:
            hidden = motion(hidden, num_frames=num_frames)
    for upsampler in module.upsamplers or ():
        hidden = upsampler(hidden, upsample_size)
    return hidden


def spatio_temporal_transformer(
    module: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: Any = None,
    image_only_indicator: Any = None,
    return_dict: bool = True,
) -> Any:
    """A `TransformerSpatioTemporalModel`'s forward, of a context of one token.

    image_only_indicator: (videos, frames), the same for all, as diffusers' UNet makes it.
    """
    if (
        return_dict
        or encoder_hidden_states.shape[1] != 1
        or not all(map(is_temporal, module.temporal_transformer_blocks))
    ):
        return plain(module)(hidden_states, encoder_hidden_states, image_only_indicator, return_dict)
    source = channels_last(hidden_states)
    frames = image_only_indicator.shape[-1]
    positions = frame_positions(module, frames, source)[:, 0].repeat(source.shape[0] // frames, 1)
    share = temporal_shares(module.time_mixer, image_only_indicator, source).flatten()[:1]
    tokens = module.proj_in(as_tokens(begun_maps(module.norm, source, module.proj_out)))
    for block, temporal in zip(module.transformer_blocks, module.temporal_transformer_blocks, strict=True):
        tokens = block(tokens, encoder_hidden_states=encoder_hidden_states)
        context = encoder_hidden_states[::frames]
        more = {"num_frames": frames, "encoder_hidden_states": context, "positions": positions}
        tokens = temporal(tokens, **more, share=share)
    return (ended_maps(source, module.proj_out, tokens),)


def transformer(module: Any, hidden_states: torch.Tensor, return_dict: bool = True, **options: Any) -> Any:
    """A `Transformer2DModel`'s forward, over pixels."""
    if return_dict or not module.is_input_continuous:
        return plain(module)(hidden_states, return_dict=return_dict, **options)
    source = channels_last(hidden_states)
    tokens = projected(module.proj_in, as_tokens(begun_maps(module.norm, source, module.proj_out)))
    for block in module.transformer_blocks:
        tokens = block(
            tokens,
            encoder_hidden_states=options.get("encoder_hidden_states"),
            cross_attention_kwargs=options.get("cross_attention_kwargs"),
        )
    return (ended_maps(as_often(source, tokens), module.proj_out, tokens),)


def motion_module(
    module: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: Any = None,
    timestep: Any = None,
    class_labels: Any = None,
    num_frames: int = 1,
    cross_attention_kwargs: Any = None,
) -> torch.Tensor:
    """An `AnimateDiffTransformer3D`'s forward."""
    if encoder_hidden_states is not None or cross_attention_kwargs or not all(map(is_basic, module.transformer_blocks)):
        own: torch.Tensor = plain(module)(
            hidden_states, encoder_hidden_states, timestep, class_labels, num_frames, cross_attention_kwargs
        )
        return own
    source = channels_last(hidden_states)
    planes = begun_maps(module.norm, as_planes(source, num_frames), module.proj_out)
    tokens = module.proj_in(planes.permute(0, 2, 3, 1).flatten(0, 1))
    for block in module.transformer_blocks:
        tokens = motion_block(block, num_frames, tokens)
    return ended_maps(source, module.proj_out, tokens)
