"""LoRAs on a loaded pipeline: what they do to it, that nothing is left of them, and which ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lora_files
import pytest
import torch
from diffusers import AnimateDiffVideoToVideoPipeline, MotionAdapter
from lora_files import Pairs
from opened_files import opened
from tiny_models import TinyAnimateDiff

from vidkit.errors import InputError, SetupError
from vidkit.models.files.content_hash import hash_file
from vidkit.models.locate import Model
from vidkit.models.loras import check_different, locate_loras
from vidkit.params import GenerationParams
from vidkit.pipelines.animatediff import AnimateDiff
from vidkit.pipelines.loras import KEPT_BYTES, apply_loras, forget_loras, loaded, remove_loras
from vidkit.settings import load_settings


@pytest.fixture(scope="module")
def pipe(tiny_animatediff: TinyAnimateDiff) -> Any:
    """A plain pipeline, whose base is never changed here."""
    adapter = MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter)
    return AnimateDiffVideoToVideoPipeline.from_pretrained(tiny_animatediff.base, motion_adapter=adapter)


@pytest.fixture(autouse=True)
def clean(pipe: Any) -> Iterator[None]:
    yield
    remove_loras(pipe)
    forget_loras()


def request(loras: str | None) -> GenerationParams:
    return GenerationParams(pipeline="animatediff", image_path="any", prompt="any", loras=loras)


def apply(pipe: Any, *files: tuple[Path, float]) -> None:
    """As a generation does, with the files' own hashes."""
    text = ", ".join(f"{path}:{weight}" for path, weight in files)
    models = {f"lora_{number}": Model(path.stem, path, "LoRA") for number, (path, _) in enumerate(files, 1)}
    hashes = {name: hash_file(model.path, load_settings()) for name, model in models.items()}
    apply_loras(pipe, request(text), models, hashes)


def output(pipe: Any) -> torch.Tensor:
    """What the UNet makes of four noisy frames, and the text encoder of a few tokens."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 4, 8, 8, generator=generator)
    with torch.no_grad():
        text = pipe.text_encoder(torch.tensor([[0, 320, 1125, 2]]))[0]
        frames = pipe.unet(noise, torch.tensor(500), text.repeat(4, 1, 1)).sample
    return torch.cat([frames.flatten(), text.flatten()])


@pytest.fixture(scope="module")
def merged(tiny_animatediff: TinyAnimateDiff) -> Callable[..., torch.Tensor]:
    """What a pipeline computes whose own weights have the LoRAs' updates."""

    def compute(*loras: tuple[Pairs, float]) -> torch.Tensor:
        adapter = MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter)
        other = AnimateDiffVideoToVideoPipeline.from_pretrained(tiny_animatediff.base, motion_adapter=adapter)
        for pairs, weight in loras:
            lora_files.merge(other, pairs, weight)
        return output(other)

    return compute


def same(found: torch.Tensor, wanted: torch.Tensor, plain: torch.Tensor) -> None:
    """Up to rounding, which is far below what the LoRA does."""
    effect = (wanted - plain).abs().max()
    assert effect > 0.05
    assert (found - wanted).abs().max() < effect * 1e-4


# --- the layouts ----------------------------------------------------------------------------------------------------


def test_kohyas_layout_with_text_encoder_convolutions_and_mixed_alphas(
    pipe: Any, merged: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    unet = lora_files.pairs_for(
        pipe, (*lora_files.LINEAR, *lora_files.CONVOLUTIONS), inside="blocks", ranks=(4, 4, 2), alphas=(1.0, 3.0)
    )
    text = lora_files.pairs_for(
        pipe, lora_files.TEXT, component="text_encoder", inside="layers", ranks=(2, 3), alphas=(2.0, 1.0), seed=2
    )
    plain = output(pipe)
    apply(pipe, (lora_files.save(lora_files.kohya(unet + text), tmp_path / "style.safetensors"), 0.7))
    same(output(pipe), merged((unet + text, 0.7)), plain)


def test_matrices_of_one_by_one_convolutions_and_kernels_of_linear_layers(
    pipe: Any, merged: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    """Some trainers write all layers as one or the other. The tiny UNet's proj_in is a convolution, to_q is linear."""
    pairs = lora_files.pairs_for(pipe, ("proj_in", "to_q"))
    tensors = lora_files.kohya(pairs)
    turned = {
        key: tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        for key, tensor in tensors.items()
    }
    assert {tensor.ndim for tensor in turned.values()} == {0, 2, 4}
    plain = output(pipe)
    apply(pipe, (lora_files.save(turned, tmp_path / "style.safetensors"), 1))
    same(output(pipe), merged((pairs, 1.0)), plain)


def test_pefts_layout_with_alpha_in_the_metadata(
    pipe: Any, merged: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    pairs = lora_files.pairs_for(pipe, lora_files.ATTENTION, alphas=(2.0,))
    pairs += lora_files.pairs_for(
        pipe, lora_files.TEXT[:4], component="text_encoder", inside="layers", ranks=(3,), alphas=(1.0,)
    )
    metadata = lora_files.peft_metadata(pairs)
    plain = output(pipe)
    apply(pipe, (lora_files.save(lora_files.peft(pairs), tmp_path / "a.safetensors", metadata), -0.5))
    same(output(pipe), merged((pairs, -0.5)), plain)


def test_a_folder_of_peft_with_its_configuration(
    pipe: Any, merged: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    pairs = lora_files.pairs_for(pipe, lora_files.ATTENTION, alphas=(8.0,))
    keys = {f"base_model.model.{key.removeprefix('unet.')}": one for key, one in lora_files.peft(pairs).items()}
    lora_files.save(keys, tmp_path / "style" / "adapter_model.safetensors")
    (tmp_path / "style" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    plain = output(pipe)
    models = {"lora_1": Model("style", tmp_path / "style", "LoRA")}
    apply_loras(pipe, request("style:0.5"), models, {"lora_1": "a" * 64})
    same(output(pipe), merged((pairs, 0.5)), plain)


def test_diffusers_first_layout_has_no_alpha(pipe: Any, merged: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    pairs = lora_files.pairs_for(pipe, lora_files.ATTENTION)
    pairs += lora_files.pairs_for(pipe, lora_files.TEXT, component="text_encoder", inside="layers")
    plain = output(pipe)
    apply(pipe, (lora_files.save(lora_files.processors(pairs), tmp_path / "a.safetensors"), 1.5))
    same(output(pipe), merged((pairs, 1.5)), plain)


@pytest.mark.parametrize("layout", ["original safetensors", "original ckpt", "diffusers folder", "every layer"])
def test_motion_loras(pipe: Any, merged: Callable[..., torch.Tensor], tmp_path: Path, layout: str) -> None:
    ends = lora_files.LINEAR if layout == "every layer" else lora_files.ATTENTION
    pairs = lora_files.pairs_for(pipe, ends, inside="motion_modules")
    plain = output(pipe)
    if layout == "original ckpt":
        path = tmp_path / "v2_lora_PanLeft.ckpt"
        torch.save({"state_dict": lora_files.original_motion(pairs)}, path)
    elif layout == "original safetensors":
        path = lora_files.save(lora_files.original_motion(pairs), tmp_path / "v2_lora_PanLeft.safetensors")
    elif layout == "every layer":  # proj_in and proj_out too, which diffusers calls by keyword
        path = lora_files.save(lora_files.peft(pairs), tmp_path / "all.safetensors")
    else:  # guoyww/animatediff-motion-lora-pan-left
        folder = tmp_path / "animatediff-motion-lora-pan-left"
        keys = {key.replace(".temporal_transformer", ""): one for key, one in lora_files.processors(pairs).items()}
        lora_files.save(keys, folder / "diffusion_pytorch_model.safetensors")
        path = folder
    models = {"lora_1": Model(path.stem, path, "motion LoRA")}
    apply_loras(pipe, request("pan:0.8"), models, {"lora_1": "b" * 64})
    same(output(pipe), merged((pairs, 0.8)), plain)


# --- several, other weights, none -----------------------------------------------------------------------------------


@pytest.fixture
def several(pipe: Any, tmp_path: Path) -> list[tuple[Pairs, Path]]:
    """A style (UNet and text), a motion LoRA, and another style of another rank on some of the same layers."""
    style = lora_files.pairs_for(pipe, lora_files.ATTENTION)
    style += lora_files.pairs_for(pipe, lora_files.TEXT[:2], component="text_encoder", inside="layers")
    motion = lora_files.pairs_for(pipe, lora_files.ATTENTION, inside="motion_modules", seed=2)
    other = lora_files.pairs_for(pipe, ("to_q", "proj_out"), ranks=(2,), alphas=(3.0,), seed=3)
    return [
        (style, lora_files.save(lora_files.kohya(style), tmp_path / "style.safetensors")),
        (motion, lora_files.save(lora_files.original_motion(motion), tmp_path / "motion.safetensors")),
        (other, lora_files.save(lora_files.kohya(other), tmp_path / "other.safetensors")),
    ]


def test_several_at_once(pipe: Any, merged: Callable[..., torch.Tensor], several: list[tuple[Pairs, Path]]) -> None:
    weights = [0.9, -0.6, 1.2]
    plain = output(pipe)
    apply(pipe, *((path, weight) for (_, path), weight in zip(several, weights, strict=True)))
    found = output(pipe)
    same(found, merged(*((pairs, weight) for (pairs, _), weight in zip(several, weights, strict=True))), plain)
    # in another order they are summed in the same one
    remove_loras(pipe)
    backwards = [(path, weight) for (_, path), weight in zip(several, weights, strict=True)][::-1]
    apply(pipe, *backwards)
    assert torch.equal(output(pipe), found)


def state(pipe: Any) -> dict[str, tuple[int, bool]]:
    """Every module and weight, by identity, what hangs on them, and the models' own attributes."""
    found: dict[str, Any] = {}
    for model in (pipe.unet, pipe.text_encoder):
        for name, module in model.named_modules():
            hooks = len(module._forward_pre_hooks) + len(module._forward_hooks)
            found[f"{type(model).__name__} {name}"] = (id(module), hooks, module.training)
        for name, weight in model.named_parameters():
            found[f"{type(model).__name__} {name} weight"] = (weight.data_ptr(), weight._version)
        found[f"{type(model).__name__} config"] = hasattr(model, "peft_config")
    return found


def test_nothing_is_left_of_removed_loras(pipe: Any, several: list[tuple[Pairs, Path]]) -> None:
    plain, before = output(pipe), state(pipe)
    for _ in range(2):
        apply(pipe, *((path, 1.0) for _, path in several))
        assert not torch.equal(output(pipe), plain)
        assert state(pipe) != before
        apply(pipe)
        assert state(pipe) == before
        assert torch.equal(output(pipe), plain)


def test_a_lora_of_weight_zero_changes_no_bit(pipe: Any, several: list[tuple[Pairs, Path]]) -> None:
    plain, before = output(pipe), state(pipe)
    apply(pipe, *((path, 0.0) for _, path in several))
    assert state(pipe) == before
    assert torch.equal(output(pipe), plain)


def test_other_weights_touch_no_layer_and_give_what_they_would_alone(
    pipe: Any, merged: Callable[..., torch.Tensor], several: list[tuple[Pairs, Path]]
) -> None:
    plain = output(pipe)
    paths = [path for _, path in several[:2]]
    apply(pipe, *((path, 0.3) for path in paths))
    layers = {id(module) for module in pipe.unet.modules()}
    apply(pipe, (paths[0], 1.1), (paths[1], -0.4))
    assert {id(module) for module in pipe.unet.modules()} == layers
    same(output(pipe), merged((several[0][0], 1.1), (several[1][0], -0.4)), plain)


def test_one_of_two_is_taken_off(pipe: Any, several: list[tuple[Pairs, Path]]) -> None:
    (_, style), (_, motion), _ = several
    apply(pipe, (style, 1.0))
    alone = output(pipe)
    apply(pipe, (style, 1.0), (motion, 1.0))
    assert not torch.equal(output(pipe), alone)
    apply(pipe, (style, 1.0))
    assert torch.equal(output(pipe), alone)


def test_half_precision_stays_half(tiny_animatediff: TinyAnimateDiff, several: list[tuple[Pairs, Path]]) -> None:
    adapter = MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter, dtype=torch.bfloat16)
    half = AnimateDiffVideoToVideoPipeline.from_pretrained(
        tiny_animatediff.base, motion_adapter=adapter, dtype=torch.bfloat16
    )
    apply(half, *((path, 1.0) for _, path in several))
    for model in (half.unet, half.text_encoder):
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        assert not any(weight.is_meta for weight in model.parameters())


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_lora_seen_lately_is_not_read_again(pipe: Any, several: list[tuple[Pairs, Path]], tmp_path: Path) -> None:
    paths = [path for _, path in several]
    models = {f"lora_{number}": Model(path.stem, path, "LoRA") for number, path in enumerate(paths, 1)}
    hashes = {name: hash_file(model.path, load_settings()) for name, model in models.items()}

    def files_opened(text: str, *names: str) -> set[str]:
        with opened(tmp_path) as files:
            apply_loras(pipe, request(text), {name: models[name] for name in names}, hashes)
        return files

    assert files_opened("a", "lora_1")  # the watch works
    assert not files_opened("a:0.5", "lora_1")
    assert files_opened("a, b", "lora_1", "lora_2")
    for text, names in (("", ()), ("a, b", ("lora_1", "lora_2")), ("a", ("lora_1",))):
        assert not files_opened(text, *names)


def test_memory_of_loras_is_bounded(
    pipe: Any, several: list[tuple[Pairs, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidkit.pipelines import loras as module

    (_, first), (_, second), _ = several
    assert KEPT_BYTES > 1 << 28
    size = loaded(Model("a", first, "LoRA"), "1" * 64).size
    assert size == sum(pair.down.nbytes + pair.up.nbytes for pair in several[0][0])
    monkeypatch.setattr(module, "KEPT_BYTES", size + 1)
    loaded(Model("b", second, "LoRA"), "2" * 64)
    assert list(module._kept) == ["2" * 64]


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_lora_that_does_not_fit_leaves_nothing(pipe: Any, several: list[tuple[Pairs, Path]], tmp_path: Path) -> None:
    plain, before = output(pipe), state(pipe)
    tensors = lora_files.kohya(several[0][0])
    key = next(key for key in tensors if key.endswith("to_q.lora_down.weight"))
    wide = lora_files.save({**tensors, key: torch.zeros(4, 999)}, tmp_path / "wide.safetensors")
    strange = {
        "lora_unet_nowhere.lora_down.weight": torch.zeros(4, 8),
        "lora_unet_nowhere.lora_up.weight": torch.ones(8, 4),
    }
    unknown = lora_files.save(strange, tmp_path / "unknown.safetensors")
    infinite = lora_files.save(
        {**tensors, key.replace("lora_down.weight", "alpha"): torch.tensor(float("inf"))}, tmp_path / "inf.safetensors"
    )
    listed = lora_files.save(
        {**tensors, key.replace("lora_down.weight", "alpha"): torch.ones(2)}, tmp_path / "listed.safetensors"
    )
    problems = ((wide, r"\(4, 999\)"), (unknown, "nowhere"), (infinite, "alpha"), (listed, "alphas"))
    for path, problem in problems:
        with pytest.raises(SetupError, match=problem) as refused:
            apply(pipe, (several[1][1], 1.0), (path, 1.0))
        assert (refused.value.code, refused.value.concerns) == ("invalid_model", ("loras",))
        assert state(pipe) == before
        assert torch.equal(output(pipe), plain)


def located(parts: TinyAnimateDiff, text: str, adapter: Path | None = None) -> dict[str, Model]:
    params = GenerationParams(
        pipeline="animatediff",
        image_path="any",
        prompt="any",
        base_model=str(parts.base),
        motion_adapter=str(adapter or parts.motion_adapter),
        loras=text,
    )
    return {name: one for name, one in AnimateDiff().models(params, load_settings()).items() if name.startswith("lora")}


def test_loras_are_found_like_all_models(
    tiny_animatediff: TinyAnimateDiff, several: list[tuple[Pairs, Path]], vidkit_home: Path
) -> None:
    (_, style), (_, motion), _ = several
    (vidkit_home / "models").mkdir()
    motion.rename(vidkit_home / "models" / "pan.safetensors")
    found = located(tiny_animatediff, f"{style}:0.5, pan.safetensors")
    assert {name: (one.name, one.kind) for name, one in found.items()} == {
        "lora_1": ("style", "LoRA"),
        "lora_2": ("pan", "motion LoRA"),
    }
    with pytest.raises(SetupError) as missing:
        located(tiny_animatediff, "nowhere.safetensors:0.5")
    assert (missing.value.code, missing.value.concerns) == ("model_not_found", ("loras",))
    assert not any("bundled:" in text for text in missing.value.suggestions)  # none of those is a LoRA


def test_what_is_no_lora_is_refused_by_name(tiny_animatediff: TinyAnimateDiff) -> None:
    file = next(tiny_animatediff.motion_adapter.glob("*.safetensors"))
    with pytest.raises(SetupError, match="is no LoRA: it is a motion adapter") as refused:
        located(tiny_animatediff, str(file))
    assert (refused.value.code, refused.value.concerns) == ("invalid_model", ("loras",))


def test_a_lora_for_another_architecture_is_refused_before_anything_is_read(
    tiny_animatediff: TinyAnimateDiff, tmp_path: Path
) -> None:
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{layer}.lora_down.weight": torch.zeros(4, 2048), f"{layer}.lora_up.weight": torch.zeros(640, 4)}
    path = lora_files.save(tensors, tmp_path / "sdxl.safetensors")
    with pytest.raises(SetupError, match=r"2048|SDXL") as refused:
        located(tiny_animatediff, str(path))
    assert refused.value.code == "invalid_model"
    assert "loras" in refused.value.concerns


def test_another_method_is_refused_before_anything_is_read(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    path = lora_files.save({f"{layer}.{name}": torch.zeros(4, 4) for name in names}, tmp_path / "loha.safetensors")
    with pytest.raises(SetupError, match="LoHa"):
        located(tiny_animatediff, str(path))


def test_a_motion_lora_needs_the_motion_modules_that_it_changes(
    tiny_animatediff: TinyAnimateDiff, several: list[tuple[Pairs, Path]], tmp_path: Path
) -> None:
    """Those of AnimateDiff are for version 2, which alone has motion modules in the middle."""
    version_3 = MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter).config
    MotionAdapter.from_config({**version_3, "use_motion_mid_block": False}).save_pretrained(tmp_path / "v3")
    assert located(tiny_animatediff, str(several[1][1])) != {}
    with pytest.raises(SetupError, match="middle of the UNet") as refused:
        located(tiny_animatediff, str(several[1][1]), tmp_path / "v3")
    assert {"loras", "motion_adapter"} <= set(refused.value.concerns)


def test_the_same_lora_twice_is_refused_whatever_it_is_called(
    tiny_animatediff: TinyAnimateDiff, several: list[tuple[Pairs, Path]], tmp_path: Path
) -> None:
    style = several[0][1]
    (tmp_path / "link.safetensors").symlink_to(style)
    for other in (tmp_path / "link.safetensors", style.parent / ".." / style.parent.name / style.name):
        with pytest.raises(InputError, match="twice"):
            located(tiny_animatediff, f"{style}, {other}:0.5")
    # a copy is told by its content
    params = request("a:0.5, b")
    check_different(params, {"lora_1": "a" * 64, "lora_2": "b" * 64})
    with pytest.raises(InputError, match="'b' is another name") as refused:
        check_different(params, {"lora_1": "a" * 64, "lora_2": "a" * 64})
    assert refused.value.suggestions[0].changes == {"loras": "a:0.5"}  # type: ignore[attr-defined]


def test_no_loras_ask_for_nothing(tiny_animatediff: TinyAnimateDiff) -> None:
    nowhere = Model("x", Path("/nowhere"), "MotionAdapter")
    assert locate_loras(request(None), load_settings(), nowhere, nowhere) == {}
