"""The layers that a LoRA's keys name, in each layout; other methods and broken files are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkit.errors import SetupError
from vidkit.models.lora_keys import flat_name, lora_layers

FILE = Path("pan.safetensors")

BLOCK = "down_blocks.0.attentions.1.transformer_blocks.0"
FLAT = "down_blocks_0_attentions_1_transformer_blocks_0"
MOTION = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks"
TEXT = "encoder_layers_3_self_attn"


@pytest.mark.parametrize(
    ("down", "up", "component", "layer"),
    [
        # kohya's
        (f"lora_unet_{FLAT}_attn1_to_q.lora_down.weight", "lora_up", "unet", f"{FLAT}_attn1_to_q"),
        (f"lora_unet_{FLAT}_attn2_to_out_0.lora_down.weight", "lora_up", "unet", f"{FLAT}_attn2_to_out_0"),
        (
            "lora_te_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
            "lora_up",
            "text_encoder",
            f"{TEXT}_q_proj",
        ),
        ("lora_te1_text_model_encoder_layers_3_mlp_fc1.lora_down.weight", "lora_up", "text_encoder", ""),
        # peft's, of diffusers and by itself
        (f"unet.{BLOCK}.attn1.to_out.0.lora_A.weight", "lora_B", "unet", f"{FLAT}_attn1_to_out_0"),
        (f"base_model.model.{BLOCK}.attn1.to_q.lora_A.default.weight", "lora_B", "unet", f"{FLAT}_attn1_to_q"),
        (f"{BLOCK}.ff.net.0.proj.lora_A.weight", "lora_B", "unet", f"{FLAT}_ff_net_0_proj"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
            "lora_B",
            "text_encoder",
            f"{TEXT}_q_proj",
        ),
        ("base_model.model.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight", "lora_B", "text_encoder", ""),
        # diffusers' first
        (f"unet.{BLOCK}.attn1.processor.to_q_lora.down.weight", "up", "unet", f"{FLAT}_attn1_to_q"),
        (f"unet.{BLOCK}.attn2.processor.to_out_lora.down.weight", "up", "unet", f"{FLAT}_attn2_to_out_0"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.to_out_lora.down.weight",
            "up",
            "text_encoder",
            f"{TEXT}_out_proj",
        ),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.down.weight",
            "up",
            "text_encoder",
            f"{TEXT}_q_proj",
        ),
        # AnimateDiff's
        (
            f"{MOTION}.0.processor.to_q_lora.down.weight",
            "up",
            "unet",
            "mid_block_motion_modules_0_transformer_blocks_0_attn1_to_q",
        ),
        (
            f"{MOTION}.1.processor.to_out_lora.down.weight",
            "up",
            "unet",
            "mid_block_motion_modules_0_transformer_blocks_0_attn2_to_out_0",
        ),
    ],
)
def test_every_layout_names_the_same_layers(down: str, up: str, component: str, layer: str) -> None:
    partner = down.replace("lora_down", up) if "lora_down" in down else down.replace("lora_A", up)
    partner = partner if partner != down else down.replace(".down.", f".{up}.")
    (found,) = lora_layers([partner, down], FILE)
    assert (found.component, found.down, found.up, found.alpha) == (component, down, partner, "")
    assert found.layer == layer or not layer
    assert found.is_motion == ("motion" in down)


def test_a_layers_name_in_a_model_is_what_the_keys_give() -> None:
    assert flat_name("unet", f"{BLOCK}.attn1.to_out.0") == f"{FLAT}_attn1_to_out_0"
    for name in ("text_model.encoder.layers.3.self_attn.q_proj", "encoder.layers.3.self_attn.q_proj"):
        assert flat_name("text_encoder", name) == f"{TEXT}_q_proj"


def test_alpha_belongs_to_its_layer() -> None:
    keys = [
        f"lora_unet_{name}.{part}"
        for name in ("a_proj_in", "b_proj_in")
        for part in ("alpha", "lora_up.weight", "lora_down.weight")
    ]
    assert {layer.layer: layer.alpha for layer in lora_layers(keys, FILE)} == {
        "a_proj_in": "lora_unet_a_proj_in.alpha",
        "b_proj_in": "lora_unet_b_proj_in.alpha",
    }


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.oft_blocks", "OFT"),
        ("lora_unet_x.dora_scale", "DoRA"),
        ("unet.x.lora_magnitude_vector.weight", "DoRA"),
        ("lora_unet_x.lora_mid.weight", "Tucker"),
        ("lora_unet_x.a1.weight", "GLoRA"),
        ("lora_unet_x.on_input", "IA3"),
        ("lora_unet_x.diff_b", "whole weights"),
        ("lora_controlnet", "Control-LoRA"),
    ],
)
def test_other_methods_are_refused_by_name(key: str, method: str) -> None:
    with pytest.raises(SetupError, match=method) as refused:
        lora_layers(["lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", key], FILE)
    assert (refused.value.code, refused.value.concerns) == ("invalid_model", ("loras",))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["conv_in.weight"], "no key of a LoRA"),
        (["lora_unet_x.lora_down.weight"], "no counterpart"),
        (["lora_unet_x.alpha"], "no counterpart"),
        (["unet.x.lora_A.weight", "unet.x.lora_B.weight", "x.lora.down.weight"], "the same layer's"),
    ],
)
def test_broken_files_are_refused(keys: list[str], problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        lora_layers(keys, FILE)
