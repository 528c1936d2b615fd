"""A run's manifest: no accident makes half a run count."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from run_folders import CLIP, KEY, failure_of, files, heard, make, manifest_of, process

from vidkit.errors import CriticalError
from vidkit.runs import RunFolder, claim, describe_error, read_failure, read_manifest, write_failure, write_manifest


def test_done_means_that_the_manifest_is_in_place(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    assert run.path == tmp_path / "0123456789abcdef"
    assert not run.is_done()
    run.path.mkdir()
    run.clip().write_bytes(CLIP)
    assert not run.is_done()
    write_manifest(run, manifest_of(later="kept"))
    assert run.is_done()
    assert RunFolder(tmp_path, run.name).is_done()  # found by its folder's name
    manifest = read_manifest(run)
    assert manifest is not None
    assert (manifest.seed, manifest.timing["denoise"], manifest.files["clip"]) == (3, 4.1, "clip.mp4")
    assert json.loads(run.manifest.read_text())["later"] == "kept"
    assert files(run.path) == ["clip.mp4", "manifest.json"]


def test_a_torn_manifest_never_counts_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path, KEY)
    make(run)
    whole = run.manifest.read_bytes()
    for length in [*range(0, len(whole) - 2, 7), len(whole) - 2]:  # the last two are the brace and the line's end
        run.manifest.write_bytes(whole[:length])
        caplog.clear()
        assert not run.is_done(), length
        assert str(run.manifest) in caplog.text
    run.manifest.write_bytes(b"\0" * len(whole))
    assert not run.is_done()
    run.manifest.write_bytes(whole)
    assert run.is_done()


@pytest.mark.parametrize(
    "damage",
    [
        {"key": "f" * 64},
        {"key": "0123456789abcdef" * 3 + "f" * 16},
        {"status": "failed"},
        {"files": {}},
        {"files": {"clip": "gone.mp4"}},
        {"files": {"clip": "../clip.mp4"}},
        {"attempts": "many"},
        {"error": {"code": "x"}},
    ],
    ids=str,
)
def test_a_manifest_that_is_not_of_this_run_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: dict[str, Any]
) -> None:
    run = RunFolder(tmp_path, KEY)
    make(run)
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    run.manifest.write_text(json.dumps(manifest_of(**damage)))
    assert read_manifest(run) is None
    assert str(run.manifest) in caplog.text
    run.manifest.unlink()
    with pytest.raises(ValueError):
        write_manifest(run, manifest_of(**damage))
    assert files(run.path) == ["clip.mp4"]


def test_a_run_whose_clip_is_gone_is_not_done(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    make(run)
    run.clip().write_bytes(b"")
    assert not run.is_done()
    run.clip().unlink()
    assert not run.is_done()


def test_numbers_that_are_no_json_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    run.path.mkdir()
    run.clip().write_bytes(CLIP)
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(run, manifest_of(metrics={"motion": float("nan")}))


def test_a_file_name_that_is_no_unicode_is_kept_readable(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    run.path.mkdir()
    run.clip().write_bytes(CLIP)
    write_manifest(run, manifest_of(pictures=[{"name": "caf\udce9 é.png", "sha256": "0"}]))
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.pictures[0]["name"] == "caf? é.png"


def test_a_failure_is_recorded_and_gone_after_a_success(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path, KEY)
    write_failure(run, failure_of(attempts=2))
    assert (run.is_done(), run.has_failed(), run.attempts()) == (False, True, 2)
    failure = read_failure(run)
    assert failure is not None and failure.error is not None
    assert (failure.error["category"], failure.error["code"]) == ("critical", "gpu_driver")
    assert "CriticalError" in failure.error["traceback"]
    make(run)
    assert (run.is_done(), run.has_failed(), run.attempts()) == (True, False, 0)
    run.manifest.unlink()
    run.failure.write_text('{"schemaVersion": 1, "key"')
    assert not run.has_failed()
    assert str(run.failure) in caplog.text


def test_an_unexpected_error_is_described_with_its_traceback() -> None:
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError as error:
        described = describe_error(error)
    assert (described["code"], described["category"]) == ("internal_error", "critical")
    assert "by nothing" in described["message"]
    assert "test_runs_folder.py" in described["traceback"]


def test_clocks_decide_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    make(run)
    other = RunFolder(tmp_path, "f" * 64)
    with claim(tmp_path, other.key) as ours:
        for when in (0, 2**33):
            for path in [*tmp_path.rglob("*"), tmp_path]:
                os.utime(path, (when, when))
            assert run.is_done()
            with claim(tmp_path, other.key) as second:
                assert second.state == "busy"
    assert ours


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_that_counts(tmp_path: Path) -> None:
    full = """
    import resource
    from vidkit.errors import CriticalError
    with claim(root, KEY) as ours:
        ours.run.clip().write_bytes(CLIP)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        for write, document in ((write_manifest, manifest_of()), (write_failure, failure_of())):
            try:
                write(ours.run, document)
            except CriticalError as error:
                tell(error.code, sorted(file.name for file in ours.run.path.iterdir()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    tell(ours.run.path.exists())
    with claim(root, KEY) as ours:
        make(ours.run)
    """
    with process(tmp_path, full) as running:
        assert heard(running) == "disk_full ['clip.mp4']"
        assert heard(running) == "disk_full ['clip.mp4']"
        assert heard(running) == "False"
        assert running.wait(30) == 0
    assert RunFolder(tmp_path, KEY).is_done()


def test_a_full_file_system_too(tmp_path: Path) -> None:
    """A real one of 64 KiB, where this user may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        pytest.skip("needs mount")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        run = RunFolder(small, KEY)
        with pytest.raises(CriticalError) as caught, claim(small, KEY) as ours:
            assert ours
            run.clip().write_bytes(CLIP)
            with pytest.raises(OSError), (run.path / ".clip.mp4.1.part.mp4").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            write_manifest(run, manifest_of())
        assert caught.value.code == "disk_full"
        assert not run.path.exists()
        with claim(small, KEY) as ours:
            make(run)
        assert run.is_done()
    finally:
        subprocess.run([umount, small], check=True)


def test_looking_at_two_thousand_runs_takes_less_than_two_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"{number:064x}"[::-1] for number in range(2000)]
    for one in keys[:1900]:
        run = RunFolder(tmp_path, one)
        run.path.mkdir()
        run.clip().write_bytes(CLIP)
        run.manifest.write_text(json.dumps(manifest_of(one)))
    started = time.process_time()
    runs = [RunFolder(tmp_path, one) for one in keys]
    assert sum(run.is_done() for run in runs) == 1900
    assert sum(run.has_failed() for run in runs) == 0
    assert time.process_time() - started < 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
