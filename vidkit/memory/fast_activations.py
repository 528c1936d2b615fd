"""Bytes of the tensors alive at once in layers of speed fast on a GPU (`vidkit.pipelines.fast`), read off their code.

Convolutions take maps as they lie, and their weights in another layout. Layers have the names of `activations`.
"""

from __future__ import annotations

from typing import Final

from vidkit.memory.activations import Forwards, Peak, Plane

#: values inside a GEGLU feed-forward, in widths of its input: its first layer's output (two halves of four), and the
#: product
FEED_FORWARD: Final = 8 + 4


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
    """Alive beside x: the spatial block's result, the same with the frame embedding, the temporal block's sum so far
    and its norm."""
    peak.moment(held, (4 + FEED_FORWARD) * plane.of(channels))


def transformer(peak: Peak, plane: Plane, held: int, channels: int) -> None:
    """Widest in the motion module behind it: its norm, the sum so far, and the norms before the last attention and
    before the feed-forward."""
    peak.moment(held, (4 + FEED_FORWARD) * plane.of(channels))


FAST: Final = Forwards(resnet, spatio_temporal_transformer, transformer, channels_last=True)
