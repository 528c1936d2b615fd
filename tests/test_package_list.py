"""The list of installed packages is Python's own, read once for an environment, and again when that changes."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from vidkit.package_list import fingerprint, packages_listed_once
from vidkit.settings import load_settings

READ = importlib.metadata.packages_distributions


def listed() -> dict[str, list[str]]:
    """As a fresh process would get it."""
    with packages_listed_once():
        assert importlib.metadata.packages_distributions() is importlib.metadata.packages_distributions()
        return dict(importlib.metadata.packages_distributions())


def install(folder: Path, version: str, module: str) -> None:
    told = folder / f"a_package_for_a_test-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Name: a-package-for-a-test\nVersion: {version}\n")
    (told / "top_level.txt").write_text(module)


@pytest.fixture
def environment(vidkit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which packages are looked for, too."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often Python's own function was called: its length."""
    calls: list[int] = []

    def read() -> object:
        calls.append(1)
        return READ()

    monkeypatch.setattr(importlib.metadata, "packages_distributions", read)
    return calls


def test_it_is_read_once_for_an_environment(
    environment: Path, readings: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script in ("one", "other"):
        (tmp_path / script).mkdir()
        with monkeypatch.context() as its:
            its.syspath_prepend(tmp_path / script)
            assert listed() == READ()
    assert len(readings) == 1


def test_another_package_or_version_is_seen(environment: Path, readings: list[int]) -> None:
    assert "first_module" not in listed()
    install(environment, "1.0", "first_module")
    assert listed()["first_module"] == ["a-package-for-a-test"]
    (environment / "a_package_for_a_test-1.0.dist-info" / "top_level.txt").unlink()
    install(environment, "2.0", "second_module")
    assert "second_module" in listed()
    assert "first_module" not in listed()
    assert len(readings) == 3


@pytest.mark.parametrize("broken", ["", "[]", '{"installed": 1}', '{"list": {}}', None])
def test_a_broken_note_is_made_anew(environment: Path, readings: list[int], broken: str | None) -> None:
    listed()
    (note,) = (load_settings().cache / "packages").iterdir()
    note.write_text(json.dumps({"installed": fingerprint(), "list": []}) if broken is None else broken)
    assert listed() == READ()
    assert len(readings) == 2
    assert listed() == READ()
    assert len(readings) == 2


@pytest.mark.parametrize("odd", [Path("src"), "no/such/folder", ""])
def test_odd_places_to_look_for_packages(
    environment: Path, readings: list[int], monkeypatch: pytest.MonkeyPatch, odd: str | Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, odd])
    assert listed() == READ()


def test_an_entry_that_leads_nowhere_hides_no_others(environment: Path, readings: list[int]) -> None:
    (environment / "gone-1.0.dist-info").symlink_to(environment / "nowhere")
    listed()
    install(environment, "1.0", "first_module")
    assert "first_module" in listed()


def test_another_archive_is_seen(
    environment: Path, readings: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "packages.zip"
    monkeypatch.syspath_prepend(archive)
    for version, module in (("1.0", "first_module"), ("2.0", "second_module")):
        folder = tmp_path / version
        folder.mkdir()
        install(folder, version, module)
        shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
        os.utime(archive, ns=(0, int(float(version))))
        importlib.invalidate_caches()
        assert module in listed()
    assert len(readings) == 2


def test_there_is_one_note_however_often_something_changes(environment: Path, readings: list[int]) -> None:
    for version in ("1.0", "2.0"):
        install(environment, version, "module")
        listed()
    assert len(readings) == 2
    assert len(list((load_settings().cache / "packages").iterdir())) == 1


def test_without_room_for_a_note_it_is_read_each_time(environment: Path, readings: list[int]) -> None:
    load_settings().cache.mkdir(parents=True, exist_ok=True)
    (load_settings().cache / "packages").write_text("no folder")
    assert listed() == listed() == READ()
    assert len(readings) == 2


def test_python_is_left_as_it_was() -> None:
    before = importlib.metadata.packages_distributions
    with packages_listed_once():
        assert importlib.metadata.packages_distributions is not before
    assert importlib.metadata.packages_distributions is before
