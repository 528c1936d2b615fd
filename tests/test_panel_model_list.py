from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkpoint_headers as full
import pytest
from tiny_models import TinyAnimateDiff, save_single_file

from vidkit.errors import InputError, SetupError
from vidkit.models.files.safetensors_header import read_safetensors_header
from vidkit.models.locate import BUNDLED_FOLDER
from vidkit.models.registry import registered, registry_file, unregister
from vidkit.panel.model_details import details
from vidkit.panel.model_fit import changes_to_use
from vidkit.panel.model_guide import advice
from vidkit.panel.model_list import Found, add_model, found_models, why_not
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.settings import Settings, load_settings, update_settings


@pytest.fixture
def models(vidkit_home: Path) -> Path:
    folder = vidkit_home / "models"
    folder.mkdir()
    return folder


def request(**given: object) -> GenerationParams:
    return GenerationParams(**{"image_path": "example:photo", "prompt": "waves", **given})


def found(name: str, settings: Settings | None = None) -> Found:
    matches = [one for one in found_models(settings or load_settings()) if one.name == name]
    assert len(matches) == 1, f"{len(matches)} models are called {name}"
    return matches[0]


def copied(source: Path, models: Path, name: str) -> str:
    """A model in the models folder; its name there."""
    shutil.copytree(source, models / name)
    return name


def test_what_ships_is_there_with_its_purpose_and_size() -> None:
    listed = {one.name: one for one in found_models(Settings())}
    assert list(listed) == ["bundled:tiny-animatediff", "bundled:tiny-motion-adapter", "bundled:tiny-svd"]
    assert all(one.problem is None and one.origin == "ships with vidkit" for one in listed.values())
    svd = listed["bundled:tiny-svd"]
    assert (svd.role, svd.purpose) == ("base_model", "base model of svd")
    assert svd.size == sum(
        Path(folder, name).stat().st_size for folder, _, names in os.walk(svd.path) for name in names
    )
    assert listed["bundled:tiny-motion-adapter"].purpose == "PIA motion adapter of animatediff"


def test_the_models_folder_is_looked_through_also_one_level_down(
    models: Path, tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff
) -> None:
    copied(tiny_svd_folder, models, "svd-xt")
    copied(tiny_animatediff.motion_adapter, models, "animatediff/v3")
    save_single_file(tiny_animatediff.base, models / "realistic" / "model.safetensors")
    (models / "empty").mkdir()
    (models / ".hidden").mkdir()
    (models / "notes.txt").write_text("x")
    names = [one.name for one in found_models(load_settings()) if one.origin == "in the models folder"]
    assert names == ["animatediff/v3", "empty", "realistic/model.safetensors", "svd-xt"]
    assert found("animatediff/v3").role == "motion_adapter"
    assert "is not a diffusers model" in str(found("empty").problem)
    for name in ("svd-xt", "animatediff/v3"):  # a request finds it by the name that is shown
        one = found(name)
        assert one.role is not None
        if one.role == "base_model":
            used = FAMILIES["svd"].models(request(base_model=name), load_settings())
            assert used["base_model"].path == one.path


def test_what_is_no_model_says_what_it_is(models: Path, tiny_animatediff: TinyAnimateDiff) -> None:
    (models / "old.ckpt").write_bytes(b"\x80\x04")
    shutil.copytree(BUNDLED_FOLDER / "tiny-svd" / "vae", models / "vae")
    (models / "torn.safetensors").write_bytes(b"\x00" * 20)
    (models / "loop").symlink_to(models / "loop")
    full.write_sparse(models / "sdxl.safetensors", full.base_checkpoint("SDXL"))
    full.write_sparse(models / "sdxl-lora.safetensors", full.kohya_lora(full.linear_layers(full.unet("SDXL"), "to_q")))
    assert "old.ckpt" in str(found("old.ckpt").problem)
    assert found("vae").problem == "It is a VAE for SVD, which no pipeline of vidkit uses."
    assert found("sdxl.safetensors").problem == "It is an SDXL base model, which no pipeline of vidkit uses."
    assert found("sdxl-lora.safetensors").problem == "It is a LoRA for SDXL, which no pipeline of vidkit uses."
    assert "torn.safetensors" in str(found("torn.safetensors").problem)
    assert all(one.role is None for one in found_models(load_settings()) if one.origin == "in the models folder")


def test_what_is_wrong_with_a_model_of_the_right_kind_is_told(
    models: Path, tiny_animatediff: TinyAnimateDiff, tiny_svd_folder: Path
) -> None:
    copied(tiny_animatediff.base, models, "base")
    shutil.rmtree(models / "base" / "vae")
    copied(tiny_svd_folder, models, "svd")
    (models / "svd" / "unet" / "run.py").write_text("x")
    assert str(found("base").problem).endswith("lacks vae.")
    assert "run.py" in str(found("svd").problem)
    assert (found("base").role, found("svd").role) == (None, None)


def test_a_model_is_registered_by_its_path_once_it_is_seen_to_be_one(tiny_svd_folder: Path) -> None:
    settings = load_settings()
    one = add_model(f"  {tiny_svd_folder} ", settings)
    assert (one.role, one.origin, one.path) == ("base_model", "registered", tiny_svd_folder)
    assert add_model(str(tiny_svd_folder), settings).name == one.name
    assert [entry.path for entry in registered(settings)] == [tiny_svd_folder]
    assert found(one.name).purpose == "base model of svd"
    assert str(tiny_svd_folder) not in json.dumps(vars(settings), default=str)  # which may be shared
    unregister(settings, one.name)
    assert len(found_models(settings)) == 3
    assert tiny_svd_folder.is_dir()


@pytest.mark.parametrize("written", ["", "   ", "/no/such/model", "~nobody-of-that-name/x", "a\x00b"])
def test_a_path_that_leads_nowhere_is_not_added(written: str) -> None:
    with pytest.raises((InputError, SetupError)):
        add_model(written, load_settings())
    assert not registry_file(load_settings()).exists()


def test_a_folder_that_is_no_model_is_not_added(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not a diffusers model"):
        add_model(str(tmp_path), load_settings())
    with pytest.raises(SetupError, match="It is an SVD UNet, which no pipeline of vidkit uses"):
        add_model(str(BUNDLED_FOLDER / "tiny-svd" / "unet"), load_settings())
    assert not registry_file(load_settings()).exists()


def test_a_damaged_registry_is_told_and_hides_nothing_else(models: Path, tiny_svd_folder: Path) -> None:
    copied(tiny_svd_folder, models, "svd-xt")
    registry_file(load_settings()).write_text("[1")
    assert found("svd-xt").problem is None
    assert registry_file(load_settings()).name in str(found("models.json").problem)


def test_a_default_of_the_settings_that_lies_elsewhere_is_listed(tiny_svd_folder: Path) -> None:
    update_settings(defaultModels={"svd": str(tiny_svd_folder), "animatediff": "/gone"})
    assert found(str(tiny_svd_folder)).origin == "default of the settings"
    assert "was not found" in str(found("/gone").problem)
    update_settings(defaultModels={"svd": "bundled:tiny-svd"})
    assert len(found_models(load_settings())) == 3


# --- what goes with what


def test_models_of_the_other_family_do_not_go_with_a_request() -> None:
    svd, animatediff = request(), request(pipeline="animatediff")
    settings = Settings()
    assert why_not(found("bundled:tiny-svd"), svd, settings) is None
    assert "wanted is StableVideoDiffusionPipeline" in str(why_not(found("bundled:tiny-animatediff"), svd, settings))
    assert "is no base model for this request" in str(why_not(found("bundled:tiny-svd"), animatediff, settings))
    assert why_not(found("bundled:tiny-motion-adapter"), svd, settings) == "svd has no use for it."


def test_a_motion_adapter_goes_with_a_base_of_its_own_shape(models: Path, tiny_animatediff: TinyAnimateDiff) -> None:
    base, adapter = copied(tiny_animatediff.base, models, "base"), copied(tiny_animatediff.motion_adapter, models, "v3")
    settings, own = load_settings(), request(pipeline="animatediff", base_model="base")
    assert why_not(found(adapter), own, settings) is None
    assert why_not(found(adapter), request(pipeline="animatediff"), settings) == (
        "v3 does not go with tiny-animatediff: "
        "This motion adapter is for channels (32, 64); the base model has (32, 128)."
    )
    bundled = "bundled:tiny-motion-adapter"
    assert "is for channels (32, 128)" in str(why_not(found(bundled), own, settings))
    # the base is not at fault for an adapter that is missing, but for one that does not fit it
    assert why_not(found(base), request(pipeline="animatediff"), settings) is None
    asked_of_base = str(why_not(found(base), request(pipeline="animatediff", motion_adapter=bundled), settings))
    assert "motion adapter is for channels (32, 128); the base model has (32, 64)" in asked_of_base


def test_a_single_file_has_the_shape_of_its_configuration(models: Path, tiny_animatediff: TinyAnimateDiff) -> None:
    folder = models / "single"
    shutil.copytree(tiny_animatediff.base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model_index.json").rename(folder / "index")  # so that the folder is none of diffusers' itself
    save_single_file(tiny_animatediff.base, folder / "model.safetensors")
    (folder / "index").rename(folder / "model_index.json")
    copied(tiny_animatediff.motion_adapter, models, "v3")
    own = request(pipeline="animatediff", base_model=str(folder / "model.safetensors"))
    assert why_not(found("v3"), own, load_settings()) is None


def test_conditioning_decides_over_adapters_and_sparsectrl(models: Path, tiny_animatediff: TinyAnimateDiff) -> None:
    base = copied(tiny_animatediff.base, models, "base")
    adapter, pia = (copied(getattr(tiny_animatediff, name), models, name) for name in ("motion_adapter", "pia_adapter"))
    sparse, settings = copied(tiny_animatediff.sparse_controlnet, models, "sparse"), load_settings()
    own = request(pipeline="animatediff", base_model=base, motion_adapter=adapter)
    assert "has no use for it" in str(why_not(found(sparse), own, settings))
    assert why_not(found(sparse), own.replace(conditioning="sparsectrl"), settings) is None
    assert why_not(found(adapter), own.replace(conditioning="pia"), settings) is not None
    assert why_not(found(pia), own.replace(conditioning="pia"), settings) is None
    # also where the request cannot run yet, for want of the SparseCtrl model
    unfinished = request(pipeline="animatediff", conditioning="sparsectrl")
    assert "does not work with conditioning sparsectrl" in str(
        why_not(found("bundled:tiny-motion-adapter"), unfinished, settings)
    )
    assert why_not(found(adapter), unfinished, settings) == (
        "This motion adapter is for channels (32, 64); the base model has (32, 128)."
    )


def test_using_a_model_changes_what_it_needs_and_no_more(models: Path, tiny_animatediff: TinyAnimateDiff) -> None:
    base = copied(tiny_animatediff.base, models, "base")
    adapter, pia = (copied(getattr(tiny_animatediff, name), models, name) for name in ("motion_adapter", "pia_adapter"))
    sparse, settings = copied(tiny_animatediff.sparse_controlnet, models, "sparse"), load_settings()

    def changes(name: str, **given: object) -> dict[str, object]:
        return changes_to_use(found(name), request(**given), settings)

    assert changes("bundled:tiny-svd") == {"base_model": "bundled:tiny-svd"}
    assert changes("bundled:tiny-svd", pipeline="animatediff") == {"base_model": "bundled:tiny-svd", "pipeline": "svd"}
    assert changes(base) == {"base_model": base, "pipeline": "animatediff"}
    assert changes(adapter, base_model="bundled:tiny-svd") == {
        "motion_adapter": adapter, "pipeline": "animatediff", "base_model": None
    }  # fmt: skip
    own = {"pipeline": "animatediff", "base_model": base}
    assert changes(pia, **own) == {"motion_adapter": pia, "conditioning": "pia"}
    assert changes(sparse, **own) == {"controlnet": sparse, "conditioning": "sparsectrl"}
    assert changes(adapter, **own, conditioning="pia") == {"motion_adapter": adapter, "conditioning": "init"}
    # an adapter that does not fit another base is taken back
    assert changes("bundled:tiny-animatediff", **own, motion_adapter=adapter) == {
        "base_model": "bundled:tiny-animatediff", "motion_adapter": None
    }  # fmt: skip
    assert changes(base, **own, motion_adapter=adapter) == {"base_model": base}


@pytest.fixture
def lora(models: Path, tiny_animatediff: TinyAnimateDiff) -> str:
    """A LoRA in the models folder that fits the small base model; its name there."""
    file = tiny_animatediff.base / "unet" / "diffusion_pytorch_model.safetensors"
    layers = full.linear_layers(read_safetensors_header(file), full.ATTENTION)
    return full.write_sparse(models / "style, soft.safetensors", full.peft_lora(layers)).name


def test_a_lora_goes_with_a_base_of_its_own_shape_and_is_added_to_the_others(
    models: Path, tiny_animatediff: TinyAnimateDiff, lora: str
) -> None:
    base, adapter = copied(tiny_animatediff.base, models, "base"), copied(tiny_animatediff.motion_adapter, models, "v3")
    settings, own = load_settings(), request(pipeline="animatediff", base_model=base, motion_adapter=adapter)
    assert (found(lora).role, found(lora).purpose) == ("loras", "LoRA of animatediff")
    assert why_not(found(lora), own, settings) is None
    assert why_not(found(lora), request(), settings) == "svd has no use for it."
    bundled = request(pipeline="animatediff", motion_adapter="bundled:tiny-motion-adapter")
    assert "text conditions of width 32" in str(why_not(found(lora), bundled, settings))
    assert changes_to_use(found(lora), own, settings) == {"loras": '"style, soft.safetensors":1'}
    with_others = own.replace(loras="zoom:0.5")
    assert changes_to_use(found(lora), with_others, settings) == {"loras": 'zoom:0.5, "style, soft.safetensors":1'}


# --- inspection and guidance


def test_details_tell_what_inspection_and_the_card_say(models: Path) -> None:
    from safetensors import safe_open

    told = details(found("bundled:tiny-animatediff"))
    assert (told["is"], told["class"]) == ("SD 1.5 base model", "StableDiffusionPipeline")
    assert told["licence"] == "Apache-2.0"
    assert told["card: name"] == "tiny-animatediff"
    count = 0
    for file in (BUNDLED_FOLDER / "tiny-animatediff").glob("*/*.safetensors"):
        with safe_open(file, "np") as opened:
            count += sum(opened.get_tensor(key).size for key in opened.keys())  # noqa: SIM118  (it is no dict)
    assert told["parameters"] == f"{count / 1e6:.1f} million, float16"
    assert told["block out channels"] == "32, 128"


def test_details_of_what_cannot_be_used_say_what_it_is(models: Path) -> None:
    full.write_sparse(models / "sdxl.safetensors", full.base_checkpoint("SDXL"))
    told = details(found("sdxl.safetensors"))
    assert (told["is"], told["cross attention dim"]) == ("SDXL base model", "2048")
    assert told["problem"] == "It is an SDXL base model, which no pipeline of vidkit uses."


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: other\nlicense_name: 'svd-community'\ntags:\n- x\n---\n# text\nlicense: no\n", "svd-community"),
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("# no front matter\nlicense: mit\n", "unknown: see where it was fetched from"),
        (None, "unknown: see where it was fetched from"),
    ],
)
def test_the_licence_is_read_from_the_readme(
    models: Path, tiny_svd_folder: Path, readme: str | None, licence: str
) -> None:
    name = copied(tiny_svd_folder, models, "svd-xt")
    if readme is not None:
        (models / name / "README.md").write_text(readme)
    assert details(found(name))["licence"] == licence


def test_a_family_without_a_model_of_the_users_is_told_how_to_get_one(
    models: Path, tiny_svd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKIT_DEVICE", "cpu")
    settings = load_settings()
    told = " ".join(advice("svd", found_models(settings), settings))
    assert "For svd there is only the bundled demonstration model" in told
    assert "No NVIDIA GPU was found" in told
    copied(tiny_svd_folder, models, "svd-xt")
    assert "For svd" not in " ".join(advice("svd", found_models(settings), settings))
    assert "For animatediff" in " ".join(advice("animatediff", found_models(settings), settings))


def test_no_torch_is_loaded_to_look() -> None:
    code = (
        "import sys; from vidkit.panel import model_details, model_fit, model_guide, model_list;"
        "from vidkit.settings import Settings; found = model_list.found_models(Settings());"
        "[model_details.details(one) for one in found];"
        "assert not {'torch', 'diffusers', 'transformers', 'ipywidgets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
