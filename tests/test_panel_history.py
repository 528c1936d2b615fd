from __future__ import annotations

import io
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from clips import saved
from panel_runs import key_number, made, moving, process, request
from PIL import Image, ImageSequence
from run_folders import CLIP, failure_of, heard

from vidkit.errors import InputError
from vidkit.panel.history import History, params_of
from vidkit.panel.run_clip import run_clip
from vidkit.runs import RunFolder, write_failure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def history(root: Path, tmp_path: Path) -> History:
    return History(root, tmp_path / "cache")


def numbers(history: History, **filters: object) -> list[int]:
    return [int(entry.run.name, 16) for entry in history.entries(**filters)]  # type: ignore[arg-type]


# --- what is listed --------------------------------------------------------------------------------------------------


def test_clips_of_the_panel_and_of_sweeps_newest_first(history: History, root: Path) -> None:
    assert history.entries() == []
    for number in (3, 1, 2):
        made(root, number)
    made(root / "motion", 4)
    assert numbers(history) == [4, 3, 2, 1]
    newest, next_ = history.entries()[:2]
    assert (newest.sweep, next_.sweep) == ("motion", None)
    assert newest.clip.read_bytes() == b"no clip"
    assert newest.finished == "2026-01-01T00:04:00+00:00"


def test_only_finished_runs_count(history: History, root: Path) -> None:
    """Interrupted, failed, damaged, without their clip, of another key: none is a clip."""
    made(root, 1)
    interrupted = RunFolder(root, key_number(2))
    interrupted.path.mkdir()
    interrupted.clip().write_bytes(CLIP)
    (interrupted.path / ".manifest.json.1.2.part.json").write_text("{}")
    write_failure(RunFolder(root, key_number(3)), failure_of(key_number(3)))
    damaged, empty, foreign = (made(root, number) for number in (4, 5, 6))
    damaged.manifest.write_text(damaged.manifest.read_text()[:-20])
    empty.clip().write_bytes(b"")
    foreign.manifest.write_text(foreign.manifest.read_text().replace(foreign.key, key_number(9)))
    (root / "notes.txt").write_text("mine")
    assert numbers(history) == [1]


def test_what_changes_on_disk_is_seen(history: History, root: Path) -> None:
    run = made(root, 1)
    assert numbers(history) == [1]
    made(root, 2)
    assert numbers(history) == [2, 1]
    run.clip().unlink()
    assert numbers(history) == [2]
    run.clip().write_bytes(CLIP)
    assert numbers(history) == [2, 1]
    run.clip().write_bytes(b"")
    assert numbers(history) == [2]
    run.clip().write_bytes(CLIP)
    text = run.manifest.read_text()
    run.manifest.write_text(text.replace('"seed": 3,\n "models"', '"seed": 12345,\n "models"'))
    assert history.entries()[1].manifest.seed == 12345


def test_the_filter(history: History, root: Path) -> None:
    made(root, 1, request={"prompt": "slow Zoom in", "seed": 41}, models={"baseModel": {"name": "bundled:tiny-svd"}})
    made(root, 2, request={"prompt": "pan left", "seed": 42}, pictures=[{"name": "beach.png", "sha256": "0"}])
    made(root / "beaches", 3, request={"prompt": "zoom out", "seed": 43})
    assert numbers(history, text="zoom") == [3, 1]
    assert numbers(history, text="ZOOM  tiny") == [1]
    assert numbers(history, text="beach") == [3, 2]
    assert numbers(history, text="43") == [3]
    assert numbers(history, text="2026-01-01 42") == [2]
    assert numbers(history, text="no such word") == []
    history.star(history.entries()[1], True)
    assert numbers(history, starred_only=True) == [2]
    assert numbers(history, starred_only=True, text="zoom") == []


def test_two_thousand_clips_list_in_well_under_a_second(history: History, root: Path) -> None:
    template = made(root, 0)
    text = template.manifest.read_text()
    for number in range(1, 2000):
        run = RunFolder(root if number % 2 else root / "sweep", key_number(number))
        run.path.mkdir(parents=True)
        run.clip().write_bytes(CLIP)
        run.manifest.write_text(text.replace(template.key, run.key))
    began = time.perf_counter()
    assert len(history.entries()) == 2000
    first = time.perf_counter()
    assert len(history.entries(text="svd")) == 2000
    again = time.perf_counter()
    assert first - began < 1.5
    assert again - first < 0.3


# --- stars and the trash ---------------------------------------------------------------------------------------------


def test_a_star_survives_a_restart_and_the_trash(history: History, root: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        made(root, number)
    made(root / "motion", 2)
    one, *_ = [entry for entry in history.entries() if entry.sweep]
    history.star(one, True)
    again = History(root, tmp_path / "cache")
    assert [(entry.sweep, entry.starred) for entry in again.entries() if entry.starred] == [("motion", True)]
    again.delete(one)
    assert again.entries(starred_only=True) == []
    back = again.undo()
    assert back is not None
    assert back.starred
    history.star(back, False)
    assert again.entries(starred_only=True) == []


def test_stars_of_two_processes_at_once_are_all_kept(history: History, root: Path, tmp_path: Path) -> None:
    for number in range(40):
        made(root, number)
    code = """
    from vidkit.panel.history import History
    history = History(root, folder)
    tell("ready")
    sys.stdin.readline()
    for entry in history.entries()[SLICE]:
        history.star(entry, True)
    tell("starred")
    """
    with (
        process(root, tmp_path, [], code.replace("SLICE", ":20"), stdin=subprocess.PIPE) as first,
        process(root, tmp_path, [], code.replace("SLICE", "20:"), stdin=subprocess.PIPE) as second,
    ):
        for running in (first, second):
            assert heard(running) == "ready"
        for running in (first, second):
            assert running.stdin is not None
            running.stdin.write("go\n")
            running.stdin.flush()
        assert [heard(running) for running in (first, second)] == ["starred", "starred"]
    assert len(history.entries(starred_only=True)) == 40


def test_damaged_stars_are_told_and_not_fatal(history: History, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(root, 1)
    (root / ".stars.json").write_text("{")
    assert [entry.starred for entry in history.entries()] == [False]
    assert ".stars.json cannot be read" in caplog.text


def test_deleted_clips_come_back_the_last_one_first_also_after_a_restart(
    history: History, root: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        made(root, number)
    made(root / "motion", 3)
    for entry in history.entries():
        history.delete(entry)
    assert history.entries() == []
    assert not (root / key_number(1)[:16]).exists()
    assert history.trash()[0] == 3
    assert history.trash()[1] > 3 * len(b"no clip")

    again = History(root, tmp_path / "cache")
    assert [again.undo().run.name[-1] for _ in range(3)] == ["1", "2", "3"]  # type: ignore[union-attr]
    assert again.undo() is None
    assert numbers(again) == [3, 2, 1]
    assert [entry.sweep for entry in again.entries()] == ["motion", None, None]
    assert again.trash() == (0, 0)


def test_what_was_deleted_and_made_again_is_there_once(history: History, root: Path) -> None:
    made(root, 1)
    history.delete(history.entries()[0])
    run = made(root, 1)
    run.clip().write_bytes(b"made again")
    back = history.undo()
    assert back is not None
    assert back.clip.read_bytes() == b"made again"
    assert history.trash() == (0, 0)


def test_an_emptied_trash_gives_nothing_back(history: History, root: Path) -> None:
    history.empty_trash()
    for number in (1, 2):
        made(root, number)
    history.delete(history.entries()[0])
    history.empty_trash()
    assert history.undo() is None
    assert numbers(history) == [1]


def test_deleting_twice_is_deleting_once(history: History, root: Path) -> None:
    made(root, 1)
    entry = history.entries()[0]
    history.delete(entry)
    history.delete(entry)
    assert history.trash()[0] == 1


# --- thumbnails ------------------------------------------------------------------------------------------------------


def test_a_thumbnail_moves_loops_and_is_small(history: History, root: Path) -> None:
    made(root, 1, moving(24, (64, 256)), request={"fps": 8})
    (entry,) = history.entries()
    data = history.thumbnail(entry)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "WEBP"
        assert picture.size == (160, 40)
        assert picture.info["loop"] == 0
        shown, seconds = [], 0.0
        for frame in ImageSequence.Iterator(picture):
            shown.append(np.asarray(frame.convert("L"), np.float64))
            seconds += frame.info["duration"] / 1000
    assert len(shown) == 12
    assert seconds == pytest.approx(3, abs=0.05)
    assert (shown[0].argmax(1) < 10).all()
    assert (shown[-1].argmax(1) > 40).all()


def test_a_thumbnail_of_noise_stays_within_its_bytes(history: History, root: Path) -> None:
    made(root, 1, np.random.default_rng(0).integers(0, 256, (16, 160, 160, 3), np.uint8))
    data = history.thumbnail(history.entries()[0])
    assert 1000 < len(data) <= 60_000


def test_a_thumbnail_is_made_once(history: History, root: Path, tmp_path: Path) -> None:
    run = made(root, 1, moving())
    data = history.thumbnail(history.entries()[0])
    run.clip().write_bytes(b"damaged since")
    assert History(root, tmp_path / "cache").thumbnail(history.entries()[0]) == data
    assert [path.suffix for path in (tmp_path / "cache" / "thumbnails").iterdir()] == [".webp"]


def test_a_damaged_clip_has_no_thumbnail(history: History, root: Path) -> None:
    made(root, 1)
    with pytest.raises(InputError):
        history.thumbnail(history.entries()[0])


# --- settings from a clip --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_warm_pipeline")
def test_all_settings_and_the_picture_come_back(
    tiny_svd_folder: Path, history: History, root: Path, tmp_path: Path
) -> None:
    image = saved(tmp_path)
    params = request(tiny_svd_folder, image, fps=11, motion_bucket_id=33, seed=123)
    run, _ = run_clip(params, root)
    entry = history.entry(run)
    assert entry is not None
    restored = params_of(entry)
    assert restored.image_path == str(image)
    assert restored.base_model == str(tiny_svd_folder)
    for name in ("fps", "motion_bucket_id", "seed", "num_frames", "num_inference_steps", "prompt", "width"):
        assert getattr(restored, name) == getattr(params, name)
    assert run_clip(restored, root) == (run, True)  # it is the very same request

    saved(tmp_path, value=200)  # another picture lies there now
    restored = params_of(entry)
    assert restored.image_path == str(run.clip())
    other, known = run_clip(restored.replace(seed=5), root)
    assert not known
    assert other != run

    example = history.entry(run_clip(params.replace(image_path="example:photo"), root)[0])
    assert example is not None
    assert params_of(example).image_path == "example:photo"


@pytest.mark.usefixtures("no_warm_pipeline")
def test_a_bare_clip_gives_its_settings_and_asks_for_its_picture(
    tiny_svd_folder: Path, history: History, root: Path, tmp_path: Path
) -> None:
    image = saved(tmp_path)
    run, _ = run_clip(request(tiny_svd_folder, image, bare=True, fps=11), root)
    entry = history.entry(run)
    assert entry is not None
    assert params_of(entry).image_path == str(image)
    image.unlink()
    restored = params_of(entry)
    assert (restored.fps, restored.image_path) == (11, "picture.png")


def test_a_root_that_cannot_be_written_to_is_told(history: History, root: Path) -> None:
    made(root, 1)
    entry = history.entries()[0]
    (root / ".trash").write_text("no folder")
    with pytest.raises(Exception, match="cannot be written") as caught:
        history.delete(entry)
    assert caught.value.code == "output_not_writable"  # type: ignore[attr-defined]
    assert entry.run.is_done()
