"""Sweeps from file to clips: with real notebooks in real kernels, and what happens to them that should not."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import clips
import nbformat
import psutil
import pytest
from sweep_files import Sweep, one_home, wait_until

from vidkit.errors import InputError
from vidkit.params import GenerationParams
from vidkit.record import show
from vidkit.runs import RunFolder, read_failure, read_manifest, run_folders, table
from vidkit.sweep.engine import shutdown_kernels, warm_kernel
from vidkit.sweep.execute import Outcome, Task
from vidkit.sweep.plan import Plan
from vidkit.sweep.runner import Summary
from vidkit.sweep.status import read_status

GENERATE = Path(__file__).parent.parent / "notebooks" / "generate.ipynb"


@pytest.fixture(scope="module", autouse=True)
def vidkit_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from one_home(tmp_path_factory)


@pytest.fixture
def sweep(tmp_path: Path, tiny_svd_folder: Path) -> Sweep:
    return Sweep(tmp_path, tiny_svd_folder)


def test_one_kernel_serves_all_points_and_loads_the_model_once(sweep: Sweep) -> None:
    shutdown_kernels()
    sweep.write(seed=[1, 2, 3])
    sweep.run()
    runs = table(sweep.root)
    assert (runs["timing_load"] > runs["timing_load"].max() / 5).sum() == 1
    pid = warm_kernel("python3").pid
    sweep.write(seed=[4])
    sweep.run()
    assert warm_kernel("python3").pid == pid


def test_a_sweep_leaves_whole_runs_and_does_only_what_is_missing(sweep: Sweep) -> None:
    summary = sweep.run()
    assert (summary.points, summary.done, summary.failed, summary.before) == (2, 2, 0, 0)
    first = sweep.done()
    assert set(first) == {1, 2}
    for run in run_folders(sweep.root):
        manifest = read_manifest(run)
        assert manifest is not None
        assert {file.name for file in run.path.iterdir()} == {
            "clip.mp4", "clip.mp4.json", "poster.png", "notebook.ipynb", "manifest.json"
        }  # fmt: skip
        assert manifest.request == show(run.clip())["request"]
        assert manifest.axes == {"seed": manifest.seed}
        assert set(manifest.metrics) == {"motion", "flicker", "sharpness", "firstFramePsnr", "firstFrameSsim"}
        timing = manifest.timing
        assert {"load", "encode", "denoise", "decode", "write", "metrics", "overhead", "total"} == set(timing)
        assert sum(value or 0 for name, value in timing.items() if name != "total") == pytest.approx(
            timing["total"], abs=0.01
        )
    assert summary.report is not None
    assert "clip.mp4" in summary.report.read_text()
    assert read_status(sweep.root).line() == "finished: 2 of 2 done"

    sweep.write(seed=[1, 2, 3])
    assert (summary := sweep.run()).before == 2
    assert summary.done == 1
    after = sweep.done()
    assert {seed: after[seed] for seed in first} == first

    clips.saved(sweep.folder, value=200)  # other bytes under the same name
    assert sweep.run().done == 3
    assert len(run_folders(sweep.root)) == 6


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.during: list[Mapping[str, Any]] = []
        self.failures: list[Mapping[str, Any]] = []

    def planned(self, plan: Plan, summary: Summary, missing: int) -> None:
        self.events.append(f"planned {missing}")

    def began(self, task: Task) -> None:
        self.events.append(f"began {task.axes['seed']}")
        self.during.append(read_status(task.root).to_json())

    def ended(self, task: Task, outcome: Outcome, summary: Summary) -> None:
        self.events.append(f"{outcome.state} {task.axes['seed']}")
        if outcome.error:
            self.failures.append(outcome.error)

    def closed(self) -> None:
        self.events.append("closed")


def test_failures_are_recorded_with_their_reason_and_retried_when_asked(sweep: Sweep) -> None:
    trouble = sweep.folder / "trouble"
    trouble.touch()
    sweep.with_cell(
        "from pathlib import Path\n"
        f"if request.seed == 1 and Path({str(trouble)!r}).exists():\n"
        "    raise vidkit.GenerationError('out_of_memory', 'No room for seed 1.', ['Fewer frames'])"
    )
    heard = Heard()
    summary = sweep.run(listener=heard)
    assert (summary.done, summary.failed) == (1, 1)
    assert heard.events == ["planned 2", "began 1", "failed 1", "began 2", "done 2", "closed"]
    assert [status["state"] for status in heard.during] == ["running", "running"]
    assert heard.during[1]["failed"] == 1
    assert heard.during[1]["running"][0]["axes"] == {"seed": 2}
    failed = next(failure for run in run_folders(sweep.root) if (failure := read_failure(run)))
    assert failed.error is not None
    assert {name: failed.error[name] for name in ("code", "category", "message", "suggestions")} == {
        "code": "out_of_memory", "category": "generation", "message": "No room for seed 1.",
        "suggestions": ["Fewer frames"],
    }  # fmt: skip
    assert "raise vidkit.GenerationError" in failed.error["traceback"]
    assert "\x1b" not in failed.error["traceback"]

    assert sweep.run().before == 2  # not tried again by itself
    assert sweep.run(retry_failed=True).failed == 1
    trouble.unlink()
    assert sweep.run(retry_failed=True).done == 1
    assert set(sweep.done()) == {1, 2}
    assert read_status(sweep.root).failed == 0


def test_a_sweep_can_end_at_the_first_failure(sweep: Sweep) -> None:
    sweep.with_cell("1 / 0")
    summary = sweep.run(stop_on_failure=True)
    assert (summary.done, summary.failed) == (0, 1)
    failure = next(failure for run in run_folders(sweep.root) if (failure := read_failure(run)))
    assert failure.error is not None
    assert failure.error["category"] == "critical"
    assert "ZeroDivisionError" in failure.error["traceback"]


def test_a_notebook_that_shows_no_result_has_failed(sweep: Sweep) -> None:
    sweep.with_cell("pass")
    assert sweep.notebook
    notebook = nbformat.read(sweep.notebook, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id not in ("generate", "metrics", "metadata", "record")]
    nbformat.write(notebook, sweep.notebook)
    heard = Heard()
    sweep.run(listener=heard, stop_on_failure=True)
    assert "shows no result of vidkit.generate" in heard.failures[0]["message"]


def test_a_notebook_that_makes_another_clip_has_failed(sweep: Sweep) -> None:
    """Else it would be filed under a key that promises what it is not."""
    sweep.with_cell("request = request.replace(num_inference_steps=1)")
    heard = Heard()
    summary = sweep.run(listener=heard)
    assert (summary.done, summary.failed) == (0, 2)
    assert "another than was planned" in heard.failures[0]["message"]


def is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_killing_the_runner_loses_no_finished_point(sweep: Sweep) -> None:
    sweep.write(seed=range(1, 7))
    runner = sweep.start()
    wait_until(lambda: len(sweep.done()) >= 2)
    kernels = psutil.Process(runner.pid).children()
    assert kernels
    runner.kill()
    runner.wait()
    before = sweep.done()
    assert read_status(sweep.root).state == "stopped"
    wait_until(lambda: not any(map(is_running, kernels)), 20)
    summary = sweep.run()
    assert summary.before == len(before)
    after = sweep.done()
    assert set(after) == set(range(1, 7))
    assert {seed: after[seed] for seed in before} == before


def test_two_runners_share_a_folder_and_make_each_point_once(sweep: Sweep) -> None:
    sweep.write(seed=range(1, 7))
    runners = [sweep.start("--no-report") for _ in range(2)]
    answers = []
    for runner in runners:
        out, log = runner.communicate(timeout=200)
        assert runner.returncode == 0, log
        answers.append(json.loads(out))
    assert sum(answer["done"] for answer in answers) == 6
    assert all(answer["done"] + answer["before"] == 6 for answer in answers)
    assert set(sweep.done()) == set(range(1, 7))


def test_an_interrupt_ends_a_sweep_and_keeps_what_is_done(sweep: Sweep) -> None:
    sweep.write(seed=range(1, 9))
    runner = sweep.start(start_new_session=True)
    wait_until(lambda: len(sweep.done()) >= 1)
    started = time.monotonic()
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does: kernels are in a group of their own
    _, log = runner.communicate(timeout=60)
    assert runner.returncode == 130, log
    assert time.monotonic() - started < 15
    assert "Traceback" not in log
    assert len(run_folders(sweep.root)) == len(sweep.done()) < 8
    assert read_status(sweep.root).state == "stopped"


def test_a_full_disk_stops_the_sweep_and_nothing_half_made_counts(sweep: Sweep) -> None:
    """A limit on the size of files: the clip fits, the executed notebook does not."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    runner = sweep.start("--no-report", preexec_fn=small_files)
    out, log = runner.communicate(timeout=200)
    assert runner.returncode == 4, (out, log)
    assert json.loads(out)["code"] == "disk_full"
    assert sweep.done() == {}
    assert sweep.run().done == 2


def test_a_dry_run_writes_nothing_and_all_problems_are_told(sweep: Sweep) -> None:
    shown = subprocess.run(sweep.command("--dry-run"), capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert "Points:    2" in shown.stdout
    assert not sweep.root.exists()
    sweep.base |= {"num_frame": 4, "fps": 900}
    sweep.write(seed=[1])
    shown = subprocess.run(sweep.command(), capture_output=True, text=True, timeout=60)
    assert shown.returncode == 2
    answer = json.loads(shown.stdout)
    assert "Did you mean 'numFrames'?" in answer["message"]
    assert "fps is 900" in answer["message"]


def test_runs_and_reports_are_commands(sweep: Sweep) -> None:
    sweep.run(report=False)

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "vidkit", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.strip()

    rows = said("runs", str(sweep.root), "--columns", "seed,status", "--sort", "seed", "--descending").splitlines()
    assert [row.split() for row in rows] == [["seed", "status"], ["2", "done"], ["1", "done"]]
    target = sweep.folder / "runs.csv"
    assert said("runs", str(sweep.root), "--output", str(target)) == str(target)
    assert target.read_text().count("\n") == 3
    assert json.loads(said("status", str(sweep.root), "--json"))["done"] == 2
    assert Path(said("report", str(sweep.root))).stat().st_size > 10_000
    with pytest.raises(InputError, match="holds no sweep"):
        read_status(sweep.folder)


def test_a_point_as_a_request_is_what_the_plan_says(sweep: Sweep) -> None:
    """The manifest's request, made by hand, has the same key: nothing was added on the way through the notebook."""
    from vidkit.runs import content_key

    sweep.write(seed=[5])
    sweep.run(report=False)
    run = run_folders(sweep.root)[0]
    manifest = read_manifest(run)
    assert manifest is not None
    params = GenerationParams(**{**sweep.base, "seed": 5})
    assert content_key(params)[0] == manifest.key == RunFolder(sweep.root, manifest.key).key


def test_a_kernel_that_dies_is_replaced_and_the_point_tried_once_more(sweep: Sweep) -> None:
    once = sweep.folder / "once"
    sweep.with_cell(
        "import os, signal\nfrom pathlib import Path\n"
        f"once = Path({str(once)!r})\n"
        "if request.seed == 2 or not once.exists():\n"
        "    once.touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    heard = Heard()
    summary = sweep.run(listener=heard)
    assert (summary.done, summary.failed) == (1, 1)  # seed 1 died once, seed 2 dies always
    assert heard.failures[0]["code"] == "process_killed"
