"""A picture as the video that AnimateDiff's video-to-video pipeline begins with: every frame is the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.loading.tensors import cast_for
from vidkit.params import GenerationParams

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: Share of the steps in which frames that are known are held. The rest is left to the model, which brings them and the
#: new ones together; held to the end, or not at all, the first new frame departs from them 1.4 to 1.6 times as far as
#: frames do from each other (half: 1.3; the shared frames, which are cross-faded, included: 1.0).
HELD_FOR: Final = 0.5


@dataclass(frozen=True)
class StillVideo:
    """What denoising begins with, all `(1, frames, channels, height, width)`.

    latents: the picture's, a sample of them for each frame; noise: to be added to them; before: the latents that the
    first frames are to have in the end, where a window before this one made them too.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    before: torch.Tensor | None

    def noised(self, scheduler: Any, timestep: torch.Tensor) -> torch.Tensor:
        """`(1, channels, frames, height, width)`, as the pipeline takes them."""
        import torch

        latents = self.latents
        if self.before is not None:
            latents = torch.cat([self.before, latents[:, self.before.shape[1] :]], 1)
        noised: torch.Tensor = scheduler.add_noise(latents, self.noise, timestep)
        return noised.transpose(1, 2)

    def kept(self, pipe: Any, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the pipeline after a step, the known frames as they are to be, with what is left of the noise.

        So the model sees where the clip comes from, and goes on with its move (the replacement method of Video
        Diffusion Models, arXiv 2204.03458, section 3.1).
        """
        import torch

        timesteps = pipe.scheduler.timesteps[-pipe.num_timesteps :]
        if self.before is None or step + 1 >= HELD_FOR * len(timesteps):
            return latents
        known = self.before.shape[1]
        noised = pipe.scheduler.add_noise(self.before, self.noise[:, :known], timesteps[step + 1 : step + 2])
        return torch.cat([noised.transpose(1, 2), latents[:, :, known:]], 2)


def encoded_picture(pipe: Any, picture: Image.Image, params: GenerationParams) -> Any:
    """diffusers' distribution of the picture's latents, `(1, channels, height, width)`; it is not waited for."""
    import torch

    vae = pipe.vae
    inner = torch.float32 if vae.config.force_upcast else vae.dtype  # it overflows in float16
    pixels = pipe.video_processor.preprocess(picture, height=params.height, width=params.width)
    with torch.no_grad(), cast_for(torch.nn.ModuleList([vae.encoder, vae.quant_conv]), inner):
        return vae.encode(pixels.to(pipe._execution_device, inner)).latent_dist


def still_video(
    pipe: Any, encoded: Any, params: GenerationParams, frames: int, before: torch.Tensor | None
) -> StillVideo:
    """As the pipeline's `prepare_latents` makes it of a list of one picture, which it encodes once for each frame and
    keeps as often on the device; to the bit where it encodes one at a time, else up to rounding."""
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    device, dtype, generator = pipe._execution_device, pipe.unet.dtype, torch.Generator().manual_seed(params.seed)
    mean = encoded.mean
    # drawn in the pipeline's order, which encodes as many frames at once as it decodes
    chunks = [min(params.decode_chunk_size, frames - start) for start in range(0, frames, params.decode_chunk_size)]
    drawn = [randn_tensor((n, *mean.shape[1:]), generator, device, mean.dtype) for n in chunks]
    samples = (mean + encoded.std * torch.cat(drawn)).contiguous()  # networks round by how values lie in memory
    latents = pipe.vae.config.scaling_factor * samples[None].to(dtype)
    return StillVideo(latents, randn_tensor(latents.shape, generator, device, dtype), before)


def first_timestep(pipe: Any, params: GenerationParams) -> torch.Tensor:
    """Where denoising begins: strength leaves the first steps out."""
    steps, device = params.num_inference_steps, pipe._execution_device
    pipe.scheduler.set_timesteps(steps, device=device)
    timesteps, _ = pipe.get_timesteps(steps, pipe.scheduler.timesteps, params.strength, device)
    first: torch.Tensor = timesteps[:1]
    return first
