"""What a clip looks like while it is made: each step's guess at the end result, in colour, without the decoder.

A latent pixel's colour is, to a good part, a linear function of its channels. That function is fitted here for the
model at hand, by encoding a small copy of the picture, so it holds for any autoencoder (front ends that have it as a
table have it for the models they know).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vidkit.pipelines.forwards import replaced
from vidkit.progress import OnPreview

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: of the time of denoising, what previews may cost; the rest of the 3 % is for whoever shows them
SHARE: Final = 0.02

#: seconds between two looks at least: each also makes the GPU wait for the next step's launch, which SHARE does not see
PAUSE: Final = 0.3

#: longer side, in pixels, of the picture that colours are fitted on: some hundred latent pixels for 5 to 9 unknowns
FITTED_ON: Final = 64

#: regularisation of the fit, relative to the channels' power: a grey picture leaves directions without a colour
RIDGE: Final = 1e-3


@contextmanager
def previewed(pipe: Any, picture: Image.Image, show: OnPreview | None, frame_axis: int) -> Iterator[None]:
    """While the block runs, show the clip as the scheduler guesses its end; within 2 % of the time.

    show: called in this thread with `(frames, height, width, 3)` uint8, a latent pixel each; None: nothing is done.
    frame_axis: of the latents, which are `(1, ...)`: 1 for `(1, frames, channels, h, w)`, 2 for `(1, channels, frames,
    h, w)`.
    """
    if show is None:
        yield
        return
    scheduler = pipe.scheduler
    budget, colours = Budget(), fit_colours(pipe, picture)

    def watched_step(step: Callable[..., Any], *args: Any, **options: Any) -> Any:
        result = step(*args, **options)
        if budget.allows():
            guess = getattr(result, "pred_original_sample", None)
            latents = result.prev_sample if guess is None else guess
            synchronize(latents)  # or waiting for the step would be taken for the preview's own cost
            with budget.spending():
                show(coloured(latents[0].movedim(frame_axis - 1, 0), colours))
        return result

    with replaced(scheduler, "step", watched_step):
        yield


class Budget:
    """How much of the time since its making has been spent, and whether there is some left."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._began = time.monotonic()
        self._spent = 0.0
        self._last = -math.inf

    def allows(self) -> bool:
        now = time.monotonic()
        return now - self._last >= PAUSE and self._spent <= self._share * (now - self._began)

    @contextmanager
    def spending(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._spent += self._last - began


def fit_colours(pipe: Any, picture: Image.Image) -> torch.Tensor:
    """`(channels + 1, 3)` float32 on the CPU: from a latent pixel's channels and a 1 to red, green, blue in [-1, 1].

    Ridge regression of the picture's colours on its latents; the same picture with exchanged channels, and the
    negatives of both, stand in for the colours that it lacks.
    """
    import torch

    scale = FITTED_ON / max(picture.size)
    multiple = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    size = [max(multiple, round(side * min(scale, 1) / multiple) * multiple) for side in picture.size]
    small = np.asarray(picture.convert("RGB").resize((size[0], size[1])), dtype=np.float32) / 127.5 - 1
    pixels = torch.from_numpy(small).permute(2, 0, 1)
    pixels = torch.stack([turned for order in ([0, 1, 2], [1, 2, 0]) for turned in (pixels[order], -pixels[order])])
    latents = encoded(pipe, pixels)
    colours = torch.nn.functional.adaptive_avg_pool2d(pixels, (latents.shape[-2], latents.shape[-1]))
    known = with_one(latents.movedim(1, -1).reshape(-1, latents.shape[1]))
    wanted = colours.movedim(1, -1).reshape(-1, 3)
    power = known.T @ known
    ridge = RIDGE * power.diagonal().mean() * torch.eye(len(power))
    colours_of: torch.Tensor = torch.linalg.solve(power + ridge, known.T @ wanted)
    return colours_of


def encoded(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Latents as the scheduler sees them, float32 on the CPU."""
    import torch

    vae, device = pipe.vae, pipe._execution_device
    # autoencoders overflow in float16; diffusers casts theirs to float32 for this, and the range is what is needed
    half: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        half = torch.autocast("cuda", dtype=torch.bfloat16)
    with torch.no_grad(), half:
        latents = vae.encode(pixels.to(device, vae.dtype)).latent_dist.mode() * vae.config.scaling_factor
    return torch.nan_to_num(latents.float().cpu())


def coloured(latents: torch.Tensor, colours: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Latents `(frames, channels, h, w)` as pictures `(frames, h, w, 3)` uint8."""
    matrix = colours.to(latents.device)
    rgb = latents.float().movedim(1, -1) @ matrix[:-1] + matrix[-1]
    levels = ((rgb.nan_to_num() + 1) * 127.5).clamp(0, 255).round().byte()
    return levels.cpu().numpy()


def with_one(rows: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([rows, torch.ones(len(rows), 1)], 1)


def synchronize(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        import torch

        torch.cuda.synchronize(tensor.device)
