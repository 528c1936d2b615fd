"""Bytes of the tensors alive at once in networks whose layers work on slices (`vidkit.pipelines.lean`).

Layers have the names of lean execution's. `held`: what is alive around a layer, the map that it reads among it; that is
free once the layer is done. The first of a layer's slices is the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from vidkit.memory.activations import FEED_FORWARD, Denoiser, Peak, Plane
from vidkit.memory.activations import resnet as plain_resnet
from vidkit.pipelines.lean.slicing import Slicing

#: values inside a transformer's block, in widths of its input: that, the sum so far, its norm, the attention's output
BLOCK: Final = 4 + FEED_FORWARD


def first(slices: Iterator[tuple[int, int]]) -> int:
    start, stop = next(slices)
    return stop - start


class LeanLayers:
    """Their moments, in the order in which they run."""

    def __init__(self, slicing: Slicing) -> None:
        self.peak = Peak()
        self.slicing = slicing

    # --- slices -----------------------------------------------------------------------------------------------------

    def frames(self, plane: Plane, channels: int) -> Plane:
        count = plane.videos * plane.frames
        return some_frames(plane, first(self.slicing.ranges(count, plane.of(channels) // count)))

    def frames_of_transformer(self, plane: Plane, channels: int) -> Plane:
        count = plane.videos * plane.frames
        return some_frames(plane, first(self.slicing.transformer_ranges(count, plane.of(channels) // count)))

    def rows(self, plane: Plane, channels: int) -> Plane:
        one = plane.of(channels) // plane.videos // plane.height
        return some_rows(plane, first(self.slicing.ranges(plane.height, one)))

    # --- layers -----------------------------------------------------------------------------------------------------

    def convolution(self, plane: Plane, held: int, into: int, out: int) -> None:
        part = self.frames(plane, into)
        whole = 0 if is_all(part, plane) else plane.of(out)
        self.peak.moment(held, whole, part.of(out), part.workspace(into, out))

    def resnet(self, plane: Plane, held: int, into: int, out: int, *, part: int = 0, in_place: bool = False) -> None:
        """The spatial one. part: bytes of a slice of its input, where that is no view of a map. in_place: where a slice
        was read, its result is written."""
        frames = self.frames(plane, into)
        whole = 0 if in_place or is_all(frames, plane) else plane.of(out)
        plain_resnet(self.peak, frames, held + whole + part, into, out, temporal=False)

    def temporal_resnet(self, plane: Plane, held: int, channels: int) -> None:
        """held: the map that it writes into among it. Beside that the first half's result as a whole, and in a slice
        the activation, its copy in the order that a convolution takes, and what cuDNN takes."""
        rows = self.rows(plane, channels)
        workspace = rows.workspace(channels, channels, 3, split=False)
        self.peak.moment(held, plane.of(channels) // plane.videos, 2 * rows.of(channels), workspace)

    def spatio_temporal_transformer(self, plane: Plane, held: int, channels: int) -> None:
        """held: the map that it writes into among it; the inner map is as large."""
        frames = self.frames_of_transformer(plane, channels)
        one = plane.of(channels) // plane.videos // (plane.height * plane.width)
        pixels = first(self.slicing.transformer_ranges(plane.height * plane.width, one))
        # the spatial block's input is a view
        self.peak.moment(held, plane.of(channels), max((BLOCK - 1) * frames.of(channels), BLOCK * pixels * one))

    def transformer(self, plane: Plane, held: int, channels: int) -> None:
        """A Transformer2DModel, whose result is written into the map that it reads, part of `held`."""
        self.peak.moment(held, BLOCK * self.frames_of_transformer(plane, channels).of(channels))

    def motion_module(self, plane: Plane, held: int, channels: int) -> None:
        one = plane.of(channels) // plane.videos // plane.height
        rows = some_rows(plane, first(self.slicing.transformer_ranges(plane.height, one)))
        self.peak.moment(held, BLOCK * rows.of(channels))


def some_frames(plane: Plane, count: int) -> Plane:
    return Plane(1, count, plane.height, plane.width, plane.size)


def some_rows(plane: Plane, count: int) -> Plane:
    """Of all frames of one video."""
    return Plane(1, plane.frames, count, plane.width, plane.size)


def is_all(part: Plane, plane: Plane) -> bool:
    return part.frames == plane.videos * plane.frames


# --- the denoiser ---------------------------------------------------------------------------------------------------


class LeanDenoiser(LeanLayers):
    """A UNet. residuals: whether a ControlNet's are added to its skip connections; they wait where those do."""

    def __init__(self, denoiser: Denoiser, plane: Plane, slicing: Slicing, *, residuals: bool = False) -> None:
        super().__init__(slicing)
        self.denoiser, self.residuals = denoiser, residuals
        self.planes, self.skips = denoiser.planes(plane), denoiser.skips(plane)
        self.all_skips = sum(map(sum, self.skips))
        #: the ControlNet's result for the middle block
        self.middle = self.planes[-1].of(denoiser.channels[-1])

    def bytes_at_peak(self, held: int = 0) -> int:
        if self.residuals:
            self._controlnet(held)
        residuals = self.all_skips + self.middle if self.residuals and not self.slicing.host_skips else 0
        self._down(held + residuals)
        self._middle(held + residuals + self._waiting(self.all_skips))
        self._up(held)
        return self.peak.bytes

    def _controlnet(self, held: int) -> None:
        """It has the UNet's first half, whose first map it keeps, and that of the picture, of one video."""
        first_map = self.planes[0].of(self.denoiser.channels[0])
        kept = first_map - self._waiting(first_map) + first_map // self.planes[0].videos
        self._down(held + kept)
        self._middle(held + kept + self._waiting(self.all_skips))

    def _waiting(self, skips: int) -> int:
        """Of so many bytes of skip connections, what is on the device while no layer reads them."""
        return 0 if self.slicing.host_skips else skips

    def _down(self, held: int) -> None:
        planes, channels = self.planes, self.denoiser.channels
        into = channels[0]
        self.convolution(planes[0], held, self.denoiser.in_channels, into)
        made = source = planes[0].of(into)
        for level, out in enumerate(channels):
            for _ in range(self.denoiser.layers[level]):
                around = held + self._waiting(made - source)
                self.resnet(planes[level], around + source, into, out)
                self._mix(planes[level], held + self._waiting(made), out, attentive=self.denoiser.attentive[level])
                into, source = out, planes[level].of(out)
                made += source
            if level < len(channels) - 1:
                source = planes[level + 1].of(out)
                made += source

    def _middle(self, held: int) -> None:
        """held: all skip connections among it, the last of which it reads."""
        plane, channels = self.planes[-1], self.denoiser.channels[-1]
        read = plane.of(channels) if self.slicing.host_skips else 0
        self.resnet(plane, held + read, channels, channels)
        self._mix(plane, held, channels, attentive=True)
        self.resnet(plane, held + plane.of(channels), channels, channels, in_place=True)
        self._mix(plane, held, channels, attentive=False, motion=False)

    def _mix(self, plane: Plane, held: int, channels: int, *, attentive: bool, motion: bool = True) -> None:
        """What comes after a spatial resnet; held: without the map that the layers hand on."""
        around = held + plane.of(channels)
        if self.denoiser.temporal:
            self.temporal_resnet(plane, around, channels)
            if attentive:
                self.spatio_temporal_transformer(plane, around, channels)
            return
        if attentive:
            self.transformer(plane, around, channels)
        if motion:
            self.motion_module(plane, around, channels)

    def _up(self, held: int) -> None:
        channels, left = self.denoiser.channels, self.all_skips
        below = self.middle
        for level in reversed(range(len(channels))):
            plane, skips = self.planes[level], list(self.skips[level])
            for layer, (into, out) in enumerate(self.denoiser.up_channels(level)):
                skip = skips.pop()
                is_larger = layer == 0 and level < len(channels) - 1
                is_first = layer == 0 and not is_larger
                residuals = (2 if self.residuals else 1) * self._waiting(left)
                if is_first and self.residuals:
                    residuals += self._waiting(self.middle)
                self._up_resnet(plane, held + residuals + below, into, out, skip, is_larger, is_first)
                left -= skip
                around = held + (2 if self.residuals else 1) * self._waiting(left)
                self._mix(plane, around, out, attentive=self.denoiser.attentive[level])
                below = plane.of(out)

    def _up_resnet(
        self, plane: Plane, held: int, into: int, out: int, skip: int, is_larger: bool, is_first: bool
    ) -> None:
        """Its input is put together as it is read: of the map from below, here made larger where a level begins, and
        the skip connection, to which a residual is added; what waits on the host is fetched one slice ahead."""
        frames, count = self.frames(plane, into), plane.videos * plane.frames
        skip_channels = skip // plane.of(1)
        other = into - skip_channels
        of_skip = frames.of(skip_channels)
        fetched = of_skip * (1 + self.residuals) if self.slicing.host_skips else 0
        ahead = 0 if frames.frames == count else fetched
        parts = fetched + (of_skip if self.residuals else 0)
        if is_larger:
            self.peak.moment(held, ahead, 2 * frames.of(other), frames.workspace(other, other))
            parts += frames.of(other)
        self.peak.moment(held, ahead, parts, frames.of(into))
        into_below = other == out and not is_larger and not (is_first and self.residuals)
        into_skip = skip_channels == out and not self.slicing.host_skips and not self.residuals
        self.resnet(
            plane,
            held + ahead,
            into,
            out,
            part=frames.of(into),
            in_place=into_below or into_skip,
        )


# --- the decoder ----------------------------------------------------------------------------------------------------


class LeanDecoder(LeanLayers):
    """AutoencoderKLTemporalDecoder's; its encoder is diffusers' own. The map in hand is all that is there."""

    def __init__(self, vae: Mapping[str, Any], slicing: Slicing) -> None:
        super().__init__(slicing)
        self.channels = [int(channels) for channels in reversed(vae["block_out_channels"])]
        self.layers = int(vae.get("layers_per_block", 1))
        self.latent_channels = int(vae.get("latent_channels", 4))

    def bytes_at_peak(self, plane: Plane) -> int:
        """plane: of the latents."""
        into, below = self.channels[0], 0
        self.convolution(plane, plane.of(self.latent_channels), self.latent_channels, into)
        for _ in range(self.layers):
            self._resnet(plane, plane.of(into), into, into)
        for level, out in enumerate(self.channels):
            for layer in range(self.layers + 1):
                below = plane.of(into)
                if layer == 0 and level > 0:  # made larger as it is read
                    plane = plane.doubled()
                    frames = self.frames(plane, into)
                    self.peak.moment(below, 2 * frames.of(into), frames.workspace(into, into))
                    self._resnet(plane, below, into, out, part=frames.of(into))
                else:
                    self._resnet(plane, below, into, out, in_place=into == out)
                into = out
        frames = self.frames(plane, into)
        self.peak.moment(plane.of(into), 2 * frames.of(into), plane.of(3), frames.workspace(into, 3))
        return self.peak.bytes

    def _resnet(self, plane: Plane, held: int, into: int, out: int, *, part: int = 0, in_place: bool = False) -> None:
        self.resnet(plane, held, into, out, part=part, in_place=in_place)
        self.temporal_resnet(plane, plane.of(out), out)
