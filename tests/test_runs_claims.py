"""Who makes a run, with real processes: each run once, and a killed holder holds nothing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from run_folders import CLIP, KEY, failure_of, files, heard, kill, make, process

from vidkit.errors import SetupError
from vidkit.runs import RunFolder, claim, clean, run_folders, write_failure

RACE = """
keys = [f"{number:016x}" * 4 for number in range(20)]
tell("ready")
sys.stdin.readline()
made = 0
for key in keys:
    with claim(root, key) as ours:
        if ours:
            with open(root / "made.log", "a") as log:
                log.write(key + "\\n")
            made += 1
            ours.run.clip().write_bytes(CLIP)
            time.sleep(0.01)
            write_manifest(ours.run, manifest_of(key))
tell(made)
"""


def test_two_processes_make_each_run_once(tmp_path: Path) -> None:
    with process(tmp_path, RACE) as first, process(tmp_path, RACE) as second:
        for running in (first, second):
            assert heard(running) == "ready"
        for running in (first, second):
            assert running.stdin is not None
            running.stdin.write("go\n")
            running.stdin.flush()
        counts = [int(heard(running)) for running in (first, second)]
    log = (tmp_path / "made.log").read_text().split()
    assert len(log) == len(set(log)) == 20
    assert sum(counts) == 20
    assert all(counts), "one process made all: they did not race"
    assert len(run_folders(tmp_path)) == 20
    assert all(run.is_done() for run in run_folders(tmp_path))


HOLD = """
with claim(root, KEY) as ours:
    ours.run.clip().write_bytes(CLIP)
    (ours.run.path / ".clip.mp4.123.part.mp4").write_bytes(CLIP)
    tell(ours.state)
    time.sleep(60)
"""


def test_a_killed_holder_frees_its_claim_and_leaves_nothing_that_counts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    with process(tmp_path, HOLD) as holder:
        assert heard(holder) == "ours"
        with claim(tmp_path, KEY) as other:
            assert other.state == "busy"
            assert not other
        assert clean(tmp_path) == []
        kill(holder)
        assert files(run.path) == [".clip.mp4.123.part.mp4", "clip.mp4"]
        assert not run.is_done()
        with claim(tmp_path, KEY) as ours:
            assert ours
            assert files(run.path) == []
            make(run)
    assert run.is_done()


def test_waiting_ends_when_the_holder_dies(tmp_path: Path) -> None:
    waiter = "tell('waiting')\nwith claim(root, KEY, wait=True) as ours:\n    tell(ours.state)\n"
    with process(tmp_path, HOLD) as holder:
        assert heard(holder) == "ours"  # or the other could be the first
        with process(tmp_path, waiter) as other:
            assert heard(other) == "waiting"
            time.sleep(0.3)
            kill(holder)
            assert heard(other) == "ours"


def test_waiting_for_a_holder_that_finishes_finds_the_run_done(tmp_path: Path) -> None:
    finish = """
    with claim(root, KEY) as ours:
        tell(ours.state)
        sys.stdin.readline()
        make(ours.run)
    """
    waiter = "tell('waiting')\nwith claim(root, KEY, wait=True) as ours:\n    tell(ours.state)\n"
    with process(tmp_path, finish) as holder:
        assert heard(holder) == "ours"  # or the other could be the first
        with process(tmp_path, waiter) as other:
            assert heard(other) == "waiting"
            time.sleep(0.3)
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert heard(other) == "done"


def test_a_run_that_is_killed_as_its_manifest_is_renamed_is_not_done(tmp_path: Path) -> None:
    """The last moment before it counts: the manifest is written whole, under its temporary name."""
    last = """
    def die(self, target):
        os.kill(os.getpid(), signal.SIGKILL)
    Path.replace = die
    with claim(root, KEY) as ours:
        make(ours.run)
    """
    run = RunFolder(tmp_path, KEY)
    with process(tmp_path, last) as running:
        assert running.wait(30) == -signal.SIGKILL
    assert len(files(run.path)) == 2  # the clip, and the manifest under another name
    assert not run.is_done()
    assert clean(tmp_path) == [run.name]
    assert not run.path.exists()


def test_only_one_thread_of_a_process_holds_a_claim(tmp_path: Path) -> None:
    with claim(tmp_path, KEY) as ours, claim(tmp_path, KEY) as other, claim(tmp_path, "f" * 64) as another:
        assert (ours.state, other.state, another.state) == ("ours", "busy", "ours")


def test_a_run_that_is_done_is_never_ours(tmp_path: Path) -> None:
    make(RunFolder(tmp_path, KEY))
    with claim(tmp_path, KEY, failures=9) as ours:
        assert ours.state == "done"
    assert files(RunFolder(tmp_path, KEY).path) == ["clip.mp4", "manifest.json"]


def test_a_failed_run_is_tried_again_once_by_whoever_asks_first(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    write_failure(run, failure_of(attempts=1))
    with claim(tmp_path, KEY) as ours:
        assert ours.state == "failed"
    with claim(tmp_path, KEY, failures=1) as ours:
        assert ours
        run.notebook.write_text("{}")
        write_failure(run, failure_of(attempts=run.attempts() + 1))
    assert files(run.path) == ["failure.json", "notebook.ipynb"]  # the failed notebook can be read
    with claim(tmp_path, KEY, failures=1) as second:  # another runner that knew of one failure
        assert second.state == "failed"


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_block_that_breaks_off_leaves_no_run(tmp_path: Path, failed_before: bool) -> None:
    run = RunFolder(tmp_path, KEY)
    if failed_before:
        write_failure(run, failure_of(attempts=1))

    def break_off() -> None:
        with claim(tmp_path, KEY, failures=1) as ours:
            ours.run.clip().write_bytes(CLIP)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert run.path.exists() == failed_before
    assert not failed_before or files(run.path) == ["failure.json"]
    with claim(tmp_path, KEY, failures=1) as again:
        assert again


def test_what_the_user_put_into_a_run_stays(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, KEY)
    run.path.mkdir()
    (run.path / "my notes.txt").write_text("good")
    (run.path / "poster.png").write_bytes(b"half")
    (tmp_path / "not a run").mkdir()
    assert clean(tmp_path) == [run.name]
    assert files(run.path) == ["my notes.txt"]
    assert (tmp_path / "not a run").is_dir()


def test_an_unwritable_root_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError) as caught, claim(tmp_path / "file", KEY):
        pass
    assert caught.value.code == "output_not_writable"
    assert str(tmp_path / "file") in caught.value.message
