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
        self.done = 0

    def answer(
        self, forward: Callable[..., Any], sample: torch.Tensor, time: Any, *arguments: Any, **options: Any
    ) -> Any:
        """sample: `(videos, frames, channels, height, width)`, or channels before frames; as the answer's."""
        by_frame = sample.shape[0] * self._windows.frames  # the length of what is given for each frame
        whole = None
        for number, start in enumerate(self._windows.starts):
            self.done = number
            some = [self._of_window(value, start, by_frame) for value in arguments]
            more = {name: self._of_window(value, start, by_frame) for name, value in options.items()}
            answer = forward(self._window(sample, start), time, *some, **more)
            part = answer[0] * self._shares(start, answer[0])
            if whole is None:
                shape = [*part.shape]
                shape[self._axis] = self._windows.frames
                whole = part.new_zeros(shape)
            whole.narrow(self._axis, start, self._windows.held).add_(part)
        self.done = 0
        return (whole,) if isinstance(answer, tuple) else type(answer)(sample=whole)

    def _window(self, sample: torch.Tensor, start: int) -> torch.Tensor:
        """The window's latents, and beside them what the model is told of the picture, as of the first window."""
        import torch

        axis, held = 3 - self._axis, self._windows.held  # channels and frames are axes 1 and 2, one or the other way
        latents = sample.narrow(axis, 0, self._channels).narrow(self._axis, start, held)
        picture = sample.narrow(axis, self._channels, sample.shape[axis] - self._channels).narrow(self._axis, 0, held)
        return torch.cat([latents, picture], axis)

    def _of_window(self, value: Any, start: int, by_frame: int) -> Any:
        """The window's part of an argument `(videos * frames, ...)`; all else is for every window."""
        if not hasattr(value, "shape") or value.shape[:1] != (by_frame,):
            return value
        frames = self._windows.frames
        of_videos = value.unflatten(0, (by_frame // frames, frames))
        return of_videos.narrow(1, start, self._windows.held).flatten(0, 1)

    def _shares(self, start: int, answer: torch.Tensor) -> torch.Tensor:
        """A window's part in each of its frames, to be multiplied with: the more, the nearer to the window's middle."""
        import torch

        held = self._windows.held
        number = torch.arange(held)
        weight = torch.minimum(number + 1, held - number).float()
        sums = torch.zeros(self._windows.frames)
        for other in self._windows.starts:
            sums[other : other + held] += weight
        shape = [1] * answer.ndim
        shape[self._axis] = held
        return (weight / sums[start : start + held]).to(answer).view(shape)
