"""Clips longer than a model holds, in sliding windows.

Chained windows go on from each other. Each is one call of the model's pipeline. The picture of the next one is a frame
near its end, and the frames that both make, which show the same moments, are cross-faded. So the motion goes on without
a seam, in the memory that a clip of one window needs. Windows made together are those of `context_windows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vidkit.params import GenerationParams, is_used

if TYPE_CHECKING:
    import torch
    from PIL import Image

    #: from pictures, a number of frames, and of the first frames the latents that the window before gave them (None in
    #: the first window), to a window's latents `(1, frames, channels, height, width)`
    OnePass = Callable[[Sequence[Image.Image], int, torch.Tensor | None], torch.Tensor]

#: Frames that two neighbouring windows share. Fewer fade too quickly, and what the autoencoder loses of a window's
#: picture is seen to go: with 2 the largest change from frame to frame across a border is 1.3 times the usual one. With
#: 4 that is so of init alone, whose windows change their picture most. More would compute more frames twice.
OVERLAP: Final = 6

#: How far the colours of a window's last frame are taken back to those of the clip's first: see `steadied`.
ANCHOR: Final = 0.5

#: Frames decoded to hand one over: with its neighbour, a decoder that mixes frames gives it as it will be in the clip.
HANDED_OVER: Final = 2


@dataclass(frozen=True)
class Windows:
    """How a clip of `frames` frames is made in windows of `held` (at least 2) frames.

    limit: what allows no more, in a sentence: "that MODEL holds". A clip that is no longer than `held` is one window.
    together: each step of denoising goes over all windows; else they are chained.
    """

    frames: int
    held: int
    limit: str
    together: bool = False

    @property
    def overlap(self) -> int:
        """Frames shared by neighbours; at most half a window, so that the frame handed over is of one window only."""
        return self.held // 2 if self.together else min(OVERLAP, self.held // 2)

    @property
    def count(self) -> int:
        return 1 + math.ceil(max(0, self.frames - self.held) / (self.held - self.overlap))

    @property
    def calls(self) -> int:
        """Of the pipeline, for the whole clip."""
        return 1 if self.together else self.count

    @property
    def starts(self) -> list[int]:
        """First frames of the windows. Where they are made together, the last is moved to end with the clip."""
        starts = [number * (self.held - self.overlap) for number in range(self.count)]
        return [min(start, max(0, self.frames - self.held)) for start in starts] if self.together else starts

    @property
    def notes(self) -> list[str]:
        if self.count == 1:
            return []
        how = " and denoised together" if self.together else ""
        return [
            f"{self.frames} frames are more than the {self.held} {self.limit}: made in sliding windows of "
            f"{self.held} frames, {self.overlap} of them shared{how}."
        ]

    def clip(
        self,
        one_pass: OnePass,
        decode: Callable[[torch.Tensor], torch.Tensor],
        pictures: Sequence[Image.Image],
    ) -> torch.Tensor:
        """Latents `(1, frames, channels, height, width)` of the whole clip.

        one_pass: must start from the same noise each time: the noise has its part in the motion, which is to go on.
        That is also why the last window is as long as the others, and cut: with fewer frames, most pipelines draw
        other noise.
        decode: a family's, from latents to pixels.
        """
        import torch

        if self.together:
            return one_pass(pictures, self.frames, None)
        latents = one_pass(pictures, min(self.frames, self.held), None)
        first = latents[:, :1]
        for _ in range(1, self.count):
            shared = latents[:, -self.overlap :]
            with torch.no_grad():
                picture = to_picture(decode(shared[:, :HANDED_OVER]))
            window = steadied(one_pass([picture], self.held, shared), first)
            latents = cross_faded(latents, window, self.overlap)
        return latents[:, : self.frames]


def windows(params: GenerationParams, held: int, model: str) -> Windows:
    """A request's, for a model that holds so many frames; of fewer, where the request says so."""
    limit = f"that {model} holds"
    if params.window_frames is not None and params.window_frames < held:
        held, limit = params.window_frames, "of windowFrames"
    together = params.windowing == "together" and is_used("windowing", params.pipeline, params.conditioning)
    return Windows(params.num_frames or 1, held, limit, together)


def cross_faded(first: torch.Tensor, second: torch.Tensor, shared: int) -> torch.Tensor:
    """Two windows' latents in one: from the first's last frames linearly to the second's first ones."""
    import torch

    shares = torch.linspace(0, 1, shared + 2)[1:-1].to(first).view(1, -1, 1, 1, 1)
    faded = torch.lerp(first[:, -shared:], second[:, :shared], shares)
    return torch.cat([first[:, :-shared], faded, second[:, shared:]], 1)


def steadied(window: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """A window whose colours come back to those of the reference, from frame to frame more, at its end by ANCHOR.

    A window's picture is a frame that a model made, and has been decoded and encoded: what that does to its colours
    adds up from window to window. The mean and the spread of the latents' channels are taken to those of the
    reference, `(1, 1, channels, height, width)`.
    """
    import torch

    shares = ANCHOR * torch.linspace(0, 1, window.shape[1]).to(window).view(1, -1, 1, 1, 1)
    whole, wanted = window.float(), reference.float()
    spread, mean = torch.std_mean(whole, (-2, -1), correction=0, keepdim=True)
    wanted_spread, wanted_mean = torch.std_mean(wanted, (-2, -1), correction=0, keepdim=True)
    anchored = (whole - mean) * (wanted_spread / spread.clamp_min(1e-6)) + wanted_mean
    return torch.lerp(whole, anchored, shares.float()).to(window)


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """The first of some frames `(frames, 3, height, width)` in [-1, 1]."""
    from diffusers.image_processor import VaeImageProcessor

    picture: Image.Image = VaeImageProcessor().postprocess(pixels[:1].float(), output_type="pil")[0]
    return picture
