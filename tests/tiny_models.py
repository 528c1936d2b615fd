"""Small models with random weights, saved as real diffusers folders, for tests of the real loaders.

The classes, configuration keys, file layouts and block kinds are those of the published models; only widths, depths
and sizes are small. Every function is deterministic: the same weights on every call, whatever the global seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    MotionAdapter,
    PNDMScheduler,
    SparseControlNetModel,
    StableDiffusionPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

# The PIL class by its own module: without torchvision `transformers.CLIPImageProcessor` warns and falls back to it.
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

Model = TypeVar("Model", bound=torch.nn.Module)

SD15_CONFIGS = Path(__file__).parent.parent / "vidkit" / "models" / "configs" / "sd15"

#: pixels a side at which the tests run: 8 x 8 latents, which the UNets halve to 4 x 4 and (SVD) 2 x 2
TEST_SIZE = 64


@dataclass(frozen=True)
class TinyAnimateDiff:
    """Folders of the parts that AnimateDiff's pipelines are put together from."""

    base: Path
    motion_adapter: Path
    sparse_controlnet: Path
    pia_adapter: Path


def make_svd(folder: Path) -> Path:
    """Save a tiny `StableVideoDiffusionPipeline` (6 frames, eight-fold VAE) and return its folder."""
    pipeline = StableVideoDiffusionPipeline(
        vae=_seeded(1, _svd_vae),
        image_encoder=_seeded(2, _svd_image_encoder),
        unet=_seeded(3, _svd_unet),
        scheduler=EulerDiscreteScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            interpolation_type="linear",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_spacing="leading",
            timestep_type="continuous",
            steps_offset=1,
        ),
        feature_extractor=CLIPImageProcessorPil(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def make_animatediff(folder: Path) -> TinyAnimateDiff:
    """Save a tiny SD 1.5-like base model, a motion adapter, a SparseCtrl (RGB) and a PIA adapter that fit together."""
    parts = TinyAnimateDiff(
        base=folder / "base",
        motion_adapter=folder / "motion_adapter",
        sparse_controlnet=folder / "sparse_controlnet",
        pia_adapter=folder / "pia_adapter",
    )
    _sd15_pipeline().save_pretrained(parts.base, safe_serialization=True)
    _seeded(14, _motion_adapter).save_pretrained(parts.motion_adapter)
    _seeded(15, _sparse_controlnet).save_pretrained(parts.sparse_controlnet)
    _seeded(16, lambda: _motion_adapter(conv_in_channels=9)).save_pretrained(parts.pia_adapter)
    return parts


def make_short_animatediff(folder: Path, parts: TinyAnimateDiff, frames: int) -> TinyAnimateDiff:
    """Save motion adapters that hold only so many frames, and return them with the base and the SparseCtrl of `parts`.

    The weights are those of `make_animatediff`: only the positions' length differs.
    """
    short = TinyAnimateDiff(parts.base, folder / "motion_adapter", parts.sparse_controlnet, folder / "pia_adapter")
    _seeded(14, lambda: _motion_adapter(frames=frames)).save_pretrained(short.motion_adapter)
    _seeded(16, lambda: _motion_adapter(conv_in_channels=9, frames=frames)).save_pretrained(short.pia_adapter)
    return short


def make_sparse_controlnet(folder: Path, frames: int) -> Path:
    """Save a SparseCtrl (RGB) that holds only so many frames, and return its folder."""
    _seeded(15, lambda: _sparse_controlnet(frames)).save_pretrained(folder)
    return folder


def save_single_file(base_folder: Path, path: Path) -> Path:
    """Write the base model as one `.safetensors` with the key names of the original Stable Diffusion 1.x release.

    The inverse of diffusers' `convert_ldm_unet_checkpoint`, `convert_ldm_vae_checkpoint` and
    `convert_ldm_clip_checkpoint`.
    """
    unet = UNet2DConditionModel.from_pretrained(base_folder, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(base_folder, subfolder="vae")
    text_encoder = CLIPTextModel.from_pretrained(base_folder, subfolder="text_encoder")
    renamed = {
        **{_ldm_unet_key(key, unet.config.layers_per_block): w for key, w in unet.state_dict().items()},
        **{_ldm_vae_key(key, len(vae.config.block_out_channels)): w for key, w in vae.state_dict().items()},
        **{_ldm_text_key(key): w for key, w in text_encoder.state_dict().items()},
        # as in the published file; diffusers derives it itself
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    tensors = {key: _as_ldm_stores_it(key, weight).clone().contiguous() for key, weight in renamed.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


# --- the models -----------------------------------------------------------------------------------------------------


@contextmanager
def _torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block, and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _seeded(seed: int, build: Callable[[], Model]) -> Model:
    """Build a model with seeded weights, none of them left at zero.

    ControlNets start with their outputs at zero: as they are built they would change nothing, and no test could tell
    whether the conditioning arrives.
    """
    with _torch_seed(seed), torch.no_grad():
        model = build().eval()
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and not parameter.any():
                parameter.normal_(std=0.1)
    return model


def _svd_unet() -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=4,
        down_block_types=(
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types=(
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels=(32, 64, 64),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,  # fps, motion bucket and augmentation noise, 32 each
        layers_per_block=1,
        cross_attention_dim=32,
        num_attention_heads=(2, 4, 4),
        num_frames=6,
    )


def _svd_vae() -> AutoencoderKLTemporalDecoder:
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        sample_size=128,
        scaling_factor=0.18215,
        force_upcast=True,
    )


def _svd_image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,  # the pipeline resizes to 224 x 224 whatever the configuration says
            patch_size=32,
        )
    )


def _sd15_pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=_seeded(11, _sd15_vae),
        text_encoder=_seeded(12, _sd15_text_encoder),
        tokenizer=CLIPTokenizer.from_pretrained(SD15_CONFIGS / "tokenizer", local_files_only=True),
        unet=_seeded(13, _sd15_unet),
        scheduler=PNDMScheduler.from_pretrained(SD15_CONFIGS / "scheduler", local_files_only=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd15_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=2,  # as in SD 1.5: the block numbers of the single-file layout follow from it
        cross_attention_dim=32,
        attention_head_dim=4,
    )


def _sd15_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.18215,
    )


def _sd15_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        )
    )


def _motion_adapter(conv_in_channels: int | None = None, frames: int = 32) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=2,
        motion_num_attention_heads=4,
        motion_max_seq_length=frames,
        use_motion_mid_block=True,
        conv_in_channels=conv_in_channels,
    )


def _sparse_controlnet(frames: int = 32) -> SparseControlNetModel:
    return SparseControlNetModel(
        in_channels=4,
        conditioning_channels=4,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        block_out_channels=(32, 64),
        layers_per_block=2,
        cross_attention_dim=32,
        attention_head_dim=4,
        motion_max_seq_length=frames,
        motion_num_attention_heads=4,
        use_simplified_condition_embedding=True,  # SparseCtrl RGB, which conditions on VAE latents
    )


# --- the key names of the original Stable Diffusion 1.x release -----------------------------------------------------

_UNET_HEAD = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _ldm_unet_key(key: str, layers_per_block: int) -> str:
    return "model.diffusion_model." + _ldm_unet_module(key, layers_per_block + 1)


def _ldm_unet_module(key: str, stride: int) -> str:
    """`stride` entries of input_blocks or output_blocks belong to one block: its layers, and the resampling."""
    module, _, leaf = key.rpartition(".")
    if module in _UNET_HEAD:
        return f"{_UNET_HEAD[module]}.{leaf}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key):
        kind, index, rest = match.groups()
        return f"middle_block.{2 * int(index) + (kind == 'attentions')}.{_unet_layer(kind, rest)}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", key)
    if match is None:
        raise ValueError(f"no Stable Diffusion 1.x name for the UNet key {key!r}")
    direction, block, kind, layer, rest = match.groups()
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * stride}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":
        # it follows the attention, where the block has one; only the first block, here and in SD 1.5, has none
        place = 1 if block == "0" else 2
        return f"output_blocks.{int(block) * stride + stride - 1}.{place}.{rest}"
    number = int(block) * stride + int(layer) + (direction == "down")
    side = "input_blocks" if direction == "down" else "output_blocks"
    return f"{side}.{number}.{int(kind == 'attentions')}.{_unet_layer(kind, rest)}"


def _unet_layer(kind: str, rest: str) -> str:
    module, _, leaf = rest.rpartition(".")
    return f"{_UNET_RESNET[module]}.{leaf}" if kind == "resnets" else rest


def _ldm_vae_key(key: str, blocks: int) -> str:
    name = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(
        r"mid_block\.attentions\.0\.([a-z_]+(?:\.0)?)\.", lambda m: f"mid.attn_1.{_VAE_ATTENTION[m[1]]}.", name
    )
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    # the original counts the decoder's blocks from the picture, diffusers from the latent
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
    return "first_stage_model." + name


def _ldm_text_key(key: str) -> str:
    # transformers 5.6 dropped the `text_model.` level from CLIPTextModel's own keys
    return "cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")


def _as_ldm_stores_it(key: str, weight: torch.Tensor) -> torch.Tensor:
    """The original VAE has 1 x 1 convolutions where diffusers has linear layers."""
    if re.fullmatch(r"first_stage_model\.(en|de)coder\.mid\.attn_1\.(q|k|v|proj_out)\.weight", key):
        return weight[:, :, None, None]
    return weight
