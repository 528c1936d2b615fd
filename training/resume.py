"""Begin a training state from the model that ships: `python -m training.resume svd|animatediff BUNDLED STATE`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from .state import save_weights


def svd_parts(bundled: Path) -> dict[str, torch.nn.Module]:
    folder = bundled / "tiny-svd"
    return {
        "vae": AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae"),
        "unet": UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet"),
        "image_encoder": CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder"),
    }


def animatediff_parts(bundled: Path) -> dict[str, torch.nn.Module]:
    folder = bundled / "tiny-animatediff"
    base = UNet2DConditionModel.from_pretrained(folder / "unet")
    adapter = MotionAdapter.from_pretrained(bundled / "tiny-motion-adapter")
    return {
        "vae": AutoencoderKL.from_pretrained(folder / "vae"),
        "unet": UNetMotionModel.from_unet2d(base, adapter),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["svd", "animatediff"])
    parser.add_argument("bundled", type=Path)
    parser.add_argument("state", type=Path)
    options = parser.parse_args()
    parts = {"svd": svd_parts, "animatediff": animatediff_parts}[options.model](options.bundled)
    options.state.mkdir(parents=True)
    for name, part in parts.items():
        save_weights(part, options.state, name)
    shutil.copy(options.bundled / f"tiny-{options.model}" / "training_log.jsonl", options.state / "log.jsonl")


if __name__ == "__main__":
    main()
