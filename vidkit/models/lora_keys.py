"""The keys of a LoRA file, in every layout that is out there: which layer each pair of matrices changes. No torch.

kohya      lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight, .lora_up.weight, .alpha
peft       [unet.|base_model.model.]down_blocks.0.attentions.0.proj_in.lora_A[.default].weight, .lora_B.weight
diffusers  unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight, .up.weight
           text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight, .up.weight
original   down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.
           to_q_lora.down.weight, .up.weight (AnimateDiff's motion LoRAs)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vidkit.errors import SetupError
from vidkit.models.files.file_format import examine

Component = Literal["unet", "text_encoder"]

#: what stands in keys of methods that are no plain LoRA, with their names
OTHER_METHODS: Final = (
    (r"\.hada_w[12]_[ab]|\.hada_t[12]", "LoHa (LyCORIS)"),
    (r"\.lokr_", "LoKr (LyCORIS)"),
    (r"\.oft_|\.oft_blocks", "OFT"),
    (r"dora_scale|lora_magnitude_vector", "DoRA"),
    (r"\.lora_mid\.|\.t[12]$", "LoCon with Tucker decomposition (LyCORIS)"),
    (r"\.[ab][12]\.weight", "GLoRA (LyCORIS)"),
    (r"\.on_input$", "IA3 (LyCORIS)"),
    (r"\.diff(_b)?$|\.w_norm$|\.b_norm$", "whole weights (LyCORIS full or norm)"),
    (r"lora_controlnet", "Control-LoRA"),
    (r"bundle_emb|emb_params|string_to_param", "an embedding"),
)

_MATRIX: Final = re.compile(
    r"(?P<layer>.+?)[._]lora(?:_linear_layer)?[._](?P<side>down|up|A|B)(?:\.[\w-]+)?\.weight|(?P<of>.+?)(?:_lora)?\.alpha"
)
_SIDES: Final = {"down": "down", "A": "down", "up": "up", "B": "up"}

#: how layouts begin a key, and what it is about then; a key without is the UNet's
_PREFIXES: Final[tuple[tuple[str, Component], ...]] = (
    ("base_model.model.", "unet"),
    ("lora_unet_", "unet"),
    ("unet.", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te_", "text_encoder"),
    ("text_encoder.", "text_encoder"),
)

#: AnimateDiff's own names of the motion modules' layers, and those of diffusers' first attention processors
_RENAMED: Final = (
    ("_processor", ""),
    ("_temporal_transformer", ""),
    ("_attention_blocks_0_", "_attn1_"),
    ("_attention_blocks_1_", "_attn2_"),
)
_TEXT_ATTENTION: Final = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class LoraLayer:
    """A layer that a LoRA changes: W + scale * up @ down.

    layer: its name in the component with underscores for dots, which every layout can be brought to
    (`flat_name`); down, up, alpha: keys in the file, alpha "" where there is none.
    """

    component: Component
    layer: str
    down: str
    up: str
    alpha: str = ""

    @property
    def is_motion(self) -> bool:
        return "_motion_modules_" in self.layer


def flat_name(component: Component, module: str) -> str:
    """A module's name as `LoraLayer.layer` has it. CLIPTextModel's own names lost a level in transformers 5.6."""
    name = module.removeprefix("text_model.") if component == "text_encoder" else module
    return name.replace(".", "_")


def lora_layers(keys: Iterable[str], path: Path) -> tuple[LoraLayer, ...]:
    """The layers of a LoRA file by its keys. path: named in errors.

    Raises:
        SetupError: `invalid_model` for another method than LoRA, naming it, and for keys that are none of a LoRA.
    """
    parts: dict[tuple[Component, str], dict[str, str]] = {}
    for key in keys:
        match = _MATRIX.fullmatch(key)
        if match is None:
            raise not_a_lora(path, key)
        side = _SIDES.get(match["side"], "alpha")
        found = parts.setdefault(located(match["layer"] or match["of"]), {})
        if side in found:
            raise broken(path, f"{found[side]!r} and {key!r} are the same layer's")
        found[side] = key
    for found in parts.values():
        if "down" not in found or "up" not in found:
            raise broken(path, f"{next(iter(found.values()))!r} has no counterpart")
    return tuple(LoraLayer(component, layer, **found) for (component, layer), found in parts.items())


def located(written: str) -> tuple[Component, str]:
    """The component and the flat name of a layer, from any layout's name of it."""
    component: Component = "unet"
    for prefix, of in _PREFIXES:
        if written.startswith(prefix):
            written, component = written.removeprefix(prefix), of
    name = written.replace(".", "_")
    if component == "unet" and name.startswith(("text_model_", "encoder_layers_")):
        component = "text_encoder"
    if component == "text_encoder":
        name = name.removeprefix("text_model_")
        parent, attention, last = name.rpartition("_self_attn_")
        return component, parent + attention + _TEXT_ATTENTION.get(last, last)
    name += "_"
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return component, re.sub(r"_to_out$", "_to_out_0", name.rstrip("_"))


def not_a_lora(path: Path, key: str) -> SetupError:
    for pattern, method in OTHER_METHODS:
        if re.search(pattern, key):
            return SetupError(
                "invalid_model",
                f"{path} holds {method} (its key {key[:100]!r}); only plain LoRA can be applied.",
                ["Use a LoRA of the same content, if its maker offers one", "Merge it into a base model elsewhere"],
                ["loras"],
            )
    return broken(path, f"{key[:100]!r} is no key of a LoRA")


def broken(path: Path, problem: str) -> SetupError:
    return SetupError("invalid_model", f"{path} is no LoRA that can be applied: {problem}.", [examine(path)], ["loras"])
