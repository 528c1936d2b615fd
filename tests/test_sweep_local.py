"""Several points at once on one machine: real kernels, each worker's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweep_files import Sweep, one_home, wait_until

from vidkit.errors import InputError
from vidkit.memory import free
from vidkit.runs import RunFolder, run_folders, table
from vidkit.sweep.engine import warm_kernel
from vidkit.sweep.local import Local, workers
from vidkit.sweep.status import read_status
from vidkit.sweep.workers import Worker, working_as
from vidkit.video import read_frames


@pytest.fixture(scope="module", autouse=True)
def vidkit_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from one_home(tmp_path_factory)


@pytest.fixture
def sweep(tmp_path: Path, tiny_svd_folder: Path) -> Sweep:
    return Sweep(tmp_path, tiny_svd_folder)


def frames(folder: Path) -> dict[str, Any]:
    return {run.name: read_frames(run.clip()) for run in run_folders(folder)}


def test_two_workers_make_each_point_once_as_one_does(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a CPU the last bits depend on it
    sweep.write(seed=[1, 2, 3, 4])
    summary = sweep.run(executor=Local(2), report=False)
    assert (summary.points, summary.done, summary.failed, summary.before) == (4, 4, 0, 0)
    runs = table(sweep.root)
    assert (runs["timing_load"] > runs["timing_load"].max() / 5).sum() == 2  # the model, once in each kernel
    pids = []
    for number in (1, 2):
        with working_as(Worker(number)):
            pids.append(warm_kernel("python3").pid)
    assert None not in pids
    assert pids[0] != pids[1]
    both, sweep.root = sweep.root, sweep.folder / "alone"
    sweep.run(report=False)
    alone = frames(sweep.root)
    assert alone.keys() == frames(both).keys()
    assert all(np.array_equal(made, alone[name]) for name, made in frames(both).items())


def test_a_point_that_fails_does_not_stop_the_other_worker(sweep: Sweep) -> None:
    sweep.with_cell("assert seed != 1, 'not this one'")
    sweep.write(seed=[1, 2, 3])
    summary = sweep.run(executor=Local(2), report=False)
    assert (summary.done, summary.failed) == (2, 1)


def test_an_interrupt_ends_all_workers_and_leaves_nothing_of_their_points(sweep: Sweep) -> None:
    sweep.with_cell("import time\nif seed > 1:\n    open(f'at-{seed}', 'w').close()\n    time.sleep(100)")
    sweep.write(seed=range(1, 9))
    runner = sweep.start("--workers", "2", start_new_session=True, cwd=sweep.folder)
    wait_until(lambda: len(list(sweep.folder.glob("at-*"))) == 2 and sweep.done())
    started = time.monotonic()
    os.killpg(runner.pid, signal.SIGINT)
    _, log = runner.communicate(timeout=60)
    assert runner.returncode == 130, log
    assert time.monotonic() - started < 15
    assert "Traceback" not in log
    assert [RunFolder(sweep.root, run.name).attempts() for run in run_folders(sweep.root)] == [0]
    assert read_status(sweep.root).state == "stopped"


def test_who_interrupts_twice_is_not_kept_waiting(sweep: Sweep) -> None:
    """By a cell that takes no notice of the first."""
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nopen(f'at-{seed}', 'w').close()\n"
    sweep.with_cell(stubborn + "time.sleep(100)")
    sweep.write(seed=range(1, 9))
    runner = sweep.start("--workers", "2", start_new_session=True, cwd=sweep.folder)
    wait_until(lambda: len(list(sweep.folder.glob("at-*"))) == 2)
    os.killpg(runner.pid, signal.SIGINT)
    time.sleep(0.5)
    started = time.monotonic()
    os.killpg(runner.pid, signal.SIGINT)
    _, log = runner.communicate(timeout=60)
    assert runner.returncode == 130, log
    assert time.monotonic() - started < 12  # nbclient looks once a second; a kernel's own end takes its time
    assert run_folders(sweep.root) == []


def test_several_need_warm_kernels(sweep: Sweep) -> None:
    with pytest.raises(InputError, match="need the engine vidkit-warm"):
        sweep.run(executor=Local(2), report=False, engine="nbclient")


def test_a_number_of_workers_that_is_none() -> None:
    with pytest.raises(InputError, match="workers is 0"):
        Local(0)


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [(None, ["GPU-1f2e", "GPU-3a4b", "GPU-1f2e"]), ("1, 0", ["1", "0", "1"]), ("GPU-3a4b", [None] * 3)],
)
def test_each_worker_has_a_gpu_of_several_and_a_share_of_the_cores(
    tmp_path: Path, visible: str | None, gpus: list[str | None]
) -> None:
    """nvidia-smi is an outside program: its words are played here."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --query-gpu=uuid ] && echo GPU-1f2e && echo GPU-3a4b\n')
    program.chmod(0o755)
    environment = os.environ | {"VIDKIT_DEVICE": "cuda", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    code = "import json; from vidkit.sweep.local import workers; print(json.dumps([w.environment for w in workers(3)]))"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)
    assert [worker.get("CUDA_VISIBLE_DEVICES") for worker in found] == gpus
    share = str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert {worker["OMP_NUM_THREADS"] for worker in found} == {share}


def test_a_driver_that_does_not_tell_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(free, "LONG_PATIENCE", 0.3)
    assert [worker.environment.get("CUDA_VISIBLE_DEVICES") for worker in workers(2)] == [None, None]
    assert "all workers compute on the first" in caplog.text
    caplog.clear()
    monkeypatch.setenv("VIDKIT_DEVICE", "cpu")
    assert workers(2)
    assert not caplog.records
