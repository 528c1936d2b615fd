from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import checkpoint_headers as full
import pytest
import torch
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES
from safetensors.torch import load_file, save_file
from tiny_models import TinyAnimateDiff, save_single_file

from vidkit.errors import SetupError
from vidkit.models.files.safetensors_header import Header
from vidkit.models.inspection import Inspection, inspect, inspect_header
from vidkit.models.locate import BUNDLED_FOLDER

FILE = Path("model.safetensors")
PIA_INPUT: Header = {"conv_in.weight": ("F16", (320, 9, 3, 3)), "conv_in.bias": ("F16", (320,))}
SDXL_LEVELS = (320, 640, 1280)
F16 = "F16"


def told(header: Header) -> Inspection:
    return inspect_header(header, FILE)


def refusal(path: Path) -> SetupError:
    with pytest.raises(SetupError) as caught:
        inspect(path)
    assert caught.value.code == "invalid_model"
    assert caught.value.suggestions
    assert path.name in caught.value.message
    return caught.value


def motion_lora_layers(original: bool) -> dict[str, tuple[int, ...]]:
    header = full.motion_adapter(True)
    if original:
        return full.linear_layers(full.original_motion(header), r"attention_blocks\.\d\.to_(q|k|v|out\.0)\.weight$")
    return full.linear_layers(header, full.ATTENTION)


def in_lightnings_state() -> Header:
    optimizer: Header = {"optimizer_states.0.state.0.exp_avg": ("F32", (320, 4, 3, 3))}
    return optimizer | full.with_prefix("state_dict.", full.base_checkpoint("SD 1.5"))


def ip_adapter(width: int, channels: int) -> Header:
    return {"image_proj.proj.weight": (F16, (4 * width, 1024)), "ip_adapter.1.to_k_ip.weight": (F16, (channels, width))}


# --- single files, by what they are

BASES: dict[str, tuple[Callable[[], Header], str, str]] = {
    # layout: header, title, class
    "SD 1.5": (lambda: full.base_checkpoint("SD 1.5"), "SD 1.5 base model", "StableDiffusionPipeline"),
    "SD 1.5 with EMA": (
        lambda: full.with_averages(full.base_checkpoint("SD 1.5", "F32")),
        "SD 1.5 base model",
        "StableDiffusionPipeline",
    ),
    "SD 1.5 in Lightning's state": (in_lightnings_state, "SD 1.5 base model", "StableDiffusionPipeline"),
    "SD 1.5 inpainting": (
        lambda: full.base_checkpoint("SD 1.5", in_channels=9),
        "SD 1.5 inpainting base model",
        "StableDiffusionInpaintPipeline",
    ),
    "InstructPix2Pix": (
        lambda: full.base_checkpoint("SD 1.5", in_channels=8),
        "SD 1.5 InstructPix2Pix model",
        "StableDiffusionInstructPix2PixPipeline",
    ),
    "SD 2": (lambda: full.base_checkpoint("SD 2"), "SD 2 base model", "StableDiffusionPipeline"),
    "SD 2 inpainting": (
        lambda: full.base_checkpoint("SD 2", in_channels=9),
        "SD 2 inpainting base model",
        "StableDiffusionInpaintPipeline",
    ),
    "SD 2 depth": (
        lambda: full.base_checkpoint("SD 2", in_channels=5),
        "SD 2 depth-conditioned base model",
        "StableDiffusionDepth2ImgPipeline",
    ),
    "SDXL": (lambda: full.base_checkpoint("SDXL"), "SDXL base model", "StableDiffusionXLPipeline"),
    "SDXL inpainting": (
        lambda: full.base_checkpoint("SDXL", in_channels=9),
        "SDXL inpainting base model",
        "StableDiffusionXLInpaintPipeline",
    ),
    "SDXL refiner": (lambda: full.base_checkpoint("SDXL refiner"), "SDXL refiner", "StableDiffusionXLImg2ImgPipeline"),
    "SVD": (full.svd_checkpoint, "Stable Video Diffusion", "StableVideoDiffusionPipeline"),
}

PARTS: dict[str, tuple[Callable[[], Header], str, str]] = {
    "SD 1.5 UNet": (lambda: full.unet("SD 1.5"), "SD 1.5 UNet", "UNet2DConditionModel"),
    "SD 1.5 UNet, original": (lambda: full.original_unet("SD 1.5"), "SD 1.5 UNet", "UNet2DConditionModel"),
    "SD 2 UNet": (lambda: full.unet("SD 2"), "SD 2 UNet", "UNet2DConditionModel"),
    "SDXL UNet": (lambda: full.unet("SDXL"), "SDXL UNet", "UNet2DConditionModel"),
    "SDXL UNet, original, as ComfyUI has it": (
        lambda: full.with_prefix("model.diffusion_model.", full.original_unet("SDXL")),
        "SDXL UNet",
        "UNet2DConditionModel",
    ),
    "UNet with motion modules": (full.motion_unet, "SD 1.5 UNet", "UNetMotionModel"),
    "SVD UNet": (full.svd_unet, "SVD UNet", "UNetSpatioTemporalConditionModel"),
    "SVD VAE": (full.svd_vae, "VAE for SVD", "AutoencoderKLTemporalDecoder"),
    "VAE": (full.vae, "VAE", "AutoencoderKL"),
    "VAE, original": (
        lambda: {key.removeprefix("first_stage_model."): entry for key, entry in full.original_vae().items()},
        "VAE",
        "AutoencoderKL",
    ),
    "VAE with prefix": (full.original_vae, "VAE", "AutoencoderKL"),
    "CLIP text encoder": (full.clip_text, "CLIP text encoder", "CLIPTextModel"),
    "CLIP text encoder, before transformers 5.6": (
        lambda: full.with_prefix("text_model.", full.clip_text()),
        "CLIP text encoder",
        "CLIPTextModel",
    ),
    "CLIP image encoder": (full.clip_vision, "CLIP image encoder", "CLIPVisionModelWithProjection"),
    "SparseCtrl RGB": (lambda: full.sparse_control(True), "SparseCtrl for SD 1.5", "SparseControlNetModel"),
    "SparseCtrl scribble": (lambda: full.sparse_control(False), "SparseCtrl for SD 1.5", "SparseControlNetModel"),
    "SparseCtrl RGB, original": (
        lambda: full.with_prefix("controlnet.module.", full.original_motion(full.sparse_control(True))),
        "SparseCtrl for SD 1.5",
        "SparseControlNetModel",
    ),
    "ControlNet": (lambda: full.controlnet("SD 1.5"), "ControlNet for SD 1.5", "ControlNetModel"),
    "ControlNet XL": (lambda: full.controlnet("SDXL"), "ControlNet for SDXL", "ControlNetModel"),
    "ControlNet, original": (
        lambda: (
            full.with_prefix("control_model.", full.original_unet("SD 2"))
            | {"control_model.input_hint_block.0.weight": (F16, (16, 3, 3, 3))}
        ),
        "ControlNet for SD 2",
        "ControlNetModel",
    ),
    "ControlNet beside its base model": (
        lambda: full.base_checkpoint("SD 1.5") | {"control_model.zero_convs.0.0.weight": (F16, (320, 320, 1, 1))},
        "ControlNet for SD 1.5",
        "ControlNetModel",
    ),
    "Control-LoRA": (
        lambda: {
            "lora_controlnet": (F16, (0,)),
            "input_hint_block.0.weight": (F16, (16, 3, 3, 3)),
            "input_blocks.1.0.in_layers.2.down": (F16, (128, 320, 3, 3)),
        },
        "ControlNet",
        "ControlNetModel",
    ),
    "T2I-Adapter": (
        lambda: {"adapter.body.0.resnets.0.block1.weight": (F16, (320, 320, 3, 3))},
        "T2I-Adapter",
        "T2IAdapter",
    ),
}

ADAPTERS: dict[str, tuple[Callable[[], Header], str]] = {
    "IP-Adapter": (lambda: ip_adapter(768, 320), "IP-Adapter for SD 1.5"),
    "IP-Adapter XL": (lambda: ip_adapter(2048, 640), "IP-Adapter for SDXL"),
    "IP-Adapter FaceID, which has a LoRA in it": (
        lambda: ip_adapter(768, 320) | {"ip_adapter.0.to_q_lora.down.weight": (F16, (128, 320))},
        "IP-Adapter for SD 1.5",
    ),
    "textual inversion, A1111": (lambda: {"emb_params": ("F32", (8, 768))}, "textual inversion for SD 1.5"),
    "textual inversion, A1111 pickle": (
        lambda: {"string_to_param.*": ("F32", (2, 1024))},
        "textual inversion for SD 2",
    ),
    "textual inversion, diffusers": (lambda: {"<cat-toy>": ("F32", (768,))}, "textual inversion for SD 1.5"),
    "textual inversion, SDXL": (
        lambda: {"clip_l": ("F32", (8, 768)), "clip_g": ("F32", (8, 1280))},
        "textual inversion for SDXL",
    ),
    "motion LoRA, original": (
        lambda: full.processor_lora(motion_lora_layers(True)),
        "motion LoRA for SD 1.5",
    ),
    "motion LoRA, original, in its pickle": (
        lambda: full.with_prefix("state_dict.module.", full.processor_lora(motion_lora_layers(True))),
        "motion LoRA for SD 1.5",
    ),
    "motion LoRA, diffusers": (
        lambda: full.processor_lora(motion_lora_layers(False), "unet."),
        "motion LoRA for SD 1.5",
    ),
    "motion LoRA, peft": (lambda: full.peft_lora(motion_lora_layers(False)), "motion LoRA for SD 1.5"),
    "motion LoRA, kohya": (lambda: full.kohya_lora(motion_lora_layers(False)), "motion LoRA for SD 1.5"),
}

LORAS = {
    "kohya": full.kohya_lora,
    "peft": full.peft_lora,
    "attention processors": full.processor_lora,
    "LoHa": full.loha,
    "LoKr": full.lokr,
}


@pytest.mark.parametrize("name", BASES)
def test_base_models_in_one_file_are_told_apart(name: str) -> None:
    header, title, class_name = BASES[name]
    inspection = told(header())
    assert (inspection.title, inspection.class_name) == (title, class_name)
    assert "lacks" not in inspection.details
    assert inspection.details.get("ema", False) == ("EMA" in name)
    assert inspection.dtypes[0] == ("float32" if "EMA" in name else "float16")


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_told_by_their_keys(name: str) -> None:
    header, title, class_name = PARTS[name]
    assert (told(header()).title, told(header()).class_name) == (title, class_name)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_told_by_their_keys(name: str) -> None:
    header, title = ADAPTERS[name]
    assert told(header()).title == title
    assert told(header()).class_name == ""


@pytest.mark.parametrize("layout", ["diffusers", "original", "trained in parallel", "pickled"])
@pytest.mark.parametrize(
    ("version", "mid_block", "channels", "frames", "title"),
    [
        ("v1", False, (320, 640, 1280, 1280), 24, "motion adapter v1 for SD 1.5"),
        ("v2", True, (320, 640, 1280, 1280), 32, "motion adapter v2 for SD 1.5"),
        ("v3", False, (320, 640, 1280, 1280), 32, "motion adapter v3 for SD 1.5"),
        ("SDXL", False, SDXL_LEVELS, 32, "motion adapter for SDXL"),
    ],
)
def test_motion_adapters_are_told_apart_in_every_layout(
    layout: str, version: str, mid_block: bool, channels: tuple[int, ...], frames: int, title: str
) -> None:
    header = full.motion_adapter(mid_block, channels, frames)
    if layout != "diffusers":
        header = full.original_motion(header)
    before = {"trained in parallel": "module.", "pickled": "state_dict.module."}.get(layout, "")
    inspection = told(full.with_prefix(before, header))
    assert (inspection.title, inspection.version, inspection.class_name) == (title, version, "MotionAdapter")
    assert inspection.details["motion_max_seq_length"] == frames
    assert inspection.details["block_out_channels"] == channels
    assert inspection.details["naming"] == ("diffusers" if layout == "diffusers" else "original")


@pytest.mark.parametrize("original", [False, True])
def test_a_pia_adapter_is_told_by_its_own_input(original: bool) -> None:
    modules = full.motion_adapter(True)
    inspection = told((full.original_motion(modules) if original else modules) | PIA_INPUT)
    assert (inspection.title, inspection.version) == ("PIA motion adapter for SD 1.5", "PIA")
    assert inspection.details["conv_in_channels"] == 9


def test_animatelcm_has_no_positions_of_its_own() -> None:
    inspection = told(full.original_motion(full.motion_adapter(True), positions=False))
    assert inspection.details["family"] == "AnimateLCM"
    assert "motion_max_seq_length" not in inspection.details


def test_hotshot_is_named() -> None:
    key = "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0.pos_encoder.positional_encoding"
    inspection = told({key: (F16, (1, 24, 320))})
    assert (inspection.kind, inspection.architecture, inspection.class_name) == ("motion adapter", "SDXL", "")


def test_sparsectrl_tells_what_it_is_conditioned_on() -> None:
    rgb, scribble = told(full.sparse_control(True)).details, told(full.sparse_control(False)).details
    assert (rgb["condition"], rgb["conditioning_channels"]) == ("pictures (RGB)", 4)
    assert (scribble["condition"], scribble["conditioning_channels"]) == ("scribbles", 3)
    assert rgb["use_simplified_condition_embedding"]
    assert "use_simplified_condition_embedding" not in scribble


@pytest.mark.parametrize("made_by", LORAS)
@pytest.mark.parametrize("architecture", ["SD 1.5", "SD 2", "SDXL"])
def test_loras_are_told_by_the_text_width_of_the_layers_they_change(made_by: str, architecture: str) -> None:
    inspection = told(LORAS[made_by](full.linear_layers(full.unet(architecture), full.ATTENTION)))
    assert inspection.title == f"LoRA for {architecture}"
    method = next((name for name in ("LoHa", "LoKr") if name == made_by), "LoRA")
    assert str(inspection.details["method"]).startswith(method)
    assert inspection.details["naming"] == ("kohya" if method != "LoRA" else made_by)


def test_a_lora_tells_its_rank_and_the_channels_it_is_for() -> None:
    details = told(full.kohya_lora(full.linear_layers(full.unet("SD 1.5"), full.ATTENTION), rank=32)).details
    assert details["rank"] == 32
    assert details["level_channels"] == {0: 320, 1: 640, 2: 1280}


def test_a_lora_whose_layers_two_architectures_have_leaves_both() -> None:
    """Self-attention is the same in Stable Diffusion 1.5 and 2; SDXL has other layers."""
    for kind, architecture in {"SD 1.5": "SD 1.5 or SD 2", "SD 2": "SD 1.5 or SD 2", "SDXL": "SDXL"}.items():
        inspection = told(full.kohya_lora(full.linear_layers(full.unet(kind), r"attn1\.to_q\.weight$")))
        assert inspection.architecture == architecture
    assert told(full.kohya_lora(full.linear_layers(full.unet("SD 1.5"), r"attn1\.to_q"))).architectures == (
        "SD 1.5",
        "SD 2",
    )


def test_a_lora_of_the_text_encoder_alone_is_told_by_kohyas_names() -> None:
    layers = {f"encoder.layers.0.self_attn.{name}_proj": (768, 768) for name in "qkv"}
    assert told(full.kohya_lora(layers, "lora_te_text_model_")).title == "LoRA for SD 1.5"
    both = full.kohya_lora(layers, "lora_te1_text_model_") | full.kohya_lora(layers, "lora_te2_text_model_")
    assert told(both).title == "LoRA for SDXL"


@pytest.mark.parametrize(
    ("key", "shape", "title"),
    [
        ("lora_unet_double_blocks_0_img_mod_lin.lora_down.weight", (16, 3072), "LoRA for Flux"),
        (
            "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",
            (16, 3072),
            "LoRA for Flux or HunyuanVideo",
        ),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", (16, 5120), "LoRA for Wan"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", (16, 1536), "LoRA for SD 3"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight", (16, 2048), "LoRA for LTX-Video"),
        ("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", (16, 3072), "LoRA for Qwen-Image"),
    ],
)
def test_loras_of_other_models_are_named(key: str, shape: tuple[int, ...], title: str) -> None:
    assert told({key: (F16, shape)}).title == title


# --- what vidkit does not use: named where a key proves it, refused else

OTHERS = {
    "sd3": "SD 3",
    "sd35_large": "SD 3",
    "flux": "Flux",
    "flux2": "Flux 2",
    "chroma": "Chroma",
    "hunyuan-video": "HunyuanVideo",
    "wan": "Wan",
    "mochi-1-preview": "Mochi",
    "lumina2": "Lumina 2",
    "z-image-turbo": "Z-Image",
    "auraflow": "AuraFlow",
    "hidream": "HiDream",
    "cosmos-1.0": "Cosmos",
    "cosmos-2.0": "Cosmos",
    "stable_cascade_stage_c": "Stable Cascade",
    "krea2": "Krea 2",
    "qwen-image-2.1": "Qwen-Image",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_are_named_by_the_keys_that_diffusers_knows_them_by(name: str) -> None:
    entry = CHECKPOINT_KEY_NAMES[name]
    keys = [entry] if isinstance(entry, str) else entry
    together = name in ("auraflow", "cosmos-1.0", "cosmos-2.0")
    for group in [keys] if together else [[key] for key in keys]:
        inspection = told(dict.fromkeys(group, ("BF16", (8, 8))))
        assert (inspection.kind, inspection.architecture) == ("transformer", OTHERS[name])
        assert inspection.title == f"{OTHERS[name]} transformer"


@pytest.mark.parametrize("name", CHECKPOINT_KEY_NAMES)
def test_no_key_of_another_model_is_taken_for_stable_diffusions(name: str) -> None:
    """diffusers takes what it does not know for Stable Diffusion 1."""
    if name in ("v1", "v2", "xl_base", "inpainting", "clip") or name.startswith("controlnet"):
        return
    entry = CHECKPOINT_KEY_NAMES[name]
    for key in [entry] if isinstance(entry, str) else entry:
        try:
            assert told({key: (F16, (4, 4, 4, 4))}).architecture not in ("SD 1.5", "SD 2")
        except SetupError as error:
            assert error.code == "invalid_model"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"layers.0.weight": ("F32", (4, 4))}, "1 tensors begin with 'layers.0.weight'"),
        ({"model.layers.0.self_attn.q_proj.weight": ("F32", (4, 4))}, "of a kind unknown here"),
        ({"weight": ("F32", (4, 768)), "bias": ("F32", (4,))}, "of a kind unknown here"),
        ({"proj.weight": ("F32", (4, 768))}, "of a kind unknown here"),
        ({"model_ema.diffusion_modelout0weight": ("F32", (4,))}, "of a kind unknown here"),
    ],
)
def test_the_unknown_is_refused_by_name(header: Header, words: str) -> None:
    with pytest.raises(SetupError, match=re.escape(words)) as caught:
        told(header)
    assert caught.value.code == "invalid_model"
    assert FILE.name in caught.value.message


def test_parts_that_contradict_each_other_are_refused() -> None:
    two = full.base_checkpoint("SD 1.5") | full.open_clip_text("cond_stage_model.model.", 1024, 1)
    with pytest.raises(SetupError, match=r"parts of SD 1\.5 and of SD 2"):
        told(two)
    odd = full.base_checkpoint("SD 1.5") | {"model.diffusion_model.input_blocks.0.0.weight": (F16, (320, 6, 3, 3))}
    with pytest.raises(SetupError, match="UNet input of 6 channels"):
        told(odd)


def test_what_a_base_model_lacks_is_told() -> None:
    whole = full.base_checkpoint("SD 1.5")
    without = {key: entry for key, entry in whole.items() if not key.startswith("first_stage_model.")}
    assert told(without).details["lacks"] == ("VAE",)
    assert told(without).kind == "base model"


def test_what_else_a_checkpoint_says_of_itself() -> None:
    v_prediction = full.base_checkpoint("SDXL") | {"v_pred": (F16, (0,)), "ztsnr": (F16, (0,))}
    details = told(v_prediction).details
    assert (details["prediction_type"], details["rescale_betas_zero_snr"]) == ("v_prediction", True)
    eight_bit = told(full.base_checkpoint("SD 1.5", "F8_E4M3") | {"scaled_fp8": ("F8_E4M3", (2,))})
    assert eight_bit.details["quantization"] == "scaled float8"
    assert eight_bit.dtypes[0] == "float8_e4m3fn"


def samples() -> list[Header]:
    """A few tensors of each kind, the telling ones among them."""
    made = [header() for header, *_ in (*BASES.values(), *PARTS.values(), *ADAPTERS.values())]
    return [{key: header[key] for key in [*list(header)[:4], *list(header)[-4:]]} for header in made]


def test_headers_changed_in_any_way_are_told_or_refused() -> None:
    """Shapes of other ranks, keys cut, joined and repeated: never another error, and no time lost over them."""
    random, headers = Random(6), samples()
    kept = 0
    start = time.perf_counter()
    for _ in range(4000):
        header = dict(random.choice(headers)) | dict(random.choice(headers) if random.random() < 0.3 else {})
        for key in random.sample(list(header), min(3, len(header))):
            dtype, shape = header.pop(key)
            change = random.randrange(4)
            if change == 0:
                shape = tuple(random.choice((0, 1, 4, 768, 2**40)) for _ in range(random.randrange(6)))
            elif change == 1:
                key = key[: random.randrange(len(key) + 1)] + random.choice(
                    ("", ".lora_A.weight", "\n", ".", "9" * 400)
                )
            elif change == 2:
                key = key * random.choice((2, 50))
            header[key] = (dtype, shape)
        try:
            kept += bool(told(header).title)
        except SetupError as error:
            assert error.code == "invalid_model"
            assert len(error.message) < 1000
    assert kept > 1000
    assert time.perf_counter() - start < 60  # some 4 s on an idle machine


@pytest.mark.parametrize(
    "piece", ["down_blocks_1_motion_modules_0_to_q", "double_blocks_1_", "decoder.", "attn2.to_k."]
)
def test_keys_made_to_cost_time_cost_none(piece: str) -> None:
    header: Header = {f"{piece * (500 // len(piece))}{number}": ("F16", (2, 2)) for number in range(8000)}
    header["lora_unet_down_blocks_1_motion_modules_0_x.lora_down.weight"] = ("F16", (2, 2))
    header["x" * 4_000_000] = ("F16", (2, 2))
    start = time.perf_counter()
    assert told(header).kind == "motion LoRA"
    assert time.perf_counter() - start < 10


def test_a_block_number_that_python_does_not_read_is_no_layers() -> None:
    odd: Header = {f"down_blocks.{'1' * 5000}.motion_modules.0.norm.weight": ("F16", (2,))}
    assert told(odd | full.motion_adapter(True)).title == "motion adapter v2 for SD 1.5"


# --- files


def test_ten_gigabytes_are_inspected_by_their_header_alone(tmp_path: Path) -> None:
    header = full.base_checkpoint("SDXL", "F32")
    path = full.write_sparse(tmp_path / "sd_xl_base_1.0.safetensors", header, {"notes": "x" * 2_000_000})
    assert path.stat().st_size > 10e9
    start = time.perf_counter()
    inspection = inspect(path)
    assert time.perf_counter() - start < 5  # some 0.1 s on an idle machine
    assert inspection.title == "SDXL base model"
    assert inspection.size == path.stat().st_size
    assert inspection.layout == "single file"


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib
from vidkit.models.inspection import inspect
path = pathlib.Path({str(tmp_path / "a.safetensors")!r})
inspect(path)
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
first = inspect(path)
assert not opened, opened
other = pathlib.Path({str(tmp_path / "b.safetensors")!r})
other.replace(path)
assert inspect(path).kind == "motion adapter" and first.kind == "VAE"
assert not {{"torch", "diffusers", "transformers", "safetensors"}} & set(sys.modules)
"""
    full.write_sparse(tmp_path / "a.safetensors", full.vae())
    full.write_sparse(tmp_path / "b.safetensors", full.motion_adapter(True))
    for name in ("a", "b"):
        os.utime(tmp_path / f"{name}.safetensors", (1_700_000_000, 1_700_000_000))  # not just written
    subprocess.run([sys.executable, "-c", code], check=True)


PICKLES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "mm_sd_v15_v2.ckpt": (
        lambda tensors: {"state_dict": full.with_prefix("module.", tensors["motion"])},
        "motion adapter",
    ),
    "v3_sd15_sparsectrl_rgb.ckpt": (lambda tensors: {"controlnet": tensors["sparse"]}, "SparseCtrl"),
    "ip-adapter_sd15.bin": (
        lambda tensors: {
            "image_proj": {"proj.weight": torch.zeros(8, 4)},
            "ip_adapter": {"1.to_k_ip.weight": torch.zeros(4, 768)},
        },
        "IP-Adapter",
    ),
    "learned_embeds.bin": (lambda tensors: {"<cat-toy>": torch.zeros(768)}, "textual inversion"),
    "style.pt": (
        lambda tensors: {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": torch.zeros(2, 768)},
            "name": "style",
            "step": 500,
        },
        "textual inversion",
    ),
    "base.ckpt": (lambda tensors: {"state_dict": tensors["base"], "global_step": 840000, "epoch": 2}, "base model"),
}


@pytest.fixture(scope="module")
def tensors(tiny_animatediff: TinyAnimateDiff, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of small models in the original layouts."""
    single = save_single_file(tiny_animatediff.base, tmp_path_factory.mktemp("single") / "base.safetensors")
    motion = load_file(tiny_animatediff.motion_adapter / "diffusion_pytorch_model.safetensors")
    sparse = load_file(tiny_animatediff.sparse_controlnet / "diffusion_pytorch_model.safetensors")
    return {
        "base": load_file(single),
        "motion": {key: tensor.clone() for key, tensor in full.original_motion(motion).items()},
        "sparse": full.original_motion(sparse),
    }


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_are_told_by_what_is_in_them(name: str, tensors: dict[str, Any], tmp_path: Path) -> None:
    content, kind = PICKLES[name]
    torch.save(content(tensors), tmp_path / name)
    inspection = inspect(tmp_path / name)
    assert inspection.kind == kind
    assert inspection.size == (tmp_path / name).stat().st_size


def test_small_models_are_known_by_their_layers(tensors: dict[str, Any], tmp_path: Path) -> None:
    """Their widths are none of a published model's; a base model's layout is still Stable Diffusion 1's."""
    save_file(tensors["base"], tmp_path / "base.safetensors")
    base = inspect(tmp_path / "base.safetensors")
    assert (base.title, base.class_name) == ("SD 1.5 base model", "StableDiffusionPipeline")
    assert (base.details["block_out_channels"], base.details["cross_attention_dim"]) == ((32, 64), 32)
    save_file(tensors["motion"], tmp_path / "motion.safetensors")
    motion = inspect(tmp_path / "motion.safetensors")
    assert (motion.architecture, motion.version, motion.details["block_out_channels"]) == ("", "v2", (32, 64))
    assert motion.parameters == sum(tensor.numel() for tensor in tensors["motion"].values())


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.safetensors"
    page.write_text("<!DOCTYPE html><html><body>Log in to download</body></html>")
    assert "web page" in refusal(page).message
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    refusal(tmp_path / "torn.safetensors")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    refusal(tmp_path / "empty.ckpt")
    with pytest.raises(SetupError) as caught:
        inspect(tmp_path / "gone.safetensors")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        (lambda: full.unet("SD 1.5"), 859_520_964),
        (lambda: full.unet("SD 2"), 865_910_724),
        (lambda: full.unet("SDXL"), 2_567_463_684),
        (full.svd_unet, 1_524_623_082),
        (full.vae, 83_653_863),
        # UNet, VAE and text encoder; neither the positions' numbers nor the averaged copy
        (lambda: full.base_checkpoint("SD 1.5"), 1_066_235_307),
        (lambda: full.with_averages(full.base_checkpoint("SD 1.5")), 1_066_235_307),
        (in_lightnings_state, 1_066_235_307),
    ],
)
def test_parameters_are_those_that_are_published(header: Callable[[], Header], parameters: int) -> None:
    assert told(header()).parameters == parameters


# --- folders


def test_what_ships_is_told_by_its_configs() -> None:
    told = {path.name: inspect(path) for path in BUNDLED_FOLDER.iterdir()}
    assert {name: one.title for name, one in told.items()} == {
        "tiny-animatediff": "SD 1.5 base model",
        "tiny-motion-adapter": "PIA motion adapter",
        "tiny-svd": "Stable Video Diffusion",
    }
    svd = told["tiny-svd"]
    assert (svd.layout, svd.architecture, svd.class_name) == (
        "diffusers folder",
        "SVD",
        "StableVideoDiffusionPipeline",
    )
    assert svd.details["num_frames"] == 14
    assert "lacks" not in svd.details


def test_each_weight_of_a_folder_is_counted_once(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_animatediff.base, base)
    before = inspect(base)
    files = list(base.glob("*/*.safetensors"))
    expected = sum(tensor.numel() for file in files for tensor in load_file(file).values())
    assert (before.parameters, before.dtypes) == (expected, ("float32",))
    for file in files:
        halves = {key: tensor.half() for key, tensor in load_file(file).items()}
        save_file(halves, file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    doubles = {key: tensor.double() for key, tensor in load_file(files[0]).items()}
    torch.save(doubles, files[0].with_suffix(".bin"))  # the same again
    after = inspect(base)
    assert (after.parameters, after.dtypes) == (expected, ("float32", "float16"))
    assert after.size > before.size


def test_shards_are_one_part_and_a_missing_one_is_told(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_animatediff.motion_adapter, adapter)
    whole = inspect(adapter)
    file = adapter / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    keys = sorted(tensors)
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, adapter / name)
    assert inspect(adapter).parameters == whole.parameters
    (adapter / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    assert "1 of 2 shards" in refusal(adapter).message


def test_what_a_folder_lacks_is_told(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_animatediff.base, base)
    shutil.rmtree(base / "vae")
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert inspect(base).details["lacks"] == ("vae", "weights of unet")


@pytest.mark.parametrize(
    ("class_name", "config", "title"),
    [
        ("StableDiffusionPipeline", {"cross_attention_dim": 768}, "SD 1.5 base model"),
        ("StableDiffusionPipeline", {"cross_attention_dim": 1024}, "SD 2 base model"),
        (
            "StableDiffusionInpaintPipeline",
            {"cross_attention_dim": 768, "in_channels": 9},
            "SD 1.5 inpainting base model",
        ),
        ("StableDiffusionXLPipeline", {"cross_attention_dim": 2048}, "SDXL base model"),
        ("StableDiffusionXLImg2ImgPipeline", {"cross_attention_dim": 1280}, "SDXL refiner"),
        ("StableDiffusionLatentUpscalePipeline", {"cross_attention_dim": 768, "in_channels": 8}, "SD 1.5 upscaler"),
        ("AnimateDiffPipeline", {"cross_attention_dim": 768}, "SD 1.5 base model"),
        ("AnimateDiffSDXLPipeline", {"cross_attention_dim": 2048}, "SDXL base model"),
        ("StableDiffusion3Pipeline", {}, "SD 3 base model"),
        ("FluxPipeline", {}, "Flux base model"),
        ("Flux2Pipeline", {}, "Flux 2 base model"),
        ("WanImageToVideoPipeline", {}, "Wan base model"),
        ("LTXImageToVideoPipeline", {}, "LTX-Video base model"),
        ("LTX2Pipeline", {}, "LTX-2 base model"),
        ("CogVideoXImageToVideoPipeline", {}, "CogVideoX base model"),
    ],
)
def test_pipelines_are_told_by_their_class_and_their_unet(
    class_name: str, config: dict[str, Any], title: str, tmp_path: Path
) -> None:
    index = {"_class_name": class_name, "unet": ["diffusers", "UNet2DConditionModel"] if config else [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel", **config}))
    assert inspect(tmp_path).title == title
    assert inspect(tmp_path).class_name == class_name


@pytest.mark.parametrize(
    ("config", "title"),
    [
        ({"_class_name": "MotionAdapter", "use_motion_mid_block": True}, "motion adapter v2 for SD 1.5"),
        ({"_class_name": "MotionAdapter", "use_motion_mid_block": False}, "motion adapter v3 for SD 1.5"),
        (
            {"_class_name": "MotionAdapter", "use_motion_mid_block": False, "motion_max_seq_length": 24},
            "motion adapter v1 for SD 1.5",
        ),
        ({"_class_name": "MotionAdapter", "block_out_channels": [320, 640, 1280]}, "motion adapter for SDXL"),
        ({"_class_name": "MotionAdapter", "conv_in_channels": 9}, "PIA motion adapter for SD 1.5"),
        ({"_class_name": "SparseControlNetModel"}, "SparseCtrl for SD 1.5"),
        ({"_class_name": "ControlNetModel", "cross_attention_dim": 2048}, "ControlNet for SDXL"),
        ({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}, "SD 1.5 UNet"),
        ({"_class_name": "UNetSpatioTemporalConditionModel"}, "SVD UNet"),
        ({"_class_name": "AutoencoderKL"}, "VAE"),
        ({"_class_name": "AutoencoderKLTemporalDecoder"}, "VAE for SVD"),
        ({"_class_name": "AutoencoderKLWan"}, "VAE for Wan"),
        ({"_class_name": "FluxTransformer2DModel"}, "Flux transformer"),
        ({"architectures": ["CLIPTextModel"], "hidden_size": 768}, "CLIP text encoder"),
        ({"architectures": ["CLIPVisionModelWithProjection"]}, "CLIP image encoder"),
    ],
)
def test_parts_in_folders_are_told_by_their_config(config: dict[str, Any], title: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert inspect(tmp_path).title == title


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "adapter_model.safetensors", "zoom.safetensors"])
def test_a_loras_folder_is_told_by_its_weights(file: str, tmp_path: Path) -> None:
    layers = full.linear_layers(full.unet("SD 1.5"), full.ATTENTION)
    full.write_sparse(tmp_path / file, full.peft_lora(layers))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert (inspect(tmp_path).title, inspect(tmp_path).layout) == ("LoRA for SD 1.5", "diffusers folder")


def test_a_folder_of_several_files_asks_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        full.write_sparse(tmp_path / f"{name}.safetensors", {"emb_params": ("F32", (1, 768))})
    error = refusal(tmp_path)
    assert "a.safetensors, b.safetensors" in error.message
    assert error.suggestions == ["Give one of the files"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model_index.json", '{"_class_name": "FancyPipeline"}', "FancyPipeline"),
        ("model_index.json", "{", "line 1 column 2"),
        ("model_index.json", "[]", "not a JSON object"),
        ("config.json", '{"_class_name": "FancyModel"}', "FancyModel"),
        ("config.json", "{}", "names no class"),
        ("config.json", '{"_class_name": "MotionAdapter", "block_out_channels": "wide"}', "block_out_channels"),
        ("config.json", '{"_class_name": "MotionAdapter", "block_out_channels": 320}', "not a list of whole numbers"),
        ("config.json", '{"_class_name": "MotionAdapter", "motion_max_seq_length": 1e3}', "motion_max_seq_length"),
        ("README.md", "x", "neither model_index.json nor config.json"),
    ],
)
def test_folders_of_no_known_kind_are_refused_by_name(file: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    assert words in refusal(tmp_path).message
