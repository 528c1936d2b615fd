"""The tiny models in one file each, with the key names of their original releases: the inverse of what vidkit does."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    MotionAdapter,
    SparseControlNetModel,
    UNetSpatioTemporalConditionModel,
)
from safetensors.torch import load_file, save_file
from tiny_models import _UNET_RESNET, _ldm_unet_key, _ldm_vae_key
from transformers import CLIPVisionModelWithProjection

Tensors = dict[str, torch.Tensor]


def saved(tensors: Tensors, path: Path) -> Path:
    """As safetensors, or as a pickle around which training programs put a state dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(whole, path)
    else:
        torch.save({"global_step": 7, "state_dict": whole}, path)
    return path


def as_pickle(file: Path, path: Path) -> Path:
    """The same tensors as torch.save writes them."""
    return saved(load_file(file), path)


# --- Stable Video Diffusion, as Stability's generative-models name it ------------------------------------------------


def save_svd_single_file(folder: Path, path: Path) -> Path:
    """svd.safetensors: UNet, OpenCLIP's vision tower, and the autoencoders of the picture and of the video."""
    unet = UNetSpatioTemporalConditionModel.from_pretrained(folder, subfolder="unet")
    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder, subfolder="vae")
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder, subfolder="image_encoder")
    tensors = {svd_unet_key(key, unet.config.layers_per_block): w for key, w in unet.state_dict().items()}
    for key, weight in vae.state_dict().items():
        name = svd_vae_key(key, len(vae.config.block_out_channels))
        tensors[name] = weight[:, :, None, None] if is_vae_attention(name) else weight
    tensors |= open_clip(encoder.state_dict(), "conditioner.embedders.0.open_clip.model.visual.")
    tensors |= {  # what is in the file besides, and is not used
        "conditioner.embedders.0.open_clip.model.logit_scale": torch.tensor(4.6),
        "conditioner.embedders.0.open_clip.model.ln_final.weight": torch.ones(32),
        "first_stage_model.encoder.conv_in.weight": torch.full((32, 3, 3, 3), torch.nan),
        "conditioner.embedders.3.encoder.post_quant_conv.bias": torch.full((4,), torch.nan),
    }
    return saved(tensors, path)


def is_vae_attention(name: str) -> bool:
    return re.search(r"coder\.mid\.attn_1\.(q|k|v|proj_out)\.weight$", name) is not None


def svd_unet_key(key: str, layers_per_block: int) -> str:
    if key.startswith("add_embedding.linear_"):
        number, leaf = re.fullmatch(r"add_embedding\.linear_(\d)\.(.+)", key).groups()  # type: ignore[union-attr]
        return f"model.diffusion_model.label_emb.0.{2 * int(number) - 2}.{leaf}"
    match = re.fullmatch(r"((?:down_blocks\.\d|up_blocks\.\d|mid_block)\.(resnets|attentions)\.\d)\.(.+)", key)
    if match is None:
        return _ldm_unet_key(key, layers_per_block)
    place, kind, rest = match.groups()
    marker = {"resnets": "norm1.weight", "attentions": "norm.weight"}[kind]
    prefix = re.sub(r"(in_layers\.0|norm)\.weight$", "", _ldm_unet_key(f"{place}.{marker}", layers_per_block))
    return prefix + (svd_resnet(rest) if kind == "resnets" else svd_attention(rest))


def svd_resnet(rest: str) -> str:
    which, _, layer = rest.partition(".")
    if which == "time_mixer":
        return rest
    module, _, leaf = layer.rpartition(".")
    return ("time_stack." if which == "temporal_res_block" else "") + f"{_UNET_RESNET[module]}.{leaf}"


def svd_attention(rest: str) -> str:
    rest = rest.replace("temporal_transformer_blocks.", "time_stack.")
    return rest.replace("time_pos_embed.linear_1", "time_pos_embed.0").replace("linear_2", "2")


def svd_vae_key(key: str, blocks: int) -> str:
    if not key.startswith("decoder."):
        return "conditioner.embedders.3.encoder." + _ldm_vae_key(key, blocks).removeprefix("first_stage_model.")
    if key.startswith("decoder.time_conv_out."):
        return "first_stage_model." + key.replace("time_conv_out", "conv_out.time_mix_conv")
    match = re.fullmatch(r"(.+\.resnets\.\d)\.(spatial_res_block|temporal_res_block|time_mixer)\.(.+)", key)
    if match is None:
        return _ldm_vae_key(key, blocks)
    place, which, rest = match.groups()
    if which == "spatial_res_block":
        return _ldm_vae_key(f"{place}.{rest}", blocks)
    prefix = _ldm_vae_key(f"{place}.norm1.weight", blocks).removesuffix("norm1.weight")
    return prefix + (rest if which == "time_mixer" else svd_resnet(f"temporal_res_block.{rest}"))


def open_clip(tensors: Tensors, prefix: str) -> Tensors:
    """transformers' vision tower in OpenCLIP's words."""
    names = (
        (r"^vision_model\.embeddings\.class_embedding", "class_embedding"),
        (r"^vision_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^vision_model\.embeddings\.patch_embedding\.", "conv1."),
        (r"^vision_model\.pre_layrnorm\.", "ln_pre."),
        (r"^vision_model\.post_layernorm\.", "ln_post."),
        (r"^vision_model\.encoder\.layers\.", "transformer.resblocks."),
        (r"\.layer_norm(\d)\.", r".ln_\1."),
        (r"\.self_attn\.", ".attn."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    )
    found: Tensors = {}
    for key, weight in tensors.items():
        if ".k_proj." in key or ".v_proj." in key:
            continue  # with query
        name = key
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        if ".q_proj." in key:
            three = [tensors[key.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            found[prefix + re.sub(r"q_proj\.(weight|bias)", r"in_proj_\1", name)] = torch.cat(three)
        elif key == "visual_projection.weight":
            found[prefix + "proj"] = weight.T
        else:
            found[prefix + name] = weight
    return found


# --- motion modules, as AnimateDiff names them ------------------------------------------------------------------------


def save_motion_module(folder: Path, path: Path, *, positions: bool = True) -> Path:
    """mm_sd_v15_v2.ckpt and its like. positions: AnimateLCM's has none."""
    return saved(original_motion(MotionAdapter.from_pretrained(folder).state_dict(), positions), path)


def save_sparsectrl(folder: Path, path: Path) -> Path:
    """v3_sd15_sparsectrl_rgb.ckpt."""
    return saved(original_motion(SparseControlNetModel.from_pretrained(folder).state_dict(), True), path)


def original_motion(tensors: Tensors, positions: bool) -> Tensors:
    found: Tensors = {}
    for key, weight in tensors.items():
        if ".motion_modules." not in key:
            found[key] = weight
            continue
        name = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", key)
        for theirs, own in ((".norm1.", ".norms.0."), (".norm2.", ".norms.1."), (".norm3.", ".ff_norm.")):
            name = name.replace(theirs, own)
        name = name.replace(".attn1.", ".attention_blocks.0.").replace(".attn2.", ".attention_blocks.1.")
        if ".pos_embed." not in name:
            found[name] = weight
        elif positions:
            for block in range(2):
                found[name.replace(".pos_embed.", f".attention_blocks.{block}.pos_encoder.")] = weight
    return found
