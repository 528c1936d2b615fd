"""Layers that mix frames, in slices of rows or of pixels of all frames: no pixel's result depends on another's, but for
the norms, whose statistics are taken over the whole first. They write into the map that they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidkit.pipelines.lean.layers import by_frames, handed_on
from vidkit.pipelines.lean.maps import FeatureMap, as_map, own_tensor
from vidkit.pipelines.lean.slicing import Slicing, frame_bytes
from vidkit.pipelines.lean.statistics import Statistics, group_statistics

if TYPE_CHECKING:
    import torch


def motion_module(
    module: Any,
    slicing: Slicing,
    is_skip: bool,
    hidden_states: Any,
    encoder_hidden_states: Any = None,
    timestep: Any = None,
    class_labels: Any = None,
    num_frames: int = 1,
    cross_attention_kwargs: Any = None,
) -> FeatureMap:
    """An `AnimateDiffTransformer3D`: all of it is pixel by pixel once its norm's statistics are known."""
    import torch

    options = {
        "encoder_hidden_states": encoder_hidden_states,
        "timestep": timestep,
        "class_labels": class_labels,
        "cross_attention_kwargs": cross_attention_kwargs,
    }
    whole = own_tensor(hidden_states)
    for video in torch.split(whole, num_frames):
        statistics = group_statistics([video], module.norm.num_groups)
        for start, stop in slicing.transformer_ranges(video.shape[2], row_bytes(video)):
            add_motion(module, video[:, :, start:stop], statistics, options)
    return handed_on(whole, slicing, is_skip)


def add_motion(module: Any, rows: torch.Tensor, statistics: Statistics, options: dict[str, Any]) -> None:
    """rows: (frames, channels, rows, width), written into."""
    frames, channels, height, width = rows.shape
    hidden = module.norm(rows, statistics=statistics)
    hidden = module.proj_in(hidden.permute(2, 3, 0, 1).reshape(height * width, frames, channels))
    for block in module.transformer_blocks:
        hidden = block(hidden, **options)
    hidden = module.proj_out(hidden).view(height, width, frames, channels)
    rows += hidden.permute(2, 3, 0, 1)


def spatio_temporal_resnet(
    module: Any,
    slicing: Slicing,
    is_skip: bool,
    hidden_states: Any,
    temb: torch.Tensor | None = None,
    image_only_indicator: Any = None,
) -> FeatureMap:
    """A `SpatioTemporalResBlock`: the spatial one by frames, then the temporal one into its result."""
    import torch

    source = as_map(hidden_states)
    slices = slicing.ranges(source.shape[0], frame_bytes(source))
    whole = by_frames(module.spatial_res_block, source, slices, temb)
    frames = image_only_indicator.shape[-1]
    shares = temporal_shares(module.time_mixer, image_only_indicator, whole)
    for number, video in enumerate(torch.split(whole, frames)):
        own = None if temb is None else temb[number * frames :][:frames]
        add_temporal_resnet(module.temporal_res_block, slicing, video, own, shares[number, :, None, None, None])
    return handed_on(whole, slicing, is_skip)


def temporal_shares(mixer: Any, image_only_indicator: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """(videos, frames): how much of the temporal layer's result is mixed into the spatial one's, as `AlphaBlender`."""
    alpha = mixer.get_alpha(image_only_indicator, 3).to(hidden.dtype)
    share: torch.Tensor = alpha if mixer.switch_spatial_to_temporal_mix else 1.0 - alpha
    return share.reshape(-1).expand(image_only_indicator.numel()).view(image_only_indicator.shape)


def add_temporal_resnet(
    module: Any, slicing: Slicing, video: torch.Tensor, temb: torch.Tensor | None, share: torch.Tensor
) -> None:
    """A `TemporalResnetBlock`, whose result is its input and something added: what is added, times the share.

    video: (frames, channels, height, width), written into. temb: (frames, ...). share: by frame.
    """
    if temb is not None:
        temb = module.time_emb_proj(module.nonlinearity(temb)).T[None, :, :, None, None]
    slices = list(slicing.ranges(video.shape[2], row_bytes(video)))
    statistics = group_statistics([video], module.norm1.num_groups)
    parts = [first_half(module, video[:, :, start:stop], statistics, temb) for start, stop in slices]
    statistics = group_statistics(parts, module.norm2.num_groups)
    for start, stop in slices:
        added = second_half(module, parts.pop(0), statistics)
        video[:, :, start:stop].addcmul_(added[0].transpose(0, 1), share)
        del added


def first_half(module: Any, rows: torch.Tensor, statistics: Statistics, temb: torch.Tensor | None) -> torch.Tensor:
    """(frames, channels, rows, width) to (1, channels, frames, rows, width)."""
    hidden: torch.Tensor = silu(module.norm1(rows, statistics=statistics)).transpose(0, 1)[None]
    hidden = module.conv1(hidden)
    return hidden if temb is None else hidden.add_(temb)


def second_half(module: Any, hidden: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    convolved: torch.Tensor = module.conv2(silu(module.norm2(hidden, statistics=statistics)))
    return convolved


def silu(hidden: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.silu(hidden, inplace=True)


def spatio_temporal_transformer(
    module: Any,
    slicing: Slicing,
    is_skip: bool,
    hidden_states: Any,
    encoder_hidden_states: Any = None,
    image_only_indicator: Any = None,
    return_dict: bool = False,
) -> tuple[FeatureMap]:
    """A `TransformerSpatioTemporalModel`: one more map is there as a whole, in which all of its blocks work."""
    import torch

    whole = own_tensor(hidden_states)
    frames = image_only_indicator.shape[-1]
    shares = temporal_shares(module.time_mixer, image_only_indicator, whole)[:, :, None, None]
    positions = frame_positions(module, frames, whole)
    inner = whole.new_empty((whole.shape[0], whole.shape[2] * whole.shape[3], module.inner_dim))
    slices = list(slicing.transformer_ranges(whole.shape[0], whole[0].nbytes))
    for start, stop in slices:
        inner[start:stop] = projected_in(module, whole[start:stop])
    for block, temporal in zip(module.transformer_blocks, module.temporal_transformer_blocks, strict=True):
        for start, stop in slices:
            inner[start:stop] = block(inner[start:stop], encoder_hidden_states=encoder_hidden_states[start:stop])
        for video, context, share in zip(
            torch.split(inner, frames), encoder_hidden_states[::frames], shares, strict=True
        ):
            for start, stop in slicing.transformer_ranges(video.shape[1], video[:, :1].nbytes):
                mix_in(temporal, video[:, start:stop], positions, context, share)
    for start, stop in slices:
        add_projected(module, whole[start:stop], inner[start:stop])
    return (handed_on(whole, slicing, is_skip),)


def frame_positions(module: Any, frames: int, hidden: torch.Tensor) -> torch.Tensor:
    """(frames, 1, channels): what tells the temporal blocks which frame is which."""
    import torch

    embedded = module.time_proj(torch.arange(frames, device=hidden.device)).to(hidden.dtype)
    positions: torch.Tensor = module.time_pos_embed(embedded)[:, None]
    return positions


def projected_in(module: Any, frames: torch.Tensor) -> torch.Tensor:
    """(frames, channels, height, width) to (frames, pixels, inner channels)."""
    projected: torch.Tensor = module.proj_in(module.norm(frames).flatten(2).transpose(1, 2))
    return projected


def add_projected(module: Any, frames: torch.Tensor, inner: torch.Tensor) -> None:
    projected = module.proj_out(inner)
    frames += projected.transpose(1, 2).view_as(frames)


def mix_in(
    temporal: Any, pixels: torch.Tensor, positions: torch.Tensor, context: torch.Tensor, share: torch.Tensor
) -> None:
    """A temporal block's result, mixed into its input by a share for each frame.

    pixels: (frames, pixels, channels), written into. context: (tokens, channels), that of the video's first frame.
    """
    frames, count, _ = pixels.shape
    mixed = temporal(pixels + positions, num_frames=frames, encoder_hidden_states=context.expand(count, *context.shape))
    pixels.lerp_(mixed, share)


def row_bytes(video: torch.Tensor) -> int:
    return video[:, :, :1].nbytes
