"""What the configs of a diffusers folder say it is. Unknown classes are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vidkit.models.checkpoints.findings import BY_MOTION_CHANNELS, BY_TEXT_WIDTH, KIND_BY_CHANNELS, Finding, Kind, known
from vidkit.models.checkpoints.kinds import CHOOSE
from vidkit.models.checkpoints.motion import motion_version
from vidkit.models.files.config_files import invalid_config, read_json
from vidkit.models.files.file_format import invalid, quoted

Config = Mapping[str, Any]

_SD: Final = "SD 1.5"  # or 2, or an SDXL refiner: the width of the UNet's text conditions tells
#: the family of a class, of a pipeline or a part, by the longest of these that its name begins with
_FAMILIES: Final[Mapping[str, str]] = {
    "StableVideoDiffusion": "SVD",
    "StableDiffusionXL": "SDXL",
    "StableDiffusion3": "SD 3",
    "StableDiffusion": _SD,
    "AnimateDiffSDXL": "SDXL",
    "AnimateDiff": _SD,
    "PIA": _SD,
    "LatentConsistencyModel": _SD,
    "SD3": "SD 3",
    "Allegro": "Allegro",
    "AuraFlow": "AuraFlow",
    "Chroma": "Chroma",
    "CogVideoX": "CogVideoX",
    "CogView": "CogView",
    "Cosmos": "Cosmos",
    "EasyAnimate": "EasyAnimate",
    "Flux": "Flux",
    "Flux2": "Flux 2",
    "Flux3": "Flux 3",
    "HiDream": "HiDream",
    "HunyuanDiT": "Hunyuan-DiT",
    "HunyuanImage": "HunyuanImage",
    "HunyuanVideo": "HunyuanVideo",
    "I2VGenXL": "I2VGen-XL",
    "IF": "DeepFloyd IF",
    "Kandinsky": "Kandinsky",
    "Kolors": "Kolors",
    "Krea2": "Krea 2",
    "LTX": "LTX-Video",
    "LTX2": "LTX-2",
    "Latte": "Latte",
    "Lumina": "Lumina",
    "Lumina2": "Lumina 2",
    "Mochi": "Mochi",
    "PixArt": "PixArt",
    "QwenImage": "Qwen-Image",
    "Sana": "Sana",
    "SkyReelsV2": "SkyReels V2",
    "StableCascade": "Stable Cascade",
    "TextToVideoSD": "ModelScope",
    "VideoToVideoSD": "ModelScope",
    "Wan": "Wan",
    "ZImage": "Z-Image",
}
_CLIP_PARTS: Final[Mapping[str, tuple[Kind, str]]] = {
    "CLIPTextModel": ("text encoder", "CLIP"),
    "CLIPTextModelWithProjection": ("text encoder", "CLIP"),
    "T5EncoderModel": ("text encoder", "T5"),
    "T5ForConditionalGeneration": ("text encoder", "T5"),
    "CLIPVisionModelWithProjection": ("image encoder", "CLIP"),
    "CLIPVisionModel": ("image encoder", "CLIP"),
    "StableDiffusionSafetyChecker": ("safety checker", ""),
}
#: told of a part in its config's words
_TOLD: Final = (
    "block_out_channels",
    "cross_attention_dim",
    "in_channels",
    "num_frames",
    "motion_max_seq_length",
    "use_motion_mid_block",
    "conv_in_channels",
    "conditioning_channels",
    "use_simplified_condition_embedding",
    "latent_channels",
    "hidden_size",
    "time_cond_proj_dim",
)
#: of these a config may have one for each level
_LISTS: Final = frozenset({"block_out_channels", "cross_attention_dim"})
#: what diffusers takes when a config leaves it out
_DEFAULTS: Final[Mapping[str, Config]] = {
    "MotionAdapter": {
        "block_out_channels": [320, 640, 1280, 1280],
        "motion_max_seq_length": 32,
        "use_motion_mid_block": True,
    },
    "SparseControlNetModel": {
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768,
        "motion_max_seq_length": 32,
    },
    "UNet2DConditionModel": {
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1280,
        "in_channels": 4,
    },
    "UNetSpatioTemporalConditionModel": {"block_out_channels": [320, 640, 1280, 1280], "num_frames": 25},
}


def pipeline_of_configs(index: Path, class_name: str, configs: Mapping[str, Config], scheduler: Config) -> Finding:
    """index: the `model_index.json`, named in errors; configs: of its parts; scheduler: the scheduler's.

    Raises:
        SetupError: `invalid_model`, for a pipeline unknown here or configs that are damaged.
    """
    family = family_of(class_name)
    if family is None:
        raise invalid(index, f"names {quoted(class_name)}, a pipeline unknown here", CHOOSE)
    unet = configs.get("unet", {})
    told = known(**details_of(index.parent / "unet" / "config.json", unet))
    told |= known(
        prediction_type=scheduler.get("prediction_type") if scheduler.get("prediction_type") != "epsilon" else None,
        motion_adapter="motion_adapter" in configs,
    )
    if family not in (_SD, "SDXL", "SVD"):
        return Finding("base model", family, class_name=class_name, details=told)
    if family == "SVD":
        return Finding("Stable Video Diffusion", "SVD", class_name=class_name, details=told)
    by_width = BY_TEXT_WIDTH.get(told.get("cross_attention_dim", 0), family)
    architecture = by_width if by_width in ((_SD, "SD 2") if family == _SD else ("SDXL", "SDXL refiner")) else family
    kind = KIND_BY_CHANNELS.get(told.get("in_channels", 4))
    if architecture == "SDXL refiner":
        kind = "refiner"
    elif "Upscale" in class_name:  # of which one has as many input channels as InstructPix2Pix
        kind = "upscaler"
    if kind is None:
        problem = f"is of a kind unknown here: its UNet has {told['in_channels']} input channels"
        raise invalid(index.parent, problem, CHOOSE)
    return Finding(kind, architecture, class_name=class_name, details=told)


def part_of_config(file: Path) -> Finding:
    """One part by its `config.json`: diffusers' names its class, transformers' its architectures.

    Raises:
        SetupError: `invalid_model`, for a class unknown here or a config that is damaged.
    """
    config = read_json(file)
    architectures = config.get("architectures")
    named = config.get("_class_name") or (
        architectures[0] if isinstance(architectures, list) and architectures else None
    )
    if not isinstance(named, str):
        raise invalid(file, "names no class", "Give the folder that holds model_index.json")
    details = known(**details_of(file, {**_DEFAULTS.get(named, {}), **config}))
    found = part_finding(named, details)
    if found is None:
        raise invalid(file, f"names {quoted(named)}, of a kind unknown here", CHOOSE)
    return found


def part_finding(class_name: str, details: dict[str, Any]) -> Finding | None:
    channels = details.get("block_out_channels", ())
    by_text = BY_TEXT_WIDTH.get(details.get("cross_attention_dim", 0), "")
    if class_name == "MotionAdapter":
        architecture = BY_MOTION_CHANNELS.get(channels, "")
        mid_block, positions = details.get("use_motion_mid_block", False), details.get("motion_max_seq_length")
        version = motion_version(architecture, mid_block=mid_block, positions=positions)
        version = "PIA" if "conv_in_channels" in details else version
        return Finding("motion adapter", architecture, version, class_name, details)
    if class_name == "SparseControlNetModel":
        return Finding("SparseCtrl", BY_MOTION_CHANNELS.get(channels, by_text), "", class_name, details)
    if class_name in _CLIP_PARTS:
        kind, architecture = _CLIP_PARTS[class_name]
        return Finding(kind, architecture, "", class_name, details)
    if "ControlNet" in class_name:
        return Finding("ControlNet", family_of(class_name) or by_text, "", class_name, details)
    if class_name == "UNetSpatioTemporalConditionModel":
        return Finding("UNet", "SVD", "", class_name, details)
    if class_name in ("UNet2DConditionModel", "UNetMotionModel", "UNet3DConditionModel"):
        return Finding(
            "UNet", "ModelScope" if class_name == "UNet3DConditionModel" else by_text, "", class_name, details
        )
    if class_name.startswith("Autoencoder") or class_name in ("AsymmetricAutoencoderKL", "VQModel"):
        family = family_of(class_name.removeprefix("AutoencoderKL"))
        return Finding(
            "VAE", "SVD" if class_name == "AutoencoderKLTemporalDecoder" else family or "", "", class_name, details
        )
    if class_name == "T2IAdapter":
        return Finding("T2I-Adapter", "", "", class_name, details)
    family = family_of(class_name)
    if family is not None and "Transformer" in class_name:
        return Finding("transformer", family, "", class_name, details)
    return None


def family_of(class_name: str) -> str | None:
    beginnings = [start for start in _FAMILIES if class_name.startswith(start)]
    return _FAMILIES[max(beginnings, key=len)] if beginnings else None


def details_of(file: Path, config: Config) -> dict[str, Any]:
    """Its values that are told, checked: whole numbers, true or false, and lists of numbers where a level has each."""
    told: dict[str, Any] = {}
    for key in _TOLD:
        value = config.get(key)
        if isinstance(value, list) and key in _LISTS and all(type(item) is int for item in value):
            told[key] = tuple(value)
        elif value is None or (type(value) in (int, bool) and key != "block_out_channels"):
            told[key] = value
        else:
            wanted = "a list of whole numbers" if key in _LISTS else "a whole number"
            raise invalid_config(file, f"{key} is {quoted(value)}, not {wanted}")
    return told
