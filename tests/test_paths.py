"""Paths between Windows and WSL, as the specification asks, and where its sample code was wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkit.paths import is_windows_path, normalize_path, windows_to_wsl_path, wsl_to_windows_path
from vidkit.settings import Settings

PAIRS = [
    (r"D:\VideoGenerator\models", "/mnt/d/VideoGenerator/models"),
    (r"C:\Users\Zoë\my models\svd.safetensors", "/mnt/c/Users/Zoë/my models/svd.safetensors"),
    ("E:\\", "/mnt/e"),
    (r"\\wsl.localhost\Ubuntu\home\me\models", "/home/me/models"),
]


@pytest.mark.parametrize(("windows", "wsl"), PAIRS)
def test_there_and_back(windows: str, wsl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_DISTRO_NAME", "Ubuntu")
    assert windows_to_wsl_path(windows) == wsl
    assert wsl_to_windows_path(wsl) == windows


@pytest.mark.parametrize(
    ("windows", "wsl"),
    [
        ("D:", "/mnt/d"),
        ("d:/a/b/", "/mnt/d/a/b"),
        (r"D:a\b", "/mnt/d/a/b"),  # the specification's code makes /mnt/da/b of it
        ("D:\\\\VideoGenerator\\\\models\\\\", "/mnt/d/VideoGenerator/models"),  # backslashes doubled for JSON
        (r"\\?\D:\long\path", "/mnt/d/long/path"),
        (r"\\wsl$\Debian\etc", "/etc"),
        (r"\\WSL$\Debian", "/"),
        ("//wsl$/Debian/home/", "/home"),
        (r"models\svd", "models/svd"),
        (r"\\server\share\models", "//server/share/models"),
        ("/home/me/models", "/home/me/models"),
        ("", ""),
    ],
)
def test_windows_paths_in_wsl(windows: str, wsl: str) -> None:
    assert windows_to_wsl_path(windows) == wsl


@pytest.mark.parametrize(
    ("wsl", "windows"),
    [
        ("/mnt/d/", "D:\\"),
        ("/mnt/wsl/shared", r"\mnt\wsl\shared"),  # no drive: the specification's code makes WSL:\shared of it
        ("/mnt/data/models", r"\mnt\data\models"),
        ("models/svd", r"models\svd"),
        ("//server/share", r"\\server\share"),
        ("", ""),
    ],
)
def test_wsl_paths_in_windows(wsl: str, windows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    assert wsl_to_windows_path(wsl) == windows


def test_a_path_of_this_system_stays_as_it_is() -> None:
    for path in ("/home/me/a b", "models/svd", "svd-xt", "/mnt/d/models", "~/models", "a:b"):
        assert normalize_path(path, on_windows=False) == path
    for path in (r"D:\models", "svd-xt", r"\\server\share", r"\\wsl$\Ubuntu\home"):
        assert normalize_path(path, on_windows=True) == path


def test_a_path_of_the_other_system_is_translated() -> None:
    assert normalize_path(r"D:\models\svd", on_windows=False) == "/mnt/d/models/svd"
    assert normalize_path(r"animatediff\v3", on_windows=False) == "animatediff/v3"
    assert normalize_path("/mnt/d/models/svd", on_windows=True) == r"D:\models\svd"


def test_what_looks_like_windows() -> None:
    assert all(map(is_windows_path, (r"D:\a", "D:/a", r"\\wsl$\x\y", r"a\b")))
    assert not any(map(is_windows_path, ("/a/b", "a/b", "a", "", r"/a/odd\name")))


def test_the_models_folder_can_be_elsewhere(vidkit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().models == vidkit_home / "models"
    monkeypatch.setenv("VIDKIT_MODELS", str(tmp_path))
    assert Settings().models == tmp_path
    monkeypatch.setenv("VIDKIT_MODELS", r"D:\VideoGenerator\models")
    assert Settings().models == Path("/mnt/d/VideoGenerator/models")
    monkeypatch.setenv("VIDKIT_MODELS", "~/models")
    assert Settings().models == Path.home() / "models"
