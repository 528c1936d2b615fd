"""Components from folders and single files: the very weights, in the right place and type, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from diffusers import (
    MotionAdapter,
    SparseControlNetModel,
    StableDiffusionPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from tiny_models import TinyAnimateDiff, save_single_file
from tiny_single_files import (
    as_pickle,
    save_motion_module,
    save_sparsectrl,
    save_svd_single_file,
    svd_unet_key,
    svd_vae_key,
)

from vidkit import generation
from vidkit.errors import SetupError
from vidkit.models.loading import reading
from vidkit.models.loading.components import NETWORKS, Part, load_parts
from vidkit.models.locate import describe
from vidkit.pipelines import FAMILIES

SVD_PARTS = ("unet", "vae", "image_encoder", "feature_extractor")
SD_PARTS = ("unet", "vae", "text_encoder", "tokenizer")


def loaded(path: Path, names: tuple[str, ...] = ("",), dtype: str = "float32", **options: Any) -> dict[str, Any]:
    model = describe(path)
    return load_parts({name: Part(model, name) for name in names}, "cpu", dtype, **options)


def same_weights(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert not ours.training
    assert all(weight.device.type == "cpu" for weight in ours.buffers())
    mine, expected = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == expected.keys()
    for key, weight in expected.items():
        assert mine[key].dtype == weight.dtype, key
        assert torch.equal(mine[key], weight), key


@pytest.fixture(scope="module")
def files(tiny_animatediff: TinyAnimateDiff, tiny_svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single files of all tiny models, each in a folder with its configurations, which are not the published ones."""
    folder = tmp_path_factory.mktemp("files")
    configs = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(tiny_svd_folder, folder / "svd", ignore=configs)
    save_svd_single_file(tiny_svd_folder, folder / "svd" / "svd.safetensors")
    shutil.copytree(tiny_animatediff.base, folder / "base", ignore=configs)
    save_single_file(tiny_animatediff.base, folder / "base" / "base.safetensors")
    as_pickle(folder / "base" / "base.safetensors", folder / "base" / "base.ckpt")
    for name in ("motion_adapter", "pia_adapter", "sparse_controlnet"):
        shutil.copytree(getattr(tiny_animatediff, name), folder / name, ignore=configs)
    for name in ("motion_adapter", "pia_adapter"):
        save_motion_module(getattr(tiny_animatediff, name), folder / name / "mm.ckpt")
        save_motion_module(getattr(tiny_animatediff, name), folder / name / "mm.safetensors", positions=False)
    save_sparsectrl(tiny_animatediff.sparse_controlnet, folder / "sparse_controlnet" / "rgb.ckpt")
    return folder


# --- the same weights as diffusers' and transformers' own loaders ----------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_svd_is_what_diffusers_loads(tiny_svd_folder: Path, files: Path, dtype: str) -> None:
    theirs = StableVideoDiffusionPipeline.from_pretrained(tiny_svd_folder, dtype=getattr(torch, dtype))
    for path in (tiny_svd_folder, files / "svd" / "svd.safetensors"):
        ours = loaded(path, SVD_PARTS, dtype)
        for name in ("unet", "vae", "image_encoder"):
            same_weights(ours[name], getattr(theirs, name))
        assert ours["feature_extractor"].to_dict() == theirs.feature_extractor.to_dict()
        ids = ours["image_encoder"].vision_model.embeddings.position_ids  # made anew: no file has it
        assert torch.equal(ids, theirs.image_encoder.vision_model.embeddings.position_ids)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("file", ["", "base.safetensors", "base.ckpt"])
def test_a_base_model_is_what_diffusers_loads(
    tiny_animatediff: TinyAnimateDiff, files: Path, file: str, dtype: str
) -> None:
    theirs = StableDiffusionPipeline.from_pretrained(tiny_animatediff.base, dtype=getattr(torch, dtype))
    ours = loaded(files / "base" / file if file else tiny_animatediff.base, SD_PARTS, dtype)
    for name in ("unet", "vae", "text_encoder"):
        same_weights(ours[name], getattr(theirs, name))
    assert ours["tokenizer"]("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize("name", ["motion_adapter", "pia_adapter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_motion_adapter_is_what_diffusers_loads(
    tiny_animatediff: TinyAnimateDiff, files: Path, name: str, dtype: torch.dtype
) -> None:
    folder = getattr(tiny_animatediff, name)
    of_folder = MotionAdapter.from_pretrained(folder, dtype=dtype)
    same_weights(loaded(folder, dtype=str(dtype)[6:])[""], of_folder)
    of_file = MotionAdapter.from_single_file(str(files / name / "mm.ckpt"), config=str(folder), dtype=dtype)
    for file in ("mm.ckpt", "mm.safetensors"):
        same_weights(loaded(files / name / file, dtype=str(dtype)[6:])[""], of_file)


def test_a_sparsectrl_is_what_diffusers_loads(tiny_animatediff: TinyAnimateDiff, files: Path) -> None:
    folder, file = tiny_animatediff.sparse_controlnet, files / "sparse_controlnet" / "rgb.ckpt"
    same_weights(loaded(folder)[""], SparseControlNetModel.from_pretrained(folder))
    theirs = SparseControlNetModel.from_single_file(str(file), config=str(folder))
    same_weights(loaded(file)[""], theirs)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_animatediff_from_single_files_makes_the_folders_frames(
    tiny_animatediff: TinyAnimateDiff, files: Path, tmp_path: Path, suffix: str
) -> None:
    request = clips.animatediff_request(tiny_animatediff, clips.saved(tmp_path), "sparsectrl")
    single = {
        "base_model": str(files / "base" / f"base{suffix}"),
        "motion_adapter": str(files / "motion_adapter" / f"mm{suffix}"),
        "controlnet": str(files / "sparse_controlnet" / "rgb.ckpt"),
    }
    np.testing.assert_array_equal(clips.frames_of(request), clips.frames_of(request | single))


def test_svd_from_a_single_file_makes_the_folders_frames(tiny_svd_folder: Path, files: Path, tmp_path: Path) -> None:
    request = clips.svd_request(tiny_svd_folder, clips.saved(tmp_path))
    single = request | {"base_model": str(files / "svd" / "svd.safetensors")}
    np.testing.assert_array_equal(clips.frames_of(request), clips.frames_of(single))


def test_the_names_are_those_of_the_published_files() -> None:
    """So that the files above are not merely what the code takes them for."""
    unet = {svd_unet_key(key, 2) for key in UNET_KEYS}
    assert unet == {f"model.diffusion_model.{key}" for key in UNET_KEYS.values()}
    assert {svd_vae_key(key, 4) for key in VAE_KEYS} == set(VAE_KEYS.values())


#: diffusers' scripts/convert_svd_to_diffusers.py
UNET_KEYS = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "add_embedding.linear_2.bias": "label_emb.0.2.bias",
    "down_blocks.0.resnets.1.temporal_res_block.time_emb_proj.weight": (
        "input_blocks.2.0.time_stack.emb_layers.1.weight"
    ),
    "down_blocks.1.resnets.0.spatial_res_block.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.0.resnets.0.time_mixer.mix_factor": "input_blocks.1.0.time_mixer.mix_factor",
    "down_blocks.0.attentions.0.time_pos_embed.linear_2.weight": "input_blocks.1.1.time_pos_embed.2.weight",
    "down_blocks.2.attentions.1.temporal_transformer_blocks.0.ff_in.net.0.proj.bias": (
        "input_blocks.8.1.time_stack.0.ff_in.net.0.proj.bias"
    ),
    "mid_block.resnets.1.temporal_res_block.conv2.weight": "middle_block.2.time_stack.out_layers.3.weight",
    "mid_block.attentions.0.time_mixer.mix_factor": "middle_block.1.time_mixer.mix_factor",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.3.resnets.2.spatial_res_block.norm1.weight": "output_blocks.11.0.in_layers.0.weight",
}
#: Stability's svd.safetensors
VAE_KEYS = {
    "quant_conv.weight": "conditioner.embedders.3.encoder.quant_conv.weight",
    "encoder.mid_block.resnets.1.conv2.bias": "conditioner.embedders.3.encoder.encoder.mid.block_2.conv2.bias",
    "decoder.time_conv_out.weight": "first_stage_model.decoder.conv_out.time_mix_conv.weight",
    "decoder.mid_block.attentions.0.to_k.bias": "first_stage_model.decoder.mid.attn_1.k.bias",
    "decoder.up_blocks.0.resnets.2.time_mixer.mix_factor": "first_stage_model.decoder.up.3.block.2.mix_factor",
    "decoder.up_blocks.0.resnets.2.temporal_res_block.norm1.weight": (
        "first_stage_model.decoder.up.3.block.2.time_stack.in_layers.0.weight"
    ),
    "decoder.up_blocks.0.resnets.2.spatial_res_block.conv1.bias": "first_stage_model.decoder.up.3.block.2.conv1.bias",
}


# --- folders as they are out there -----------------------------------------------------------------------------------


def test_shards_and_the_half_precision_variant_are_found(tiny_svd_folder: Path, tmp_path: Path) -> None:
    pipe = StableVideoDiffusionPipeline.from_pretrained(tiny_svd_folder)
    pipe.save_pretrained(tmp_path / "whole", variant="fp16", max_shard_size="300KB")
    assert len(list((tmp_path / "whole" / "unet").glob("*.fp16*.safetensors"))) > 2
    ours = loaded(tmp_path / "whole", SVD_PARTS)
    same_weights(ours["unet"], pipe.unet)


def test_attention_as_it_was_named_until_2023(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    """The VAE of most Stable Diffusion 1.5 folders."""
    shutil.copytree(tiny_animatediff.base, tmp_path / "old")
    weights = tmp_path / "old" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(weights)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in tensors.items()}
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, weights)
    expected = StableDiffusionPipeline.from_pretrained(tmp_path / "old").vae
    same_weights(loaded(tmp_path / "old", ("vae",))["vae"], expected)


def test_a_text_encoder_of_older_transformers(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    shutil.copytree(tiny_animatediff.base, tmp_path / "old")
    weights = tmp_path / "old" / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in load_file(weights).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(77)[None]}, weights)
    expected = StableDiffusionPipeline.from_pretrained(tmp_path / "old").text_encoder
    same_weights(loaded(tmp_path / "old", ("text_encoder",))["text_encoder"], expected)


def test_what_is_loaded_does_not_depend_on_its_file(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    """A mapped file that is overwritten changes the model, and one that is cut kills the process."""
    shutil.copytree(tiny_animatediff.base, tmp_path / "base")
    ours = loaded(tmp_path / "base", ("unet",))["unet"]
    weights = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        file.write(b"\x7f" * 1000)
    os.truncate(weights, 1000)
    same_weights(ours, UNet2DConditionModel.from_pretrained(tiny_animatediff.base, subfolder="unet"))


def test_loading_changes_no_global_state(tiny_svd_folder: Path) -> None:
    before = torch.get_default_dtype(), torch.nn.Linear(2, 2).weight.device
    loaded(tiny_svd_folder, SVD_PARTS, "float16")
    assert (torch.get_default_dtype(), torch.nn.Linear(2, 2).weight.device) == before


# --- in shares, with progress -----------------------------------------------------------------------------------------


def test_progress_rises_to_the_whole_and_may_stop(tiny_svd_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SHARE", 50_000)
    told: list[tuple[int, int]] = []
    loaded(tiny_svd_folder, SVD_PARTS, on_read=lambda *event: told.append(event))
    assert len(told) > 10
    assert told == sorted(told)
    (total,) = {total for _, total in told}
    assert told[-1][0] == total
    tensors = [load_file(file) for file in tiny_svd_folder.rglob("*.safetensors")]
    assert total == sum(tensor.nbytes for file in tensors for tensor in file.values())

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total / 5:
            raise StopError

    with pytest.raises(StopError):
        loaded(tiny_svd_folder, SVD_PARTS, on_read=stop)


def test_a_large_file_is_read_in_several_shares(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.rand(1000) for number in range(20)}
    save_file(tensors, tmp_path / "a.safetensors")
    weights = reading.weights_in(tmp_path / "a.safetensors")
    assert weights.size == 20 * 4000
    old, reading.SHARE = reading.SHARE, 9000  # type: ignore[misc]
    try:
        shares = list(reading.shares(weights))
    finally:
        reading.SHARE = old  # type: ignore[misc]
    assert [len(keys) for keys, _ in shares] == [3] * 6 + [2]
    assert sum(size for _, size in shares) == weights.size
    assert {key for keys, _ in shares for key in keys} == set(tensors)


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(folder: Path, target: Path, part: str, change: Any) -> Path:
    shutil.copytree(folder, target)
    weights = next((target / part).glob("*.safetensors"))
    save_file(change(load_file(weights)), weights)
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: dict(list(tensors.items())[1:]), "lacks 1 weights"),
        (lambda tensors: {**tensors, "conv_out.weight": torch.zeros(3, 5)}, "conv_out.weight"),
        (lambda tensors: {**tensors, "conv_out.weight": tensors["conv_out.weight"].to(torch.float8_e4m3fn)}, "F8_E4M3"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tiny_animatediff: TinyAnimateDiff, tmp_path: Path, change: Any, words: str
) -> None:
    folder = changed(tiny_animatediff.base, tmp_path / "changed", "unet", change)
    with pytest.raises(SetupError, match=words) as caught:
        loaded(folder, ("unet",))
    assert caught.value.code == "invalid_model"
    assert str(folder) in caught.value.message


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("unet", "model.diffusion_model.out.2.bias"),
        ("unet", "model.diffusion_model.output_blocks.2.1.conv.bias"),
        ("vae", "first_stage_model.decoder.mid.attn_1.q.weight"),
        ("vae", "first_stage_model.quant_conv.bias"),
        ("text_encoder", "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"),
    ],
)
def test_a_missing_or_misshapen_weight_of_a_file_is_an_error(files: Path, tmp_path: Path, part: str, key: str) -> None:
    shutil.copytree(files / "base", tmp_path / "base")
    path = tmp_path / "base" / "base.safetensors"
    tensors = load_file(path)
    del tensors[key]
    for change in ({}, {key: torch.zeros(3, 5)}):
        save_file({**tensors, **change}, path)
        with pytest.raises(SetupError, match=r"base\.safetensors") as caught:
            loaded(path, (part,))
        assert caught.value.code == "invalid_model"


@pytest.mark.parametrize("key", ["input_blocks.6.0.in_layers.0.weight", "some_new_layer.weight"])
def test_unet_weights_without_a_place_are_an_error(files: Path, tmp_path: Path, key: str) -> None:
    shutil.copytree(files / "base", tmp_path / "base")
    path = tmp_path / "base" / "base.safetensors"
    save_file({**load_file(path), f"model.diffusion_model.{key}": torch.ones(64)}, path)
    with pytest.raises(SetupError, match="has 1 weights that the unet of base has no place for"):
        loaded(path, ("unet",))


def test_a_folder_that_names_another_class_is_refused(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    shutil.copytree(tiny_animatediff.base, tmp_path / "other")
    config = tmp_path / "other" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "AutoModel"}))
    with pytest.raises(SetupError, match="AutoModel"):
        loaded(tmp_path / "other", ("unet",))


def test_every_class_that_parts_may_have_exists() -> None:
    import diffusers
    import transformers

    for part, names in NETWORKS.items():
        library = transformers if part in ("text_encoder", "image_encoder") else diffusers
        assert all(hasattr(library, name) for name in names)


def test_importing_the_modules_loads_no_torch() -> None:
    modules = "vidkit.models.loading.components, vidkit.models.loading.warm"
    code = f"import sys, {modules}; print({{'torch', 'diffusers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- AnimateDiff's UNet, in memory once -------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    generation.unload()
    yield clips.saved(tmp_path)
    generation.unload()


@pytest.mark.parametrize("mode", ["init", "sparsectrl", "pia"])
def test_the_pipeline_holds_each_weight_once(tiny_animatediff: TinyAnimateDiff, image: Path, mode: str) -> None:
    request = clips.animatediff_request(tiny_animatediff, image, mode)
    clips.frames_of(request)
    pipe = generation.last_pipeline()
    modules = dict(pipe.motion_adapter.named_parameters())
    shared = {key for key, weight in pipe.unet.named_parameters() if weight is modules.get(key)}
    assert shared == modules.keys() - {"conv_in.weight", "conv_in.bias"}
    assert len(shared) > 50
    job = clips.prepared(request)
    base = FAMILIES["animatediff"].parts(job.params, job.models)["unet"]
    files = load_file(base.model.path / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(pipe.unet.state_dict()) == set(files) | set(pipe.motion_adapter.state_dict())
