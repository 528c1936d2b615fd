from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import ipywidgets
import pytest
from clips import saved
from command_line import quickest
from panel_runs import request, wait_until

from vidkit.panel.queue import JobQueue
from vidkit.panel.queue_file import Kept, QueueFile
from vidkit.panel.queue_view import LINES, QueueView

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


class Page:
    """A queue and its view, as a person reads and presses it."""

    def __init__(self, folder: Path, model: Path, *, threaded: bool) -> None:
        self.image, self.model = saved(folder), model
        self.queue = JobQueue(folder / "runs", folder / "panel", threaded=threaded)
        self.lock = threading.RLock()
        self.view = QueueView(self.queue, lock=self.lock)

    def submit(self, seed: int, prompt: str = "waves", **more: object) -> str:
        return self.queue.submit(request(self.model, self.image, seed=seed, prompt=prompt, **more)).id

    def lines(self) -> list[str]:
        return [text_of(row.children[0]) for row in self.view.widget.children[2].children]

    def summary(self) -> str:
        return text_of(self.view.widget.children[0].children[0])

    def note(self) -> str:
        """What is said of requests from before; "" where nothing is."""
        held = self.view.widget.children[1]
        return "" if held.layout.display == "none" else text_of(held.children[0])

    def buttons(self) -> dict[str, ipywidgets.Button]:
        """Those that can be pressed, by their names."""
        found, todo = {}, [self.view.widget]
        while todo:
            widget = todo.pop()
            if widget.layout.display == "none":
                continue
            if isinstance(widget, ipywidgets.Button) and not widget.disabled:
                assert widget.description not in found, "two buttons of one name"
                found[widget.description] = widget
            todo += getattr(widget, "children", ())
        return found

    def press(self, name: str) -> None:
        self.buttons()[name].click()


def text_of(widget: ipywidgets.HTML) -> str:
    return unescape(re.sub(r"<[^>]*>", "", widget.value))


@pytest.fixture
def waiting(tmp_path: Path, tiny_svd_folder: Path) -> Iterator[Page]:
    """A queue that runs nothing by itself."""
    page = Page(tmp_path, tiny_svd_folder, threaded=False)
    yield page
    page.queue.close()


@pytest.fixture
def live(tmp_path: Path, tiny_svd_folder: Path) -> Iterator[Page]:
    page = Page(tmp_path, tiny_svd_folder, threaded=True)
    yield page
    page.queue.close()


def test_an_empty_queue(waiting: Page) -> None:
    assert waiting.summary() == "Queue: empty."
    assert waiting.lines() == []
    assert waiting.note() == ""
    assert waiting.buttons() == {}


def test_waiting_jobs_in_words_with_what_can_be_done(waiting: Page) -> None:
    for seed in (1, 2, 3):
        waiting.submit(seed, "a <b> & c" if seed == 2 else "waves")
    assert waiting.summary() == "Queue: 3 waiting."
    assert waiting.lines() == [
        "Waiting, number 1. waves, seed 1",
        "Waiting, number 2. a <b> & c, seed 2",
        "Waiting, number 3. waves, seed 3",
    ]
    assert set(waiting.buttons()) == {
        "Pause queue",
        "Move down: waves, seed 1",
        "Remove: waves, seed 1",
        "Move up: a <b> & c, seed 2",
        "Move down: a <b> & c, seed 2",
        "Remove: a <b> & c, seed 2",
        "Move up: waves, seed 3",
        "Remove: waves, seed 3",
    }
    waiting.press("Move up: waves, seed 3")
    waiting.press("Move up: waves, seed 3")
    waiting.press("Remove: a <b> & c, seed 2")
    assert waiting.lines() == ["Waiting, number 1. waves, seed 3", "Waiting, number 2. waves, seed 1"]
    assert "Move up: waves, seed 3" not in waiting.buttons()
    assert "Move down: waves, seed 1" not in waiting.buttons()


def test_what_runs_is_told_as_it_goes_on_and_can_be_cancelled(live: Page) -> None:
    said: set[str] = set()
    live.queue.listen(lambda job: said.update(live.lines()[:1]))
    job = live.submit(1, num_frames=6, num_inference_steps=200)
    live.submit(2)
    wait_until(lambda: any("of 200, about" in line for line in said))
    assert all(line.endswith("waves, seed 1") for line in said)
    assert any(re.fullmatch(r"Running, \d+ %, step \d+ of 200, about \d+ s left. waves, seed 1", line) for line in said)
    assert "Running, 0 %, Checking the request. waves, seed 1" in said
    assert live.summary() == "Queue: 1 running, 1 waiting."
    with live.lock:  # the queue's thread waits with its news
        live.press("Cancel: waves, seed 1")
        assert live.lines()[0] == "Cancelling… waves, seed 1"
        assert "Cancel: waves, seed 1" not in live.buttons()
    wait_until(lambda: all(one.is_over for one in live.queue.jobs()))
    wait_until(lambda: live.summary() == "Queue: empty.")
    assert re.fullmatch(r"Done in \d s. waves, seed 2", live.lines()[0])
    assert live.lines()[1] == "Cancelled. waves, seed 1"
    assert live.queue.job(job) is not None


def test_a_failure_is_told_with_its_reason_and_can_be_taken_off(live: Page) -> None:
    live.submit(1, width=999)
    wait_until(lambda: live.lines() and live.lines()[0].startswith("Failed"))
    assert live.lines()[0].startswith("Failed: 999x64 pixels is not a size")
    live.press("Remove: waves, seed 1")
    assert live.lines() == []


def test_pause_and_resume(live: Page) -> None:
    live.queue.pause()
    live.submit(1)
    assert live.summary() == "Queue (paused): 1 waiting."
    live.press("Resume queue")
    wait_until(lambda: live.summary() == "Queue: empty.")
    assert live.buttons().keys() == {"Remove: waves, seed 1"}
    live.submit(2, num_frames=6, num_inference_steps=200)
    live.submit(3)
    wait_until(lambda: "Cancel: waves, seed 2" in live.buttons())  # it runs: paused before, it would wait
    live.press("Pause queue")
    live.press("Cancel: waves, seed 2")
    wait_until(lambda: live.summary() == "Queue (paused): 1 waiting.")
    live.press("Remove: waves, seed 3")
    assert live.summary() == "Queue: paused, empty."
    live.press("Resume queue")
    assert live.summary() == "Queue: empty."


def test_requests_of_a_session_that_ended_are_told_and_started(tmp_path: Path, tiny_svd_folder: Path) -> None:
    kept = QueueFile(tmp_path / "panel")
    image = saved(tmp_path)
    kept.save([Kept(str(seed), request(tiny_svd_folder, image, seed=seed)) for seed in (1, 2)])
    kept.close()
    page = Page(tmp_path, tiny_svd_folder, threaded=True)
    assert page.note() == "2 requests of a session that ended are waiting."
    assert page.lines()[0] == "Waiting from an earlier session. waves, seed 1"
    page.press("Remove: waves, seed 2")
    assert page.note() == "1 request of a session that ended is waiting."
    page.press("Start waiting requests")
    assert page.note() == ""
    wait_until(lambda: page.summary() == "Queue: empty.")
    assert page.lines()[0].startswith("Done")
    page.queue.close()


def test_a_long_queue_shows_its_beginning_and_counts_the_rest(waiting: Page) -> None:
    waiting.queue.pause()
    for seed in range(LINES + 10):
        waiting.submit(seed)
    assert len(waiting.lines()) == LINES
    assert waiting.summary() == f"Queue (paused): {LINES + 10} waiting, 10 not shown."
    assert quickest(waiting.view.refresh) < 0.05


def test_a_closed_view_hears_nothing_more(waiting: Page) -> None:
    waiting.view.close()
    waiting.submit(1)
    assert waiting.lines() == []


def test_lines_are_used_again(waiting: Page) -> None:
    for seed in range(3):
        waiting.submit(seed)
    rows = waiting.view.widget.children[2].children
    for job in waiting.queue.jobs():
        waiting.queue.remove(job.id)
    for seed in range(3):
        waiting.submit(seed + 10)
    assert waiting.view.widget.children[2].children == rows
