"""Full-size models that take no room on the disk: real configs, and weights whose data are holes in their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SD15 = Path(__file__).parent.parent / "vidkit" / "models" / "configs" / "sd15"


#: what SVD's autoencoder has beside its widths
SVD_VAE = {"layers_per_block": 2, "latent_channels": 4, "down_block_types": ["DownEncoderBlock2D"] * 4}

#: SVD-XT's UNet and autoencoder as they were published, where they are not what diffusers assumes
PUBLISHED_UNET = {"num_attention_heads": [5, 10, 20, 20]}
PUBLISHED_VAE = SVD_VAE | {"block_out_channels": [128, 256, 512, 512]}


def make_models(folder: Path) -> None:
    """Full-size model folders: real configs, and safetensors files whose data are holes."""
    import diffusers as d

    make_published_svd(folder / "svd")
    blocks = {
        "block_out_channels": [192, 384, 768],
        "num_attention_heads": [3, 6, 12],
        "layers_per_block": 1,
        "transformer_layers_per_block": 2,
        "down_block_types": [*["CrossAttnDownBlockSpatioTemporal"] * 2, "DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * 2],
    }
    make_svd(folder / "narrow_svd", blocks, SVD_VAE | {"block_out_channels": [64, 128, 256, 256]})
    other = {
        "block_out_channels": [128, 256, 384],
        "num_attention_heads": [2, 4, 6],
        "layers_per_block": [2, 1, 2],
        "cross_attention_dim": 512,
        "down_block_types": ["DownBlockSpatioTemporal", *["CrossAttnDownBlockSpatioTemporal"] * 2],
        "up_block_types": [*["CrossAttnUpBlockSpatioTemporal"] * 2, "UpBlockSpatioTemporal"],
    }
    deep = {"block_out_channels": [96, 192, 192, 384], "layers_per_block": 3}
    make_svd(folder / "other_svd", other, SVD_VAE | deep, width=512)
    make_sd15(folder / "sd15")
    save_part(folder / "motion_adapter", d.MotionAdapter, {})
    save_part(folder / "pia_adapter", d.MotionAdapter, {"conv_in_channels": 9})
    save_part(folder / "sparse_controlnet", d.SparseControlNetModel, {})


def make_published_svd(folder: Path) -> None:
    """SVD-XT as it was published."""
    make_svd(folder, PUBLISHED_UNET, PUBLISHED_VAE)


def make_svd(folder: Path, unet: Mapping[str, Any], vae: Mapping[str, Any], width: int = 1024) -> None:
    """width: of the image embeddings, the UNet's cross_attention_dim."""
    import diffusers as d
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    save_part(folder / "unet", d.UNetSpatioTemporalConditionModel, unet)
    save_part(folder / "vae", d.AutoencoderKLTemporalDecoder, vae)
    vit_h = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    config = CLIPVisionConfig(**vit_h, projection_dim=width, image_size=224, patch_size=14, hidden_act="gelu")
    save_module(folder / "image_encoder", on_meta(lambda: CLIPVisionModelWithProjection(config)), "model")
    config.architectures = ["CLIPVisionModelWithProjection"]
    config.save_pretrained(folder / "image_encoder")
    scheduler = {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True}
    d.EulerDiscreteScheduler(**scheduler, sigma_min=0.002, sigma_max=700.0).save_config(folder / "scheduler")
    CLIPImageProcessorPil().save_pretrained(folder / "feature_extractor")
    index = {
        "_class_name": "StableVideoDiffusionPipeline",
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessorPil"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def make_sd15(folder: Path) -> None:
    import diffusers as d
    from transformers import CLIPTextConfig, CLIPTextModel

    shutil.copytree(SD15, folder)
    for part, cls in (("unet", d.UNet2DConditionModel), ("vae", d.AutoencoderKL)):
        save_part(folder / part, cls, json.loads((SD15 / part / "config.json").read_text()))
    config = CLIPTextConfig.from_pretrained(SD15 / "text_encoder")
    save_module(folder / "text_encoder", on_meta(lambda: CLIPTextModel(config)), "model")


def save_part(folder: Path, cls: Any, config: Mapping[str, Any]) -> None:
    module = on_meta(lambda: cls.from_config(config))
    module.save_config(folder)
    save_module(folder, module, "diffusion_pytorch_model")


def on_meta(make: Callable[[], Any]) -> Any:
    import torch

    with torch.device("meta"):
        return make().to("meta")


def save_module(folder: Path, module: Any, stem: str) -> None:
    """A safetensors file in half precision with the module's keys and shapes, its data a hole in the file."""
    header, position = {}, 0
    for key, tensor in module.state_dict().items():
        size = 2 * tensor.numel()
        header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{stem}.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
