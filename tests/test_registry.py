"""The registry of models: the specification's file as it is, changed by several at once, never lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidkit.errors import InputError, SetupError
from vidkit.models.listing import listed_models
from vidkit.models.locate import describe, find, locate
from vidkit.models.registry import find_registered, register, registered, registry_file, unregister
from vidkit.params import GenerationParams
from vidkit.settings import Settings

SVD = ["StableVideoDiffusionPipeline"]
SETTINGS = Settings()

#: the specification's file, to the letter
SPECIFIED = r"""{
  "svd": {
    "svd-xt": {
      "path": "D:\\VideoGenerator\\models\\svd-xt",
      "type": "svd",
      "size": "10GB",
      "description": "Stable Video Diffusion XT",
      "source": "stabilityai/stable-video-diffusion-img2vid-xt"
    }
  },
  "animatediff": {
    "motion-adapter": {
      "path": "D:\\VideoGenerator\\models\\animatediff",
      "type": "motion_adapter",
      "size": "3GB",
      "description": "AnimateDiff Motion Adapter v1.5-2",
      "source": "guoyww/animatediff-motion-adapter-v1-5-2"
    },
    "realistic-vision": {
      "path": "D:\\VideoGenerator\\models\\realistic-vision\\model.safetensors",
      "type": "sd15",
      "size": "2GB",
      "description": "Realistic Vision v5.1 (NSFW-capable)",
      "source": "civitai.com/models/4201",
      "nsfw": true
    }
  },
  "custom": []
}
"""


@pytest.fixture
def models(vidkit_home: Path) -> Path:
    folder = vidkit_home / "models"
    folder.mkdir()
    return folder


def write(content: Any) -> Path:
    file = registry_file(SETTINGS)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def read() -> Any:
    return json.loads(registry_file(SETTINGS).read_text(encoding="utf-8"))


def make_model(folder: Path, kind: str = SVD[0]) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return folder


# --- reading


def test_the_specifications_file_is_read_as_it_is(models: Path) -> None:
    write(SPECIFIED)
    entries = {entry.name: entry for entry in registered(SETTINGS)}
    assert list(entries) == ["svd-xt", "motion-adapter", "realistic-vision"]
    realistic = entries["realistic-vision"]
    assert realistic.path == Path("/mnt/d/VideoGenerator/models/realistic-vision/model.safetensors")
    assert (realistic.family, realistic.text("type"), realistic.text("size")) == ("animatediff", "sd15", "2GB")
    assert realistic.fields["nsfw"] is True
    assert all(entry.is_missing for entry in entries.values())


def test_without_a_file_nothing_is_registered_and_none_is_made(models: Path) -> None:
    assert registered(SETTINGS) == []
    assert list(models.iterdir()) == []


def test_custom_models_are_a_list_of_entries_or_paths(models: Path) -> None:
    write({"custom": [{"name": "mine", "path": "/a/b"}, "/c/other.safetensors", "sub/third", {"note": "no path"}, 3]})
    assert [(one.name, one.path) for one in registered(SETTINGS)] == [
        ("mine", Path("/a/b")),
        ("other", Path("/c/other.safetensors")),
        ("third", models / "sub" / "third"),  # relative to the models folder
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_from_windows_editors_is_read(models: Path, encoding: str) -> None:
    registry_file(SETTINGS).write_text(SPECIFIED, encoding=encoding)
    assert len(registered(SETTINGS)) == 3


BROKEN = [
    "",
    "{",
    "[]",
    '{"svd": {"a": {"path": 3}}}',
    '{"svd": {"a": {"path": ""}}}',
    '{"svd": {"a": {"path": "a\\u0000b"}}}',
    '{"svd": {"a": {"path": "~nobody-of-that-name/x"}}}',
    '{"svd": {"a": {"path": "/1"}, "a": {"path": "/2"}}}',
    '{"svd": ' + "[" * 100_000,
    "\x80",
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_told_and_never_overwritten(models: Path, tmp_path: Path, content: str) -> None:
    file = registry_file(SETTINGS)
    file.write_bytes(content.encode("latin-1"))
    for act in (
        lambda: registered(SETTINGS),
        lambda: register(SETTINGS, tmp_path, "new", "svd"),
        lambda: unregister(SETTINGS, "a"),
        lambda: find("nowhere", SETTINGS, "base model"),
    ):
        with pytest.raises(SetupError, match=r"models\.json cannot be read") as caught:
            act()
        assert caught.value.code == "invalid_config"
        assert str(file) in caught.value.suggestions[0]
    assert file.read_bytes() == content.encode("latin-1")


def test_a_broken_file_does_not_hide_what_needs_no_registry(models: Path) -> None:
    named = make_model(models / "named")
    write("{")
    assert find("named", SETTINGS, "base model") == named
    assert find("bundled:tiny-svd", SETTINGS, "base model").name == "tiny-svd"
    with pytest.raises(SetupError, match="was not found"):
        find("bundled:nothing", SETTINGS, "base model")


# --- writing


def test_what_is_not_understood_is_kept_and_paths_stay_as_written(models: Path, tmp_path: Path) -> None:
    content = json.loads(SPECIFIED)
    content["svd"]["svd-xt"] |= {"rating": 4.5, "tags": ["a", None], "nested": {"deep": [1, {"x": False}]}}
    content |= {"cogvideox": {"5b": {"path": "/c", "x": 1}, "later": "?"}, "version": 7, "notes": [1], "big": 10**30}
    content["custom"] = [{"name": "mine", "path": r"E:\mine", "extra": "é\u2028"}, r"E:\other", 12]
    write(content)
    register(SETTINGS, tmp_path, "new", "svd", type="svd", nsfw=None)
    expected = json.loads(json.dumps(content))
    expected["svd"]["new"] = {"path": str(tmp_path), "type": "svd"}
    assert read() == expected
    assert list(read()) == list(expected)  # the order too
    unregister(SETTINGS, "new")
    assert read() == content


def test_an_entry_is_changed_where_it_stands(models: Path, tmp_path: Path) -> None:
    write(
        {"svd": {"a": {"path": str(tmp_path), "rating": 5, "size": "1GB"}, "z": {"path": "/z"}}, "custom": ["/c", "/d"]}
    )
    register(SETTINGS, tmp_path, "a", "svd", size="2GB", sha256="0" * 64)
    assert read()["svd"]["a"] == {"path": str(tmp_path), "rating": 5, "size": "2GB", "sha256": "0" * 64}
    assert list(read()["svd"]) == ["a", "z"]
    register(SETTINGS, tmp_path, "b", "animatediff")  # another name and family: there once
    assert read()["svd"] == {"z": {"path": "/z"}}
    assert read()["animatediff"]["b"]["rating"] == 5
    register(SETTINGS, Path("/c"), "named", "custom", type="lora")
    assert read()["custom"] == [{"name": "named", "path": "/c", "type": "lora"}, "/d"]
    unregister(SETTINGS, "named")
    assert read()["custom"] == ["/d"]


def test_the_same_place_is_registered_once_whatever_leads_to_it(models: Path, tmp_path: Path) -> None:
    place, link = make_model(tmp_path / "place"), tmp_path / "link"
    link.symlink_to(place)
    register(SETTINGS, place, "one", "svd")
    register(SETTINGS, link, "one", "svd")
    assert [entry.path for entry in registered(SETTINGS)] == [place]


def test_a_name_belongs_to_one_model(models: Path, tmp_path: Path) -> None:
    register(SETTINGS, tmp_path / "a", "name", "svd")
    with pytest.raises(InputError, match="another model of the name 'name'") as caught:
        register(SETTINGS, tmp_path / "b", "name", "animatediff")
    assert caught.value.code == "invalid_value"
    assert [entry.path for entry in registered(SETTINGS)] == [tmp_path / "a"]


@pytest.mark.parametrize("name", ["", "a/b", r"a\b", "a:0.5", "a,b", "~a", "-a", ".a", " a", "a ", "a\n", "x" * 101])
def test_names_that_would_be_taken_for_something_else(models: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a model's name"):
        register(SETTINGS, tmp_path, name, "svd")
    assert not registry_file(SETTINGS).exists()


def test_beside_windows_paths_a_windows_drive_is_written_as_windows_reads_it(models: Path) -> None:
    write(SPECIFIED)
    register(SETTINGS, Path("/mnt/d/VideoGenerator/models/new"), "new", "svd")
    assert read()["svd"]["new"]["path"] == r"D:\VideoGenerator\models\new"
    assert find_registered("new", SETTINGS).path == Path("/mnt/d/VideoGenerator/models/new")  # type: ignore[union-attr]
    register(SETTINGS, Path("/home/me/model"), "here", "svd")
    assert read()["svd"]["here"]["path"] == "/home/me/model"


def test_a_file_name_that_is_no_unicode_is_kept(models: Path, tmp_path: Path) -> None:
    odd = make_model(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")))
    register(SETTINGS, odd, "odd", "svd")
    entry = find_registered("odd", SETTINGS)
    assert entry is not None and entry.path == odd and not entry.is_missing


ADD_MANY = """
import sys
from pathlib import Path
from vidkit.models.registry import register
from vidkit.settings import Settings
for number in range(25):
    register(Settings(), Path(f"/models/{sys.argv[1]}-{number}"), f"{sys.argv[1]}-{number}", "svd")
"""


def test_processes_that_add_at_once_lose_nothing(models: Path) -> None:
    write(SPECIFIED)
    adding = [subprocess.Popen([sys.executable, "-c", ADD_MANY, str(number)]) for number in range(4)]
    assert [process.wait(60) for process in adding] == [0] * 4
    names = {entry.name for entry in registered(SETTINGS)}
    assert names >= {f"{process}-{number}" for process in range(4) for number in range(25)}
    assert len(names) == 103
    assert [file.name for file in models.iterdir() if file.name.endswith(".part.json")] == []


def test_where_nothing_can_be_written_the_error_names_the_file(models: Path, tmp_path: Path) -> None:
    registry_file(SETTINGS).mkdir()  # also for who may write everywhere
    with pytest.raises(SetupError):
        register(SETTINGS, tmp_path, "new", "svd")


# --- what a request finds


def test_a_request_names_a_registered_model(models: Path, tmp_path: Path) -> None:
    elsewhere = make_model(tmp_path / "elsewhere")
    register(SETTINGS, elsewhere, "svd-xt", "svd")
    params = GenerationParams(image_path="a.png", prompt="x", base_model="svd-xt")
    assert locate(str(params.base_model), SETTINGS, SVD, "base model").path == elsewhere
    assert locate("svd/svd-xt", SETTINGS, SVD, "base model").path == elsewhere


def test_the_order_is_path_models_folder_registry(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered_one = make_model(tmp_path / "registered")
    register(SETTINGS, registered_one, "name", "svd")
    assert find("name", SETTINGS, "base model") == registered_one
    custom = make_model(models / "custom" / "name")
    assert find("name", SETTINGS, "base model") == custom
    in_folder = make_model(models / "name")
    assert find("name", SETTINGS, "base model") == in_folder
    monkeypatch.chdir(tmp_path)
    by_path = make_model(tmp_path / "name")
    assert find("name", SETTINGS, "base model") == by_path
    assert find("svd/name", SETTINGS, "base model") == registered_one


def test_of_two_of_one_name_the_one_that_is_there_is_found(models: Path, tmp_path: Path) -> None:
    there = make_model(tmp_path / "there")
    write({"svd": {"name": {"path": "/gone"}}, "animatediff": {"name": {"path": str(there)}}})
    assert find("name", SETTINGS, "base model") == there


def test_a_windows_path_finds_what_lies_in_the_models_folder(models: Path) -> None:
    nested = make_model(models / "animatediff" / "v3")
    assert find(r"animatediff\v3", SETTINGS, "motion adapter") == nested


def test_a_link_keeps_its_name_and_suffix(models: Path, tmp_path: Path) -> None:
    """The hub's cache calls files by their hash."""
    (tmp_path / ("0" * 64)).write_bytes(b"weights")
    (models / "realistic.safetensors").symlink_to(tmp_path / ("0" * 64))
    assert find("realistic.safetensors", SETTINGS, "base model") == models / "realistic.safetensors"


def test_what_is_not_found_is_told_with_near_names_and_the_way_to_get_it(models: Path, tmp_path: Path) -> None:
    register(SETTINGS, make_model(tmp_path / "elsewhere"), "my-realistic", "svd")
    make_model(models / "custom" / "portraits")
    with pytest.raises(SetupError) as caught:
        find("my-realistik", SETTINGS, "base model")
    told = caught.value
    assert (told.code, told.concerns) == ("model_not_found", ("base_model",))
    assert "no path" in told.message and str(models) in told.message and "models.json" in told.message
    assert told.suggestions[0] == "Did you mean my-realistic?"
    assert told.suggestions[0].changes == {"base_model": "my-realistic"}  # type: ignore[attr-defined]
    with pytest.raises(SetupError) as caught:
        find("custom/portrait", SETTINGS, "base model")
    assert caught.value.suggestions[0] == "Did you mean custom/portraits?"
    with pytest.raises(SetupError) as caught:
        find("svd-xt", SETTINGS, "base model")
    assert caught.value.suggestions[0] == "Fetch it: vidkit models download svd-xt"


def test_a_registered_model_that_is_gone_is_named_with_its_place(models: Path) -> None:
    write(SPECIFIED)
    with pytest.raises(SetupError) as caught:
        find("realistic-vision", SETTINGS, "base model")
    assert caught.value.code == "model_not_found"
    assert r"D:\VideoGenerator\models\realistic-vision\model.safetensors" in caught.value.message


# --- the list


def test_all_that_a_request_can_name_is_listed_once(models: Path, tmp_path: Path) -> None:
    for folder in ("svd-xt", "animatediff/v3", "custom/mine"):
        make_model(models / folder)
    outside = make_model(tmp_path / "outside")
    register(SETTINGS, models / "svd-xt", "xt", "svd")
    register(SETTINGS, outside, "outside", "svd")
    register(SETTINGS, tmp_path / "gone", "gone", "svd")
    listed = listed_models(Settings(default_models={"svd": str(outside), "animatediff": "/nowhere"}))
    assert [(one.name, one.origin) for one in listed if one.origin != "ships with vidkit"] == [
        ("animatediff/v3", "in the models folder"),
        ("custom/mine", "in the models folder"),
        ("xt", "registered"),
        ("outside", "registered"),
        ("gone", "registered"),
        ("/nowhere", "default of the settings"),
    ]
    problems = {one.name: one.problem for one in listed if one.problem}
    assert list(problems) == ["gone", "/nowhere"]
    assert str(tmp_path / "gone") in problems["gone"]
    for one in listed:
        if one.problem is None:  # the name that is shown leads there
            assert find(one.name, SETTINGS, "model") == one.path
            describe(one.path)


def test_a_name_that_another_model_has_is_listed_with_its_family(models: Path, tmp_path: Path) -> None:
    make_model(models / "svd-xt")
    outside = make_model(tmp_path / "outside")
    register(SETTINGS, outside, "svd-xt", "svd")
    listed = {one.name: one.path for one in listed_models(SETTINGS)}
    assert (listed["svd-xt"], listed["svd/svd-xt"]) == (models / "svd-xt", outside)


def test_an_empty_custom_folder_is_no_model(models: Path) -> None:
    (models / "custom").mkdir()
    assert all(one.origin == "ships with vidkit" for one in listed_models(SETTINGS))
