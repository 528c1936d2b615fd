"""Clips longer than a model holds, where a picture conditions the model: sliding windows, each going on from the last.

A window is one call of the model's pipeline. The picture of the next one is a frame near its end, and the frames that
both make, which show the same moments, are cross-faded. So the motion goes on without a seam, in the memory that a
clip of one window needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: Frames that two neighbouring windows share. Of the two, a window's first is its picture, rendered again; the second
#: has begun to move. More would compute more frames twice, and blur where the windows disagree.
OVERLAP: Final = 2


@dataclass(frozen=True)
class Windows:
    """How a clip of `frames` frames is made by a model that holds `held` of them (at least 2) at once.

    model: its name. A clip that the model holds is one window.
    """

    frames: int
    held: int
    model: str

    @property
    def overlap(self) -> int:
        """Frames shared by neighbours; at most half a window, so that the frame handed over is of one window only."""
        return min(OVERLAP, self.held // 2)

    @property
    def count(self) -> int:
        return 1 + math.ceil(max(0, self.frames - self.held) / (self.held - self.overlap))

    @property
    def notes(self) -> list[str]:
        if self.count == 1:
            return []
        return [
            f"{self.frames} frames are more than the {self.held} that {self.model} holds: made in sliding windows of "
            f"{self.held} frames, {self.overlap} of them shared."
        ]

    def chain(
        self,
        one_pass: Callable[[Sequence[Image.Image], int], torch.Tensor],
        decode: Callable[[torch.Tensor], torch.Tensor],
        pictures: Sequence[Image.Image],
    ) -> torch.Tensor:
        """Latents `(1, frames, channels, height, width)` of the whole clip.

        one_pass: from pictures and a number of frames to the latents of a window. It must start from the same noise
        each time: the noise has its part in the motion, which is to go on. That is also why the last window is as long
        as the others, and cut: with fewer frames, most pipelines draw other noise.
        decode: a family's, from latents to pixels.
        """
        import torch

        latents = one_pass(pictures, min(self.frames, self.held))
        for _ in range(1, self.count):
            with torch.no_grad():
                # with the frame after it: a decoder that mixes neighbours gives the frame as it will be in the clip
                shared = decode(latents[:, -self.overlap :])
            latents = cross_faded(latents, one_pass([to_picture(shared)], self.held), self.overlap)
        return latents[:, : self.frames]


def cross_faded(first: torch.Tensor, second: torch.Tensor, shared: int) -> torch.Tensor:
    """Two windows' latents in one: from the first's last frames linearly to the second's first ones."""
    import torch

    shares = torch.linspace(0, 1, shared + 2)[1:-1].to(first).view(1, -1, 1, 1, 1)
    faded = torch.lerp(first[:, -shared:], second[:, :shared], shares)
    return torch.cat([first[:, :-shared], faded, second[:, shared:]], 1)


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """The first of some frames `(frames, 3, height, width)` in [-1, 1]."""
    from diffusers.image_processor import VaeImageProcessor

    picture: Image.Image = VaeImageProcessor().postprocess(pixels[:1].float(), output_type="pil")[0]
    return picture
