"""How `tiny-svd`'s UNet is brought to read the noise's code.

The code is a sum over a whole frame: each number of noise carries a thirty-second of it, so a network begun at random
gets no gradient from it that stands out (2,400 steps taught it nothing). So it gets a start, and a teacher:

- `install`: four channels pass the code on, unmixed, from the input to the first self-attention, which at its start
  weighs all places alike: it averages them, which is what reading is. The attention over time that follows hands it on.
- `unread`: while it trains, a linear probe of the UNet's middle has to tell the move, at each place of each frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from .camera import CODE_CHANNELS

#: a checkerboard that fades out (seen at every second place, all places count the same), keeping noise's deviation
_KERNEL = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
_SPACE_GAIN = 8.0  # the average over 256 places is a twelfth of one place's deviation: about the size of the rest again
_TIME_GAIN = 4.0  # the average over 14 frames, of which one carries it


@torch.no_grad()
def install(unet: UNetSpatioTemporalConditionModel) -> None:
    """Set the first weights of a fresh UNet of `tiny_svd.make_unet`."""
    first, second = unet.down_blocks[:2]
    transformer = second.attentions[0]
    for weight in (
        unet.conv_in.weight,
        first.downsamplers[0].conv.weight,
        second.resnets[0].spatial_res_block.conv_shortcut.weight,
        transformer.proj_in.weight,
    ):
        pass_on(weight)
    for channel in range(CODE_CHANNELS):
        unet.conv_in.weight[channel, channel] = _KERNEL
    hand_on(transformer.transformer_blocks[0].attn1, 0, CODE_CHANNELS, _SPACE_GAIN)
    hand_on(transformer.temporal_transformer_blocks[0].attn1, CODE_CHANNELS, 2 * CODE_CHANNELS, _TIME_GAIN)


def pass_on(weight: Tensor) -> None:
    """Let a layer (out, in) or (out, in, k, k) give the code's channels as it gets them, nothing else added."""
    weight[:CODE_CHANNELS] = 0
    centre = weight.shape[-1] // 2 if weight.ndim == 4 else None
    square = weight[:CODE_CHANNELS, :CODE_CHANNELS]
    (square if centre is None else square[..., centre, centre]).copy_(torch.eye(CODE_CHANNELS))


def hand_on(attention: torch.nn.Module, source: int, target: int, gain: float) -> None:
    """Let an attention average the code's channels that begin at `source`, and add them to those at `target`."""
    values, out = attention.to_v.weight, attention.to_out[0].weight
    identity = torch.eye(CODE_CHANNELS)
    values[:CODE_CHANNELS] = 0
    values[:CODE_CHANNELS, source : source + CODE_CHANNELS] = identity
    out[:, :CODE_CHANNELS] = 0
    out[target : target + CODE_CHANNELS, :CODE_CHANNELS] = gain * identity


def make_probe(unet: UNetSpatioTemporalConditionModel) -> torch.nn.Linear:
    return torch.nn.Linear(unet.config.block_out_channels[-1], CODE_CHANNELS)


@contextmanager
def middle_of(unet: UNetSpatioTemporalConditionModel) -> Iterator[list[Tensor]]:
    """What the middle block gives, (clips * frames, channels, h, w), once the UNet has run inside the `with`."""
    kept: list[Tensor] = []
    hook = unet.mid_block.register_forward_hook(lambda module, given, output: kept.append(output))
    try:
        yield kept
    finally:
        hook.remove()


def unread(probe: torch.nn.Linear, middle: Tensor, move: Tensor) -> Tensor:
    """(clips,) squared error of the move (clips, 4), a unit vector, as told by the probe: 1 where nothing was read."""
    told = probe(middle.movedim(1, -1)).float().unflatten(0, (len(move), -1))
    return (told - move[:, None, None, None]).square().sum(-1).mean((1, 2, 3))
