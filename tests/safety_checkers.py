"""Small real safety checkers, made to take chosen pictures for unsafe and others for safe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

Picture = npt.NDArray[np.uint8]

#: the picture's side that it sees, pixels
SIDE = 32


def save_checker(folder: Path, unsafe: Picture, safe: Sequence[Picture]) -> Path:
    """Save a checker whose first concept is one square picture's look, and no other's."""
    module = random_checker()
    with torch.no_grad():
        pooled = module.vision_model(views([unsafe, *safe]))[1]
        # random encoders see all pictures much alike: only what is different about them goes on
        mean = torch.nn.functional.normalize(pooled.mean(dim=0), dim=0)
        module.visual_projection.weight -= (module.visual_projection.weight @ mean)[:, None] * mean
        looks = torch.nn.functional.normalize(module.visual_projection(pooled))
        module.concept_embeds[0] = looks[0]
        likest = float((looks[1:] @ looks[0]).max())
        assert likest < 0.98, f"the safe pictures look like the unsafe one: {likest}"
        module.concept_embeds_weights[0] = (1 + likest) / 2
    module.save_pretrained(folder)
    return folder


def random_checker() -> Any:
    """Takes nothing for unsafe: a cosine is never over 1."""
    vision = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**vision, "image_size": SIDE, "patch_size": 8, "projection_dim": 24})
    config.projection_dim = 24
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        module = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        module.concept_embeds_weights.fill_(1.1)
        module.special_care_embeds_weights.fill_(1.1)
    return module


def views(pictures: Sequence[Picture]) -> torch.Tensor:
    """What the encoder gets of pictures, `(pictures, 3, SIDE, SIDE)`."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    tensor = processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt").pixel_values
    assert isinstance(tensor, torch.Tensor)
    return tensor


def with_published_keys(folder: Path, *, pickled: bool = False) -> Path:
    """Rewrite a checker's weights with the keys of the published one, which an older transformers wrote."""
    file = folder / "model.safetensors"
    tensors = {
        f"vision_model.{key}" if key.startswith("vision_model.") else key: tensor
        for key, tensor in load_file(file).items()
    }
    tensors["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    file.unlink()
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, file)
    return folder
