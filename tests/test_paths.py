"""Paths between Windows and WSL as the specification asks, where its sample code was wrong, and beyond `wslpath`."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest

from tests.windows_mounts import WSL2, system
from vidkit.errors import InputError
from vidkit.paths import (
    as_asked,
    is_windows_path,
    local_path,
    normalize_path,
    path_to_write,
    windows_to_wsl_path,
    wsl_to_windows_path,
)
from vidkit.settings import Settings

PAIRS = [
    (r"D:\VideoGenerator\models", "/mnt/d/VideoGenerator/models"),
    (r"C:\Users\Zoë\my models\svd.safetensors", "/mnt/c/Users/Zoë/my models/svd.safetensors"),
    ("E:\\", "/mnt/e"),
    (r"\\wsl.localhost\Ubuntu\home\me\models", "/home/me/models"),
    ("\\\\wsl.localhost\\Ubuntu\\", "/"),
    ("D:\\\U0001f3ac\\日本語", "/mnt/d/\U0001f3ac/日本語"),
]


@pytest.fixture
def in_ubuntu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_DISTRO_NAME", "Ubuntu")


@pytest.fixture
def no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)


@pytest.mark.usefixtures("in_ubuntu")
@pytest.mark.parametrize(("windows", "wsl"), PAIRS)
def test_there_and_back(windows: str, wsl: str) -> None:
    assert windows_to_wsl_path(windows) == wsl
    assert wsl_to_windows_path(wsl) == windows
    assert normalize_path(windows, on_windows=False) == wsl
    assert normalize_path(wsl, on_windows=True) == windows


@pytest.mark.usefixtures("no_distribution")
@pytest.mark.parametrize(
    ("windows", "wsl"),
    [
        ("D:", "/mnt/d"),  # what a client makes of D:\ that trims backslashes
        ("d:/a/b/", "/mnt/d/a/b"),
        ("D:\\\\VideoGenerator\\\\models\\\\", "/mnt/d/VideoGenerator/models"),  # backslashes doubled for JSON
        (r"D:\a\..\b\.\c", "/mnt/d/b/c"),
        (r"D:/a\b/c", "/mnt/d/a/b/c"),
        (r"\\?\D:\long\path", "/mnt/d/long/path"),
        (r"\\.\D:\long\path", "/mnt/d/long/path"),
        ("//?/D:/long/path", "/mnt/d/long/path"),
        (r"\\?\UNC\wsl.localhost\Ubuntu\home", "/home"),
        (r"\\wsl$\Debian\etc", "/etc"),  # which distribution this is, nobody says
        (r"\\WSL$\Debian", "/"),
        ("//wsl$/Debian/home/", "/home"),
        (r"models\svd", "models/svd"),
        (r"..\models\.\svd", "../models/svd"),
        (r"models\..\svd", "svd"),
        ("/home/me/models/", "/home/me/models/"),
        ("//server/share", "//server/share"),  # a path of Linux, too
        (r"/home/me/odd\name", r"/home/me/odd\name"),
        ("models/svd", "models/svd"),
        ("", ""),
    ],
)
def test_windows_paths_in_wsl(windows: str, wsl: str) -> None:
    assert windows_to_wsl_path(windows) == wsl


@pytest.mark.usefixtures("no_distribution")
@pytest.mark.parametrize(
    ("wsl", "windows"),
    [
        ("/mnt/d/", "D:\\"),
        ("/mnt/D/x", r"D:\x"),
        ("/mnt/d/../e/x", r"E:\x"),
        ("/mnt/wsl/shared", r"\mnt\wsl\shared"),  # no drive: the specification's code makes WSL:\shared of it
        ("/mnt/data/models", r"\mnt\data\models"),
        ("/mnt/d/clip 10:30?.mp4", "D:\\clip 10\uf03a30\uf03f.mp4"),
        ("models/svd", r"models\svd"),
        ("models/", "models"),
        ("ab:c/d", "ab\uf03ac\\d"),
        (r"D:\already\there", r"D:\already\there"),
        ("D:/already/there", r"D:\already\there"),
        ("//server/share", r"\\server\share"),
        ("", ""),
    ],
)
def test_wsl_paths_in_windows(wsl: str, windows: str) -> None:
    assert wsl_to_windows_path(wsl) == windows


@pytest.mark.parametrize(
    ("wsl_conf", "folder"),
    [
        (None, "/mnt/d"),
        ("[automount]\nroot = /windows/\n", "/windows/d"),
        ('# mine\n[Automount]\nenabled=true\nroot="/w"   # no slash\noptions = "metadata"\n', "/w/d"),
        ("[automount]\nroot = /\n", "/d"),
        ("[network]\nroot = /no\n", "/mnt/d"),
        ("root = /no section\n", "/mnt/d"),
        ("\ufeff[automount]\r\nroot = /windows\r\n", "/windows/d"),
    ],
)
def test_the_root_of_drives_is_that_of_wsl_conf(wsl_conf: str | None, folder: str, tmp_path: Path) -> None:
    files = system(tmp_path, mountinfo="", wsl_conf=wsl_conf)
    assert windows_to_wsl_path(r"D:\x", system=files) == f"{folder}/x"
    assert wsl_to_windows_path(f"{folder}/x", system=files) == r"D:\x"


def test_the_mount_table_comes_before_wsl_conf(tmp_path: Path) -> None:
    files = system(tmp_path, wsl_conf="[automount]\nroot = /windows\n")
    assert windows_to_wsl_path(r"D:\x", system=files) == "/mnt/d/x"
    with pytest.raises(InputError, match="Z: is not mounted") as refused:
        windows_to_wsl_path(r"Z:\x", system=files)
    assert "sudo mount -t drvfs Z: /windows/z" in refused.value.suggestions[0]


def test_the_users_own_folder_of_drives_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_DRIVES", "/drives/")
    files = system(tmp_path, WSL2)
    assert windows_to_wsl_path(r"D:\x", system=files) == "/drives/d/x"
    assert wsl_to_windows_path("/drives/d/x", system=files) == r"D:\x"
    assert wsl_to_windows_path("/drives/d", system=files) == "D:\\"
    assert wsl_to_windows_path("/mnt/c/x", system=files) == r"C:\x"


def test_a_path_of_this_system_stays_as_it_is() -> None:
    for path in (
        "/home/me/a b",
        "models/svd",
        "svd-xt",
        "/mnt/d/models",
        "~/models",
        "ab:c",
        "a//b/../c/",
        "example:p",
    ):
        assert normalize_path(path, on_windows=False) == path
    for path in (r"D:\models", "svd-xt", r"\\server\share", r"\\wsl$\Ubuntu\home", "models/svd", "//?/D:/x"):
        assert normalize_path(path, on_windows=True) == path


@pytest.mark.parametrize("on_windows", [True, False])
@pytest.mark.parametrize("path", ["D:photo.jpg", r"d:a\b", "D:.", "D:.."])
def test_a_path_relative_to_a_drives_current_folder_is_refused(path: str, on_windows: bool) -> None:
    with pytest.raises(InputError, match=f"relative to the current folder of drive {path[0].upper()}:") as refused:
        normalize_path(path, on_windows=on_windows)
    assert refused.value.code == "invalid_value"
    assert refused.value.suggestions == [f"Write the whole path: {path[:2]}\\{path[2:]}"]


def test_what_looks_like_windows() -> None:
    assert all(map(is_windows_path, (r"D:\a", "D:/a", "D:", r"\\wsl$\x\y", r"a\b", r"\\?\D:\a", "//?/D:/a", "D:a")))
    assert not any(map(is_windows_path, ("/a/b", "a/b", "a", "", r"/a/odd\name", "//server/share", "ab:c")))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (r"D:\out\con", "device"),
        (r"D:\NUL.png", "device"),
        (r"D:\com1 .tar.gz\x.png", "device"),
        (r"D:\LPT²", "device"),
        (r"D:\clip.mp4.", "it would be 'clip.mp4'"),
        ("D:\\clip.mp4 ", "it would be 'clip.mp4'"),
        (r"D:\folder.\clip.mp4", "it would be 'folder'"),
        (r"D:\clip.mp4:stream", "':'"),
        (r"D:\what?.mp4", "'\\?'"),
        ("D:\\tab\t.mp4", "may have"),
        (r"out\aux.mp4", "device"),
    ],
)
def test_names_that_windows_reserves_or_changes_are_refused(path: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        local_path(path)
    assert refused.value.code == "invalid_value"


@pytest.mark.parametrize(
    "path",
    [r"D:\console\company.png", r"D:\.hidden\a.b.c", r"D:\a\..\b", r"\\?\D:\con.", r"\\wsl$\Ubuntu\dev\con", "/con/a."],
)
def test_other_names_are_not(path: str, in_ubuntu: None) -> None:
    assert local_path(path) == Path(windows_to_wsl_path(path))


def test_a_file_of_linux_with_such_a_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (r"odd\name.png", "D:photo.jpg"):
        Path(name).touch()
        assert local_path(name) == Path(name)
    assert local_path(r"odd\other.png") == Path("odd/other.png")


def test_a_home_that_is_not_there_and_a_null_character_are_typed_errors() -> None:
    assert local_path(r"~\models") == Path.home() / "models"
    for path in ("~no such user/x", "a\0b"):
        with pytest.raises(InputError) as refused:
            local_path(path)
        assert refused.value.code == "invalid_value"


def test_nothing_is_written_to_a_drive_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_DRIVES", str(tmp_path))
    with pytest.raises(InputError, match="D: is not mounted") as refused:
        path_to_write(r"D:\out\clip.mp4")
    assert "VIDKIT_DRIVES" in refused.value.suggestions[1]
    (tmp_path / "d").mkdir()
    assert path_to_write(r"D:\out\clip.mp4") == tmp_path / "d/out/clip.mp4"
    monkeypatch.chdir(tmp_path)
    assert path_to_write(r"out\clip.mp4") == tmp_path / "out/clip.mp4"


def test_an_answer_has_paths_as_the_request_had_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    on_drive, at_home = Path("/mnt/d/out/clip.mp4"), Path("/home/me/clip.mp4")
    assert as_asked(on_drive, r"D:\out\clip.mp4") == r"D:\out\clip.mp4"
    assert as_asked(on_drive, "D:/out/clip.mp4", ["/x.png"]) == "D:/out/clip.mp4"
    assert as_asked(on_drive, r"out\clip.mp4") == r"D:\out\clip.mp4"
    assert as_asked(on_drive, None, [r"D:\photo.jpg", None]) == r"D:\out\clip.mp4"
    assert as_asked(on_drive, None, ["/mnt/d/photo.jpg"]) == "/mnt/d/out/clip.mp4"
    assert as_asked(on_drive, "/mnt/d/out/clip.mp4", [r"D:\photo.jpg"]) == r"D:\out\clip.mp4"
    assert as_asked(at_home, None, [r"D:\photo.jpg"]) == "/home/me/clip.mp4"  # Windows has no path for it
    monkeypatch.setenv("WSL_DISTRO_NAME", "Ubuntu")
    assert as_asked(at_home, None, [r"D:\photo.jpg"]) == r"\\wsl.localhost\Ubuntu\home\me\clip.mp4"


def test_every_name_of_linux_comes_back_from_windows(in_ubuntu: None) -> None:
    for code in [*range(1, 128), 0xE9, 0x4E2D, 0x1F3AC, 0xFF1A]:
        path = posixpath.join("/home", f"a{chr(code)}b")
        assert windows_to_wsl_path(wsl_to_windows_path(path)) == path


def test_the_models_folder_can_be_elsewhere(vidkit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().models == vidkit_home / "models"
    monkeypatch.setenv("VIDKIT_MODELS", str(tmp_path))
    assert Settings().models == tmp_path
    monkeypatch.setenv("VIDKIT_MODELS", r"D:\VideoGenerator\models")
    assert Settings().models == Path("/mnt/d/VideoGenerator/models")
    monkeypatch.setenv("VIDKIT_MODELS", "~/models")
    assert Settings().models == Path.home() / "models"
