"""What a request reads and writes stays in the allowed folders, if the user has set some."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file as save_numpy

from vidkit.confinement import is_allowed, lies_in, links_below, real_output, temporary_parent
from vidkit.errors import InputError, SetupError
from vidkit.generation import generate
from vidkit.models.listing import listed_models
from vidkit.models.locate import find, locate_base
from vidkit.panel.run_clip import run_clip
from vidkit.params import GenerationParams
from vidkit.planned_request import plan
from vidkit.resolving import resolve_request
from vidkit.settings import Settings, load_settings
from vidkit.sweep.plan import make_plan
from vidkit.sweep.runner import run_sweep

TINY = {"prompt": "calm", "width": 64, "height": 64, "num_frames": 2, "num_inference_steps": 1, "seed": 1}


@dataclass(frozen=True)
class Places:
    """Two folders with a picture and a model each; a policy allows the first."""

    allowed: Path
    outside: Path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places(tmp_path / "allowed", tmp_path / "outside")
    for folder in (made.allowed, made.outside):
        folder.mkdir()
        Image.linear_gradient("L").convert("RGB").save(folder / "photo.jpg")
        make_model(folder / "model")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("VIDKIT_ALLOWED_FOLDERS", str(made.allowed))
    monkeypatch.setenv("HOME", str(made.outside))
    monkeypatch.setenv("VIDKIT_DRIVES", str(tmp_path))
    (tmp_path / "d").symlink_to(made.outside)
    return made


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}', encoding="utf-8")
    return folder


#: ways out of the allowed folder, each to a name in the other one
WAYS_OUT: dict[str, Callable[[Places, str], str]] = {
    "absolute": lambda places, name: str(places.outside / name),
    "dots": lambda places, name: f"{places.allowed}/../outside/{name}",
    "relative dots": lambda places, name: f"../outside/{name}",
    "link to a folder": lambda places, name: str(linked(places.allowed / "out", places.outside) / name),
    "link to it": lambda places, name: str(linked(places.allowed / f"link-{name}", places.outside / name)),
    "link by link": lambda places, name: str(
        linked(places.allowed / "two", linked(places.allowed / "one", places.outside)) / name
    ),
    "dots behind a link": lambda places, name: str(
        linked(places.allowed / "deep", places.outside / "model") / ".." / name
    ),
    "home": lambda places, name: f"~/{name}",
    "drive": lambda places, name: f"D:\\{name}",
    "long path": lambda places, name: f"\\\\?\\D:\\{name}",
    "share": lambda places, name: "\\\\wsl.localhost\\Ubuntu" + str(places.outside / name).replace("/", "\\"),
    "process": lambda places, name: f"/proc/self/root{places.outside / name}",
}


def linked(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


@pytest.fixture(params=WAYS_OUT)
def way_out(request: pytest.FixtureRequest, places: Places, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    return lambda name: WAYS_OUT[request.param](places, name)


def request(places: Places, **changes: object) -> GenerationParams:
    return GenerationParams(**{"image_path": str(places.allowed / "photo.jpg"), **TINY, **changes})


def test_no_output_leaves_by_any_way(way_out: Callable[[str], str], places: Places) -> None:
    before = set(places.outside.rglob("*"))
    written = way_out("clip.mp4")
    with pytest.raises(InputError) as refused:
        generate(request(places, output_path=written, overwrite=True))
    assert refused.value.code == "path_not_allowed"
    assert refused.value.concerns == ("output_path",)
    assert f"outputPath is {written!r}" in refused.value.message
    assert str(places.allowed) in refused.value.suggestions[0]
    assert set(places.outside.rglob("*")) == before


def test_no_picture_and_no_model_is_read_by_any_way(way_out: Callable[[str], str], places: Places) -> None:
    written = way_out("photo.jpg")
    for name, more in (("image_path", {}), ("last_image_path", {})):
        with pytest.raises(InputError) as refused:
            plan(request(places, **{name: written}, **more))
        assert (refused.value.code, refused.value.concerns) == ("path_not_allowed", (name,))


def test_no_model_is_found_by_any_way(way_out: Callable[[str], str], places: Places) -> None:
    for written in (way_out("model"), str(places.outside / "nothing here")):
        with pytest.raises(InputError) as refused:
            find(written, load_settings(), "base model")
        assert (refused.value.code, refused.value.concerns) == ("path_not_allowed", ("base_model",))


def test_what_is_inside_is_used(places: Places, vidkit_home: Path) -> None:
    linked(places.allowed / "within", places.allowed / "model")
    make_model(vidkit_home / "models" / "mine")
    settings = load_settings()
    for written in (str(places.allowed / "model"), str(places.allowed / "within"), "mine", "bundled:tiny-svd"):
        assert find(written, settings, "base model").exists()
    for output in (places.allowed / "a" / "clip.mp4", vidkit_home / "clip.mp4", None):
        assert resolve_request(request(places, output_path=output and str(output)), settings)
    assert resolve_request(request(places, image_path="example:photo"), settings)


def test_without_a_policy_every_way_is_open(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDKIT_ALLOWED_FOLDERS")
    settings = load_settings()
    assert settings.allowed_folders is None
    assert find(str(places.outside / "model"), settings, "base model") == places.outside / "model"
    inside = linked(places.allowed / "out", places.outside) / "clip.mp4"
    assert real_output(inside, settings) == inside


def test_a_registered_model_outside_is_refused_and_listed_with_the_reason(places: Places, vidkit_home: Path) -> None:
    entries = {"svd": {name: {"path": str(getattr(places, name) / "model")} for name in ("allowed", "outside")}}
    (vidkit_home / "models").mkdir()
    (vidkit_home / "models" / "models.json").write_text(json.dumps(entries), encoding="utf-8")
    settings = load_settings()
    assert find("allowed", settings, "base model") == places.allowed / "model"
    for default in ({}, {"svd": "outside"}):
        chosen = settings.model_copy(update={"default_models": default})
        with pytest.raises(InputError, match="leads out") as refused:
            locate_base(request(places, base_model=None if default else "outside"), chosen, ["any"], "bundled:tiny-svd")
        assert refused.value.code == "path_not_allowed"
    problems = {one.name: one.problem for one in listed_models(settings)}
    assert problems["allowed"] is None
    assert "leads out" in str(problems["outside"])


def test_a_models_folder_has_no_links_that_lead_out(places: Places) -> None:
    """A link to any weights is else fine, and one into the hub's cache always."""
    weights = places.outside / "weights.safetensors"
    save_numpy({}, weights)
    unet = places.allowed / "model" / "unet"
    unet.mkdir()
    link = linked(unet / "diffusion_pytorch_model.safetensors", weights)
    with pytest.raises(InputError) as refused:
        find(str(places.allowed / "model"), load_settings(), "base model")
    assert refused.value.code == "path_not_allowed"
    link.unlink()
    within = places.allowed / "other"
    within.mkdir()
    linked(unet / "more", within)
    assert find(str(places.allowed / "model"), load_settings(), "base model")
    linked(within / "weights.safetensors", weights)
    assert set(links_below(places.allowed / "model")) == {unet / "more", within / "weights.safetensors"}
    with pytest.raises(InputError):
        find(str(places.allowed / "model"), load_settings(), "base model")


def test_fetched_models_are_links_into_the_hubs_cache(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(places.outside / "hub"))
    blob = places.outside / "hub" / "blob"
    blob.parent.mkdir()
    blob.touch()
    linked(places.allowed / "model" / "weights.safetensors", blob)
    assert find(str(places.allowed / "model"), load_settings(), "base model")
    assert not is_allowed(blob, load_settings())  # a picture or a clip is not there


def test_a_model_that_cannot_be_looked_at_whole_is_not_allowed(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    (places.allowed / "model" / "config.json").touch()
    with monkeypatch.context() as few:
        few.setattr("vidkit.confinement.MOST_ENTRIES", 1)
        with pytest.raises(InputError, match="more than 1 files") as refused:
            find(str(places.allowed / "model"), load_settings(), "base model")
        assert refused.value.code == "path_not_allowed"

    def unreadable(folder: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("vidkit.confinement.os.scandir", unreadable)
    with pytest.raises(InputError, match="Permission denied"):
        find(str(places.allowed / "model"), load_settings(), "base model")


def test_links_in_a_circle_end(places: Places) -> None:
    linked(places.allowed / "model" / "again", places.allowed / "model")
    linked(places.allowed / "model" / "itself", places.allowed / "model" / "itself")
    assert find(str(places.allowed / "model"), load_settings(), "base model")


def test_a_name_is_not_looked_for_in_a_current_folder_that_is_outside(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places.outside)
    with pytest.raises(SetupError) as missing:
        find("model", load_settings(), "base model")
    assert missing.value.code == "model_not_found"
    monkeypatch.chdir(places.allowed)
    assert find("model", load_settings(), "base model") == places.allowed / "model"


@pytest.mark.usefixtures("no_warm_pipeline")
def test_a_folder_that_became_a_link_meanwhile_gets_no_clip(places: Places) -> None:
    """Looked at again when the frames are there: before anything is written."""
    target = places.allowed / "clips" / "clip.mp4"
    (places.outside / "clip.mp4").write_bytes(b"somebody's")
    before = set(places.outside.iterdir())

    def turn_elsewhere(frames: object) -> None:
        target.parent.rename(places.allowed / "moved")
        linked(target.parent, places.outside)

    with pytest.raises(InputError) as refused:
        generate(request(places, output_path=str(target), overwrite=True), on_frames=turn_elsewhere)
    assert refused.value.code == "path_not_allowed"
    assert set(places.outside.iterdir()) == before
    assert (places.outside / "clip.mp4").read_bytes() == b"somebody's"
    assert not list((places.allowed / "moved").iterdir())


def test_a_link_is_resolved_before_the_work_so_that_it_can_be_turned_no_more(places: Places) -> None:
    (places.allowed / "real").mkdir()
    link = linked(places.allowed / "link", places.allowed / "real")
    target = real_output(link / "clip.mp4", load_settings())
    link.unlink()
    linked(link, places.outside)
    assert target == places.allowed / "real" / "clip.mp4"
    assert is_allowed(target, load_settings())


def test_a_sweeps_pictures_models_and_folder(places: Places) -> None:
    file = places.allowed / "sweep.yaml"

    def sweep(**base: object) -> Path:
        file.write_text(yaml.safe_dump({"base": {**TINY, "image_path": "photo.jpg", **base}}), encoding="utf-8")
        return file

    assert len(make_plan(sweep()).points) == 1
    for name in ("image_path", "base_model"):
        outside = places.outside / ("photo.jpg" if name == "image_path" else "model")
        with pytest.raises(InputError, match="leads out of the folders"):
            make_plan(sweep(**{name: str(outside)}))
    with pytest.raises(InputError, match="leads out of the folders"):
        run_sweep(sweep(), places.outside / "runs")
    assert not (places.outside / "runs").exists()


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("/a", ["/a"]),
        ("/a:/b c", ["/a", "/b c"]),
        ("/a;/b", ["/a", "/b"]),
        ("D:\\x:/b:e:/y", ["/mnt/d/x", "/b", "/mnt/e/y"]),
        ('["/a:b"]', ["/a:b"]),
        (";", []),
    ],
)
def test_the_variable_has_several_folders(variable: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_ALLOWED_FOLDERS", variable)
    assert load_settings().allowed_folders == [Path(folder) for folder in expected]


def test_config_json_has_the_policy_too_and_a_broken_one_lets_nothing_through(
    places: Places, vidkit_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIDKIT_ALLOWED_FOLDERS")
    config = vidkit_home / "config.json"
    config.write_text(json.dumps({"allowedFolders": [str(places.allowed)]}), encoding="utf-8")
    with pytest.raises(InputError, match="leads out"):
        generate(request(places, output_path=str(places.outside / "clip.mp4")))
    for broken in ("a/relative/folder", 3, [3], ["relative"], ["D:relative"]):
        config.write_text(json.dumps({"allowedFolders": broken}), encoding="utf-8")
        with pytest.raises(SetupError, match="allowedFolders") as refused:
            generate(request(places))
        assert refused.value.code == "invalid_config"


def test_no_folder_at_all_leaves_the_data_folder(
    places: Places, vidkit_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKIT_ALLOWED_FOLDERS", "[]")
    settings = load_settings()
    assert not is_allowed(places.allowed / "photo.jpg", settings)
    assert is_allowed(vidkit_home / "output" / "clip.mp4", settings)
    assert is_allowed(settings.pictures / "upload.png", settings)


def test_temporary_folders_of_requests_are_inside(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    parent = temporary_parent(settings)
    assert parent is not None and parent.is_dir() and is_allowed(parent / "clip.mp4", settings)
    monkeypatch.delenv("VIDKIT_ALLOWED_FOLDERS")
    assert temporary_parent(load_settings()) is None


def test_the_panels_copy_goes_to_allowed_folders_alone(places: Places) -> None:
    (places.outside / "clip.mp4").write_bytes(b"somebody's")
    linked(places.allowed / "clip.mp4", places.outside / "clip.mp4")
    wanted = request(places, output_path=str(places.allowed / "clip.mp4"), overwrite=True)
    with pytest.raises(InputError, match="leads out"):
        run_clip(wanted, places.allowed / "runs")
    assert (places.outside / "clip.mp4").read_bytes() == b"somebody's"
    assert not (places.allowed / "runs").exists()


def test_a_folder_is_not_its_neighbour_and_is_known_by_its_number(tmp_path: Path) -> None:
    """The number counts where a drive of Windows takes another case; here, where /proc shows all folders again."""
    folder = tmp_path / "a"
    folder.mkdir()
    assert lies_in(folder / "b", folder)
    assert lies_in(folder, folder)
    assert not lies_in(tmp_path / "ab", folder)
    assert not lies_in(tmp_path, folder)
    again = Path(f"/proc/self/root{folder}")
    assert lies_in(again / "b" / "c", folder) is again.exists()
    assert not lies_in(again.with_name("ab"), folder)


def test_settings_say_nothing_of_a_policy_by_default() -> None:
    assert Settings().allowed_folders is None
