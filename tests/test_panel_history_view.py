from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from clips import saved
from command_line import quickest
from panel_runs import made, moving, request, wait_until
from PIL import Image

from vidkit.panel.clip_grid import NOTHING, PAGE
from vidkit.panel.history import Entry, History
from vidkit.panel.history_view import HistoryView
from vidkit.panel.queue import JobQueue
from vidkit.params import GenerationParams


class Page:
    """A history's view, as a person reads and presses it; asked: what it wanted of the panel."""

    def __init__(self, folder: Path, queue: JobQueue | None = None) -> None:
        self.root, self.folder, self.queue = folder / "runs", folder, queue
        self.asked: list[tuple[Any, ...]] = []
        self.lock = threading.RLock()
        self.open()

    def open(self) -> None:
        """As after a restart."""
        self.view = HistoryView(
            History(self.root, self.folder / "cache"),
            lock=self.lock,
            queue=self.queue,
            on_restore=lambda params: self.asked.append(("restore", params)),
            on_rerun=lambda params: self.asked.append(("rerun", params)),
            on_pin=lambda left, right: self.asked.append(("pin", left, right)),
            on_play=lambda entry: self.asked.append(("play", entry)),
        )

    @property
    def cells(self) -> list[ipywidgets.VBox]:
        return list(self.view.widget.children[1].children)

    def clips(self) -> list[str]:
        """The names of the clips shown: those of their buttons."""
        return [cell.children[1].description for cell in self.cells]

    def choose(self, number: int) -> None:
        self.cells[number].children[1].click()

    def press(self, name: str) -> None:
        button = self.view.actions[name]
        assert not button.disabled, name
        button.click()

    def pictures(self) -> list[bytes]:
        return [cell.children[0].value for cell in self.cells]

    def said(self) -> str:
        return text_of(self.view.widget.children[4])

    def details(self) -> dict[str, str]:
        rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", self.view.widget.children[5].value)
        return {name: unescape(text) for name, text in rows}

    def where(self) -> str:
        return text_of(self.view.widget.children[2].children[2])


def text_of(widget: ipywidgets.HTML) -> str:
    return unescape(re.sub(r"<[^>]*>", "", widget.value))


def clip(root: Path, number: int, **more: Any) -> None:
    asked = {"pipeline": "svd", "prompt": f"wave {number}", "seed": number}
    made(root, number, moving() if number < 4 else None, seed=number, request=asked, **more)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    page = Page(tmp_path)
    yield page
    page.view.close()
    monkeypatch.undo()
    time.tzset()


def test_no_clips_yet(page: Page) -> None:
    assert page.where() == "No clips yet: the first one that you run appears here."
    assert page.clips() == []
    assert all(button.disabled for button in page.view.actions.values())


def test_clips_are_named_by_prompt_seed_and_date_and_chosen_by_their_button(page: Page) -> None:
    for number in (1, 2):
        clip(page.root, number)
    page.view.again.click()
    assert page.where() == "2 clips, page 1 of 1"
    assert page.clips() == ["wave 2, seed 2, 2026-01-01 00:02", "wave 1, seed 1, 2026-01-01 00:01"]
    page.choose(1)
    assert page.clips()[1] == "Chosen: wave 1, seed 1, 2026-01-01 00:01"
    assert page.view.chosen is not None
    assert page.view.chosen.manifest.seed == 1
    assert page.said() == "Chosen: wave 1, seed 1, 2026-01-01 00:01."
    page.choose(0)
    assert page.clips()[1] == "wave 1, seed 1, 2026-01-01 00:01"


def test_thumbnails_come_and_move_and_a_damaged_clip_has_none(page: Page) -> None:
    for number in (3, 5):  # the second one is no clip
        clip(page.root, number)
    page.view.refresh()
    assert page.pictures()[0] == NOTHING
    wait_until(lambda: page.pictures()[1] != NOTHING)
    with Image.open(io.BytesIO(page.pictures()[1])) as picture:
        assert picture.n_frames == 3  # type: ignore[attr-defined]
    assert page.pictures()[0] == NOTHING


def test_pages_use_the_same_widgets(page: Page) -> None:
    for number in range(10, 10 + 2 * PAGE + 3):
        clip(page.root, number)
    page.view.refresh()
    cells = page.cells
    assert len(cells) == PAGE
    assert page.view.back.disabled
    page.view.on.click()
    page.view.on.click()
    assert page.where() == f"{2 * PAGE + 3} clips, page 3 of 3"
    assert [name.split(",")[0] for name in page.clips()] == ["wave 12", "wave 11", "wave 10"]
    assert page.view.on.disabled
    assert page.cells == cells[:3]
    page.view.back.click()
    assert page.cells == cells


def test_the_filter(page: Page) -> None:
    for number in (11, 12, 21):
        clip(page.root, number)
    page.view.refresh()
    page.choose(0)
    page.press("Star")
    page.view.search.value = "wave 12"
    assert [name.split(",")[0] for name in page.clips()] == ["wave 12"]
    assert all(page.view.actions[name].disabled for name in ("Play", "Delete"))  # the chosen one is not shown
    page.view.starred.value = True
    assert page.where() == "No clip is like that."
    page.view.search.value = ""
    assert page.clips() == ["Chosen: ★ wave 21, seed 21, 2026-01-01 00:21"]


def test_a_star_is_taken_back_and_survives_a_restart(page: Page) -> None:
    clip(page.root, 11)
    page.view.refresh()
    page.choose(0)
    page.press("Star")
    assert page.view.actions["Star"].description == "Remove star"
    page.open()
    assert page.clips() == ["★ wave 11, seed 11, 2026-01-01 00:11"]
    page.choose(0)
    page.press("Star")
    assert page.clips() == ["Chosen: wave 11, seed 11, 2026-01-01 00:11"]


def test_delete_and_undo_also_after_a_restart(page: Page) -> None:
    for number in (11, 12, 13):
        clip(page.root, number)
    page.view.refresh()
    assert page.view.actions["Undo delete"].disabled
    page.choose(1)
    page.press("Delete")
    assert page.said() == "Deleted: wave 12, seed 12, 2026-01-01 00:12. Undo delete brings it back."
    assert [name[:15] for name in page.clips()] == ["wave 13, seed 1", "Chosen: wave 11"]
    page.press("Delete")
    page.open()
    page.press("Undo delete")
    assert page.said() == "Back again: wave 11, seed 11, 2026-01-01 00:11."
    page.press("Undo delete")
    assert [name.split(",")[0] for name in page.clips()] == ["wave 13", "Chosen: wave 12", "wave 11"]
    assert page.view.actions["Undo delete"].disabled


def test_the_trash_is_emptied_by_a_second_press_only(page: Page) -> None:
    for number in (11, 12):
        clip(page.root, number)
    page.view.refresh()
    page.choose(0)
    page.press("Delete")
    assert page.view.actions["Empty trash"].description == "Empty trash (1 clip, 0.0 MiB)"
    page.press("Empty trash")
    assert page.view.actions["Empty trash"].description == "Yes, delete for good"
    page.choose(0)  # something else: the question is taken back
    page.press("Empty trash")
    assert (page.root / ".trash").exists()
    page.press("Empty trash")
    assert not (page.root / ".trash").exists()
    assert page.view.actions["Undo delete"].disabled


def test_play_and_pinning_ask_the_panel(page: Page) -> None:
    for number in (11, 12):
        clip(page.root, number)
    page.view.refresh()
    page.choose(0)
    page.press("Play")
    page.press("Pin right")
    page.choose(1)
    page.press("Pin left")
    asked = [(name, *(one and one.manifest.seed for one in entries)) for name, *entries in page.asked]
    assert asked == [("play", 12), ("pin", 12, None), ("pin", 11, 12)]
    assert page.said().startswith("Compared: left wave 11, seed 11")


def test_what_cannot_be_done_is_said(page: Page) -> None:
    clip(page.root, 11)
    page.view.refresh()
    page.choose(0)
    (page.root / ".trash").write_text("no folder")
    page.press("Delete")
    assert "cannot be written" in page.said()
    assert len(page.clips()) == 1


def test_the_details_say_what_is_special(page: Page) -> None:
    request = {
        "pipeline": "svd",
        "prompt": "a <b>",
        "negativePrompt": "",
        "seed": 5,
        "width": 128,
        "numFrames": 9,
        "motionBucketId": 60,
        "guidanceScale": 3.0,
        "minGuidanceScale": 1.0,
    }
    made(
        page.root / "motion",
        11,
        request=request,
        seed=5,
        models={"baseModel": {"name": "bundled:tiny-svd", "sha256": "ab" * 32}},
        pictures=[{"name": "beach.png", "sha256": "cd" * 32}],
        timing={"load": 3.0, "denoise": 4.1, "total": 8.4, "metrics": None},
        plan={"device": "cpu"},
        metrics={"motion": 1.94, "firstFramePsnr": None},
        notes=["A note."],
        axes={"motion_bucket_id": 60},
    )
    page.view.refresh()
    page.choose(0)
    assert page.details() == {
        "Prompt": "a <b>",
        "Seed": "5",
        "Model": "tiny-svd (svd)",
        "Picture": "beach.png",
        "Made": "2026-01-01 00:11 in 8 s (loading 3 s, denoising 4 s) on the CPU",
        "Unlike the defaults": "num frames 9, motion bucket id 60",
        "Sweep": "motion: motion bucket id 60",
        "Metrics": "motion 1.94 % of the width a frame",
        "Notes": "A note.",
    }


def test_two_thousand_clips_are_no_burden(page: Page) -> None:
    run = made(page.root, 100_000)
    text = run.manifest.read_text()
    for number in range(2000):
        folder = page.root / f"{number:016x}"
        folder.mkdir()
        (folder / "clip.mp4").write_bytes(b"no clip")
        (folder / "manifest.json").write_text(text.replace(run.key, f"{number:016x}" * 4))
    page.view.refresh()

    assert quickest(page.view.refresh) < 0.25
    assert quickest(page.view.on.click) < 0.05
    places = iter(range(3, 10))  # another each time
    assert quickest(lambda: page.choose(next(places))) < 0.05


@pytest.mark.usefixtures("no_warm_pipeline")
def test_settings_come_back_and_the_history_follows_the_queue(tmp_path: Path, tiny_svd_folder: Path) -> None:
    queue = JobQueue(tmp_path / "runs", tmp_path / "panel")
    page = Page(tmp_path, queue)
    params = request(tiny_svd_folder, saved(tmp_path), fps=9)
    queue.submit(params)
    wait_until(lambda: page.where() == "1 clip, page 1 of 1")  # told after the clips are shown
    page.choose(0)
    page.press("Restore settings")
    page.press("New seed again")
    (_, restored), (_, rerun) = page.asked
    assert isinstance(restored, GenerationParams)
    assert (restored.fps, restored.seed, restored.image_path) == (9, 7, params.image_path)
    assert (rerun.fps, rerun.seed) == (9, -1)
    queue.submit(rerun)
    wait_until(lambda: len(page.clips()) == 2)
    assert page.clips()[1].startswith("Chosen: waves, seed 7")
    assert page.details()["Picture"] == "picture.png"
    entry = page.view.chosen
    assert isinstance(entry, Entry)

    page.view.close()
    job = queue.submit(params.replace(seed=99))
    wait_until(lambda: job.is_over)
    queue.close()
    assert len(page.clips()) == 2


@pytest.mark.usefixtures("no_warm_pipeline")
def test_in_the_foreground_pictures_are_there_at_once(tmp_path: Path) -> None:
    """Where threads cannot update widgets."""
    queue = JobQueue(tmp_path / "runs", tmp_path / "panel", threaded=False)
    clip(tmp_path / "runs", 1)
    page = Page(tmp_path, queue)
    assert page.pictures()[0] != NOTHING
    queue.close()
