"""What a failed writing means: what stands in the way, how much is missing, where there is room."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from vidkit.errors import CriticalError, Remedy, SetupError
from vidkit.files import A_LITTLE, disk_full, next_free_name, other_places, typed_write_errors, write_error


def refused(path: Path) -> SetupError:
    """The error where the system refuses to write there."""
    with pytest.raises(SetupError) as caught, typed_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert caught.value.code == "output_not_writable"
    assert str(path) in caught.value.message
    return caught.value


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    error = refused(tmp_path / "out" / "deep" / "clip.mp4")
    assert error.suggestions[0] == f"Move {tmp_path / 'out'} away: it is a file, where a folder is needed"


def test_a_folder_where_a_file_is_to_be(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()
    error = refused(tmp_path / "clip.mp4")
    assert error.suggestions[0] == f"Add a file's name: {tmp_path / 'clip.mp4'} is a folder"


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    error = refused(tmp_path / ("x" * 300 + ".mp4"))
    assert error.suggestions[0] == "Choose a shorter name: this one has 304 characters"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="writes where no user may")
def test_a_folder_of_somebody_elses() -> None:
    error = refused(Path("/proc/clip.mp4"))
    assert error.suggestions[0] == "Let this user write into /proc"
    assert any(suggestion.startswith("Choose another folder, for example in ") for suggestion in error.suggestions)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to a device that is always full")
def test_a_full_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(CriticalError) as caught,
        typed_write_errors(tmp_path / "clip.mp4"),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x")
    assert caught.value.code == "disk_full"
    assert caught.value.suggestions[0].startswith(f"Free some space on the disk of {tmp_path}: ")


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EDQUOT, "Delete files of yours on the disk of"), (errno.EFBIG, "Choose another folder than")],
)
def test_a_quota_and_a_file_that_is_too_large(tmp_path: Path, number: int, advice: str) -> None:
    error = write_error(tmp_path / "clip.mp4", OSError(number, os.strerror(number)), is_output=True)
    assert (error.code, error.concerns) == ("disk_full", ("output_path",))
    assert error.suggestions[0].startswith(advice)


def test_how_much_is_missing(tmp_path: Path) -> None:
    error = disk_full("It needs room.", tmp_path / "clip.mp4", shutil.disk_usage(tmp_path).free + 3 * 2**30)
    assert error.suggestions[0].startswith("Free 3.0 GiB more on the disk of ")


@pytest.mark.skipif(sys.platform != "linux", reason="needs two disks: /proc is always one of its own")
def test_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the full disk, and only where it suffices and may be written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    full, free = Path("/proc/clip.mp4"), shutil.disk_usage(tmp_path).free
    remedies = [one for one in other_places(full, is_output=True) if isinstance(one, Remedy)]
    assert {"output_path": str(tmp_path / "clip.mp4")} in [remedy.changes for remedy in remedies]
    assert all(str(tmp_path) not in advice for advice in other_places(full, needed=free + A_LITTLE))
    same_disk = other_places(tmp_path / "clip.mp4")
    assert all(str(tmp_path) not in advice for advice in same_disk)


def test_a_free_name(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    assert next_free_name(path) == path
    path.touch()
    (tmp_path / "clip_2.mp4").touch()
    assert next_free_name(path) == tmp_path / "clip_3.mp4"
