"""Stable Video Diffusion: a picture in, a video out, no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vidkit.models.inspection import inspect
from vidkit.models.loading.components import Part
from vidkit.models.loading.single_file import check_pipeline_file
from vidkit.models.locate import locate_base
from vidkit.params import GenerationParams, Limits
from vidkit.pipelines.family import Models, OnStep, size_multiple, step_callback, steps_of_a_call
from vidkit.pipelines.schedulers import scheduler
from vidkit.pipelines.windows import Windows, windows
from vidkit.settings import Settings

if TYPE_CHECKING:
    import torch
    from PIL import Image

IGNORED = {
    "prompt": "Stable Video Diffusion takes no text; the picture and motionBucketId decide",
    "negative_prompt": "Stable Video Diffusion takes no text",
    "guidance_scale": "Stable Video Diffusion uses minGuidanceScale and maxGuidanceScale",
}
PARTS = ("unet", "vae", "image_encoder", "feature_extractor")


class StableVideoDiffusion:
    """diffusers' `StableVideoDiffusionPipeline`."""

    frame_axis = 1
    decoder_mixes_frames = True

    def models(self, params: GenerationParams, settings: Settings) -> Models:
        base = locate_base(params, settings, ["StableVideoDiffusionPipeline"], bundled="bundled:tiny-svd")
        if base.path.is_file():
            check_pipeline_file(inspect(base.path))  # by its header, before gigabytes are hashed
        return {"base_model": base}

    def limits(self, params: GenerationParams, models: Models) -> Limits:
        base = models["base_model"]
        unet, vae = base.config("unet"), base.config("vae")
        defaults = {
            "width": 1024,
            "height": 576,
            "num_frames": unet.get("num_frames", 25),  # 14 for SVD, 25 for SVD-XT
            "num_inference_steps": 25,
            "min_guidance_scale": 1.0,
            "max_guidance_scale": 3.0,
        }
        held = base.card.get("windowFrames")
        return Limits(
            model=base.name,
            defaults=defaults | base.card_defaults(),
            ranges=base.card_ranges() | ({"window_frames": (2, held)} if held else {}),
            size_multiple=size_multiple(unet, vae),
            ignored=IGNORED,
        )

    def parts(self, params: GenerationParams, models: Models) -> Mapping[str, Part]:
        return {name: Part(models["base_model"], name) for name in PARTS}

    def assemble(self, params: GenerationParams, models: Models, components: Mapping[str, Any]) -> Any:
        from diffusers import StableVideoDiffusionPipeline

        base = models["base_model"]
        return StableVideoDiffusionPipeline(**components, scheduler=scheduler(base, by=base))

    def windows(self, params: GenerationParams, models: Models) -> Windows:
        """All frames in one pass, unless the model's card says how many it holds, or fewer are asked for."""
        base = models["base_model"]
        return windows(params, base.card.get("windowFrames", params.num_frames or 1), base.name)

    def steps(self, pipe: Any, params: GenerationParams, models: Models) -> int:
        return self.windows(params, models).calls * steps_of_a_call(pipe, params.num_inference_steps or 1)

    def denoise(
        self, pipe: Any, params: GenerationParams, models: Models, pictures: Sequence[Image.Image], on_step: OnStep
    ) -> tuple[torch.Tensor, list[str]]:
        import torch

        def one_pass(pictures: Sequence[Image.Image], frames: int, before: torch.Tensor | None) -> torch.Tensor:
            # The pipeline hands no generator to its scheduler, which may draw noise; from the seed itself it would be
            # the noise that the latents begin with. Seeds have 31 bits, and torch's generator has 32.
            torch.manual_seed(params.seed + 2**31)
            latents: torch.Tensor = pipe(
                pictures[0],
                width=params.width,
                height=params.height,
                num_frames=frames,
                num_inference_steps=params.num_inference_steps,
                min_guidance_scale=params.min_guidance_scale,
                max_guidance_scale=params.max_guidance_scale,
                fps=params.fps,
                motion_bucket_id=params.motion_bucket_id,
                noise_aug_strength=params.noise_aug_strength,
                generator=torch.Generator().manual_seed(params.seed),
                output_type="latent",
                callback_on_step_end=step_callback(on_step),
            ).frames
            return latents

        found = self.windows(params, models)
        return found.clip(one_pass, partial(self.decode, pipe), pictures), found.notes

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        frames = latents.shape[1]
        pixels: torch.Tensor = pipe.decode_latents(latents, num_frames=frames, decode_chunk_size=frames)
        return pixels[0].transpose(0, 1)
