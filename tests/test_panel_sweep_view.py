from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from panel_runs import wait_until

from vidkit.panel.sweep_draft import SweepDraft, plan_draft
from vidkit.panel.sweep_process import SweepProcess, start_sweep
from vidkit.panel.sweep_view import SweepView
from vidkit.params import GenerationParams
from vidkit.runs import run_folders

MINUTE = 60


@pytest.fixture(autouse=True)
def notebook_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook's folder, and `parameters` beside it, as in a clone."""
    for name in ("notebooks", "parameters"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path / "notebooks"


def request(**more: Any) -> GenerationParams:
    small = {"width": 64, "height": 64, "num_frames": 2, "num_inference_steps": 1, "base_model": "bundled:tiny-svd"}
    return GenerationParams(**{"image_path": "example:photo", "prompt": "waves", **small, **more})


class Page:
    """A sweep's view as a person reads and presses it."""

    def __init__(self, *, seconds: float | None = None, background: bool = True) -> None:
        self.lock = threading.RLock()
        self.view = SweepView(request(), lock=self.lock, estimate=lambda: seconds, background=background)

    def all(self, widget: ipywidgets.Widget | None = None) -> list[ipywidgets.Widget]:
        widget = widget or self.view.widget
        return [widget, *(found for child in getattr(widget, "children", ()) for found in self.all(child))]

    def text(self) -> str:
        """All that can be read, a line a piece."""
        pieces = [widget.value for widget in self.all() if isinstance(widget, ipywidgets.HTML)]
        return unescape(re.sub(r"<[^>]*>", "\n", "\n".join(pieces)))

    def html(self) -> str:
        return "\n".join(widget.value for widget in self.all() if isinstance(widget, ipywidgets.HTML))

    def named(self, kind: type, name: str) -> Any:
        (found,) = [one for one in self.all() if isinstance(one, kind) and one.description == name]
        return found

    def press(self, name: str) -> None:
        button = self.named(ipywidgets.Button, name)
        wait_until(lambda: not button.disabled)
        button.click()

    def buttons(self) -> list[str]:
        return [one.description for one in self.all() if isinstance(one, ipywidgets.Button)]

    def add(self, axis: str, values: str | None = None) -> None:
        self.named(ipywidgets.Dropdown, "Axis").value = axis
        if values is not None:
            self.named(ipywidgets.Text, "Values").value = values
        self.press("Add axis")

    def reads(self, words: str, seconds: float = 10) -> None:
        wait_until(lambda: words in self.text(), seconds)


def test_axes_their_points_and_the_time() -> None:
    page = Page(seconds=2.0)
    page.reads("No axes yet")
    assert page.named(ipywidgets.Button, "Run sweep").disabled
    assert page.named(ipywidgets.Text, "Values").value == "random [4]"
    page.add("motion_bucket_id")
    page.reads("3 points (motion_bucket_id 3); about 6 s.")
    page.add("seed", "1, 2")
    page.reads("6 points (motion_bucket_id 3 x seed 2); about 12 s.")
    page.add("motion_bucket_id", "40, 120")  # again: other values
    page.reads("4 points (motion_bucket_id 2 x seed 2); about 8 s.")
    assert "Note: prompt is ignored" in page.text()
    wait_until(lambda: page.view.name.value == "sweep_motion_bucket_id_seed")
    assert not page.named(ipywidgets.Button, "Run sweep").disabled
    page.press("Remove motion_bucket_id")
    page.reads("2 points (seed 2); about 4 s.")
    assert "Remove motion_bucket_id" not in page.buttons()
    assert page.html().count('role="status"') >= 2


def test_problems_in_words_and_their_end() -> None:
    page = Page()
    page.add("motion_bucket_id", "40..400 [3]")
    page.reads("⚠ Problem: axis motion_bucket_id: motionBucketId is 400")
    page.reads("→ Set motionBucketId to")
    assert page.named(ipywidgets.Button, "Run sweep").disabled
    assert page.named(ipywidgets.Button, "Write file").disabled
    page.view.show(request(width=100))  # what the form says belongs to it
    page.reads("motionBucketId is 400")
    page.add("motion_bucket_id", "40, 120")
    page.reads("100x64 pixels is not a size")
    page.view.show(request())
    page.reads("2 points (motion_bucket_id 2); how long it takes is known after")
    assert not page.named(ipywidgets.Button, "Run sweep").disabled
    page.add("seed", "  ")
    page.reads("Write some values for seed first.")
    page.view.name.value = "a/b"
    page.reads("cannot name a sweep")
    assert page.view.name.value == "a/b"


def test_what_is_proposed_follows_the_form() -> None:
    page = Page()
    page.named(ipywidgets.Dropdown, "Axis").value = "motion_bucket_id"
    values = page.named(ipywidgets.Text, "Values")
    assert values.value == "40..200 [3]"
    page.view.show(request(motion_bucket_id=30))
    assert values.value == "10..50 [3]"
    values.value = "7, 8"
    page.view.show(request(motion_bucket_id=60))
    assert values.value == "7, 8"  # the user's own stay
    page.view.show(request(pipeline="animatediff", base_model=None))
    assert page.named(ipywidgets.Dropdown, "Axis").value == "seed"  # svd's is no parameter of this family
    page.named(ipywidgets.Dropdown, "Axis").value = "prompt"
    assert values.value == "waves || "


def test_the_file_is_written_and_never_replaced(tmp_path: Path, notebook_folder: Path) -> None:
    page, file = Page(), tmp_path / "parameters" / "sweep_seed.yaml"
    page.add("seed", "1, 2")
    wait_until(lambda: page.view.name.value == "sweep_seed")
    page.press("Write file")
    page.reads(f"Written: {file}")
    before = file.read_bytes()
    page.add("seed", "3, 4")
    wait_until(lambda: page.view.name.value == "sweep_seed-2")  # proposed by itself
    page.view.name.value = "sweep_seed"
    page.press("Write file")
    page.reads("sweep_seed is another sweep, and is left as it is. This one is called sweep_seed-2 now")
    assert file.read_bytes() == before
    page.press("Write file")
    page.reads("sweep_seed-2.yaml. Also by hand")
    assert '"3, 4"' in file.with_name("sweep_seed-2.yaml").read_text()


def test_without_threads() -> None:
    """As in Colab: all is there when the callback returns, and a look is asked for."""
    before = set(threading.enumerate())
    page = Page(background=False)
    page.add("seed", "1, 2")
    assert "2 points" in page.text()
    assert page.view.name.value == "sweep_seed"
    page.press("Write file")
    assert "Written: " in page.text()
    assert "Refresh sweeps" in page.buttons()
    assert set(threading.enumerate()) <= before


def test_a_sweep_of_four_points(vidkit_home: Path, tmp_path: Path) -> None:
    """The real command, beside this process, shown as it goes on."""
    root, page = vidkit_home / "runs" / "sweep_motion_bucket_id_seed", Page()
    page.add("motion_bucket_id", "40, 120")
    page.add("seed", "1, 2")
    page.reads("4 points")
    page.press("Run sweep")
    page.reads("Started: ")
    assert (tmp_path / "parameters" / "sweep_motion_bucket_id_seed.yaml").is_file()
    bar = next(one for one in page.all() if isinstance(one, ipywidgets.IntProgress))
    page.reads("of 4 done", MINUTE)
    page.press("Run sweep")
    page.reads("is running already")
    counts = set()

    def is_finished() -> bool:
        counts.add((bar.value, page.html().count("<img")))
        return "4 of 4 done. Finished." in page.text() and "Report: " in page.text()

    wait_until(is_finished, 2 * MINUTE)
    assert len({pictures for _, pictures in counts}) >= 3  # they came one by one
    assert (bar.value, bar.max) == (4, 4)
    assert page.html().count("data:image/jpeg;base64,") == 4
    assert 'alt="Clip: motion_bucket_id 120, seed 2"' in page.html()
    assert (root / "report.html").as_uri() in page.html()
    assert page.named(ipywidgets.Button, "Stop sweep").disabled
    assert len(run_folders(root)) == 4
    assert '"status": "success"' in (root / "sweep.log").read_text()

    # one of its clips as the picture of the next sweep
    clip = next(iter(run_folders(root))).clip()
    assert len(plan_draft(SweepDraft(request(image_path=str(clip)), {"seed": "1, 2"}, "next"), tmp_path).points) == 2
    # the same sweep again is the same sweep
    assert page.view.name.value == "sweep_motion_bucket_id_seed"


def test_a_sweep_outlives_its_kernel_and_is_found_and_stopped(vidkit_home: Path, tmp_path: Path) -> None:
    """Started by a process that ignores Ctrl-C, as an idle kernel does, and that is killed then."""
    root, file = vidkit_home / "runs" / "long", tmp_path / "long.yaml"
    file.write_text(SweepDraft(request(), {"seed": "1..60"}, "long").text())
    code = f"""
        import os, signal
        from pathlib import Path
        from vidkit.panel.sweep_process import start_sweep
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        start_sweep(Path({str(file)!r}), Path({str(root)!r}))
        os.killpg(os.getpid(), signal.SIGKILL)
    """
    started = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], start_new_session=True, timeout=MINUTE)
    assert started.returncode == -9
    wait_until(lambda: list(root.glob(".runner-*.json")), MINUTE)
    (runner,) = root.glob(".runner-*.json")
    pid = json.loads(runner.read_text())["pid"]
    page = Page()
    page.reads("long: 0 of 60 done. Running.")
    page.press("Stop sweep")
    page.reads("opping")
    page.reads("of 60 done. Stopped; Run sweep goes on with the rest.", MINUTE)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert page.named(ipywidgets.Button, "Stop sweep").disabled
    wait_until(lambda: not list(root.glob(".runner-*.json")))


def test_a_program_that_is_no_sweep_command_is_not_ended(vidkit_home: Path) -> None:
    """A sweep in a notebook's cell: to end its process would end the kernel. Here it is this very process."""
    root = vidkit_home / "runs" / "by_hand"
    root.mkdir(parents=True)
    runner = {"host": socket.gethostname(), "pid": os.getpid(), "updated": 0, "running": [], "etaSeconds": 12.0}
    (root / ".runner-here.json").write_text(json.dumps(runner))
    point = {"index": 0, "axes": {"seed": 1}, "key": "ab" * 32}
    (root / "plan.json").write_text(json.dumps({"points": [point]}))
    page = Page()
    page.reads("by_hand: 0 of 1 done, about 12 s left. Running.")
    page.press("Stop sweep")
    page.reads("by_hand is run by another program")
    page.view.close()


def test_a_sweep_that_cannot_run_says_why(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(SweepDraft(request(), {"seed": "one"}, "bad").text())
    page = Page()
    sweep = start_sweep(file, tmp_path / "runs" / "bad")
    page.view._follow(sweep)
    page.reads("bad: it could not go on: bad.yaml: axis seed: 'one' is neither a number nor a range", MINUTE)
    assert page.named(ipywidgets.Button, "Stop sweep").disabled


def test_a_folder_without_a_sweep() -> None:
    look = SweepProcess(Path("nowhere")).look()
    assert (look.state, look.is_over) == ("broken", True)
