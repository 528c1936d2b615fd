"""LoRAs with random matrices for the tiny models, in each layout that is out there, and merged into weights by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

#: the ends of the names of layers that LoRAs change: kohya's "LoCon" the convolutions too
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LINEAR = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass(frozen=True)
class Pair:
    """W + alpha / rank * up @ down. component: "unet" or "text_encoder"; module: the layer's name in it."""

    component: str
    module: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float


Pairs = list[Pair]


def pairs_for(
    pipe: Any,
    ends: tuple[str, ...],
    *,
    component: str = "unet",
    inside: str = "attentions",
    ranks: tuple[int, ...] = (4,),
    alphas: tuple[float, ...] = (4.0,),
    seed: int = 1,
) -> Pairs:
    """A pair for each layer whose name ends so and has `inside` in it; ranks and alphas take turns."""
    generator = torch.Generator().manual_seed(seed)
    found: Pairs = []
    for name, layer in getattr(pipe, component).named_modules():
        weight = getattr(layer, "weight", None)
        if weight is None or not name.endswith(ends) or inside not in name:
            continue
        rank, alpha = ranks[len(found) % len(ranks)], alphas[len(found) % len(alphas)]
        down = torch.randn((rank, *weight.shape[1:]), generator=generator) * 0.1
        up = torch.randn((weight.shape[0], rank, *[1] * (weight.ndim - 2)), generator=generator) * 0.1
        found.append(Pair(component, name, down, up, alpha))
    assert found
    return found


def merge(pipe: Any, pairs: Pairs, weight: float) -> None:
    """What a LoRA is by definition, added to the weights themselves."""
    for pair in pairs:
        own = getattr(pipe, pair.component).get_submodule(pair.module).weight
        rank = pair.down.shape[0]
        update = (pair.up.flatten(1) @ pair.down.flatten(1)).reshape(own.shape) * (weight * pair.alpha / rank)
        with torch.no_grad():
            own.add_(update)


def save(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path, metadata)
    return path


def text_name(module: str) -> str:
    """As it is in files: transformers 5.6 left the first level out."""
    return "text_model." + module.removeprefix("text_model.")


def kohya(pairs: Pairs) -> dict[str, torch.Tensor]:
    """sd-scripts': with alpha."""
    tensors = {}
    for pair in pairs:
        prefix = "lora_unet_" if pair.component == "unet" else "lora_te_"
        module = pair.module if pair.component == "unet" else text_name(pair.module)
        name = prefix + module.replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up}
        tensors[f"{name}.alpha"] = torch.tensor(pair.alpha)
    return tensors


def peft(pairs: Pairs) -> dict[str, torch.Tensor]:
    """What diffusers' training scripts save: alpha is in the metadata, if anywhere."""
    tensors = {}
    for pair in pairs:
        module = pair.module if pair.component == "unet" else text_name(pair.module)
        name = f"{pair.component}.{module}"
        tensors |= {f"{name}.lora_A.weight": pair.down, f"{name}.lora_B.weight": pair.up}
    return tensors


def peft_metadata(pairs: Pairs) -> dict[str, str]:
    """As diffusers writes it: peft's configuration of each component."""
    config: dict[str, Any] = {}
    for pair in pairs:
        config[f"{pair.component}.r"] = pair.down.shape[0]
        config[f"{pair.component}.lora_alpha"] = pair.alpha
    return {"format": "pt", "lora_adapter_metadata": json.dumps(config)}


def processors(pairs: Pairs) -> dict[str, torch.Tensor]:
    """diffusers' first layout, of attention processors, without alpha."""
    tensors = {}
    for pair in pairs:
        parent, _, layer = pair.module.removesuffix(".0").rpartition(".")
        if pair.component == "unet":
            name = f"unet.{parent}.processor.{layer}_lora"
        else:
            name = f"text_encoder.{text_name(pair.module)}.lora_linear_layer"
        tensors |= {f"{name}.down.weight": pair.down, f"{name}.up.weight": pair.up}
    return tensors


def original_motion(pairs: Pairs) -> dict[str, torch.Tensor]:
    """AnimateDiff's own v2_lora_PanLeft.ckpt and its like."""
    tensors = {}
    for key, tensor in processors(pairs).items():
        name = key.removeprefix("unet.").replace(".transformer_blocks.", ".temporal_transformer.transformer_blocks.")
        tensors[name.replace(".attn1.", ".attention_blocks.0.").replace(".attn2.", ".attention_blocks.1.")] = tensor
    return tensors
