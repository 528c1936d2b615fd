"""Bytes of the tensors alive at once in layers of speed fast on a GPU (`vidkit.pipelines.fast`), read off their code.

Convolutions take maps as they lie, and of weights that wait on the host a copy in another layout. Layers have the names
of `activations`.
"""

from __future__ import annotations

from typing import Final

from vidkit.memory.activations import Forwards, Peak, Plane

#: In a residual layer, in widths of its tokens: tokens before the block, the sum so far and its norm, and then either a
#: feed-forward layer's inner values (4), or queries, keys, values and the attention's result.
RESIDUAL: Final = 3 + 4


def weights(plane: Plane, into: int, out: int) -> int:
    """Of a convolution over 3 x 3 pixels."""
    return 9 * into * out * plane.size


def resnet(peak: Peak, plane: Plane, held: int, into: int, out: int, *, temporal: bool) -> None:
    a, b = plane.of(into), plane.of(out)
    peak.moment(held, a, b, weights(plane, into, out))  # norm with its activation, first convolution
    peak.moment(held, b, b, weights(plane, out, out))
    if temporal:
        peak.moment(held, b, b, b)  # spatial result, norm, output


def spatio_temporal_transformer(peak: Peak, plane: Plane, held: int, channels: int, context: int) -> None:
    """Alive beside x: the spatial block's result, and a layer of the temporal block."""
    transformer(peak, plane, held, channels)


def transformer(peak: Peak, plane: Plane, held: int, channels: int) -> None:
    """Widest in a feed-forward layer, whose weights are there twice; before a motion module's block is its norm."""
    peak.moment(held, RESIDUAL * plane.of(channels), 8 * channels**2 * plane.size)


FAST: Final = Forwards(resnet, spatio_temporal_transformer, transformer, channels_last=True)
