"""A CPU's layers of the UNets and decoders, with channels last: what is a map for a convolution, and tokens for a
transformer, is the same memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidkit.pipelines.fast.blocks import by_video, is_basic, is_temporal, motion_block
from vidkit.pipelines.lean.layers import plain
from vidkit.pipelines.lean.temporal import frame_positions, silu, temporal_shares

if TYPE_CHECKING:
    import torch


def channels_last(maps: torch.Tensor) -> torch.Tensor:
    import torch

    return maps.contiguous(memory_format=torch.channels_last)


def as_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(pictures, channels, height, width) to (pictures, pixels, channels)."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def as_maps(tokens: torch.Tensor, height: int) -> torch.Tensor:
    return tokens.view(tokens.shape[0], height, -1, tokens.shape[2]).permute(0, 3, 1, 2)


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


def resnet(module: Any, input_tensor: torch.Tensor, temb: Any = None) -> torch.Tensor:
    """A `ResnetBlock2D`'s forward."""
    if module.time_embedding_norm != "default" or module.upsample or module.downsample or module.skip_time_act:
        own: torch.Tensor = plain(module)(input_tensor, temb)
        return own
    source = channels_last(input_tensor)
    hidden: torch.Tensor = module.conv1(silu(module.norm1(source)))
    if temb is not None and module.time_emb_proj is not None:
        hidden += module.time_emb_proj(module.nonlinearity(temb))[:, :, None, None]
    hidden = silu(module.norm2(hidden))  # a line of its own, so that what it was made of is freed
    hidden = module.conv2(hidden)
    hidden += source if module.conv_shortcut is None else module.conv_shortcut(source)
    if module.output_scale_factor != 1:
        hidden /= module.output_scale_factor
    return hidden


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
    hidden = over_time(temporal.conv1, silu(temporal.norm1(planes)))
    if temb is not None:
        added = temporal.time_emb_proj(module.spatial_res_block.nonlinearity(temb))
        hidden += by_video(added, frames).transpose(1, 2)[..., None]
    hidden = silu(temporal.norm2(hidden))
    hidden = over_time(temporal.conv2, hidden)
    planes.addcmul_(hidden, shares[:, None, :, None])
    return spatial


def over_time(convolution: Any, planes: torch.Tensor) -> torch.Tensor:
    """A convolution over three frames of each pixel, as one over planes of frames and pixels."""
    import torch

    return torch.nn.functional.conv2d(planes, convolution.weight[..., 0], convolution.bias, padding=(1, 0))


def spatio_temporal_transformer(
    module: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: Any = None,
    image_only_indicator: Any = None,
    return_dict: bool = True,
) -> Any:
    """A `TransformerSpatioTemporalModel`'s forward, of a context of one token."""
    if (
        return_dict
        or encoder_hidden_states.shape[1] != 1
        or not all(map(is_temporal, module.temporal_transformer_blocks))
    ):
        return plain(module)(hidden_states, encoder_hidden_states, image_only_indicator, return_dict)
    source = channels_last(hidden_states)
    frames = image_only_indicator.shape[-1]
    positions = frame_positions(module, frames, source)
    shares = temporal_shares(module.time_mixer, image_only_indicator, source).reshape(-1)[:, None, None]
    tokens = module.proj_in(as_tokens(module.norm(source)))
    for block, temporal in zip(module.transformer_blocks, module.temporal_transformer_blocks, strict=True):
        tokens = block(tokens, encoder_hidden_states=encoder_hidden_states)
        placed = (by_video(tokens, frames) + positions).flatten(0, 1)
        mixed = temporal(placed, num_frames=frames, encoder_hidden_states=encoder_hidden_states[::frames])
        tokens.lerp_(mixed, shares)
    return (as_maps(module.proj_out(tokens), source.shape[2]).add_(source),)


def transformer(module: Any, hidden_states: torch.Tensor, return_dict: bool = True, **options: Any) -> Any:
    """A `Transformer2DModel`'s forward, over pixels."""
    if return_dict or not module.is_input_continuous:
        return plain(module)(hidden_states, return_dict=return_dict, **options)
    source = channels_last(hidden_states)
    tokens = projected(module.proj_in, as_tokens(module.norm(source)))
    for block in module.transformer_blocks:
        tokens = block(
            tokens,
            encoder_hidden_states=options.get("encoder_hidden_states"),
            cross_attention_kwargs=options.get("cross_attention_kwargs"),
        )
    return (as_maps(projected(module.proj_out, tokens), source.shape[2]).add_(source),)


def projected(projection: Any, tokens: torch.Tensor) -> torch.Tensor:
    """By a linear layer, or by what is the same, a convolution over one pixel."""
    import torch

    return torch.nn.functional.linear(tokens, projection.weight.flatten(1), projection.bias)


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
    planes = module.norm(as_planes(source, num_frames))
    tokens = module.proj_in(planes.permute(0, 2, 3, 1).flatten(0, 1))
    for block in module.transformer_blocks:
        tokens = motion_block(block, num_frames, tokens)
    return as_maps(module.proj_out(tokens), source.shape[2]).add_(source)
