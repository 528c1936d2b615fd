from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    MotionAdapter,
    PNDMScheduler,
    SparseControlNetModel,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from model_files import Shapes, write_shapes
from tiny_models import (
    TinyAnimateDiff,
    _ldm_text_key,
    _ldm_unet_key,
    _ldm_vae_key,
    save_single_file,
)
from tiny_single_files import (
    as_pickle,
    is_vae_attention,
    open_clip,
    original_motion,
    save_svd_single_file,
    svd_unet_key,
    svd_vae_key,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from vidkit.errors import SetupError
from vidkit.models.files.safetensors_header import read_safetensors_header
from vidkit.models.inspection import inspect
from vidkit.models.loading.layouts import LAYOUTS
from vidkit.models.loading.single_file import CONFIGS, SD15_CONFIGS, check_pipeline_file, check_sd15_checkpoint
from vidkit.models.locate import Model, describe
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.settings import load_settings

ROOT = Path(__file__).parent.parent
SVD_CONFIGS = CONFIGS / "svd"
SVD_PARTS = ("unet", "vae", "image_encoder")

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


# --- configurations ---------------------------------------------------------------------------------------------------


def test_folder_of_the_file_is_its_configuration_when_it_has_a_model_index(
    tiny_animatediff: TinyAnimateDiff, tiny_single_file: Path, tmp_path: Path
) -> None:
    # alone, the shipped full-size configuration applies, which the tiny model does not fit
    error = expect_refusal(tiny_single_file, "(32, 4, 3, 3)", "(320, 4, 3, 3)")
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


def test_importing_the_module_loads_neither_torch_nor_diffusers() -> None:
    unwanted = "{'torch', 'diffusers', 'transformers'}"
    script = f"import sys, vidkit.models.loading.single_file; print({unwanted} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


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
    assert describe(path).config("vae")["scaling_factor"] == 0.18215


# --- Stable Video Diffusion -------------------------------------------------------------------------------------------


def svd_modules() -> dict[str, torch.nn.Module]:
    """The published sizes, without data."""
    configs = {part: json.loads((SVD_CONFIGS / part / "config.json").read_text()) for part in SVD_PARTS}
    with torch.device("meta"):
        return {
            "unet": UNetSpatioTemporalConditionModel.from_config(configs["unet"]),
            "vae": AutoencoderKLTemporalDecoder.from_config(configs["vae"]),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(configs["image_encoder"])),
        }


@pytest.fixture(scope="module")
def full_svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """svd_xt.safetensors, its data a hole in the file."""
    parts = {part: module.state_dict() for part, module in svd_modules().items()}
    tensors = {svd_unet_key(key, 2): weight for key, weight in parts["unet"].items()}
    for key, weight in parts["vae"].items():
        name = svd_vae_key(key, 4)
        tensors[name] = weight[:, :, None, None] if is_vae_attention(name) else weight
    tensors |= open_clip(parts["image_encoder"], "conditioner.embedders.0.open_clip.model.visual.")
    shapes = {key: ("F16", tuple(weight.shape)) for key, weight in tensors.items()}
    return write_shapes(tmp_path_factory.mktemp("svd") / "svd_xt.safetensors", shapes)


def test_the_shipped_configuration_is_that_of_stable_video_diffusion() -> None:
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in svd_modules().items()}
    assert counts == {"unet": 1_524_623_082, "vae": 97_742_847, "image_encoder": 632_076_800}
    scheduler = EulerDiscreteScheduler.from_pretrained(SVD_CONFIGS / "scheduler", local_files_only=True)
    assert scheduler.config.prediction_type == "v_prediction"
    assert (scheduler.config.sigma_min, scheduler.config.sigma_max) == (0.002, 700.0)


def test_a_full_size_file_is_known_fits_and_gives_every_weight(full_svd: Path) -> None:
    model = describe(full_svd)
    assert model.kind == "StableVideoDiffusionPipeline"
    assert check_pipeline_file(inspect(full_svd)) == SVD_CONFIGS == model.configs
    header = read_safetensors_header(full_svd)
    for part, module in svd_modules().items():
        layout = LAYOUTS[model.kind, part]
        given = {k: torch.empty(s, device="meta") for k, (_, s) in header.items() if k.startswith(layout.prefixes)}
        found = {key: tensor.shape for key, tensor in layout.converted(given, model.config(part)).items()}
        assert found == {key: weight.shape for key, weight in module.state_dict().items()}, part


@pytest.mark.parametrize(
    ("name", "frames"),
    [("svd", 14), ("svd_xt", 25), ("svd_xt_1_1", 25), ("SVD-XT fp16", 25), ("my video model", 14)],
)
def test_the_name_tells_how_many_frames_it_was_trained_on(
    full_svd: Path, tmp_path: Path, name: str, frames: int
) -> None:
    path = tmp_path / f"{name}.safetensors"
    path.symlink_to(full_svd)
    params = GenerationParams(pipeline="svd", base_model=str(path), image_path="example:photo", prompt="waves")
    family = FAMILIES["svd"]
    base = Model(name, path, "StableVideoDiffusionPipeline")
    assert base.config("unet")["num_frames"] == frames
    limits = family.limits(params, {"base_model": base})
    assert (limits.defaults["num_frames"], limits.defaults["width"]) == (frames, 1024)
    assert family.models(params, load_settings())["base_model"].kind == base.kind


def test_a_video_model_of_another_size_is_refused(tiny_svd_folder: Path, tmp_path: Path) -> None:
    path = save_svd_single_file(tiny_svd_folder, tmp_path / "svd.safetensors")
    with pytest.raises(SetupError, match=r"of shape \(32, 8, 3, 3\), its configuration .* \(320, 8, 3, 3\)"):
        check_pipeline_file(inspect(path))


# --- motion modules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("v1", {"use_motion_mid_block": False, "motion_max_seq_length": 24}),
        ("v2", {"use_motion_mid_block": True}),
        ("v3", {"use_motion_mid_block": False}),
        ("pia", {"use_motion_mid_block": False, "conv_in_channels": 9}),
        ("lcm", {"use_motion_mid_block": False}),
    ],
)
def test_a_motion_module_tells_its_configuration(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    with torch.device("meta"):
        adapter = MotionAdapter(**config)
    tensors = original_motion(adapter.state_dict(), positions=name != "lcm")
    path = write_shapes(tmp_path / "mm.safetensors", {key: ("F16", tuple(w.shape)) for key, w in tensors.items()})
    model = describe(path)
    assert model.kind == "MotionAdapter"
    told = model.config()
    assert {key: adapter.config[key] for key in told if key != "_class_name"} == {
        key: value for key, value in told.items() if key != "_class_name"
    }


@pytest.mark.parametrize("rgb", [True, False])
def test_a_sparsectrl_tells_its_configuration(tmp_path: Path, rgb: bool) -> None:
    with torch.device("meta"):
        control = SparseControlNetModel(conditioning_channels=4 if rgb else 3, use_simplified_condition_embedding=rgb)
    tensors = original_motion(control.state_dict(), positions=True)
    path = write_shapes(tmp_path / "ctrl.safetensors", {key: ("F16", tuple(w.shape)) for key, w in tensors.items()})
    model = describe(path)
    assert model.kind == "SparseControlNetModel"
    told = model.config()
    assert {key: control.config[key] for key in told if key != "_class_name"} == {
        key: value for key, value in told.items() if key != "_class_name"
    }


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
        "SD 2 base model",
        {
            UNET_INPUT: ("F16", (320, 4, 3, 3)),
            TEXT_KEYS: ("F16", (320, 1024)),
            VAE_INPUT: ("F16", (128, 3, 3, 3)),
            "cond_stage_model.model.token_embedding.weight": ("F16", (49408, 1024)),
        },
    ),
    "sd2_width": ("SD 2", SD15_MARKS | {TEXT_KEYS: ("F16", (320, 1024))}),
    "sd3": ("SD 3", {"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias": ("F16", (8,))}),
    "flux": ("Flux", {"double_blocks.0.img_attn.norm.key_norm.scale": ("BF16", (128,))}),
    "inpainting": ("inpainting base model", SD15_MARKS | {UNET_INPUT: ("F16", (320, 9, 3, 3))}),
    "pix2pix": ("InstructPix2Pix", SD15_MARKS | {UNET_INPUT: ("F16", (320, 8, 3, 3))}),
    "other_input": ("UNet input", SD15_MARKS | {UNET_INPUT: ("F16", (320, 4))}),
    "lora_kohya": ("LoRA", {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": ("F16", (4, 320, 1, 1))}),
    "lora_peft": ("LoRA", {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": ("F16", (4, 320))}),
    "lora_diffusers": ("LoRA", {"unet.mid_block.attentions.0.proj_in.lora.down.weight": ("F16", (4, 320))}),
    "motion_module": ("motion adapter", {MOTION_KEY: ("F16", (1, 32, 320))}),
    "controlnet_ldm": ("ControlNet", SD15_MARKS | {"control_model.time_embed.0.weight": ("F16", (1280, 320))}),
    "controlnet": ("ControlNet", {"controlnet_cond_embedding.conv_in.weight": ("F16", (16, 3, 3, 3))}),
    "sparsectrl": (
        "SparseCtrl",
        {MOTION_KEY: ("F16", (1, 32, 320)), "controlnet_cond_embedding.weight": ("F16", (320, 5, 3, 3))},
    ),
    "svd": (
        "Stable Video Diffusion",
        {
            UNET_INPUT: ("F16", (320, 8, 3, 3)),
            "conditioner.embedders.0.open_clip.model.ln_final.weight": ("F16", (1024,)),
        },
    ),
    "vae": ("(VAE)", {"encoder.conv_in.weight": ("F32", (128, 3, 3, 3)), "decoder.conv_in.bias": ("F32", (512,))}),
    "vae_ldm": ("(VAE)", {VAE_INPUT: ("F32", (128, 3, 3, 3))}),
    "text_encoder": ("text encoder", {"text_model.embeddings.token_embedding.weight": ("F16", (49408, 768))}),
    "diffusers_unet": ("(UNet)", {"down_blocks.0.resnets.0.conv1.weight": ("F16", (320, 320, 3, 3))}),
    "ip_adapter": ("IP-Adapter", {"image_proj.proj.weight": ("F16", (3072, 1024))}),
    "textual_inversion": ("textual inversion", {"emb_params": ("F32", (8, 768))}),
    "v_prediction": ("v-prediction", SD15_MARKS | {"v_pred": ("F16", (0,))}),
    "unknown": ("unknown here", {"layers.0.weight": ("F32", (4, 4))}),
    "no_vae": ("without its VAE", {k: v for k, v in SD15_MARKS.items() if k != VAE_INPUT}),
    "no_text": ("without its text encoder", {k: v for k, v in SD15_MARKS.items() if k != TOKENS}),
    "unet_only": ("(UNet)", {UNET_INPUT: ("F16", (320, 4, 3, 3))}),
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


@pytest.mark.parametrize("name", ["model.ckpt", "MODEL.SAFETENSORS", "model"])
def test_a_file_is_what_it_holds_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert check_sd15_checkpoint(write_shapes(tmp_path / name, SD15_MARKS)) == SD15_CONFIGS


def test_a_pickle_is_checked_by_its_header(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    shutil.copytree(tiny_animatediff.base, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    single = save_single_file(tiny_animatediff.base, tmp_path / "single.safetensors")
    beside = as_pickle(single, tmp_path / "base" / "model.ckpt")
    assert check_sd15_checkpoint(beside) == tmp_path / "base"
    expect_refusal(as_pickle(single, tmp_path / "model.ckpt"), "(32, 4, 3, 3)", "(320, 4, 3, 3)")


def test_missing_file_is_model_not_found(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.safetensors") as caught:
        check_sd15_checkpoint(tmp_path / "none.safetensors")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("unet/config.json", None, "config.json"),
        ("unet/config.json", b"{", "config.json"),
        ("vae/config.json", b"[]", "not a JSON object"),
        ("unet/config.json", b"{}", "cross_attention_dim"),
        ("text_encoder/config.json", b"\xff\xfe", "config.json"),
        ("model_index.json", {"unet": ["subprocess", "Popen"]}, "subprocess"),
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
