"""Bytes of the tensors that are alive at once inside a network, at its widest moment.

What is alive is read off diffusers' code (0.42): every local variable of the frames on the stack holds its tensor. `x`
in the comments is a layer's input, held by the block that called it. Checked operation by operation on an H100.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: tensors of more values than that are convolved in parts, some pictures at once
INT32: Final = 2**31 - 1

#: values inside a GEGLU feed-forward, in widths of its input: its first layer's output (two halves of four), the
#: activated half, and the product
FEED_FORWARD: Final = 8 + 4 + 4


class Peak:
    """The most bytes alive at once."""

    def __init__(self) -> None:
        self.bytes = 0

    def moment(self, *alive: int) -> None:
        self.bytes = max(self.bytes, sum(alive))


@dataclass(frozen=True)
class Plane:
    """The shape of all feature maps at one resolution: videos x frames pictures of height x width."""

    videos: int
    frames: int
    height: int
    width: int
    size: int  # bytes of a value

    def of(self, channels: int) -> int:
        """Bytes of a feature map."""
        return self.videos * self.frames * self.height * self.width * channels * self.size

    def halved(self) -> Plane:
        return Plane(self.videos, self.frames, -(-self.height // 2), -(-self.width // 2), self.size)

    def doubled(self) -> Plane:
        return Plane(self.videos, self.frames, self.height * 2, self.width * 2, self.size)

    def workspace(self, into: int, out: int, taps: int = 9, *, split: bool = True) -> int:
        """cuDNN's, of a convolution over more than one pixel: input, output and weights in another memory layout.

        Measured: benchmarks/results/memory_convolutions.json. A convolution over one pixel takes none.
        split: whether pictures can be convolved one by one.
        """
        pictures = self.videos * self.frames
        values = max(into, out) * self.height * self.width
        at_once = min(pictures, max(1, INT32 // values)) if split and values * pictures > INT32 else pictures
        return (self.of(into) + self.of(out)) * at_once // pictures + into * out * taps * self.size


# --- layers: called with the bytes held by the blocks around them, their input among it -----------------------------


def resnet(peak: Peak, plane: Plane, held: int, into: int, out: int, *, temporal: bool) -> None:
    """A ResnetBlock2D, and the temporal one and the blend after it where there is one (SpatioTemporalResBlock)."""
    a, b = plane.of(into), plane.of(out)
    peak.moment(held, a, a)  # norm, activation
    peak.moment(held, a, b, plane.workspace(into, out))
    peak.moment(held, b, b, plane.workspace(out, out))
    peak.moment(held, b, b, b, b if into != out else 0)  # branch, shortcut, sum, scaled sum
    if temporal:
        peak.moment(held, b, b, b, plane.workspace(out, out, 3, split=False))  # spatial result, activation, output
        peak.moment(held, b, b, b, b, b)  # spatial, temporal, each weighted, blend


def spatio_temporal_transformer(peak: Peak, plane: Plane, held: int, channels: int, context: int) -> None:
    """TransformerSpatioTemporalModel, widest in the temporal block's second feed-forward.

    Alive there beside x: the spatial block's result, the same with the frame embedding, and in the block its input
    rearranged (for one video a view), the sum so far, its norm, the attention's output; the context, for each pixel.
    """
    contexts = context * plane.videos * plane.height * plane.width * plane.size
    peak.moment(held, contexts, (5 + (plane.videos > 1) + FEED_FORWARD) * plane.of(channels))


def transformer(peak: Peak, plane: Plane, held: int, channels: int) -> None:
    """Transformer2DModel, or a motion module: input of the block, sum so far, its norm, the attention's output."""
    peak.moment(held, (4 + FEED_FORWARD) * plane.of(channels))


@dataclass(frozen=True)
class Forwards:
    """How wide layers are, by how they are computed. channels_last: convolutions need no other memory layout."""

    resnet: Callable[..., None]
    spatio_temporal_transformer: Callable[..., None]
    transformer: Callable[..., None]
    channels_last: bool = False


PLAIN: Final = Forwards(resnet, spatio_temporal_transformer, transformer)


# --- the denoiser ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Denoiser:
    """A UNet over videos, as its configs describe it.

    channels, layers, attentive: of each level from the outside in. temporal: SVD's blocks, else AnimateDiff's (motion).
    context: values of the context for each pixel (SVD).
    """

    channels: Sequence[int]
    layers: Sequence[int]
    attentive: Sequence[bool]
    temporal: bool
    context: int = 0
    in_channels: int = 4
    forwards: Forwards = PLAIN

    @classmethod
    def of(cls, unet: Mapping[str, Any], forwards: Forwards = PLAIN) -> Denoiser:
        channels = [int(count) for count in unet["block_out_channels"]]
        layers = unet.get("layers_per_block", 2)
        kinds = [str(kind) for kind in unet["down_block_types"]]
        temporal = any("SpatioTemporal" in kind for kind in kinds)
        context = unet.get("cross_attention_dim", 1024)
        return cls(
            channels=channels,
            layers=[layers] * len(channels) if isinstance(layers, int) else layers,
            attentive=["CrossAttn" in kind for kind in kinds],
            temporal=temporal,
            context=max(context) if isinstance(context, list) else int(context),
            in_channels=int(unet.get("in_channels", 4)),
            forwards=forwards,
        )

    def planes(self, plane: Plane) -> list[Plane]:
        found = [plane]
        for _ in self.channels[1:]:
            found.append(found[-1].halved())
        return found

    def skips(self, plane: Plane) -> list[list[int]]:
        """Bytes of the skip connections, by the level of the up block that takes them; each level's in order."""
        planes, levels = self.planes(plane), len(self.channels)
        flat = [planes[0].of(self.channels[0])]
        for level, channels in enumerate(self.channels):
            flat += [planes[level].of(channels)] * self.layers[level]
            if level < levels - 1:
                flat.append(planes[level + 1].of(channels))
        taken: list[list[int]] = []
        for level in range(levels):  # the outermost up block takes the first, one more than it has layers
            count = self.layers[level] + 1
            taken.append(flat[:count])
            flat = flat[count:]
        return taken

    def peak(self, plane: Plane, held: int = 0, *, kept_skips: bool = False) -> int:
        """Bytes at the widest moment. kept_skips: a ControlNet's sums stay in a variable of their own to the end."""
        peak, planes = Peak(), self.planes(plane)
        self._down(peak, planes, held)
        skips = self.skips(plane)
        below = planes[-1].of(self.channels[-1])
        self._layers(peak, planes[-1], held + sum(map(sum, skips)), [(self.channels[-1],) * 2] * 2, attentive=True)
        for level in reversed(range(len(self.channels))):
            around = held + sum(map(sum, skips if kept_skips else skips[: level + 1])) + below
            self._layers(peak, planes[level], around, list(self.up_channels(level)), attentive=self.attentive[level])
            if level:
                below = self._upsample(peak, planes[level], planes[level - 1], around, self.channels[level])
        return peak.bytes

    def _down(self, peak: Peak, planes: Sequence[Plane], held: int) -> None:
        into = self.channels[0]
        alive = held + planes[0].of(into)
        for level, out in enumerate(self.channels):
            for _ in range(self.layers[level]):
                self._layers(peak, planes[level], alive, [(into, out)], attentive=self.attentive[level], own=False)
                alive += planes[level].of(out)
                into = out
            if level < len(self.channels) - 1:
                alive += planes[level + 1].of(out)

    def _layers(
        self,
        peak: Peak,
        plane: Plane,
        held: int,
        channels: Sequence[tuple[int, int]],
        *,
        attentive: bool,
        own: bool = True,
    ) -> None:
        """One block's layers. own: their input is a tensor of its own, not one of the skip connections."""
        for into, out in channels:
            around = held + (plane.of(into) if own else 0)
            self.forwards.resnet(peak, plane, around, into, out, temporal=self.temporal)
            around = held + plane.of(out)
            if attentive and self.temporal:
                self.forwards.spatio_temporal_transformer(peak, plane, around, out, self.context)
            elif attentive:
                self.forwards.transformer(peak, plane, around, out)
            if not self.temporal:
                self.forwards.transformer(peak, plane, around, out)

    def up_channels(self, level: int) -> Iterator[tuple[int, int]]:
        """Channels into (with the skip connection) and out of each layer of the up block of a level."""
        out = self.channels[level]
        below = self.channels[min(level + 1, len(self.channels) - 1)]
        above = self.channels[max(level - 1, 0)]
        for layer in range(self.layers[level] + 1):
            skip = above if layer == self.layers[level] else out
            yield (below if layer == 0 else out) + skip, out

    def _upsample(self, peak: Peak, plane: Plane, bigger: Plane, held: int, channels: int) -> int:
        """Its result's bytes, the next block's input."""
        grown = bigger.of(channels)
        workspace = 0 if self.forwards.channels_last else bigger.workspace(channels, channels)
        peak.moment(held, plane.of(channels), grown, grown, workspace)
        return grown


# --- the autoencoder ------------------------------------------------------------------------------------------------


def decoder_peak(vae: Mapping[str, Any], plane: Plane, *, temporal: bool, forwards: Forwards = PLAIN) -> int:
    """Widest moment of decoding; plane: of the latents. temporal: AutoencoderKLTemporalDecoder, else AutoencoderKL."""
    peak, channels = Peak(), list(reversed(vae["block_out_channels"]))
    layers = int(vae.get("layers_per_block", 1)) + 1
    # the attention's result is in channels_last order, which cuDNN wants, and the additions keep it: upsampling's
    # convolutions need no workspace. Of one picture alone the order is ambiguous, and becomes the usual one.
    # The temporal decoder's middle block has its attention behind its second layer.
    attentive = layers > 2 if temporal else bool(vae.get("mid_block_add_attention", True))
    in_order = forwards.channels_last or (plane.frames > 1 and attentive)
    into = channels[0]
    x = plane.of(into)
    for _ in range(2):
        forwards.resnet(peak, plane, x + x, into, into, temporal=temporal)
    for level, out in enumerate(channels):
        block_input = plane.of(into)
        for layer in range(layers):
            x = 0 if layer == 0 else plane.of(out)
            forwards.resnet(peak, plane, block_input + x, into, out, temporal=temporal)
            into = out
        if level < len(channels) - 1:
            bigger = plane.doubled()
            workspace = 0 if in_order else bigger.workspace(out, out)
            peak.moment(block_input, plane.of(out), bigger.of(out), bigger.of(out), workspace)
            plane = bigger
    return peak.bytes


def encoder_peak(vae: Mapping[str, Any], plane: Plane) -> int:
    """Widest moment of encoding; plane: of the pictures."""
    peak, channels = Peak(), [int(count) for count in vae["block_out_channels"]]
    layers, into = int(vae.get("layers_per_block", 1)), channels[0]
    for level, out in enumerate(channels):
        block_input = plane.of(into)
        for layer in range(layers):
            resnet(peak, plane, block_input + (0 if layer == 0 else plane.of(out)), into, out, temporal=False)
            into = out
        if level < len(channels) - 1:
            smaller = plane.halved()
            padded = plane.of(out)
            peak.moment(block_input, plane.of(out), padded, padded, 2 * smaller.of(out))
            plane = smaller
    return peak.bytes
