"""Motion modules of AnimateDiff and what has them: motion adapters and SparseCtrl; and ControlNets.

"original" are the names of AnimateDiff's own releases (`motion_modules.0.temporal_transformer.…attention_blocks.0`),
with which PIA, AnimateLCM and AnimateDiff-Lightning's "comfyui" files go; diffusers has `motion_modules.0.…attn1`.
"""

from __future__ import annotations

from typing import Any, Final

from vidkit.models.checkpoints.findings import BY_MOTION_CHANNELS, Finding, known
from vidkit.models.checkpoints.keys import Keys, all_levels
from vidkit.models.checkpoints.unets import TEXT_KEYS, claims, one_of

MOTION: Final = r"(^|[._])motion_modules[._]\d"
#: AnimateDiff's way with SDXL, by others, with other names: no loader of diffusers takes it
_HOTSHOT: Final = r"(^|\.)temporal_attentions\.\d+\."
_CONDITION: Final = r"^(controlnet_cond_embedding|controlnet_(down_blocks|mid_block)|input_hint_block)\."
_POSITIONS: Final = r"(pos_encoder|pos_embed)\.pe$"

_CONTROLNET: Final = (
    r"^(control_model|controlnet_cond_embedding|controlnet_(down_blocks|mid_block|blocks|x_embedder)|input_hint_block)\."
    r"|^lora_controlnet$|^control_all_x_embedder\."
)
#: of other families, by the first pattern that matches
_OTHER_CONTROLNETS: Final = (
    (r"^control_all_x_embedder\.", "Z-Image"),
    (r"^(controlnet_x_embedder|double_blocks\.\d+|single_transformer_blocks\.\d+)\.", "Flux"),
    (r"^(pos_embed_input|transformer_blocks\.\d+\.norm1_context)\.|^pos_embed\.proj\.", "SD 3"),
)


def motion_model(keys: Keys) -> Finding | None:
    """A motion adapter or a SparseCtrl model."""
    if keys.has(_HOTSHOT):
        return Finding("motion adapter", "SDXL", "SDXL", details={"naming": "Hotshot-XL"})
    if not keys.has(MOTION):
        return None
    if keys.has(_CONDITION):
        return sparse_control(keys)
    if keys.has(r"^(down|up)_blocks\.\d+\.resnets\."):
        return None  # a whole UNet
    return motion_adapter(keys)


def motion_adapter(keys: Keys) -> Finding:
    channels = motion_channels(keys)
    architecture = BY_MOTION_CHANNELS.get(channels, "")
    positions, mid_block = held_positions(keys), keys.has(r"^mid_block\.motion_modules\.")
    pia_channels = keys.width(r"^conv_in\.weight$", 1)
    original = keys.has(r"\.temporal_transformer\.")
    details = known(
        naming="original" if original else "diffusers",
        block_out_channels=channels,
        use_motion_mid_block=mid_block,
        motion_max_seq_length=positions,
        conv_in_channels=pia_channels,
        # its authors leave the positions out, which can be computed, and only they do
        family="AnimateLCM" if original and positions is None else None,
        image_encoder=keys.has(r"^img_encoder\."),
    )
    version = "PIA" if pia_channels else motion_version(architecture, mid_block=mid_block, positions=positions)
    return Finding("motion adapter", architecture, version, "MotionAdapter", details)


def motion_version(architecture: str, *, mid_block: bool, positions: int | None) -> str:
    """As AnimateDiff's releases differ: v2 alone has modules in the middle, v1 has 24 positions and v3 32."""
    if architecture == "SDXL":
        return "SDXL"
    return "v2" if mid_block else {24: "v1", 32: "v3"}.get(positions or 0, "")


def sparse_control(keys: Keys) -> Finding:
    channels = motion_channels(keys)
    simple = keys.shape(r"^controlnet_cond_embedding\.weight$")
    pictures = keys.width(r"^controlnet_cond_embedding\.conv_in\.weight$", 1)
    with_mask = simple[1] if simple is not None and len(simple) == 4 else pictures
    details = known(
        naming="original" if keys.has(r"\.temporal_transformer\.") else "diffusers",
        block_out_channels=channels,
        cross_attention_dim=keys.width(TEXT_KEYS, 1),
        motion_max_seq_length=held_positions(keys),
        use_simplified_condition_embedding=simple is not None,
        conditioning_channels=with_mask - 1 if with_mask else None,  # the last channel tells which frames are given
        condition="pictures (RGB)" if simple is not None else "scribbles",
    )
    architecture = BY_MOTION_CHANNELS.get(channels, "") or one_of(
        claims(keys, TEXT_KEYS, r"^add_embedding\.linear_1\.")
    )
    return Finding("SparseCtrl", architecture, class_name="SparseControlNetModel", details=details)


def motion_channels(keys: Keys) -> tuple[int, ...]:
    return all_levels(keys.levels(r"^down_blocks\.(\d+)\.motion_modules\.0\.(?:temporal_transformer\.)?norm\.weight$"))


def held_positions(keys: Keys) -> int | None:
    """How many frames the motion modules have positions for: `(1, frames, channels)`."""
    shape = keys.shape(_POSITIONS)
    return shape[1] if shape is not None and len(shape) == 3 else None


def controlnet(keys: Keys) -> Finding | None:
    if not keys.has(_CONTROLNET):
        return None
    details: dict[str, Any] = known(
        naming="diffusers" if keys.has(r"^controlnet_") else "original",
        cross_attention_dim=keys.width(TEXT_KEYS, 1),
        block_out_channels=all_levels(keys.levels(r"^down_blocks\.(\d+)\.resnets\.0\.conv1\.weight$")),
        as_lora=keys.has(r"^lora_controlnet$"),
        union=keys.has(r"^(controlnet_add_embedding|control_add_embedding|task_embedding)\b"),
    )
    for pattern, name in _OTHER_CONTROLNETS:
        if keys.has(pattern):
            return Finding("ControlNet", name, details=details)
    added = r"^(control_model\.)?label_emb\.0\.0\.weight$|^add_embedding\.linear_1\.weight$"
    return Finding("ControlNet", one_of(claims(keys, TEXT_KEYS, added)), class_name="ControlNetModel", details=details)
