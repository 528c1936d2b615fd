"""The kinds of models there are, and what the keys of a checkpoint or the configs of a folder prove of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal[
    "base model",
    "inpainting base model",
    "depth-conditioned base model",
    "InstructPix2Pix model",
    "upscaler",
    "refiner",
    "Stable Video Diffusion",
    "motion adapter",
    "motion LoRA",
    "LoRA",
    "SparseCtrl",
    "ControlNet",
    "T2I-Adapter",
    "IP-Adapter",
    "textual inversion",
    "VAE",
    "UNet",
    "transformer",
    "text encoder",
    "image encoder",
    "safety checker",
]

#: Stable Diffusion's kinds by the channels of the UNet's input: latents are 4 of them
KIND_BY_CHANNELS: Final[Mapping[int, Kind]] = {
    4: "base model",
    5: "depth-conditioned base model",
    7: "upscaler",
    8: "InstructPix2Pix model",
    9: "inpainting base model",
}
#: the width of the text conditions: CLIP ViT-L; OpenCLIP ViT-H; OpenCLIP ViT-bigG; both of SDXL's together
BY_TEXT_WIDTH: Final[Mapping[int, str]] = {768: "SD 1.5", 1024: "SD 2", 1280: "SDXL refiner", 2048: "SDXL"}

#: the levels of the UNet that motion modules were made for
BY_MOTION_CHANNELS: Final[Mapping[tuple[int, ...], str]] = {(320, 640, 1280, 1280): "SD 1.5", (320, 640, 1280): "SDXL"}

_SD_CLASSES: Final[Mapping[str, str]] = {
    "base model": "StableDiffusionPipeline",
    "inpainting base model": "StableDiffusionInpaintPipeline",
    "depth-conditioned base model": "StableDiffusionDepth2ImgPipeline",
    "InstructPix2Pix model": "StableDiffusionInstructPix2PixPipeline",
    "upscaler": "StableDiffusionUpscalePipeline",
}
_SDXL_CLASSES: Final[Mapping[str, str]] = {
    "base model": "StableDiffusionXLPipeline",
    "inpainting base model": "StableDiffusionXLInpaintPipeline",
    "InstructPix2Pix model": "StableDiffusionXLInstructPix2PixPipeline",
    "refiner": "StableDiffusionXLImg2ImgPipeline",
}


@dataclass(frozen=True)
class Finding:
    """See `vidkit.models.inspection.Inspection` for what the fields mean."""

    kind: Kind
    architecture: str = ""
    version: str = ""
    class_name: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def pipeline_class(kind: Kind, architecture: str) -> str:
    """diffusers' pipeline for a base model of Stable Diffusion; "" where it has none."""
    if kind == "Stable Video Diffusion":
        return "StableVideoDiffusionPipeline"
    classes = _SDXL_CLASSES if architecture.startswith("SDXL") else _SD_CLASSES
    return classes.get(kind, "")


def known(**details: Any) -> dict[str, Any]:
    """Details without those that the file does not tell."""
    return {key: value for key, value in details.items() if value not in (None, (), "", {}, False)}
