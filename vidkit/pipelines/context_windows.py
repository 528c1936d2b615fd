"""Windows made together: each call of the network goes over all windows, and where they overlap their answers are
averaged (MultiDiffusion, arXiv 2302.08113, along time; "context windows" of AnimateDiff front ends).

Every window sees the picture as if the clip began there. So the picture holds however long the clip is, and no move
gets further than in one window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vidkit.pipelines.forwards import replaced
from vidkit.pipelines.windows import Windows

if TYPE_CHECKING:
    import torch


@contextmanager
def in_windows(pipe: Any, windows: Windows, frame_axis: int) -> Iterator[Callable[[float], float]]:
    """While the block runs, the UNet sees no more frames at once than a window has, where windows are made together.

    frame_axis: of the latents. Gives a function from the share of a call of the network that is done to that of the
    whole step.
    """
    if not windows.together or windows.count == 1:
        yield lambda share: share
        return
    network = WindowedNetwork(windows, frame_axis, pipe.vae.config.latent_channels)
    with replaced(pipe.unet, "forward", network.answer):
        yield lambda share: (network.done + share) / windows.count


class WindowedNetwork:
    """A UNet's forward on a whole clip. done: windows of the present call that are computed."""

    def __init__(self, windows: Windows, frame_axis: int, latent_channels: int) -> None:
        self._windows, self._axis, self._channels = windows, frame_axis, latent_channels
        as_latents = [1, -1, 1, 1, 1] if frame_axis == 1 else [1, 1, -1, 1, 1]
        self._shares = [share.view(as_latents) for share in shares_of(windows)]
        self.done = 0

    def answer(
        self, forward: Callable[..., Any], sample: torch.Tensor, time: Any, *arguments: Any, **options: Any
    ) -> Any:
        """sample: `(videos, frames, channels, height, width)`, or channels before frames; as the answer's.

        Its channels are the latents' and, beside them, what the model is told of the picture: each window is told what
        the first is.
        """
        import torch

        channel_axis, held = 3 - self._axis, self._windows.held  # axes 1 and 2, one or the other way
        latents, told = sample.tensor_split([self._channels], channel_axis)
        told = told.narrow(self._axis, 0, held)
        whole = torch.zeros_like(latents, memory_format=torch.contiguous_format)
        by_frame = sample.shape[0] * self._windows.frames  # the length of what is given for each frame
        for number, start in enumerate(self._windows.starts):
            self.done = number
            seen = torch.cat([latents.narrow(self._axis, start, held), told], channel_axis)
            some = [self._of_window(value, start, by_frame) for value in arguments]
            more = {name: self._of_window(value, start, by_frame) for name, value in options.items()}
            answer = forward(seen, time, *some, **more)
            whole.narrow(self._axis, start, held).add_(answer[0] * self._shares[number].to(answer[0]))
        self.done = 0
        return (whole,) if isinstance(answer, tuple) else type(answer)(sample=whole)

    def _of_window(self, value: Any, start: int, by_frame: int) -> Any:
        """The window's part of an argument `(videos * frames, ...)`; all else is for every window."""
        if not hasattr(value, "shape") or value.shape[:1] != (by_frame,):
            return value
        frames = self._windows.frames
        of_videos = value.unflatten(0, (by_frame // frames, frames))
        return of_videos.narrow(1, start, self._windows.held).flatten(0, 1)


def shares_of(windows: Windows) -> list[torch.Tensor]:
    """Of each window its part in each of its frames, `(held,)` float32: the more, the nearer to the window's middle."""
    import torch

    number = torch.arange(windows.held)
    weight = torch.minimum(number + 1, windows.held - number).float()
    whole = torch.zeros(windows.frames)
    for start in windows.starts:
        whole[start : start + windows.held] += weight
    return [weight / whole[start : start + windows.held] for start in windows.starts]
