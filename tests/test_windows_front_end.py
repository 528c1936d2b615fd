"""A front end on Windows talks to a backend in WSL: every path that it writes is one of Windows.

Its drive D: is a real folder, named to vidkit by `VIDKIT_DRIVES`, as where no mount table tells of drives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import command_line
import pytest
import yaml
from PIL import Image

from vidkit.errors import InputError, SetupError
from vidkit.generation import generate
from vidkit.models.registry import register, registered
from vidkit.planned_request import plan
from vidkit.record import show
from vidkit.settings import config_path, load_settings
from vidkit.sweep.plan import make_plan

#: the specification's sample request, at a size for a test
SMALL = {"numFrames": 2, "width": 64, "height": 64, "numInferenceSteps": 1, "seed": 42, "prompt": "slow cinematic zoom"}


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """D:, with a picture in `D:\\Images` and vidkit's data folder in `D:\\VideoGenerator`."""
    folder = tmp_path / "d"
    (folder / "Images").mkdir(parents=True)
    (folder / "VideoGenerator" / "models").mkdir(parents=True)
    Image.linear_gradient("L").convert("RGB").save(folder / "Images" / "photo.jpg")
    monkeypatch.setenv("VIDKIT_DRIVES", str(tmp_path))
    monkeypatch.setenv("VIDKIT_HOME", r"D:\VideoGenerator")
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    return folder


def model_on(folder: Path) -> Path:
    """The bundled model, as one of the user's own."""
    target = folder / "models" / "my svd"
    target.parent.mkdir(exist_ok=True)
    target.symlink_to(Path(__file__).parent.parent / "vidkit" / "models" / "bundled" / "tiny-svd")
    return target


def test_the_specifications_request_and_its_answer(drive: Path) -> None:
    """And one without an output path: its answer is of Windows too."""
    model_on(drive)
    request = {
        "pipeline": "svd",
        "baseModel": "D:\\models\\my svd\\",
        "imagePath": r"D:\Images\photo.jpg",
        "outputPath": r"D:\VideoGenerator\output\video_001.mp4",
        **SMALL,
    }
    short = {"imagePath": "D:/Images/photo.jpg", **SMALL}
    lines = "".join(json.dumps(line) + "\n" for line in (request, short))
    finished = command_line.run("--jsonl", stdin=lines.encode())
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [answer["status"] for answer in answers] == ["success", "success"], answers
    assert answers[0]["output"] == r"D:\VideoGenerator\output\video_001.mp4"
    made = sorted(path.name for path in (drive / "VideoGenerator" / "output").glob("*.mp4"))
    assert made[1] == "video_001.mp4"
    assert made[0].endswith("_photo_42.mp4")
    assert answers[1]["output"] == rf"D:\VideoGenerator\output\{made[0]}"
    record = show(answers[0]["output"])
    assert record["request"]["seed"] == 42
    assert "VideoGenerator" not in json.dumps(record)  # names go into a clip, no folders
    assert [picture["name"] for picture in record["pictures"]] == ["photo.jpg"]
    assert not list(drive.parent.glob("*\\*"))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"imagePath": "D:photo.jpg"}, "invalid_value", "current folder of drive D:"),
        ({"imagePath": r"D:\Images\none.jpg"}, "image_not_found", "none.jpg"),
        ({"imagePath": r"\\server\share\photo.jpg"}, "invalid_value", "not mounted"),
        ({"baseModel": r"D:\models\con"}, "invalid_value", "device"),
        ({"baseModel": r"D:..\models"}, "invalid_value", "current folder"),
        ({"outputPath": r"D:\out\clip.mp4."}, "invalid_value", "Windows leaves off"),
        ({"outputPath": r"D:\out.dir\clip"}, "invalid_value", "outputPath ends in nothing"),
        ({"outputPath": r"E:\out\clip.mp4"}, "invalid_value", "E: is not mounted"),
    ],
)
def test_what_cannot_be_is_a_typed_error(changes: dict[str, Any], code: str, words: str, drive: Path) -> None:
    with pytest.raises(InputError, match=words.replace(".", r"\.")) as refused:
        generate({"imagePath": r"D:\Images\photo.jpg", **SMALL, **changes})
    assert refused.value.code == code
    assert refused.value.suggestions
    assert not (drive.parent / "e").exists()


def test_the_registry_keeps_paths_of_windows_and_reads_them(drive: Path) -> None:
    model = model_on(drive)
    file = drive / "VideoGenerator" / "models" / "models.json"
    entries = {
        "svd-xt": {"path": r"D:\models\my svd", "type": "svd"},
        "away": {"path": r"\\server\share\svd", "type": "svd"},
        "relative": {"path": "D:svd", "type": "svd"},
    }
    file.write_text(json.dumps({"svd": entries, "custom": []}), encoding="utf-8")
    settings = load_settings()
    assert [(one.path == model, one.is_missing) for one in registered(settings)] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    (drive / "models" / "other").mkdir()
    register(settings, drive / "models" / "other", "other", "svd")
    assert json.loads(file.read_text(encoding="utf-8"))["svd"] == {**entries, "other": {"path": r"D:\models\other"}}
    assert plan({"imagePath": r"D:\Images\photo.jpg", "baseModel": "svd-xt", **SMALL}).model == "tiny-svd"


def test_settings_and_variables(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path() == drive / "VideoGenerator" / "config.json"
    assert load_settings().models == drive / "VideoGenerator" / "models"
    config_path().write_text(
        json.dumps({"defaultModels": {"svd": r"D:\models\my svd"}, "allowedFolders": ["D:\\"]}), encoding="utf-8"
    )
    monkeypatch.setenv("VIDKIT_MODELS", r"D:\models")
    assert load_settings().models == drive / "models"
    assert load_settings().allowed_folders == [drive]
    assert dict(load_settings().default_models) == {"svd": r"D:\models\my svd"}
    monkeypatch.setenv("VIDKIT_HOME", "D:relative")
    with pytest.raises(SetupError, match=r"VIDKIT_HOME: .* current folder of drive D:") as refused:
        load_settings()
    assert refused.value.code == "invalid_config"


def test_a_sweep_file_has_paths_of_windows(drive: Path) -> None:
    model_on(drive)
    sweep = {
        "base": {"image_path": r"D:\Images\photo.jpg", "base_model": r"D:\models\my svd", "prompt": "calm"},
        "axes": {"seed": [1, 2]},
    }
    (drive / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    points = make_plan(r"D:\sweep.yaml").points
    assert {point.params.image_path for point in points} == {str(drive / "Images" / "photo.jpg")}
    assert {point.params.base_model for point in points} == {str(drive / "models" / "my svd")}
    for name, wrong in (("base_model", "D:svd"), ("image_path", r"\\server\share\x.png")):
        broken = {**sweep, "base": {**sweep["base"], name: wrong}}
        (drive / "sweep.yaml").write_text(yaml.safe_dump(broken), encoding="utf-8")
        with pytest.raises(InputError, match=r"cannot be used|current folder") as refused:
            make_plan(r"D:\sweep.yaml")
        assert "base" in refused.value.message
    (drive / "sweep.yaml").write_text(yaml.safe_dump({**sweep, "notebook": r"D:\none.ipynb"}), encoding="utf-8")
    with pytest.raises(InputError, match="does not exist"):
        make_plan(r"D:\sweep.yaml")


def test_the_command_lines_files(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vidkit.cli import main

    (drive / "request.json").write_text(json.dumps({"imagePath": r"D:\Images\photo.jpg", **SMALL}), encoding="utf-8")
    assert main(["plan", "--request", r"D:\request.json", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["request"]["imagePath"] == r"D:\Images\photo.jpg"
    for arguments in (["show", "D:clip.mp4"], ["sweep", "D:sweep.yaml"], ["plan", "--from", "D:clip.mp4"]):
        assert main(arguments) == 2
        assert "current folder of drive D:" in json.loads(capsys.readouterr().out)["message"]
