"""Where nothing is, what lies near it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkit.errors import Remedy
from vidkit.near_paths import near_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pictures/Harbour.JPG", "pictures/lion.png", "pictures/harbour 2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["harbor.jpg", "harbour.jpeg", "HARBOUR.jpg"])
def test_another_spelling_case_or_ending(folder: Path, name: str) -> None:
    remedy = near_paths(folder / "pictures" / name, "image_path")[0]
    assert remedy == f"Did you mean {folder / 'pictures' / 'Harbour.JPG'}?"
    assert isinstance(remedy, Remedy) and remedy.changes == {"image_path": str(folder / "pictures" / "Harbour.JPG")}


def test_another_folder(folder: Path) -> None:
    assert near_paths(folder / "picture" / "lion.png") == [f"Did you mean {folder / 'pictures' / 'lion.png'}?"]
    assert near_paths(folder / "picture" / "tiger.png") == [f"Did you mean the folder {folder / 'pictures'}?"]


def test_nothing_near(folder: Path) -> None:
    assert near_paths(folder / "pictures" / "zebra.tiff") == [
        f"Look into {folder / 'pictures'}: it has nothing of a name like zebra.tiff"
    ]
    assert near_paths(folder / "music" / "a" / "b.png") == [f"Check the folder: {folder} has no music"]


def test_a_relative_path_says_where_it_was_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert near_paths(Path("lion.png"))[-1] == f"Give the full path: this one was looked for in {folder}"


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-of-this-name/x"])
def test_what_no_file_can_be_called(path: str) -> None:
    assert near_paths(Path("/") / path if path[0] != "~" else Path(path))


def test_a_folder_is_told_to_be_one_and_nothing_is_suggested_that_failed(tmp_path: Path) -> None:
    assert near_paths(tmp_path) == [f"Name a file in it: {tmp_path} is a folder"]
    (tmp_path / "photo.jpg").touch()
    assert not any("Did you mean" in told for told in near_paths(tmp_path / "photo.jpg"))
