"""What else keys prove: diffusion transformers, which vidkit names and does not use, and single parts of pipelines."""

from __future__ import annotations

from typing import Final

from vidkit.models.checkpoints.findings import Finding, known
from vidkit.models.checkpoints.keys import Keys

#: By the first whose patterns all match, after what other programs put before the keys. Most are the keys by which
#: diffusers tells them apart (`CHECKPOINT_KEY_NAMES` in loaders/single_file_utils.py), and its own names of the same.
_TRANSFORMERS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("SD 3", (r"joint_blocks\.\d+\.",)),
    ("SD 3", (r"transformer_blocks\.\d+\.ff_context\.", r"pos_embed\.proj\.", r"context_embedder\.weight$")),
    ("HunyuanVideo", (r"(txt_in\.individual_token_refiner|context_embedder\.token_refiner)\.",)),
    ("Flux 2", (r"single_stream_modulation\.lin",)),
    ("Flux 3", (r"early_stream_modulations\.",)),
    ("Chroma", (r"distilled_guidance_layer\.",)),
    ("Flux", (r"double_blocks\.\d+\.img_attn\.",)),
    ("Flux", (r"single_transformer_blocks\.\d+\.proj_mlp\.",)),
    ("HiDream", (r"double_stream_blocks\.\d+\.",)),
    ("AuraFlow", (r"double_layers\.\d+\.attn\.w2q\.",)),
    ("LTX-2", (r"(av_ca_a2v_gate_adaln_single|audio_proj_in)\.",)),
    ("LTX-Video", (r"patchify_proj\.",)),
    ("LTX-Video", (r"proj_in\.", r"time_embed\.emb\.timestep_embedder\.", r"caption_projection\.")),
    ("Mochi", (r"blocks\.\d+\.attn\.qkv_x\.",)),
    ("Wan", (r"head\.modulation$",)),
    ("Wan", (r"condition_embedder\.time_proj\.", r"patch_embedding\.")),
    ("Z-Image", (r"layers\.\d+\.adaLN_modulation\.0\.",)),
    ("Lumina 2", (r"cap_embedder\.0\.",)),
    ("Sana", (r"blocks\.\d+\.mlp\.inverted_conv\.",)),
    ("PixArt", (r"blocks\.\d+\.cross_attn\.kv_linear\.", r"blocks\.\d+\.mlp\.fc1\.")),
    ("Cosmos", (r"(extra_pos_embedder\.|pos_embedder\.dim_spatial_range$)",)),
    ("Stable Cascade", (r"(clip_txt_mapper|down_blocks\.\d+\.\d+\.channelwise)\.",)),
    ("Krea 2", (r"txtfusion\.",)),
    ("Qwen-Image", (r"(txt_norm|txt_in\.text_norm)\.weight$",)),
    ("CogVideoX", (r"(mixins\.(patch_embed|adaln_layer)|patch_embed\.text_proj)\.",)),
)
_BEFORE: Final = r"^(?:model\.diffusion_model\.|diffusion_model\.|transformer\.|model\.|net\.)?"
_MORE_PARTS: Final = r"^(vae|first_stage_model|text_encoders?|conditioner|cond_stage_model)\."

_VAE: Final = r"^(?:first_stage_model\.|vae\.)?"
_TEXT: Final = r"^(cond_stage_model\.transformer\.)?(text_model\.)?"


def transformer(keys: Keys) -> Finding | None:
    for name, patterns in _TRANSFORMERS:
        if all(keys.has(_BEFORE + pattern) for pattern in patterns):
            return Finding("base model" if keys.has(_MORE_PARTS) else "transformer", name)
    return None


def vae(keys: Keys) -> Finding | None:
    if keys.has(_VAE + r"(encoder|decoder)\.layers\.\d+\.(weight|bias|conv\.)"):
        return Finding("VAE", class_name="AutoencoderTiny", details={"naming": "diffusers"})
    if keys.has(r"^decoder\.middle\.0\.residual\.0\.gamma$"):
        return Finding("VAE", "Wan", class_name="AutoencoderKLWan")
    if keys.has(r"^decoder\.(stages\.\d+\.op_list|up_blocks\.\d+\.\d+)\."):
        return Finding("VAE", "Sana", class_name="AutoencoderDC")
    if keys.has(_VAE + r"quantize\.embedding"):
        return Finding("VAE", "a vector-quantized model", class_name="VQModel")
    if not keys.has(
        _VAE + r"(encoder|decoder)\.(conv_in|mid|mid_block|down\.\d|up\.\d|(down|up)_blocks\.\d+\.resnets)\."
    ):
        return None
    of_video = keys.has(_VAE + r"decoder\..*(time_stack|time_mix_conv|temporal_res_block|time_conv_out)\.")
    weight = keys.shape(_VAE + r"decoder\.conv_in\.(conv\.)?weight$")
    if weight is not None and len(weight) == 5:
        return Finding("VAE", "a video model", details={"latent_channels": weight[1]})
    details = known(
        naming="diffusers"
        if keys.has(_VAE + r"(encoder|decoder)\.(mid_block|up_blocks|down_blocks)\.")
        else "original",
        latent_channels=weight[1] if weight is not None and len(weight) > 1 else None,
        ema=keys.ema,
    )
    if of_video:
        return Finding("VAE", "SVD", class_name="AutoencoderKLTemporalDecoder", details=details)
    return Finding("VAE", class_name="AutoencoderKL", details=details)


def encoder(keys: Keys) -> Finding | None:
    """A text encoder, an image encoder or a safety checker alone."""
    if keys.has(r"^concept_embeds$"):
        return Finding("safety checker", class_name="StableDiffusionSafetyChecker")
    if keys.has(r"^(vision_model\.)?embeddings\.(patch_embedding|class_embedding)\b|^(model\.)?visual\.(conv1|proj)\b"):
        return Finding("image encoder", "CLIP", class_name="CLIPVisionModelWithProjection")
    if keys.has(r"^(encoder\.block\.\d+\.layer\.0\.SelfAttention|shared\.weight)"):
        return Finding("text encoder", "T5", class_name="T5EncoderModel")
    if keys.has(r"^(cond_stage_model\.model\.|model\.)?transformer\.resblocks\.\d+\."):
        return Finding("text encoder", "OpenCLIP", class_name="CLIPTextModel")
    if keys.has(
        _TEXT + r"embeddings\.(token_embedding|position_embedding)\.|^(cond_stage_model\.transformer\.)?text_model\."
    ):
        projected = keys.has(r"^text_projection\.")
        width = keys.width(_TEXT + r"embeddings\.token_embedding\.weight$", 1)
        class_name = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
        return Finding("text encoder", "CLIP", class_name=class_name, details=known(hidden_size=width))
    return None
