"""The parts of `tiny-animatediff`: Stable Diffusion 1.5's own classes and a PIA motion adapter, small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from .tiny_svd import SIZE, make_scheduler
from .train_text import CHANNELS, make_text_encoder

FRAMES = 16
SIGMA_MAX = 10.0
CONDITION_CHANNELS = 9  # PIA: noisy latents, mask, latents of the picture
GROUPS = 8


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,  # PIA's pipeline takes no other number
        norm_num_groups=GROUPS,
        sample_size=SIZE,
        scaling_factor=1.0,  # the training folds the latents' scale into the weights
        force_upcast=False,
    )


def make_base_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 128),
        layers_per_block=2,
        norm_num_groups=GROUPS,
        cross_attention_dim=CHANNELS,
        attention_head_dim=2,  # the number of heads, as in Stable Diffusion 1.5's own configuration
    )


def make_motion_adapter() -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=(32, 128),
        motion_layers_per_block=2,
        motion_num_attention_heads=2,
        motion_norm_num_groups=GROUPS,
        motion_max_seq_length=FRAMES,
        conv_in_channels=CONDITION_CHANNELS,
    )


def make_unet() -> UNetMotionModel:
    """Base and adapter in one, as the pipelines put them together; the one that is trained."""
    return UNetMotionModel.from_unet2d(make_base_unet(), make_motion_adapter())


def split_unet(unet: UNetMotionModel) -> tuple[UNet2DConditionModel, MotionAdapter]:
    """The base UNet and the motion adapter out of a trained `make_unet()`."""
    base, adapter = make_base_unet(), make_motion_adapter()
    weights = unet.state_dict()
    motion = {key: value for key, value in weights.items() if "motion_modules" in key}
    motion |= {f"conv_in.{name}": weights[f"conv_in.{name}"] for name in ("weight", "bias")}
    adapter.load_state_dict(motion)
    rest = {key: value for key, value in weights.items() if "motion_modules" not in key}
    rest["conv_in.weight"] = rest["conv_in.weight"][:, : base.config.in_channels]
    base.load_state_dict(rest)
    return base, adapter


@dataclass
class TinyAnimateDiff:
    """The trained parts."""

    vae: AutoencoderKL
    unet: UNetMotionModel
    text_encoder: CLIPTextModel

    @classmethod
    def fresh(cls) -> TinyAnimateDiff:
        return cls(make_vae(), make_unet(), make_text_encoder())

    def parts(self) -> dict[str, torch.nn.Module]:
        return {"vae": self.vae, "unet": self.unet, "text_encoder": self.text_encoder}

    def to(self, device: str) -> TinyAnimateDiff:
        for part in self.parts().values():
            part.to(device)
        return self

    def save(self, base_folder: Path, adapter_folder: Path, tokenizer: CLIPTokenizer) -> None:
        """Two diffusers folders in half precision: a Stable Diffusion base model, and a motion adapter."""
        unet, adapter = split_unet(self.unet)
        for part in (self.vae, self.text_encoder, unet, adapter):
            part.to(torch.float16)
        StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=make_scheduler(SIGMA_MAX),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(base_folder, max_shard_size="15MB")
        adapter.save_pretrained(adapter_folder, max_shard_size="15MB")
