"""From a name to a model, its kind and its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidkit.errors import InputError, SetupError
from vidkit.models.locate import BUNDLED_FOLDER, describe, locate, locate_base, picture_path
from vidkit.params import GenerationParams
from vidkit.settings import Settings

SVD = ["StableVideoDiffusionPipeline"]


def params(**more: Any) -> GenerationParams:
    return GenerationParams(image_path="a.png", prompt="waves", **more)


def make_model(folder: Path, kind: str = SVD[0], card: Any = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    if card is not None:
        (folder / "vidkit.json").write_text(card if isinstance(card, str) else json.dumps(card))
    return folder


def test_a_model_is_found_by_path_by_name_and_bundled(vidkit_home: Path, tmp_path: Path) -> None:
    mine = make_model(tmp_path / "mine")
    named = make_model(vidkit_home / "models" / "named")
    assert locate(str(mine), Settings(), SVD, "base model").path == mine
    assert locate("named", Settings(), SVD, "base model").path == named
    bundled = locate("bundled:tiny-svd", Settings(), SVD, "base model")
    assert bundled.path == BUNDLED_FOLDER / "tiny-svd"
    assert bundled.is_bundled
    assert not locate("named", Settings(), SVD, "base model").is_bundled


def test_the_base_model_is_the_requests_then_the_settings_then_the_bundled_one(tmp_path: Path) -> None:
    asked, default = make_model(tmp_path / "asked"), make_model(tmp_path / "default")
    settings = Settings(default_models={"svd": str(default)})
    assert locate_base(params(base_model=str(asked)), settings, SVD, "bundled:tiny-svd").path == asked
    assert locate_base(params(), settings, SVD, "bundled:tiny-svd").path == default
    assert locate_base(params(), Settings(), SVD, "bundled:tiny-svd").is_bundled


@pytest.mark.parametrize("wanted", ["nothing", "bundled:nothing", "/nowhere/at/all", "x" * 5000, "a\0b", "~nobody/x"])
def test_a_missing_model_is_a_typed_error(wanted: str) -> None:
    with pytest.raises(SetupError, match="was not found") as caught:
        locate(wanted, Settings(), SVD, "base model")
    assert caught.value.code == "model_not_found"
    assert any("bundled:tiny-svd" in suggestion for suggestion in caught.value.suggestions)


@pytest.mark.parametrize("escape", ["bundled:../configs/sd15", "bundled:/etc", "bundled:"])
def test_bundled_names_only_bundled_models(escape: str) -> None:
    with pytest.raises(SetupError) as caught:
        locate(escape, Settings(), ["StableDiffusionPipeline", "None"], "base model")
    assert caught.value.code == "model_not_found"


def test_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is a FluxPipeline, wanted is StableVideoDiffusionPipeline") as caught:
        locate(str(make_model(tmp_path / "flux", "FluxPipeline")), Settings(), SVD, "base model")
    assert caught.value.code == "invalid_model"


def test_a_folder_without_configs_and_broken_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="neither model_index") as caught:
        describe(tmp_path)
    assert caught.value.code == "invalid_model"
    for number, content in enumerate((b"{", b"[]", b"\xff\xfe", b"", b"[" * 100_000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "model_index.json").write_bytes(content)
        with pytest.raises(SetupError, match=r"model_index\.json cannot be read") as caught:
            describe(folder)
        assert caught.value.code == "invalid_model"


def test_a_card_names_the_model_and_narrows_it(tmp_path: Path) -> None:
    card = {"name": "Mine", "defaults": {"numFrames": 9, "later": 1}, "ranges": {"numFrames": [2, 9]}}
    model = describe(make_model(tmp_path / "mine", card=card))
    assert model.name == "Mine"
    assert model.card_defaults() == {"num_frames": 9}  # what a later version added is left out
    assert model.card_ranges() == {"num_frames": (2, 9)}
    assert describe(make_model(tmp_path / "plain")).name == "plain"


@pytest.mark.parametrize(
    "card",
    [
        "{",
        "[]",
        {"defaults": [1]},
        {"defaults": {"numFrames": "nine"}},
        {"defaults": {"numFrames": 5000}},
        {"ranges": {"numFrames": 3}},
        {"ranges": {"numFrames": ["a", "b"]}},
        {"ranges": {"prompt": [1, 2]}},
        {"ranges": 7},
        {"windowFrames": 1},
        {"windowFrames": 14.0},
        {"windowFrames": "14"},
        {"windowFrames": True},
        {"windowFrames": None},
        {"conditionings": "init"},
        {"conditionings": []},
        {"conditionings": ["init", "text"]},
        {"conditionings": [["init"]]},
        {"conditionings": None},
    ],
)
def test_a_broken_card_is_the_models_fault(tmp_path: Path, card: Any) -> None:
    with pytest.raises(SetupError, match=r"vidkit\.json") as caught:
        describe(make_model(tmp_path / "mine", card=card))
    assert caught.value.code == "invalid_model"


def test_pictures_by_path_or_by_example() -> None:
    assert picture_path("a/b.png") == Path("a/b.png")
    assert picture_path("example:photo").is_file()
    assert picture_path("example:photo.jpg") == picture_path("example:photo")
    with pytest.raises(InputError, match="example:nothing") as caught:
        picture_path("example:nothing")
    assert caught.value.code == "image_not_found"
    assert "example:photo" in caught.value.suggestions[0]


def test_a_family_with_no_bundled_model_asks_for_one() -> None:
    with pytest.raises(SetupError, match="No base model: the request names none") as info:
        locate_base(params(), Settings(), SVD, "bundled:not-there")
    assert info.value.code == "model_not_found"
    assert "Set baseModel to a model folder" in info.value.suggestions
