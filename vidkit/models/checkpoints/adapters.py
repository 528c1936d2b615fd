"""Small files that change a base model: LoRAs and motion LoRAs of all makes, IP- and T2I-Adapters, textual inversions.

A LoRA's keys name the layers that it changes and how: kohya's "lora_unet_down_blocks_0_…lora_down.weight", diffusers'
and peft's "unet.down_blocks.0.….lora_A.weight", LyCORIS' "…hada_w1_a", AnimateDiff's own "….to_q_lora.down.weight".
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from vidkit.models.checkpoints.findings import BY_MOTION_CHANNELS, BY_TEXT_WIDTH, Finding, known
from vidkit.models.checkpoints.keys import Keys, all_levels
from vidkit.models.checkpoints.motion import MOTION
from vidkit.models.lora_keys import OTHER_METHODS

_LORA: Final = (
    r"^(lora|lycoris|oft)_(unet|te\d?|transformer|prior)?_?\w+\.|[._]lora[._]?(A|B|up|down|mid|linear_layer|embedding)?[._]"
    r"|\.(hada_w[12]|lokr_w[12]|hada_t[12]|lokr_t2)(_[ab])?$|\.(oft_blocks|oft_diag|lora_magnitude_vector|dora_scale)$"
)
_NAMINGS: Final = (
    (r"^(lora|lycoris|oft)_", "kohya"),
    (r"\.lora_[AB]\b", "peft"),
    (r"_lora\.(down|up)\.", "attention processors"),
    (r"\.lora(_linear_layer)?\.(down|up)\.", "diffusers"),
)
#: what stands before the UNet's layers. From the beginning on, so that a pattern is tried in one place of a key.
_UNET: Final = r"^(?:unet\.|(?:lora|lycoris)_unet_)?"
#: the inner ("down") matrix: its first axis is the rank, its second the layer's input
_DOWN: Final = (
    r"(?:(?:\.lora_down|\.lora_A(?:\.default)?|[._]lora\.down|\.lora_linear_layer\.down)\.weight|\.hada_w1_b)$"
)

_TRANSFORMERS: Final = (
    (r"(^|[._])joint_blocks[._]\d", "SD 3"),
    (r"individual_token_refiner|double_blocks[._](19|2\d)[._]|img_mod[._]linear", "HunyuanVideo"),
    (r"single_stream_modulation|double_stream_modulation", "Flux 2"),
    (r"(_mod|modulation)[._]lin([._]|$)", "Flux"),
    (r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]\d", "Flux or HunyuanVideo"),
    (r"(^|[._])blocks[._]\d+[._](self|cross)_attn[._][qkvo]([._]|$)", "Wan"),
    (r"(^|[._])transformer_blocks[._]\d+[._](img_mlp|img_mod|txt_mlp|txt_mod)", "Qwen-Image"),
)
#: transformers whose layers have the same names, by the width of their attention
_BY_ATTENTION_WIDTH: Final = {
    1152: "PixArt",
    1536: "SD 3",
    1920: "CogVideoX",
    2048: "LTX-Video",
    2432: "SD 3",
    4096: "LTX-Video",
}
_PLAIN_TRANSFORMER: Final = r"^(?:transformer|diffusion_model)\.transformer_blocks\.\d+\."

_EMBEDDING: Final = r"^(emb_params$|string_to_param\.|clip_[lg]$)"


def lora(keys: Keys) -> Finding | None:
    if not keys.has(_LORA):
        return None
    details = known(
        naming=first_of(_NAMINGS, keys),
        method=first_of(OTHER_METHODS, keys) or "LoRA",
        rank=most_common_rank(keys),
        text_encoder=keys.has(r"^(lora|lycoris|oft)_te|^text_encoder"),
    )
    if keys.has(MOTION):
        return motion_lora(keys, details)
    for pattern, name in _TRANSFORMERS:
        if keys.has(pattern):
            return Finding("LoRA", name, details=details)
    if keys.has(_PLAIN_TRANSFORMER):
        width = keys.width(_PLAIN_TRANSFORMER + r"attn1?\.(?:to_q|to_k)" + _DOWN, 1)
        return Finding("LoRA", _BY_ATTENTION_WIDTH.get(width or 0, "a diffusion transformer"), details=details)
    details |= known(cross_attention_dim=text_width(keys), level_channels=changed_levels(keys))
    return Finding("LoRA", lora_architecture(keys, details.get("cross_attention_dim")), details=details)


def first_of(patterns: tuple[tuple[str, str], ...], keys: Keys) -> str | None:
    return next((name for pattern, name in patterns if keys.has(pattern)), None)


def most_common_rank(keys: Keys) -> int | None:
    ranks = Counter(shape[0] for _, shape in keys.matching(_DOWN) if len(shape) >= 2)
    return ranks.most_common(1)[0][0] if ranks else None


def motion_lora(keys: Keys, details: dict[str, object]) -> Finding:
    levels = keys.levels(_UNET + r"down_blocks[._](\d+)[._]motion_modules[._]0[._].*to_q" + _DOWN, axis=1)
    architecture = BY_MOTION_CHANNELS.get(all_levels(levels), "")
    details = details | known(
        level_channels=levels,
        use_motion_mid_block=keys.has(r"(^|[._])mid_block[._]motion_modules"),
        spatial_layers=keys.has(r"(^|[._])attentions[._]\d"),
    )
    return Finding("motion LoRA", architecture, details=details)


def text_width(keys: Keys) -> int | None:
    """Of the text conditions, where cross-attention is changed. A whole difference or LoHa has it in the same place."""
    layer = r"attn2[._](?:processor[._])?to_[kv]"
    width = keys.width(layer + _DOWN, 1) or keys.width(layer + r"\.diff$", 1)
    if width is not None:
        return width
    # LoKr: the layer's weight is the Kronecker product of two matrices, one of which may itself be a product
    left = keys.width(layer + r"\.lokr_w1(?:_b)?$", 1)
    right = keys.width(layer + r"\.lokr_w2(?:_b)?$", 1)
    return left * right if left and right else None


def changed_levels(keys: Keys) -> dict[int, int]:
    return keys.levels(
        _UNET + r"down_blocks[._](\d+)[._]attentions[._]\d+[._].*attn1[._](?:processor[._])?to_q" + _DOWN, axis=1
    )


def lora_architecture(keys: Keys, width: int | None) -> str:
    if width is not None:
        return BY_TEXT_WIDTH.get(width, "")
    # SDXL alone has two text encoders, several transformer blocks a layer, and the original block names in kohya's
    if keys.has(
        r"^(lora|lycoris)_te2_|^text_encoder_2\.|transformer_blocks[._][1-9]|^(lora|lycoris)_unet_(in|out)put_blocks_"
    ):
        return "SDXL"
    if keys.has(r"down_blocks[._]0[._]attentions[._]"):  # where SDXL has none
        return "SD 1.5 or SD 2"
    text = keys.width(r"^(?:lora|lycoris)_te_text_model_encoder_layers_\d+_self_attn_q_proj" + _DOWN, 1)
    return {768: "SD 1.5", 1024: "SD 2"}.get(text or 0, "")


def ip_adapter(keys: Keys) -> Finding | None:
    if keys.has(r"\.ip_adapter_double_stream_|^ip_adapter_proj_model\."):
        return Finding("IP-Adapter", "Flux")
    if not keys.has(r"^(image_proj|ip_adapter)\."):
        return None
    width = keys.width(r"^ip_adapter\.\d+\.to_k_ip\.weight$", 1)
    variant = (
        (r"^image_proj\.perceiver_resampler\.", "FaceID Plus"),
        (r"^ip_adapter\.\d+\.to_q_lora\.", "FaceID"),
        (r"^image_proj\.latents$", "Plus"),
        (r"^image_proj\.proj\.3\.", "Full Face"),
    )
    details = known(cross_attention_dim=width, variant=first_of(variant, keys))
    return Finding("IP-Adapter", BY_TEXT_WIDTH.get(width or 0, ""), details=details)


def textual_inversion(keys: Keys) -> Finding | None:
    """An embedding of a few tokens: A1111's names, or one tensor under its token's name, as diffusers saves it."""
    if keys.has(r"^clip_g$"):
        return Finding("textual inversion", "SDXL")
    shape = keys.shape(_EMBEDDING)
    if shape is None and len(keys.shapes) == 1:
        key, only = next(iter(keys.shapes.items()))
        is_embedding = len(only) in (1, 2) and only[-1] in BY_TEXT_WIDTH and not re.search(r"\.(weight|bias)$", key)
        shape = only if is_embedding else None
    if not shape:
        return None
    tokens = shape[0] if len(shape) == 2 else 1
    architecture = {768: "SD 1.5", 1024: "SD 2"}.get(shape[-1], "")
    return Finding("textual inversion", architecture, details={"tokens": tokens, "width": shape[-1]})


def t2i_adapter(keys: Keys) -> Finding | None:
    if keys.has(r"^(adapter\.)?body\.\d+\.(resnets\.\d+\.)?(block1|block2|in_conv)\."):
        return Finding("T2I-Adapter", class_name="T2IAdapter")
    return None
