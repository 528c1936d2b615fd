"""Headers of full-size checkpoints, in the layouts that they are published in, and files of them without data.

The shapes are those of diffusers' and transformers' real classes, built on the meta device from the published
configurations; the names are made from theirs by the inverse of diffusers' conversions.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    ControlNetModel,
    MotionAdapter,
    SparseControlNetModel,
    UNet2DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from tiny_models import _UNET_HEAD, _ldm_text_key, _ldm_vae_key, _unet_layer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from vidkit.models.files.safetensors_header import Header

BYTES = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1}

SD_UNET: Mapping[str, Any] = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
SD2_UNET: Mapping[str, Any] = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SDXL_UNET: Mapping[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER_UNET: Mapping[str, Any] = {
    **SDXL_UNET,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (384, 768, 1536, 1536),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}


def header_of(model: torch.nn.Module, rename: Callable[[str], str] = lambda key: key, dtype: str = "F16") -> Header:
    return {rename(key): (dtype, tuple(weight.shape)) for key, weight in model.state_dict().items()}


def built(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A model without data."""
    with torch.device("meta"):
        return make()


def with_prefix(prefix: str, header: Header) -> Header:
    return {prefix + key: entry for key, entry in header.items()}


def write_sparse(path: Path, header: Header, metadata: Mapping[str, str] | None = None) -> Path:
    """A valid safetensors file of full length, its data a hole, so that ten gigabytes take no room."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key, (dtype, shape) in header.items():
        end = position + math.prod(shape) * BYTES[dtype]
        entries[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + position)
    return path


# --- UNets in the original layout


@functools.cache
def unet(kind: str, **changes: Any) -> Header:
    """A UNet in diffusers' layout: "SD 1.5", "SD 2", "SDXL", "SDXL refiner"."""
    configs = {"SD 1.5": SD_UNET, "SD 2": SD2_UNET, "SDXL": SDXL_UNET, "SDXL refiner": REFINER_UNET}
    return header_of(built(lambda: UNet2DConditionModel(**{**SD_UNET, **configs[kind], **changes})))


def original_unet(kind: str, dtype: str = "F16", **changes: Any) -> Header:
    """The same with the names of the original release, without what stands before them in a checkpoint."""
    header = unet(kind, **changes)
    with_attention = any(key.startswith("up_blocks.0.attentions") for key in header)
    return {original_unet_key(key, with_attention): (dtype, shape) for key, (_, shape) in header.items()}


def original_unet_key(key: str, attention_first: bool = False) -> str:
    """attention_first: whether the first of the up blocks has attention, which upsampling follows."""
    module, _, leaf = key.rpartition(".")
    if module in _UNET_HEAD:
        return f"{_UNET_HEAD[module]}.{leaf}"
    if match := re.match(r"add_embedding\.linear_(\d)", module):
        return f"label_emb.0.{2 * int(match[1]) - 2}.{leaf}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key):
        kind, index, rest = match.groups()
        return f"middle_block.{2 * int(index) + (kind == 'attentions')}.{original_layer(kind, rest)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", key)
    assert match is not None, key
    direction, block, kind, layer, rest = match.groups()
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * 3}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":
        place = 2 if attention_first or block != "0" else 1
        return f"output_blocks.{int(block) * 3 + 2}.{place}.{rest}"
    number = int(block) * 3 + int(layer) + (direction == "down")
    side = "input_blocks" if direction == "down" else "output_blocks"
    return f"{side}.{number}.{int(kind == 'attentions')}.{original_layer(kind, rest)}"


def original_layer(kind: str, rest: str) -> str:
    """Stability's layers over time stand in each layer as `time_stack`, with the same names as those over space."""
    if rest.startswith("time_mixer."):
        return rest
    if kind == "resnets":
        if rest.startswith("temporal_res_block."):
            return "time_stack." + _unet_layer(kind, rest.removeprefix("temporal_res_block."))
        return _unet_layer(kind, rest.removeprefix("spatial_res_block."))
    rest = re.sub(r"^time_pos_embed\.linear_(\d)", lambda match: f"time_pos_embed.{2 * int(match[1]) - 2}", rest)
    return rest.replace("temporal_transformer_blocks.", "time_stack.")


@functools.cache
def motion_unet() -> Header:
    """Stable Diffusion 1.5's UNet with motion modules in it."""
    return header_of(built(lambda: UNetMotionModel(cross_attention_dim=768)))


# --- whole checkpoints


@functools.cache
def vae() -> Header:
    """As in diffusers' layout; the same in all of Stable Diffusion."""
    kinds = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    channels = (128, 256, 512, 512)
    return header_of(
        built(
            lambda: AutoencoderKL(
                down_block_types=kinds[0],
                up_block_types=kinds[1],
                block_out_channels=channels,
                layers_per_block=2,
                latent_channels=4,
            )
        ),
        dtype="F32",
    )


def original_vae(dtype: str = "F16") -> Header:
    """Under first_stage_model."""
    return {_ldm_vae_key(key, 4): (dtype, shape) for key, (_, shape) in vae().items()}


@functools.cache
def clip_text() -> Header:
    """CLIP ViT-L's text encoder."""
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    return header_of(built(lambda: CLIPTextModel(config)))


def original_text(prefix: str = "cond_stage_model.", dtype: str = "F16") -> Header:
    names = {_ldm_text_key(key).removeprefix("cond_stage_model."): shape for key, (_, shape) in clip_text().items()}
    positions = {f"{prefix}transformer.text_model.embeddings.position_ids": ("I64", (1, 77))}
    return positions | {prefix + key: (dtype, shape) for key, shape in names.items()}


def open_clip_text(prefix: str, width: int, layers: int, dtype: str = "F16") -> Header:
    """OpenCLIP's own names of a text encoder, as in SD 2 (ViT-H) and SDXL (ViT-bigG)."""
    block = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, width),
        "token_embedding.weight": (49408, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for layer in range(layers):
        shapes |= {f"transformer.resblocks.{layer}.{name}": shape for name, shape in block.items()}
    return {prefix + key: (dtype, shape) for key, shape in shapes.items()}


def base_checkpoint(kind: str, dtype: str = "F16", **changes: Any) -> Header:
    """A published base model in one file: UNet, VAE and text encoders."""
    encoders = {
        "SD 1.5": lambda: original_text(dtype=dtype),
        "SD 2": lambda: open_clip_text("cond_stage_model.model.", 1024, 24, dtype),
        "SDXL": lambda: (
            original_text("conditioner.embedders.0.", dtype)
            | open_clip_text("conditioner.embedders.1.model.", 1280, 32, dtype)
        ),
        "SDXL refiner": lambda: open_clip_text("conditioner.embedders.0.model.", 1280, 32, dtype),
    }
    own = with_prefix("model.diffusion_model.", original_unet(kind, dtype, **changes))
    return {**own, **original_vae(dtype), **encoders[kind]()}


def with_averages(header: Header) -> Header:
    """The EMA copy beside the weights, as in v1-5-pruned.ckpt: names without dots."""
    unet_keys = {key: entry for key, entry in header.items() if key.startswith("model.diffusion_model.")}
    copies = {f"model_ema.{key.removeprefix('model.').replace('.', '')}": entry for key, entry in unet_keys.items()}
    return {**header, **copies, "model_ema.decay": ("F32", ()), "model_ema.num_updates": ("I64", ())}


@functools.cache
def svd_unet() -> Header:
    """In diffusers' layout: the class' defaults are SVD's."""
    return header_of(built(lambda: UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))))


@functools.cache
def svd_vae() -> Header:
    return header_of(
        built(
            lambda: AutoencoderKLTemporalDecoder(
                down_block_types=("DownEncoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
            )
        )
    )


def svd_checkpoint() -> Header:
    """svd.safetensors: UNet, temporal VAE, and the whole OpenCLIP ViT-H, of which the picture's part is used."""
    own = {"model.diffusion_model." + original_unet_key(key): entry for key, entry in svd_unet().items()}
    image_encoder = {
        "conditioner.embedders.0.open_clip.model.visual.conv1.weight": ("F16", (1280, 3, 14, 14)),
        "conditioner.embedders.0.open_clip.model.visual.proj": ("F16", (1280, 1024)),
        "conditioner.embedders.0.open_clip.model.ln_final.weight": ("F16", (1024,)),
    }
    decoder = {
        "first_stage_model.decoder.up.0.block.0.time_stack.in_layers.2.weight": ("F16", (128, 128, 3, 1, 1)),
        "first_stage_model.decoder.conv_out.time_mix_conv.weight": ("F16", (3, 3, 3, 1, 1)),
    }
    return {**own, **original_vae(), **decoder, **image_encoder}


# --- motion modules, SparseCtrl, ControlNets


@functools.cache
def motion_adapter(mid_block: bool, channels: tuple[int, ...] = (320, 640, 1280, 1280), frames: int = 32) -> Header:
    return header_of(
        built(
            lambda: MotionAdapter(
                block_out_channels=channels, use_motion_mid_block=mid_block, motion_max_seq_length=frames
            )
        )
    )


def original_motion(header: Header, positions: bool = True) -> Header:
    """With the names of AnimateDiff's releases, where each attention has positions of its own."""
    renamed: Header = {}
    for key, entry in header.items():
        if ".motion_modules." not in key:
            renamed[key] = entry
            continue
        name = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", key)
        for theirs, own in ((".norm1.", ".norms.0."), (".norm2.", ".norms.1."), (".norm3.", ".ff_norm.")):
            name = name.replace(theirs, own)
        name = name.replace(".attn1.", ".attention_blocks.0.").replace(".attn2.", ".attention_blocks.1.")
        if ".pos_embed." in name:
            if positions:
                places = (name.replace(".pos_embed.", f".attention_blocks.{i}.pos_encoder.") for i in range(2))
                renamed |= dict.fromkeys(places, entry)
            continue
        renamed[name] = entry
    return renamed


@functools.cache
def sparse_control(rgb: bool) -> Header:
    """The class' defaults are the published SparseCtrl's. It takes pictures as latents, scribbles as pixels."""
    return header_of(
        built(
            lambda: SparseControlNetModel(conditioning_channels=4 if rgb else 3, use_simplified_condition_embedding=rgb)
        )
    )


@functools.cache
def controlnet(kind: str) -> Header:
    base = {"SD 1.5": SD_UNET, "SDXL": SDXL_UNET}[kind]
    config = {**SD_UNET, **base}
    config.pop("up_block_types", None)
    return header_of(built(lambda: ControlNetModel(**config)))


@functools.cache
def clip_vision() -> Header:
    config = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        projection_dim=1024,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
    )
    return header_of(built(lambda: CLIPVisionModelWithProjection(config)))


# --- LoRAs


def linear_layers(header: Header, pattern: str) -> dict[str, tuple[int, ...]]:
    """The layers of a model that LoRAs change: names without ".weight", and shapes."""
    return {
        key.removesuffix(".weight"): shape
        for key, (_, shape) in header.items()
        if key.endswith(".weight") and len(shape) in (2, 4) and re.search(pattern, key)
    }


ATTENTION = r"attn[12]\.to_(q|k|v|out\.0)\.weight$"


def kohya_lora(layers: Mapping[str, tuple[int, ...]], prefix: str = "lora_unet_", rank: int = 16) -> Header:
    header: Header = {}
    for name, shape in layers.items():
        flat = prefix + name.replace(".", "_")
        header[f"{flat}.lora_down.weight"] = ("F16", (rank, *shape[1:]))
        header[f"{flat}.lora_up.weight"] = ("F16", (shape[0], rank, *((1, 1) if len(shape) == 4 else ())))
        header[f"{flat}.alpha"] = ("F16", ())
    return header


def peft_lora(layers: Mapping[str, tuple[int, ...]], prefix: str = "unet.", rank: int = 8) -> Header:
    header: Header = {}
    for name, shape in layers.items():
        header[f"{prefix}{name}.lora_A.weight"] = ("F32", (rank, *shape[1:]))
        header[f"{prefix}{name}.lora_B.weight"] = ("F32", (shape[0], rank))
    return header


def processor_lora(layers: Mapping[str, tuple[int, ...]], prefix: str = "", rank: int = 4) -> Header:
    """diffusers' first layout, and AnimateDiff's motion LoRAs: of the attention's processor."""
    header: Header = {}
    for name, shape in layers.items():
        attention, _, layer = name.removesuffix(".0").rpartition(".")
        start = f"{prefix}{attention}.processor.{layer}_lora"
        header[f"{start}.down.weight"] = ("F32", (rank, shape[1]))
        header[f"{start}.up.weight"] = ("F32", (shape[0], rank))
    return header


def loha(layers: Mapping[str, tuple[int, ...]], rank: int = 8) -> Header:
    header: Header = {}
    for name, shape in layers.items():
        flat = "lora_unet_" + name.replace(".", "_")
        for half in ("w1", "w2"):
            header[f"{flat}.hada_{half}_a"] = ("F16", (shape[0], rank))
            header[f"{flat}.hada_{half}_b"] = ("F16", (rank, math.prod(shape[1:])))
        header[f"{flat}.alpha"] = ("F16", ())
    return header


def lokr(layers: Mapping[str, tuple[int, ...]], factor: int = 8, rank: int = 4) -> Header:
    header: Header = {}
    for name, shape in layers.items():
        flat = "lora_unet_" + name.replace(".", "_")
        header[f"{flat}.lokr_w1"] = ("F16", (factor, factor))
        header[f"{flat}.lokr_w2_a"] = ("F16", (shape[0] // factor, rank))
        header[f"{flat}.lokr_w2_b"] = ("F16", (rank, shape[1] // factor))
    return header
