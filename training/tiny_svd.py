"""The parts of `tiny-svd`: Stable Video Diffusion's own classes, small."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

try:  # without torchvision transformers' CLIPImageProcessor is a stand-in that warns; the PIL class is the real one
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as CLIPImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor

from .refine import SIGMA_MIN

SIZE = 128
FRAMES = 14
LATENT_CHANNELS = 8  # at a quarter of the side; four lose too much of so small a picture
SIGMA_MAX = 20.0


def make_vae() -> AutoencoderKLTemporalDecoder:
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        sample_size=SIZE,
        scaling_factor=1.0,  # the training folds the latents' scale into the weights
        force_upcast=False,
    )


def make_unet() -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(
        sample_size=SIZE // 4,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        # no attention at full size: it would take most of the time, and the moves are made at half the size
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=(64, 128),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        layers_per_block=(1, 2),
        cross_attention_dim=64,
        transformer_layers_per_block=1,
        num_attention_heads=(1, 2),  # wide heads: narrow ones cost twice the time, for nothing
        num_frames=FRAMES,
    )


def make_image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,  # the pipeline always hands the encoder 224 x 224
            patch_size=32,
        )
    )


def make_scheduler(sigma_max: float) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="trailing",
        use_karras_sigmas=True,
        sigma_min=SIGMA_MIN,
        sigma_max=sigma_max,
    )


@dataclass
class TinySvd:
    """The three trained parts."""

    vae: AutoencoderKLTemporalDecoder
    unet: UNetSpatioTemporalConditionModel
    image_encoder: CLIPVisionModelWithProjection

    @classmethod
    def fresh(cls) -> TinySvd:
        return cls(make_vae(), make_unet(), make_image_encoder())

    def parts(self) -> dict[str, torch.nn.Module]:
        return {"vae": self.vae, "unet": self.unet, "image_encoder": self.image_encoder}

    def to(self, device: str) -> TinySvd:
        for part in self.parts().values():
            part.to(device)
        return self

    def pipeline(self) -> StableVideoDiffusionPipeline:
        return StableVideoDiffusionPipeline(
            **self.parts(), scheduler=make_scheduler(SIGMA_MAX), feature_extractor=CLIPImageProcessor()
        )

    def save(self, folder: Path) -> None:
        """A diffusers folder in half precision, no file over 15 MB."""
        halved = {name: part.state_dict() for name, part in self.parts().items()}
        copy = TinySvd.fresh()
        for name, part in copy.parts().items():
            part.load_state_dict(halved[name])
            part.to(torch.float16)
        copy.pipeline().save_pretrained(folder, max_shard_size="15MB")


@functools.cache
def clip_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """CLIP's mean and deviation of colours, (3, 1, 1) each."""
    processor = CLIPImageProcessor()
    mean, deviation = (
        torch.tensor(v, device=device)[:, None, None] for v in (processor.image_mean, processor.image_std)
    )
    return mean, deviation


def clip_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (batch, 3, h, w) in [-1, 1] as the image encoder gets them: 224 x 224, CLIP's mean and deviation."""
    mean, deviation = clip_statistics(pictures.device)
    resized = torch.nn.functional.interpolate(pictures, (224, 224), mode="bilinear", antialias=True)
    return ((resized + 1) / 2 - mean) / deviation
