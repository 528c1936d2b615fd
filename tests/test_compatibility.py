from __future__ import annotations

from pathlib import Path

import checkpoint_headers as full
import pytest
from tiny_models import TinyAnimateDiff

from vidkit.models.compatibility import why_not_together
from vidkit.models.files.safetensors_header import Header
from vidkit.models.inspection import Inspection, inspect, inspect_header
from vidkit.models.locate import BUNDLED_FOLDER


def told(header: Header) -> Inspection:
    return inspect_header(header, Path("model.safetensors"))


@pytest.fixture(scope="module")
def bases() -> dict[str, Inspection]:
    found = {kind: told(full.base_checkpoint(kind)) for kind in ("SD 1.5", "SD 2", "SDXL", "SDXL refiner")}
    inpainting = told(full.base_checkpoint("SD 1.5", in_channels=9))
    return found | {"SVD": told(full.svd_checkpoint()), "SD 1.5 inpainting": inpainting}


def lora(kind: str, layers: str = full.ATTENTION) -> Inspection:
    return told(full.kohya_lora(full.linear_layers(full.unet(kind), layers)))


def test_a_motion_adapter_goes_with_its_architecture_alone(bases: dict[str, Inspection]) -> None:
    adapter = told(full.motion_adapter(True))
    assert why_not_together(adapter, bases["SD 1.5"]) is None
    assert why_not_together(adapter, bases["SDXL"]) == "This motion adapter is for SD 1.5; the base model is SDXL."
    assert why_not_together(adapter, bases["SD 2"]) == "This motion adapter is for SD 1.5; the base model is SD 2."
    assert (
        why_not_together(adapter, bases["SVD"])
        == "This motion adapter is for SD 1.5; the base model is Stable Video Diffusion."
    )
    of_sdxl = told(full.motion_adapter(False, (320, 640, 1280)))
    assert why_not_together(of_sdxl, bases["SDXL"]) is None
    assert why_not_together(of_sdxl, bases["SD 1.5"]) == "This motion adapter is for SDXL; the base model is SD 1.5."


@pytest.mark.parametrize("kind", ["SD 1.5", "SD 2", "SDXL"])
def test_a_lora_goes_with_its_architecture_alone(kind: str, bases: dict[str, Inspection]) -> None:
    for name, base in bases.items():
        expected = None if base.architecture == kind else f"This LoRA is for {kind}; the base model is "
        reason = why_not_together(lora(kind), base)
        assert reason is None if expected is None else str(reason).startswith(expected), name


def test_what_leaves_two_architectures_goes_with_both(bases: dict[str, Inspection]) -> None:
    either = lora("SD 1.5", r"attn1\.to_q\.weight$")
    assert why_not_together(either, bases["SD 1.5"]) is None
    assert why_not_together(either, bases["SD 2"]) is None
    assert why_not_together(either, bases["SDXL"]) == "This LoRA is for SD 1.5 or SD 2; the base model is SDXL."


def test_what_does_not_say_its_architecture_is_not_refused(bases: dict[str, Inspection]) -> None:
    vae = told(full.vae())
    assert [why_not_together(vae, base) for base in bases.values()] == [None] * len(bases)
    assert why_not_together(told(full.svd_vae()), bases["SD 1.5"]) == "This VAE is for SVD; the base model is SD 1.5."


def test_other_bases_are_named_by_what_they_are(bases: dict[str, Inspection]) -> None:
    adapter = told(full.motion_adapter(False, (320, 640, 1280)))
    assert (
        why_not_together(adapter, bases["SD 1.5 inpainting"])
        == "This motion adapter is for SDXL; the base model is an SD 1.5 inpainting base model."
    )
    assert why_not_together(adapter, bases["SDXL refiner"]) == (
        "This motion adapter is for SDXL; the base model is an SDXL refiner."
    )


def test_a_sparsectrl_or_a_motion_lora_is_asked_against_the_motion_adapter_too() -> None:
    adapter, of_sdxl = told(full.motion_adapter(True)), told(full.motion_adapter(False, (320, 640, 1280)))
    motion_lora = told(full.processor_lora(full.linear_layers(full.motion_adapter(True), full.ATTENTION), "unet."))
    for part in (told(full.sparse_control(True)), motion_lora):
        assert why_not_together(part, adapter) is None
        assert why_not_together(part, of_sdxl) == f"This {part.kind} is for SD 1.5; the motion adapter is for SDXL."


def test_motion_loras_need_the_layers_they_change() -> None:
    """v2 has motion modules in the middle, v1 and v3 have none."""
    motion_lora = told(full.processor_lora(full.linear_layers(full.motion_adapter(True), full.ATTENTION), "unet."))
    assert why_not_together(motion_lora, told(full.motion_adapter(False))) == (
        "This motion LoRA changes motion modules in the middle of the UNet, as v2 has them; "
        "the motion adapter has none."
    )


def test_small_models_go_together_by_their_widths(tiny_animatediff: TinyAnimateDiff) -> None:
    base, adapter = inspect(tiny_animatediff.base), inspect(tiny_animatediff.motion_adapter)
    other = inspect(BUNDLED_FOLDER / "tiny-animatediff")
    assert why_not_together(adapter, base) is None
    assert why_not_together(inspect(tiny_animatediff.sparse_controlnet), base) is None
    assert why_not_together(adapter, other) == (
        "This motion adapter is for channels (32, 64); the base model has (32, 128)."
    )
    published = told(full.motion_adapter(True))
    assert "is for channels (320, 640, 1280, 1280)" in str(why_not_together(published, base))
    assert why_not_together(lora("SD 1.5"), base) == (
        "This LoRA is for text conditions of width 768; the base model has 32."
    )
    without_text = lora("SD 1.5", r"attn1\.to_q\.weight$")
    assert why_not_together(without_text, base) == (
        "This LoRA is for 320 channels at level 0; the base model has (32, 64)."
    )


def test_only_parts_are_put_to_bases(bases: dict[str, Inspection]) -> None:
    sd15, sdxl, adapter = bases["SD 1.5"], bases["SDXL"], told(full.motion_adapter(True))
    assert why_not_together(sdxl, sd15) == "This is an SDXL base model, which is not put to another model."
    assert why_not_together(adapter, told(full.unet("SD 1.5"))) == "An SD 1.5 UNet is no base model."
    assert why_not_together(adapter, told(full.vae())) == "A VAE is no base model."
