r"""The translation of paths is that of `wslpath`.

The tables are the cases of its own tests, test/linux/unit_tests/wslpath.c and test/windows/DrvFsTests.cpp in
github.com/microsoft/WSL (Copyright Microsoft Corporation, MIT licence), and what its source says beyond them,
src/linux/init/wslpath.cpp, util.cpp, escape.cpp. vidkit drops a slash at the end; where that is the only difference,
the tables have what wslpath gives.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.windows_mounts import WSL2, drive_mount, system
from vidkit.errors import InputError
from vidkit.mounts import System
from vidkit.paths import windows_to_wsl_path, wsl_to_windows_path

DISTRIBUTION = "test_distro"
SHARE = rf"\\wsl.localhost\{DISTRIBUTION}"
OLD_SHARE = rf"\\wsl$\{DISTRIBUTION}"

#: WslPathTestDrvFsFromWinPath, ...Escaped, ...Symlink, WslPathTestLxFromWinPath, ...Escaped
FROM_WINDOWS = [
    ("C:\\", "/mnt/c/"),
    (r"C:\Foo", "/mnt/c/Foo"),
    ("C:\\Foo\\", "/mnt/c/Foo/"),
    (r"C:\Foo\bar", "/mnt/c/Foo/bar"),
    ("C:/Foo/bar", "/mnt/c/Foo/bar"),
    ("foo", "foo"),
    ("foo\\", "foo/"),
    (r"C:\Program Files\Git", "/mnt/c/Program Files/Git"),
    (r"C:\Program Files\PowerShell\7", "/mnt/c/Program Files/PowerShell/7"),
    (r"C:\Program Files (x86)\Common Files", "/mnt/c/Program Files (x86)/Common Files"),
    (
        r"C:\Users\Test User\AppData\Local\Programs\Microsoft VS Code\bin",
        "/mnt/c/Users/Test User/AppData/Local/Programs/Microsoft VS Code/bin",
    ),
    ("C:\\wslpath_foo\uf05c\uf03abar", "/mnt/c/wslpath_foo\uf05c\uf03abar"),
    (r"C:\symlink_test_dir\link", "/mnt/c/symlink_test_dir/link"),
    (SHARE, "/"),
    (SHARE + "\\", "/"),
    (SHARE + r"\root", "/root"),
    (SHARE + r"\proc\stat", "/proc/stat"),
    (SHARE + "/proc/stat", "/proc/stat"),
    (OLD_SHARE + r"\proc\stat", "/proc/stat"),
    (OLD_SHARE, "/"),
    (r"\\?\C:\Users", "/mnt/c/Users"),
    ("\\\\?\\C:\\Users\\", "/mnt/c/Users/"),
    (".", "."),
    (SHARE + "\\data\\wslpath_foo\uf05c\uf03abar", "/data/wslpath_foo\\:bar"),
    ("wslpath-测试目录-テスト", "wslpath-测试目录-テスト"),
]

#: these, and what DosToCanonicalPath refuses
REFUSED = [
    SHARE + r"-other\foo",
    SHARE + r"X\foo",
    OLD_SHARE + r"-other\foo",
    OLD_SHARE + r"X\foo",
    "C:foo",
    r"C:foo\bar",
    r"C:\..\foo",
    r"\\server\share\foo",
    r"Z:\foo",
    r"\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\foo",
    r"\\.\COM1",
]

#: WslPathTestDrvFsToWinPath, ...Escaped, WslPathTestLxToWinPath, ...Escaped
TO_WINDOWS = [
    ("/mnt/c", "C:\\"),
    ("/mnt/c/", "C:\\"),
    ("/mnt/c/Users", r"C:\Users"),
    ("/mnt/c/Users/", "C:\\Users\\"),
    ("/mnt/c/DOESNOTEXIST/", "C:\\DOESNOTEXIST\\"),
    ("/mnt/c/Program Files/Git", r"C:\Program Files\Git"),
    ("/mnt/c/Program Files/PowerShell/7", r"C:\Program Files\PowerShell\7"),
    ("/mnt/c/Program Files (x86)/Common Files", r"C:\Program Files (x86)\Common Files"),
    (
        "/mnt/c/Users/Test User/AppData/Local/Programs/Microsoft VS Code/bin",
        r"C:\Users\Test User\AppData\Local\Programs\Microsoft VS Code\bin",
    ),
    ("/mnt/c/wslpath_foo\\:bar", "C:\\wslpath_foo\uf05c\uf03abar"),
    ("/", SHARE + "\\"),
    ("/root", SHARE + r"\root"),
    ("/data/wslpath_foo\\:bar", SHARE + "\\data\\wslpath_foo\uf05c\uf03abar"),
    ("/wslpath-测试目录-テスト", SHARE + "\\wslpath-测试目录-テスト"),
    ("/sys//./kernel/", SHARE + "\\sys\\kernel\\"),
]


@pytest.fixture(autouse=True)
def in_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_DISTRO_NAME", DISTRIBUTION)


@pytest.fixture
def wsl(tmp_path: Path) -> System:
    return system(tmp_path)


@pytest.mark.parametrize(("windows", "linux"), FROM_WINDOWS)
def test_from_windows(windows: str, linux: str, wsl: System) -> None:
    assert windows_to_wsl_path(windows, system=wsl) == (linux.rstrip("/") or "/")


@pytest.mark.parametrize("windows", REFUSED)
def test_what_wslpath_refuses_is_refused_with_a_remedy(windows: str, wsl: System) -> None:
    with pytest.raises(InputError) as refused:
        windows_to_wsl_path(windows, system=wsl)
    assert refused.value.code == "invalid_value"
    assert repr(windows) in refused.value.message
    assert refused.value.suggestions


@pytest.mark.parametrize(("linux", "windows"), TO_WINDOWS)
def test_to_windows(linux: str, windows: str, wsl: System) -> None:
    is_root = windows in ("C:\\", SHARE + "\\")
    assert wsl_to_windows_path(linux, system=wsl) == (windows if is_root else windows.rstrip("\\"))


def test_to_windows_follows_links_and_from_windows_does_not(tmp_path: Path) -> None:
    """WslPathTestDrvFsSymlink"""
    drive = tmp_path / "drive"
    (drive / "target").mkdir(parents=True)
    (drive / "link").symlink_to(drive / "target")
    wsl = system(tmp_path, drive_mount("C:\\", str(drive)))
    assert wsl_to_windows_path(str(drive / "link"), system=wsl) == r"C:\target"
    assert wsl_to_windows_path(str(drive / "link" / "not there"), system=wsl) == r"C:\link\not there"
    assert windows_to_wsl_path(r"C:\link", system=wsl) == str(drive / "link")


def test_a_line_with_an_empty_source_breaks_nothing(tmp_path: Path) -> None:
    """WslPathTestInvalidMountInfo: neither do other lines that are cut short."""
    wsl = system(tmp_path, "90 60 0:80 / /data/wslpath_mount rw -  tmpfs rw\nnonsense\n\n" + WSL2 + "91 60 0:80 / /x\n")
    assert wsl_to_windows_path("/mnt/c", system=wsl) == "C:\\"


@pytest.mark.parametrize(
    ("lines", "linux", "windows"),
    [
        (drive_mount("D:\\", "/windows/d"), "/windows/d/a b", r"D:\a b"),
        (drive_mount("D:", "/w/d e"), "/w/d e/x", r"D:\x"),  # the table has the space as \040
        (drive_mount(r"D:\Models", "/models"), "/models/svd", r"D:\Models\svd"),
        (drive_mount(r"UNC\server\share", "/mnt/share"), "/mnt/share/a/b", r"\\server\share\a\b"),
        (drive_mount("D:\\", "/bound", root="/My Models"), "/bound/svd", r"D:\My Models\svd"),
        ("80 60 0:70 / /mnt/e rw - drvfs E: rw,noatime\n", "/mnt/e/x", r"E:\x"),  # WSL 1
        ("80 60 0:70 / /mnt/e rw shared:1 master:2 - drvfs E:/Some/ rw\n", "/mnt/e/x", r"E:\Some\x"),
    ],
)
def test_every_kind_of_mount_is_read(lines: str, linux: str, windows: str, tmp_path: Path) -> None:
    wsl = system(tmp_path, lines)
    assert wsl_to_windows_path(linux, system=wsl) == windows
    assert windows_to_wsl_path(windows, system=wsl) == linux
    assert windows_to_wsl_path(windows.swapcase(), system=wsl).lower() == linux.lower()  # the case of a drive or share


def test_a_virtiofs_mount_says_by_a_link_what_it_is(tmp_path: Path) -> None:
    one, many = "0a1b2c3d-0000-1111-2222-333344445555", "0a1b2c3d-0000-1111-2222-333344446666"
    lines = f"""80 60 0:70 / /mnt/c rw - virtiofs {one} rw
81 60 0:71 / /run/wsl/virtiofs-mounts/drvfs rw - virtiofs drvfs rw
82 60 0:71 /{many} /run/wsl/virtiofs-mounts/drvfs/{many} rw - virtiofs drvfs rw
83 60 0:71 /{many} /mnt/d rw - virtiofs drvfs rw
84 60 0:71 /{many}/nested /nested rw - virtiofs drvfs rw
85 60 0:72 / /elsewhere rw - virtiofs shared_home rw
"""
    wsl = system(tmp_path, lines)
    wsl.virtiofs_tags.mkdir()
    (wsl.virtiofs_tags / one).symlink_to("C:\\")
    (wsl.virtiofs_tags / many).symlink_to("D:\\")
    for linux, windows in [("/mnt/c/x", r"C:\x"), ("/mnt/d/x", r"D:\x"), ("/nested/x", r"D:\nested\x")]:
        assert wsl_to_windows_path(linux, system=wsl) == windows
        assert windows_to_wsl_path(windows, system=wsl) == linux
    assert wsl_to_windows_path("/elsewhere/x", system=wsl) == SHARE + r"\elsewhere\x"


def test_the_longest_source_wins_and_later_mounts_hide_earlier_ones(tmp_path: Path) -> None:
    """The comments in UtilFindMount."""
    inner = WSL2 + drive_mount(r"D:\VideoGenerator", "/video") + "90 60 0:80 / /mnt/c/foo rw - tmpfs none rw\n"
    wsl = system(tmp_path, inner)
    assert windows_to_wsl_path(r"D:\VideoGenerator\out", system=wsl) == "/video/out"
    assert windows_to_wsl_path(r"D:\VideoGeneratorX", system=wsl) == "/mnt/d/VideoGeneratorX"
    assert wsl_to_windows_path("/mnt/c/foo/bar", system=wsl) == SHARE + r"\mnt\c\foo\bar"
    assert wsl_to_windows_path("/mnt/c/foobar", system=wsl) == r"C:\foobar"
    hidden = system(tmp_path, drive_mount("C:\\", "/mnt/c") + "90 60 0:80 / /mnt rw - tmpfs none rw\n")
    with pytest.raises(InputError, match="not mounted"):
        windows_to_wsl_path(r"C:\foo", system=system(tmp_path, hidden.mountinfo.read_text() + drive_mount("D:", "/d")))


def test_a_path_from_the_current_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AbsoluteWindowsPath: `\\foo` begins at the root of the drive that the current folder is on."""
    (tmp_path / "drive" / "inside").mkdir(parents=True)
    wsl = system(tmp_path, drive_mount("E:", str(tmp_path / "drive")))
    monkeypatch.chdir(tmp_path / "drive" / "inside")
    assert windows_to_wsl_path(r"\foo", system=wsl) == str(tmp_path / "drive" / "foo")
    monkeypatch.chdir(os.sep)
    with pytest.raises(InputError, match="current drive") as refused:
        windows_to_wsl_path(r"\foo", system=wsl)
    assert refused.value.suggestions == [r"Write the drive: D:\foo"]
