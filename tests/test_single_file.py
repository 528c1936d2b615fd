from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import (
    TEST_SIZE,
    TinyAnimateDiff,
    _ldm_text_key,
    _ldm_unet_key,
    _ldm_vae_key,
    save_single_file,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from vidkit.errors import SetupError
from vidkit.models import safetensors_header
from vidkit.models.safetensors_header import read_safetensors_header
from vidkit.models.single_file import (
    SD15_CONFIGS,
    check_sd15_checkpoint,
    load_sd15_components,
)

ROOT = Path(__file__).parent.parent
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]

UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
TEXT_KEYS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
VAE_INPUT = "first_stage_model.encoder.conv_in.weight"
TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
#: the least that passes the check against the shipped configurations
SD15_MARKS: Shapes = {
    UNET_INPUT: ("F16", (320, 4, 3, 3)),
    TEXT_KEYS: ("F16", (320, 768)),
    VAE_INPUT: ("F16", (128, 3, 3, 3)),
    TOKENS: ("F16", (49408, 768)),
}
BITS = {"F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I8": 8, "F8_E4M3": 8}


def write_raw(path: Path, header: bytes, data_bytes: int = 0, length: int | None = None) -> Path:
    """A file with any header, its data a hole in the file, so that full-size models take no room."""
    with path.open("wb") as file:
        file.write((len(header) if length is None else length).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + data_bytes)
    return path


def write_shapes(path: Path, tensors: Shapes) -> Path:
    """A valid safetensors file with tensors of these dtypes and shapes, all zero."""
    entries, position = {}, 0
    for key, (dtype, shape) in tensors.items():
        end = position + math.prod(shape) * BITS[dtype] // 8
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    return write_raw(path, json.dumps(entries).encode(), position)


def full_size_models() -> dict[str, torch.nn.Module]:
    """The models of the shipped configurations, without data."""
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SD15_CONFIGS / "unet")),
            "vae": AutoencoderKL.from_config(AutoencoderKL.load_config(SD15_CONFIGS / "vae")),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(SD15_CONFIGS / "text_encoder")),
        }


def full_size_shapes() -> dict[str, tuple[str, tuple[int, ...]]]:
    models = full_size_models()
    names = {
        **{_ldm_unet_key(k, 2): w for k, w in models["unet"].state_dict().items()},
        **{_ldm_vae_key(k, 4): w for k, w in models["vae"].state_dict().items()},
        **{_ldm_text_key(k): w for k, w in models["text_encoder"].state_dict().items()},
    }
    return {key: ("F16", tuple(weight.shape)) for key, weight in names.items()}


@pytest.fixture(scope="module")
def tiny_single_file(tiny_animatediff: TinyAnimateDiff, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_single_file(tiny_animatediff.base, tmp_path_factory.mktemp("single") / "tiny.safetensors")


def expect_refusal(path: Path, *words: str, **options: Any) -> SetupError:
    started = time.perf_counter()
    with pytest.raises(SetupError) as caught:
        check_sd15_checkpoint(path, **options)
    assert time.perf_counter() - started < 2
    assert caught.value.code == "invalid_model"
    assert caught.value.suggestions
    for word in (path.name, *words):
        assert word in caught.value.message
    return caught.value


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_single_file_loads_the_same_weights_as_the_folder(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path, dtype: torch.dtype
) -> None:
    components = load_sd15_components(tiny_single_file, dtype, tiny_animatediff.base)
    folder = StableDiffusionPipeline.from_pretrained(tiny_animatediff.base, dtype=dtype, local_files_only=True)
    assert components.keys() == {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
    for name in ("unet", "vae", "text_encoder"):
        expected = getattr(folder, name).state_dict()
        loaded = components[name].state_dict()
        assert type(components[name]) is type(getattr(folder, name))
        assert loaded.keys() == expected.keys()
        assert {weight.dtype for weight in loaded.values()} == {dtype}
        for key, weight in expected.items():
            assert torch.equal(loaded[key], weight), key
    assert components["scheduler"].config == folder.scheduler.config
    assert components["tokenizer"]("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_single_file_draws_the_same_picture_as_the_folder(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path
) -> None:
    components = load_sd15_components(tiny_single_file, torch.float32, tiny_animatediff.base)
    single = StableDiffusionPipeline(
        **components, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    folder = StableDiffusionPipeline.from_pretrained(tiny_animatediff.base, local_files_only=True)

    def picture(pipeline: StableDiffusionPipeline, seed: int) -> np.ndarray:
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(seed)
        options: dict[str, Any] = {"width": TEST_SIZE, "height": TEST_SIZE, "num_inference_steps": 2}
        return pipeline("a photo of a cat", generator=generator, output_type="np", **options).images

    assert np.array_equal(picture(single, 0), picture(folder, 0))
    assert not np.array_equal(picture(single, 0), picture(single, 1))


def test_folder_of_the_file_is_its_configuration_when_it_has_a_model_index(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path, tmp_path: Path
) -> None:
    # alone, the shipped full-size configuration applies, which the tiny model does not fit
    error = expect_refusal(tiny_single_file, "(49408, 32)", "(49408, 768)")
    assert str(SD15_CONFIGS) in error.message

    folder = tmp_path / "base"
    for config in ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"):
        (folder / config).parent.mkdir(parents=True, exist_ok=True)
        (folder / config).write_bytes((tiny_animatediff.base / config).read_bytes())
    beside = folder / "model.safetensors"
    beside.write_bytes(tiny_single_file.read_bytes())
    assert check_sd15_checkpoint(beside) == folder
    assert check_sd15_checkpoint(beside, tiny_animatediff.base) == tiny_animatediff.base
    expect_refusal(beside, config_folder=SD15_CONFIGS)


def test_loading_touches_no_network_and_prints_no_progress(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path
) -> None:
    script = f"""
import socket

attempts = []

def refuse(*args, **kwargs):
    attempts.append(args)
    raise OSError("the test allows no network")

# Opening a socket alone is no use of the network: urllib3 does it on import to learn whether the machine has IPv6.
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse

from pathlib import Path
from vidkit.models.single_file import load_sd15_components
import torch
from diffusers.utils import logging

load_sd15_components(Path({str(tiny_single_file)!r}), torch.float32, Path({str(tiny_animatediff.base)!r}))
assert not attempts, attempts
assert logging.is_progress_bar_enabled()  # as it was before
print("loaded")
"""
    # Without the variables that keep Hugging Face's libraries offline: the loader must not rely on them.
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    result = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "loaded\n", result.stderr
    assert "it/s" not in result.stderr


def test_importing_the_module_loads_neither_torch_nor_diffusers() -> None:
    script = "import sys, vidkit.models.single_file; print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.out.2.bias",
        "model.diffusion_model.output_blocks.2.1.conv.bias",
        "first_stage_model.decoder.mid.attn_1.q.weight",
        "first_stage_model.quant_conv.bias",
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    ],
)
def test_missing_or_misshapen_weight_is_an_error(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path, tmp_path: Path, key: str
) -> None:
    tensors = load_file(tiny_single_file)
    del tensors[key]
    for change in ({}, {key: torch.zeros(3, 5)}):
        save_file({**tensors, **change}, tmp_path / "changed.safetensors")
        with pytest.raises(SetupError, match=r"changed\.safetensors") as caught:
            load_sd15_components(tmp_path / "changed.safetensors", torch.float32, tiny_animatediff.base)
        assert caught.value.code == "invalid_model"


def test_unet_tensors_without_a_place_are_an_error(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path, tmp_path: Path
) -> None:
    tensors = load_file(tiny_single_file)
    tensors["model.diffusion_model.input_blocks.6.0.in_layers.0.weight"] = torch.ones(64)  # a third block
    save_file(tensors, tmp_path / "deeper.safetensors")
    with pytest.raises(SetupError, match="UNet tensors"):
        load_sd15_components(tmp_path / "deeper.safetensors", torch.float32, tiny_animatediff.base)


# --- the shipped configuration --------------------------------------------------------------------------------------


def test_shipped_configuration_is_that_of_stable_diffusion_1_5() -> None:
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in full_size_models().items()}
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert AutoencoderKL.load_config(SD15_CONFIGS / "vae")["scaling_factor"] == 0.18215

    scheduler = PNDMScheduler.from_pretrained(SD15_CONFIGS / "scheduler", local_files_only=True)
    assert (scheduler.config.beta_schedule, scheduler.config.beta_start) == ("scaled_linear", 0.00085)
    # the last cumulative alpha product of Stable Diffusion's noise schedule, as published
    assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.00466, abs=1e-5)


def test_shipped_vocabulary_is_clips() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(SD15_CONFIGS, subfolder="tokenizer", local_files_only=True)
    assert (len(tokenizer), tokenizer.model_max_length, tokenizer.pad_token_id) == (49408, 77, 49407)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("A PHOTO  of a Cat").input_ids == tokenizer("a photo of a cat").input_ids
    assert tokenizer.decode(tokenizer("über 日本!").input_ids, skip_special_tokens=True) == "über 日本 !"
    licence = (SD15_CONFIGS / "tokenizer" / "LICENSE").read_text(encoding="utf-8")
    assert "Permission is hereby granted" in licence


def test_full_size_checkpoint_has_the_published_keys_and_fits_the_shipped_configuration(tmp_path: Path) -> None:
    shapes = full_size_shapes()
    # v1-5-pruned-emaonly.safetensors: 686 + 248 + 197 with the text encoder's position_ids
    assert len(shapes) == 686 + 248 + 196
    # names in the published file at the places where the layouts differ most
    for key, shape in {
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.input_blocks.9.0.op.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "model.diffusion_model.middle_block.2.out_layers.3.weight": (1280, 1280, 3, 3),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.encoder.mid.attn_1.proj_out.bias": (512,),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    }.items():
        assert shapes[key][1] == shape, key
    path = write_shapes(tmp_path / "full.safetensors", shapes)
    assert path.stat().st_size > 2.13e9  # as published in half precision
    assert check_sd15_checkpoint(path) == SD15_CONFIGS


# --- what is refused ------------------------------------------------------------------------------------------------

SDXL_TEXT = "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight"
MOTION_KEY = (
    "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
)
OTHER_KINDS: dict[str, tuple[str, Shapes]] = {
    "sdxl": (
        "SDXL base model",
        {
            UNET_INPUT: ("F16", (320, 4, 3, 3)),
            VAE_INPUT: ("F16", (128, 3, 3, 3)),
            SDXL_TEXT: ("F16", (77, 768)),
            "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": ("F16", (1280,)),
        },
    ),
    "sdxl_refiner": (
        "SDXL refiner",
        {
            UNET_INPUT: ("F16", (384, 4, 3, 3)),
            "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": ("F16", (1280,)),
        },
    ),
    "sdxl_unet": (
        "SDXL",
        {UNET_INPUT: ("F16", (320, 4, 3, 3)), "model.diffusion_model.label_emb.0.0.weight": ("F16", (1280, 2816))},
    ),
    "sdxl_width": ("SDXL", SD15_MARKS | {TEXT_KEYS: ("F16", (640, 2048))}),
    "sd2": (
        "Stable Diffusion 2",
        {
            UNET_INPUT: ("F16", (320, 4, 3, 3)),
            TEXT_KEYS: ("F16", (320, 1024)),
            VAE_INPUT: ("F16", (128, 3, 3, 3)),
            "cond_stage_model.model.token_embedding.weight": ("F16", (49408, 1024)),
        },
    ),
    "sd2_width": ("Stable Diffusion 2", SD15_MARKS | {TEXT_KEYS: ("F16", (320, 1024))}),
    "sd3": ("Stable Diffusion 3", {"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias": ("F16", (8,))}),
    "flux": ("Flux", {"double_blocks.0.img_attn.norm.key_norm.scale": ("BF16", (128,))}),
    "inpainting": ("inpainting model", SD15_MARKS | {UNET_INPUT: ("F16", (320, 9, 3, 3))}),
    "pix2pix": ("InstructPix2Pix", SD15_MARKS | {UNET_INPUT: ("F16", (320, 8, 3, 3))}),
    "other_input": ("UNet input", SD15_MARKS | {UNET_INPUT: ("F16", (320, 4))}),
    "lora_kohya": ("LoRA", {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": ("F16", (4, 320, 1, 1))}),
    "lora_peft": ("LoRA", {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": ("F16", (4, 320))}),
    "lora_diffusers": ("LoRA", {"unet.mid_block.attentions.0.proj_in.lora.down.weight": ("F16", (4, 320))}),
    "motion_module": ("motion module", {MOTION_KEY: ("F16", (1, 32, 320))}),
    "controlnet_ldm": ("ControlNet", SD15_MARKS | {"control_model.time_embed.0.weight": ("F16", (1280, 320))}),
    "controlnet": ("ControlNet", {"controlnet_cond_embedding.conv_in.weight": ("F16", (16, 3, 3, 3))}),
    "sparsectrl": (
        "ControlNet",
        {MOTION_KEY: ("F16", (1, 32, 320)), "controlnet_cond_embedding.weight": ("F16", (320, 5, 3, 3))},
    ),
    "svd": (
        "Stable Video Diffusion",
        {
            UNET_INPUT: ("F16", (320, 8, 3, 3)),
            "conditioner.embedders.0.open_clip.model.ln_final.weight": ("F16", (1024,)),
        },
    ),
    "vae": ("VAE alone", {"encoder.conv_in.weight": ("F32", (128, 3, 3, 3)), "decoder.conv_in.bias": ("F32", (512,))}),
    "vae_ldm": ("VAE alone", {VAE_INPUT: ("F32", (128, 3, 3, 3))}),
    "text_encoder": ("text encoder alone", {"text_model.embeddings.token_embedding.weight": ("F16", (49408, 768))}),
    "diffusers_unet": ("diffusers' layout", {"down_blocks.0.resnets.0.conv1.weight": ("F16", (320, 320, 3, 3))}),
    "ip_adapter": ("IP-Adapter", {"image_proj.proj.weight": ("F16", (3072, 1024))}),
    "textual_inversion": ("textual inversion", {"emb_params": ("F32", (8, 768))}),
    "v_prediction": ("v-prediction", SD15_MARKS | {"v_pred": ("F16", (0,))}),
    "unknown": ("unknown here", {"layers.0.weight": ("F32", (4, 4))}),
    "no_vae": ("lacks the VAE", {k: v for k, v in SD15_MARKS.items() if k != VAE_INPUT}),
    "no_text": ("lacks the text encoder", {k: v for k, v in SD15_MARKS.items() if k != TOKENS}),
    "unet_only": ("VAE and the text encoder", {UNET_INPUT: ("F16", (320, 4, 3, 3))}),
    "other_width": ("width (512,)", SD15_MARKS | {TEXT_KEYS: ("F16", (320, 512))}),
    "other_unet": (UNET_INPUT, SD15_MARKS | {UNET_INPUT: ("F16", (256, 4, 3, 3))}),
    "other_text": (TOKENS, SD15_MARKS | {TOKENS: ("F16", (49408, 512))}),
    "other_vae": (VAE_INPUT, SD15_MARKS | {VAE_INPUT: ("F16", (64, 3, 3, 3))}),
    "int8": ("quantized", SD15_MARKS | {TEXT_KEYS: ("I8", (320, 768))}),
    "fp8": ("F8_E4M3", SD15_MARKS | {UNET_INPUT: ("F8_E4M3", (320, 4, 3, 3))}),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    name, tensors = OTHER_KINDS[kind]
    expect_refusal(write_shapes(tmp_path / "other.safetensors", tensors), name)


def test_marks_alone_pass_the_check(tmp_path: Path) -> None:
    """So that each refusal above is due to what its file adds or leaves out."""
    positions = {"cond_stage_model.transformer.text_model.embeddings.position_ids": ("I64", (1, 77))}
    assert check_sd15_checkpoint(write_shapes(tmp_path / "a.safetensors", SD15_MARKS)) == SD15_CONFIGS
    assert check_sd15_checkpoint(write_shapes(tmp_path / "b.safetensors", SD15_MARKS | positions)) == SD15_CONFIGS


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ""])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": {}}, path)
    error = expect_refusal(path, "Pickles")
    assert "Convert" in error.suggestions[0]


def test_upper_case_ending_is_refused_since_diffusers_would_read_it_as_a_pickle(tmp_path: Path) -> None:
    error = expect_refusal(write_shapes(tmp_path / "MODEL.SAFETENSORS", SD15_MARKS), "upper-case")
    assert "Rename" in error.suggestions[0]


def test_missing_file_is_model_not_found(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.safetensors") as caught:
        load_sd15_components(tmp_path / "none.safetensors", torch.float32)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model_index.json", None, "model_index.json"),
        ("unet/config.json", b"{", "config.json"),
        ("vae/config.json", b"[]", "not a JSON object"),
        ("unet/config.json", b"{}", "cross_attention_dim"),
        ("text_encoder/config.json", b"\xff\xfe", "config.json"),
        ("model_index.json", {"unet": ["subprocess", "Popen"]}, "'subprocess', 'Popen'"),
        ("model_index.json", {"scheduler": ["diffusers", "StableDiffusionPipeline"]}, "as scheduler"),
        ("model_index.json", {"text_encoder": ["transformers", "CLIPTextModelWithProjection"]}, "as text_encoder"),
        ("model_index.json", {"vae": None}, "as vae"),
    ],
)
def test_bad_configuration_is_named(tmp_path: Path, file: str, content: Any, words: str) -> None:
    for config in ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"):
        (tmp_path / config).parent.mkdir(exist_ok=True)
        (tmp_path / config).write_bytes((SD15_CONFIGS / config).read_bytes())
    path = write_shapes(tmp_path / "model.safetensors", SD15_MARKS)
    assert check_sd15_checkpoint(path) == tmp_path
    if content is None:
        (tmp_path / file).unlink()
    elif isinstance(content, dict):
        (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_bytes()) | content))
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(SetupError) as caught:
        check_sd15_checkpoint(path, config_folder=tmp_path)
    assert caught.value.code == "invalid_model"
    assert words in caught.value.message


# --- hostile headers ------------------------------------------------------------------------------------------------


def header_of(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def entry(begin: int, end: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


#: what the error says, header, bytes of data, and the header length written when it is not the real one
HOSTILE: dict[str, tuple[str, bytes, int, int | None]] = {
    "empty_object": ("0 tensors", b"{}", 0, None),
    "huge_length": ("should have", b"{}", 0, 2**64 - 1),
    "length_beyond_file": ("should have", header_of(a=entry(0, 4)), 4, 10_000),
    "length_over_limit": ("more than the", b"{", 2**25, 2**24),
    "no_json": ("not JSON", b"hello world", 0, None),
    "bad_json": ("Expecting", b'{"a": ', 0, None),
    "array": ("not JSON", b"[1]", 0, None),
    "bad_utf8": ("utf-8", b'{"\xff": 1}', 0, None),
    "trailing": ("Extra data", header_of(a=entry(0, 4)) + b"{}", 4, None),
    "nested": ("nested", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 0, None),
    "giant_number": ("limit", b'{"a": ' + b"9" * 100_000 + b"}", 0, None),
    "twice": ("twice", b'{"a": 1, "a": 2}', 0, None),
    "no_entry": ("malformed", header_of(a=[]), 0, None),
    "missing_field": ("malformed", header_of(a={"dtype": "F32", "shape": [1]}), 0, None),
    "bad_dtype": ("dtype", header_of(a=entry(0, 4, dtype="PICKLE")), 4, None),
    "dtype_list": ("dtype", header_of(a=entry(0, 4, dtype=["F32"])), 4, None),
    "negative_shape": ("shape", header_of(a=entry(0, 4, shape=[-1, -1])), 4, None),
    "bool_shape": ("shape", header_of(a=entry(0, 4, shape=[True])), 4, None),
    "float_shape": ("shape", header_of(a=entry(0, 4, shape=[1.0])), 4, None),
    "many_dimensions": ("shape", header_of(a=entry(0, 4, shape=[1] * 100_000)), 4, None),
    "overflow": ("does not fit", header_of(a=entry(0, 0, shape=[2**62, 4])), 0, None),
    "wrong_size": ("does not fit", header_of(a=entry(0, 8)), 8, None),
    "backwards": ("does not fit", header_of(a=entry(4, 0)), 4, None),
    "three_offsets": ("data_offsets", header_of(a={**entry(0, 4), "data_offsets": [0, 4, 8]}), 4, None),
    "overlap": ("was due", header_of(a=entry(0, 4), b=entry(0, 4)), 8, None),
    "hole": ("was due", header_of(a=entry(0, 4), b=entry(8, 12)), 12, None),
    "beyond_end": ("follow the header", header_of(a=entry(0, 400, shape=[100])), 8, None),
    "unused_data": ("follow the header", header_of(a=entry(0, 4)), 8, None),
    "metadata": ("__metadata__", header_of(__metadata__={"a": 1}, a=entry(0, 4)), 4, None),
    "many_tensors": (
        "more than the 16384",
        header_of(**{f"t{i}": entry(0, 0, shape=[0]) for i in range(20_000)}),
        0,
        None,
    ),
    "escaped_tensors": (
        "16384",
        header_of(**{f"t{i}": entry(0, 0, shape=[0]) for i in range(20_000)}).replace(b"data_o", b"data\\u005fo"),
        0,
        None,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_header_is_one_typed_error(tmp_path: Path, case: str) -> None:
    words, header, data_bytes, length = HOSTILE[case]
    error = expect_refusal(write_raw(tmp_path / "hostile.safetensors", header, data_bytes, length), words)
    assert len(error.message) < 600


def test_million_empty_tensors_are_refused_at_once(tmp_path: Path) -> None:
    one = b'"tensor%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path = write_raw(tmp_path / "million.safetensors", b"{" + b",".join(one % i for i in range(1_000_000)) + b"}")
    started = time.perf_counter()
    expect_refusal(path, "more than the")
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -1])
def test_truncated_file_is_one_typed_error(tmp_path: Path, kept: int) -> None:
    path = write_shapes(tmp_path / "cut.safetensors", {"a": ("F32", (2, 3)), "b": ("F16", (5,))})
    path.write_bytes(path.read_bytes()[:kept])
    expect_refusal(path)


def test_lone_surrogate_in_a_key_can_be_printed(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "odd.safetensors", b'{"\\ud800": 1}')
    assert expect_refusal(path).message.encode("utf-8")


def test_unreadable_file_is_one_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shapes(tmp_path / "locked.safetensors", SD15_MARKS)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything, so let the operating system's call fail
        monkeypatch.setattr(
            Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
    expect_refusal(path, "Permission denied")


def test_header_agrees_with_safetensors(tiny_single_file: Path) -> None:
    header = read_safetensors_header(tiny_single_file)
    with safe_open(tiny_single_file, "pt") as file:
        assert header.keys() == set(file.keys())
        for key, (dtype, shape) in header.items():
            assert (dtype, list(shape)) == (file.get_slice(key).get_dtype(), file.get_slice(key).get_shape())


def test_random_mutations_are_refused_or_read_as_safetensors_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "mutated.safetensors"
    tensors = {"a.weight": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.float16), "c": torch.zeros(0, 4)}
    save_file(tensors, path, metadata={"format": "pt"})
    original = path.read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    rng = random.Random(0)
    accepted = 0
    for _ in range(500):
        path.write_bytes(_mutated(original, header_end, rng))
        try:
            header = read_safetensors_header(path)
        except SetupError as error:
            assert error.code == "invalid_model"
            continue
        accepted += 1
        with safe_open(path, "pt") as file:
            assert header.keys() == set(file.keys())
            assert all(list(header[key][1]) == file.get_slice(key).get_shape() for key in header)
    assert 10 < accepted < 400  # both ways are taken


def _mutated(content: bytes, header_end: int, rng: random.Random) -> bytes:
    """One to three bytes of the length or the header changed, put in, taken out, or the file cut."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = rng.randrange(header_end)
        match rng.choice(["change", "change", "digit", "insert", "delete", "cut"]):
            case "change":
                data[place % len(data)] = rng.randrange(256)
            case "digit":
                data[place % len(data)] = rng.choice(b"0123456789")
            case "insert":
                data.insert(place, rng.choice(b'0123456789,:"[]{} '))
            case "delete" if place < len(data):
                del data[place]
            case "cut" if rng.random() < 0.3:
                del data[rng.randrange(1, len(data)) :]
    return bytes(data)


def test_limits_leave_room_for_real_files() -> None:
    header = json.dumps({key: entry(0, 2 * 10**9, shape) for key, (_, shape) in full_size_shapes().items()})
    assert len(header) * 20 < safetensors_header.MAX_HEADER_BYTES
    assert len(full_size_shapes()) * 5 < safetensors_header.MAX_TENSORS
