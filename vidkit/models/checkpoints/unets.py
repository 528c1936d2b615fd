"""Stable Diffusion's UNets, alone or with their VAE and text encoders in one file, by their keys.

The names are those of CompVis' and Stability's releases ("original"; diffusers' `loaders/single_file_utils.py` renames
them) and diffusers' own.
"""

from __future__ import annotations

from typing import Any, Final

from vidkit.models.checkpoints.findings import BY_TEXT_WIDTH, KIND_BY_CHANNELS, Finding, Kind, known, pipeline_class
from vidkit.models.checkpoints.keys import Keys, all_levels

ORIGINAL: Final = "model.diffusion_model."
#: spatial layers' cross-attention; that of motion modules looks at other frames, not at text
TEXT_KEYS: Final = r"^(?!.*motion_modules).*attn2\.to_k\.weight$"

_TEXT_ENCODERS: Final = (
    (r"^cond_stage_model\.transformer\.", "SD 1.5"),
    (r"^cond_stage_model\.model\.", "SD 2"),
    (r"^conditioner\.embedders\.1\.", "SDXL"),
    (r"^conditioner\.embedders\.0\.model\.", "SDXL refiner"),
)
_VIDEO: Final = r"\.time_stack\.|\.time_mixer\.|^conditioner\.embedders\.0\.open_clip\."
#: by the width of what is added to the time step: sizes and pooled text; SVD's three numbers (fps, motion, noise), to
#: which SV3D's (a noise; with two angles) stand in the same place
_BY_ADDED_WIDTH: Final = {2816: "SDXL", 2560: "SDXL refiner"}
_SV3D_ADDED_WIDTHS: Final = (256, 1280)


class ContradictionError(ValueError):
    """A checkpoint whose keys or shapes are of two models, or of none that is known."""


def original_checkpoint(keys: Keys) -> Finding | None:
    """A UNet in the original layout, with the VAE and the text encoders that its file also has."""
    if keys.has(r"^model\.diffusion_model\.(input_blocks|time_embed|out)\."):
        prefix = ORIGINAL
    elif keys.has(r"^input_blocks\.\d+\."):
        prefix = ""
    else:
        return None
    root = "^" + prefix.replace(".", r"\.")
    architecture = video_architecture(keys, root) or one_of(claims(keys, TEXT_KEYS, root + r"label_emb\.0\.0\.weight"))
    details = known(
        naming="original",
        block_out_channels=original_levels(keys, root),
        in_channels=input_channels(keys, root + r"input_blocks\.0\.0\.weight$"),
        cross_attention_dim=keys.width(TEXT_KEYS, 1),
        ema=keys.ema,
        lacks=missing_parts(keys),
        prediction_type="v_prediction" if keys.has(r"^(v_pred|edm_vpred\.sigma_max)$") else None,
        rescale_betas_zero_snr=keys.has(r"^ztsnr$"),
        time_cond_proj=keys.has(root + r"time_embed\.cond_proj\."),
        quantization=quantization(keys),
    )
    return finding(architecture, details, alone=details.get("lacks") == ("VAE", "text encoder"))


def diffusers_unet(keys: Keys) -> Finding | None:
    """A UNet in diffusers' layout: one part of a diffusers folder."""
    if not keys.has(r"^(down|up)_blocks\.\d+\.(resnets|attentions)\."):
        return None
    if keys.has(r"^down_blocks\.\d+\.(resnets\.\d+\.spatial_res_block|attentions\.\d+\.temporal_transformer_blocks)\."):
        architecture = "SVD"
    elif keys.has(r"^image_latents_proj_in\."):
        return Finding("UNet", "I2VGen-XL", class_name="I2VGenXLUNet", details={"naming": "diffusers"})
    elif keys.has(r"\.temp_(convs|attentions)\."):
        return Finding("UNet", "ModelScope", class_name="UNet3DConditionModel", details={"naming": "diffusers"})
    else:
        architecture = one_of(claims(keys, TEXT_KEYS, r"^add_embedding\.linear_1\.weight$"))
    details = known(
        naming="diffusers",
        block_out_channels=all_levels(
            keys.levels(r"^down_blocks\.(\d+)\.resnets\.0\.(?:spatial_res_block\.)?conv1\.weight$")
        ),
        in_channels=keys.width(r"^conv_in\.weight$", 1),
        cross_attention_dim=keys.width(TEXT_KEYS, 1),
        quantization=quantization(keys),
    )
    if keys.has(r"\.motion_modules\.\d"):
        return Finding("UNet", architecture, class_name="UNetMotionModel", details=details)
    return finding(architecture, details, alone=True)


def finding(architecture: str, details: dict[str, Any], *, alone: bool) -> Finding:
    if alone:
        details = {key: value for key, value in details.items() if key != "lacks"}
        return Finding("UNet", architecture, class_name=unet_class(architecture, details), details=details)
    kind = kind_of(architecture, details.get("in_channels"))
    return Finding(kind, architecture, class_name=pipeline_class(kind, architecture), details=details)


def unet_class(architecture: str, details: dict[str, Any]) -> str:
    """ "" for those of other models (Kandinsky, DeepFloyd IF), which have no cross-attention of this kind."""
    if architecture in ("SVD", "SV3D"):
        return "UNetSpatioTemporalConditionModel"
    return "UNet2DConditionModel" if "cross_attention_dim" in details else ""


def kind_of(architecture: str, in_channels: int | None) -> Kind:
    if architecture == "SVD":
        return "Stable Video Diffusion"
    if architecture in ("SV3D", "ModelScope or VideoCrafter"):
        return "base model"
    if architecture == "SDXL refiner":
        return "refiner"
    kind = KIND_BY_CHANNELS.get(in_channels if in_channels is not None else 4)
    if kind is None:
        raise ContradictionError(f"has a UNet input of {in_channels} channels, which no model known here has")
    return kind


def video_architecture(keys: Keys, root: str) -> str:
    if keys.has(r"\.temopral_conv\."):  # so it is written in both
        return "ModelScope or VideoCrafter"
    if not keys.has(_VIDEO):
        return ""
    return "SV3D" if keys.width(root + r"label_emb\.0\.0\.weight$", 1) in _SV3D_ADDED_WIDTHS else "SVD"


def claims(keys: Keys, text_keys: str, added: str) -> set[str]:
    """What each part says the whole is."""
    told = {architecture for pattern, architecture in _TEXT_ENCODERS if keys.has(pattern)}
    widths = {shape[1] for _, shape in keys.matching(text_keys) if len(shape) == 2}
    told |= {BY_TEXT_WIDTH[width] for width in widths if width in BY_TEXT_WIDTH}
    added_width = keys.width(added, 1)
    return told | ({_BY_ADDED_WIDTH[added_width]} if added_width in _BY_ADDED_WIDTH else set())


def one_of(told: set[str]) -> str:
    if len(told) > 1:
        raise ContradictionError(f"has parts of {' and of '.join(sorted(told))}, which do not go together")
    return next(iter(told), "")


def input_channels(keys: Keys, pattern: str) -> int | None:
    shape = keys.shape(pattern)
    if shape is None:
        return None
    if len(shape) != 4:
        raise ContradictionError(f"has a UNet input of shape {shape}, which no model known here has")
    return shape[1]


def original_levels(keys: Keys, root: str) -> tuple[int, ...]:
    """Channels by level. Blocks are counted through: a level ends where one downsamples ("op")."""
    ends = sorted(keys.numbers(root + r"input_blocks\.(\d+)\.0\.op\.weight$"))
    blocks = keys.levels(root + r"input_blocks\.(\d+)\.0\.in_layers\.2\.weight$")
    levels: dict[int, int] = {}
    for block, channels in blocks.items():
        levels[sum(block > end for end in ends)] = channels
    return all_levels(levels)


def missing_parts(keys: Keys) -> tuple[str, ...]:
    """What a base model should have beside its UNet."""
    parts = {"VAE": r"^first_stage_model\.", "text encoder": r"^(cond_stage_model|conditioner)\."}
    return tuple(name for name, pattern in parts.items() if not keys.has(pattern))


def quantization(keys: Keys) -> str | None:
    if keys.has(r"\.quant_state\.bitsandbytes__"):
        return "bitsandbytes"
    eight_bit = keys.has(r"(^|\.)(scaled_fp8|scale_weight|weight_scale)$")
    return "scaled float8" if eight_bit else None
