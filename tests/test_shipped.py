"""Notebooks and parameter files: where they ship, and copies that are their user's."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest

import vidkit.shipped
from vidkit.errors import SetupError
from vidkit.shipped import COPIES, copy_shipped, shipped

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with two small files, in place of this one."""
    clone = tmp_path / "clone"
    for name, content in {"notebooks/a.ipynb": "{}", "parameters/b.yaml": "prompt: x\n"}.items():
        (clone / name).parent.mkdir(parents=True)
        (clone / name).write_text(content)
    (clone / "pyproject.toml").touch()
    (clone / "vidkit").mkdir()
    monkeypatch.setattr(vidkit.shipped, "__file__", str(clone / "vidkit" / "shipped.py"))
    return clone


def test_in_a_clone_they_are_its_folders() -> None:
    assert shipped("notebooks") == ROOT / "notebooks"
    assert shipped("parameters") == ROOT / "parameters"


def test_beside_the_package_where_pip_was_given_a_target(ships: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ships / "pyproject.toml").unlink()
    (ships / "share" / "vidkit").mkdir(parents=True)
    (ships / "notebooks").rename(ships / "share" / "vidkit" / "notebooks")
    assert shipped("notebooks") == ships / "share" / "vidkit" / "notebooks"


@pytest.mark.parametrize("is_known", [True, False])
def test_an_installation_without_them_says_so(ships: Path, is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As data or not: importlib.metadata may know of no installation at all."""
    (ships / "pyproject.toml").unlink()
    if not is_known:
        monkeypatch.setattr("sys.path", [])
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.files("vidkit")
    with pytest.raises(SetupError, match="not whole") as caught:
        shipped("notebooks")
    assert caught.value.code == "missing_dependency"


def test_copies_are_made_once(ships: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "deep"
    first, second = copy_shipped(folder), copy_shipped(folder)
    assert first.written == ["notebooks/a.ipynb", "parameters/b.yaml"]
    assert (folder / "parameters" / "b.yaml").read_text() == "prompt: x\n"
    assert (second.written, second.kept, second.outdated) == ([], [], [])


def test_what_was_changed_is_kept_and_what_was_not_is_renewed(ships: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    copy_shipped(folder)
    mine = folder / "notebooks" / "a.ipynb"
    mine.write_text("mine")
    kept = copy_shipped(folder)
    assert (kept.written, kept.kept, kept.outdated) == ([], ["notebooks/a.ipynb"], [])

    (ships / "notebooks" / "a.ipynb").write_text("newer")
    (ships / "parameters" / "b.yaml").write_text("prompt: newer\n")
    for _ in range(2):  # said again as long as it is so
        renewed = copy_shipped(folder)
        assert renewed.outdated == ["notebooks/a.ipynb"]
        assert mine.read_text() == "mine"
    assert (folder / "parameters" / "b.yaml").read_text() == "prompt: newer\n"

    mine.rename(folder / "notebooks" / "mine.ipynb")
    assert copy_shipped(folder).written == ["notebooks/a.ipynb"]
    assert mine.read_text() == "newer"


@pytest.mark.parametrize("damage", ["", "[1]", "{"])
def test_without_a_record_whatever_differs_is_the_users(damage: str, ships: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    copy_shipped(folder)
    (folder / COPIES).write_text(damage)
    (ships / "notebooks" / "a.ipynb").write_text("newer")
    assert copy_shipped(folder).outdated == ["notebooks/a.ipynb"]
    assert (folder / "notebooks" / "a.ipynb").read_text() == "{}"


def test_a_folder_that_cannot_be_written(ships: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError) as caught:
        copy_shipped(tmp_path / "file")
    assert caught.value.code == "output_not_writable"


def test_a_failed_copy_leaves_nothing_half_written(
    ships: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: at the last step, when all is written beside its name."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "mine"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(vidkit.CriticalError) as caught:
            copy_shipped(folder)
    assert caught.value.code == "disk_full"
    assert not [name for _, _, files in os.walk(folder) for name in files]
    assert len(copy_shipped(folder).written) == 2
