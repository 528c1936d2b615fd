"""What was set last comes back after a restart; what is in config.json can be shared."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidkit.errors import SetupError
from vidkit.panel.preferences import FIRST_REQUEST, damaged_file, load_request, paths_file, save_request
from vidkit.params import SCHEMA_VERSION, GenerationParams
from vidkit.settings import config_path, load_settings, update_settings

FIRST = GenerationParams(**FIRST_REQUEST)


def config() -> dict[str, Any]:
    content = json.loads(config_path().read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_the_first_request_is_one_that_runs_with_what_ships() -> None:
    assert load_request() == (FIRST, [])
    assert not config_path().exists()


def test_the_request_comes_back_in_a_new_process() -> None:
    saved = GenerationParams(
        image_path="/data/photos/größe 1.jpg",
        prompt="{home}/ is a path, 大きい",
        seed=7,
        noise_aug_strength=0.1,
        negative_prompt="",
        output_path="~/clips/one.mp4",
        bare=True,
    )
    save_request(saved)
    ask = (
        "import json; from vidkit.panel.preferences import load_request; p, notes = load_request();"
        "print(json.dumps([p.to_wire(), notes, sorted(p.model_fields_set)]))"
    )
    finished = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    wire, notes, given = json.loads(finished.stdout)
    assert wire == saved.to_wire()
    assert notes == []
    assert set(given) == saved.model_fields_set | {"schema_version"}


def test_other_settings_are_kept() -> None:
    update_settings(defaultModels={"svd": "mine"}, panel={"other": [1]}, unknown=1)
    save_request(FIRST)
    assert load_settings().default_models == {"svd": "mine"}
    assert config()["unknown"] == 1
    assert config()["panel"]["other"] == [1]


# --- safe to share --------------------------------------------------------------------------------------------------


def test_paths_out_of_the_data_folder_are_kept_for_the_owner_alone(vidkit_home: Path) -> None:
    save_request(
        FIRST.replace(
            image_path="/home/ann/secret/photo.jpg",
            last_image_path=str(vidkit_home / ".." / "beside.jpg"),
            base_model="~/models/mine",
            motion_adapter="..\\adapters\\one",
            output_path="clip.mp4",
        )
    )
    text = config_path().read_text(encoding="utf-8")
    for part in ("ann", "beside", "mine", "adapters", "clip.mp4"):
        assert part not in text
    assert stat.S_IMODE(paths_file().stat().st_mode) == 0o600
    params, notes = load_request()
    assert params.image_path == "/home/ann/secret/photo.jpg"
    assert notes == []


def test_paths_in_the_data_folder_move_with_it(
    vidkit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = vidkit_home / "pictures" / "a b.png"
    save_request(FIRST.replace(image_path=str(picture), base_model="my-svd", motion_adapter="bundled:tiny-animatediff"))
    assert str(vidkit_home) not in config_path().read_text(encoding="utf-8")
    assert load_request()[0].image_path == str(picture)

    moved = tmp_path / "moved"
    vidkit_home.rename(moved)
    monkeypatch.setenv("VIDKIT_HOME", str(moved))

    params, notes = load_request()
    assert params.image_path == str(moved / "pictures" / "a b.png")
    assert (params.base_model, params.motion_adapter, notes) == ("my-svd", "bundled:tiny-animatediff", [])


def test_a_shared_config_says_what_it_cannot_know() -> None:
    save_request(FIRST.replace(image_path="/home/ann/photo.jpg", width=96))
    paths_file().unlink()
    params, notes = load_request()
    assert params == FIRST.replace(width=96)
    assert len(notes) == 1
    assert "imagePath" in notes[0]


# --- damaged and newer files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{", "[]", '{"panel": 3}', "\udcff", "{" * 10_000])
def test_a_damaged_config_is_told_and_never_overwritten(text: str) -> None:
    config_path().parent.mkdir(parents=True, exist_ok=True)
    content = text.encode("utf-8", "surrogateescape")
    config_path().write_bytes(content)
    params, notes = load_request()
    assert params == FIRST
    assert str(config_path()) in notes[0]
    with pytest.raises(SetupError) as caught:
        save_request(FIRST)
    assert caught.value.code == "invalid_config"
    assert config_path().read_bytes() == content


def test_a_newer_vidkits_request_is_told_and_never_overwritten() -> None:
    newer = {"schemaVersion": SCHEMA_VERSION + 1, "imagePath": {"new": "shape"}, "prompt": "x"}
    update_settings(panel={"request": newer})
    before = config_path().read_bytes()
    params, notes = load_request()
    assert params == FIRST
    assert "newer" in notes[0]
    with pytest.raises(SetupError, match="newer"):
        save_request(FIRST)
    assert config_path().read_bytes() == before


@pytest.mark.parametrize("kept", [3, [], "x", None])
def test_what_is_no_request_is_told(kept: Any) -> None:
    update_settings(panel={"request": kept})
    params, notes = load_request()
    assert params == FIRST
    assert len(notes) == 1


def test_what_is_wrong_in_a_request_is_told_and_the_rest_comes_back() -> None:
    update_settings(
        panel={"request": {"width": 96, "fps": 0, "seed": "7", "sparkle": 1, "prompt": " ", "fit": ["crop"]}}
    )
    params, notes = load_request()
    assert params == FIRST.replace(width=96)
    told = " ".join(notes)
    for part in ("fps is 0", "seed is '7'", "'sparkle'", "prompt is empty", "fit is ['crop']"):
        assert part in told


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_file_of_paths_is_told_and_kept_aside(text: str) -> None:
    save_request(FIRST.replace(image_path="/home/ann/photo.jpg", width=96))
    paths_file().write_text(text, encoding="utf-8")
    params, notes = load_request()
    assert params == FIRST.replace(width=96)
    assert str(paths_file()) in notes[0]
    save_request(params)
    assert damaged_file().read_text(encoding="utf-8") == text
    assert load_request() == (params, [])


def test_odd_paths_are_left_out() -> None:
    save_request(FIRST)
    paths_file().write_text(json.dumps({"imagePath": 3, "prompt": "injected", "nothing": "x"}), encoding="utf-8")
    assert load_request() == (FIRST, [])
