"""Where the parts of a model in one file are, and their keys in diffusers' and transformers' words.

Stable Diffusion's names are diffusers' own business (`loaders/single_file_utils.py`). Stable Video Diffusion's are
those of Stability's generative-models: the same blocks, and in each layer a `time_stack` for what goes over time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."
TEXT_ENCODER: Final = "cond_stage_model.transformer."
#: Stability's video model encodes its picture with an autoencoder of its own, and decodes with another
PICTURE_VAE: Final = "conditioner.embedders.3.encoder."
OPEN_CLIP: Final = "conditioner.embedders.0.open_clip.model.visual."


@dataclass(frozen=True)
class Layout:
    """One part in a file. prefixes: of its keys ("" for all). converted: from the file's keys to the module's."""

    prefixes: tuple[str, ...]
    converted: Callable[[Tensors, Mapping[str, Any]], Tensors]


def renamed(tensors: Tensors, rules: Sequence[tuple[str, str]]) -> Tensors:
    """Every rule (pattern, replacement) that matches is applied, in order."""
    found = {}
    for key, tensor in tensors.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        found[key] = tensor
    return found


# --- Stable Diffusion 1.x -------------------------------------------------------------------------------------------


def sd_unet(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return dict(convert_ldm_unet_checkpoint(tensors, dict(config)))


def sd_vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return dict(convert_ldm_vae_checkpoint(tensors, dict(config)))


def sd_text_encoder(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    return {key.removeprefix(TEXT_ENCODER): tensor for key, tensor in tensors.items()}


# --- Stable Video Diffusion -----------------------------------------------------------------------------------------

_RESNET: Final = (
    (r"in_layers\.0", "norm1"),
    (r"in_layers\.2", "conv1"),
    (r"emb_layers\.1", "time_emb_proj"),
    (r"out_layers\.0", "norm2"),
    (r"out_layers\.3", "conv2"),
    (r"skip_connection", "conv_shortcut"),
)
_TEMPORAL_RESNETS: Final = (
    (r"(resnets\.\d+)\.time_stack\.", r"\1.temporal_res_block."),
    (r"(resnets\.\d+)\.mix_factor", r"\1.time_mixer.mix_factor"),  # the decoder's
    (r"(resnets\.\d+)\.(?!temporal_res_block\.|time_mixer\.)", r"\1.spatial_res_block."),
)
_TEMPORAL_ATTENTION: Final = (
    (r"(attentions\.\d+)\.time_stack\.", r"\1.temporal_transformer_blocks."),
    (r"time_pos_embed\.0\.", "time_pos_embed.linear_1."),
    (r"time_pos_embed\.2\.", "time_pos_embed.linear_2."),
)


def svd_unet(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    # fps, motion and noise are where SDXL has its sizes
    spatial = sd_unet(tensors, {**config, "addition_embed_type": "text_time"})
    return renamed(spatial, [*_TEMPORAL_RESNETS, *_TEMPORAL_ATTENTION])


def svd_vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """The encoder is the picture's, the decoder that of the video."""
    rules = [(re.escape(PICTURE_VAE), ""), (re.escape(VAE), "")]
    plain = renamed(tensors, rules)
    blocks = len(config["block_out_channels"])
    found = sd_vae(plain, {"down_block_types": [""] * blocks, "up_block_types": [""] * blocks})
    encoder = {key: tensor for key, tensor in found.items() if not key.startswith("decoder.")}
    decoder = {key: tensor for key, tensor in found.items() if key.startswith("decoder.")}
    for kind in ("weight", "bias"):
        key = f"decoder.conv_out.time_mix_conv.{kind}"
        if key in plain:
            decoder[f"decoder.time_conv_out.{kind}"] = plain[key]
    return encoder | renamed(decoder, [*_RESNET, *_TEMPORAL_RESNETS])


_VISION: Final = (
    (r"^(class_embedding)$", r"vision_model.embeddings.\1"),
    (r"^positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^ln_pre\.", "vision_model.pre_layrnorm."),  # so it is written in transformers
    (r"^ln_post\.", "vision_model.post_layernorm."),
    (r"^transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^proj$", "visual_projection.weight"),
)


def svd_image_encoder(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """OpenCLIP's vision tower: query, key and value are one tensor there, and the projection lies on its side."""
    found: Tensors = {}
    plain = {key.removeprefix(OPEN_CLIP): tensor for key, tensor in tensors.items()}
    for key, tensor in renamed(plain, _VISION).items():
        if match := re.fullmatch(r"(.+)\.in_proj_(weight|bias)", key):
            for name, third in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{match[1]}.{name}_proj.{match[2]}"] = third.clone()  # of its own: the others may be dropped
        else:
            found[key] = tensor.T.contiguous() if key == "visual_projection.weight" else tensor
    return found


# --- motion modules -------------------------------------------------------------------------------------------------


def motion_modules(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Positions are left out: the module computes them. Names of diffusers' own pass unchanged."""
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    return dict(convert_animatediff_checkpoint_to_diffusers(tensors))


#: by the class that a folder of the same model names, and the part
LAYOUTS: Final[Mapping[tuple[str, str], Layout]] = {
    ("StableDiffusionPipeline", "unet"): Layout((UNET,), sd_unet),
    ("StableDiffusionPipeline", "vae"): Layout((VAE,), sd_vae),
    ("StableDiffusionPipeline", "text_encoder"): Layout((TEXT_ENCODER,), sd_text_encoder),
    ("StableVideoDiffusionPipeline", "unet"): Layout((UNET,), svd_unet),
    ("StableVideoDiffusionPipeline", "vae"): Layout(
        (VAE + "decoder.", PICTURE_VAE + "encoder.", PICTURE_VAE + "quant_conv."), svd_vae
    ),
    ("StableVideoDiffusionPipeline", "image_encoder"): Layout((OPEN_CLIP,), svd_image_encoder),
    ("MotionAdapter", ""): Layout(("",), motion_modules),
    ("SparseControlNetModel", ""): Layout(("",), motion_modules),
}
