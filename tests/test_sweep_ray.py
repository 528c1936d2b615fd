"""Sweeps on a real Ray cluster on this machine, with two workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from command_line import lives, wait_for
from sweep_notebooks import notebook, texts

from vidkit.errors import InputError
from vidkit.sweep.ray_executor import RayExecutor, connected
from vidkit.sweep.ray_pool import share
from vidkit.sweep.runner import Summary, planned, run_sweep

PARAMETERS = """# parameters
image_path = output_path = base_model = None
overwrite = True
prompt = "waves"
width = height = 64
num_frames = num_inference_steps = decode_chunk_size = None
seed = -1"""
GENERATE = """import os, vidkit
names = vidkit.GenerationParams.model_fields
vidkit.generate(vidkit.GenerationParams(**{name: globals()[name] for name in names if name in globals()}))"""
WHO = "print(os.getppid(), os.environ['OMP_WAIT_POLICY'], os.environ['RAY_USAGE_STATS_ENABLED'])"
DEADLY = "import os, signal, time\nif seed == 3: os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with connected(None) as ray:
        yield ray


@pytest.fixture
def sweep_file(tmp_path: Path, tiny_svd_folder: Path) -> Callable[..., Path]:
    def write(*cells: str, seeds: str = "1..6") -> Path:
        nbformat.write(notebook(PARAMETERS, *cells, GENERATE, WHO), tmp_path / "point.ipynb")
        file = tmp_path / "sweep.yaml"
        file.write_text(
            "notebook: point.ipynb\nbase: {image_path: 'example:photo', prompt: waves, width: 64, height: 64, "
            f"base_model: '{tiny_svd_folder}', num_frames: 3, num_inference_steps: 1}}\naxes: {{seed: {seeds}}}\n"
        )
        return file

    return write


def sweep(file: Path, root: Path, workers: int = 2, **more: Any) -> Summary:
    return run_sweep(file, root, executor=RayExecutor(workers=workers), report=False, **more)


def who(root: Path) -> list[str]:
    """What each done run's notebook says of where it ran."""
    return [texts(nbformat.read(done.parent / "notebook.ipynb", 4))[-1] for done in root.glob("*/manifest.json")]


def made(root: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in root.glob("*/manifest.json")]


def workers() -> dict[psutil.Process, list[psutil.Process]]:
    """The cluster's workers with their kernels. Ray's processes come and go while they are looked at."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::Worker"):
                found[process] = process.children()
    return found


@pytest.mark.usefixtures("cluster")
def test_two_workers_make_each_point_once_in_the_folders_of_a_local_run(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file, root = sweep_file(), tmp_path / "runs"

    summary = sweep(file, root)

    assert (summary.done, summary.failed) == (6, 0)
    _, tasks = planned(file, tmp_path / "local", None)
    assert {run["key"] for run in made(root)} == {task.key for task in tasks}
    assert [run["attempts"] for run in made(root)] == [1] * 6
    told = [text.split() for text in who(root)]
    assert len({parent for parent, *_ in told}) == 2
    assert {tuple(rest) for _, *rest in told} == {(os.environ["OMP_WAIT_POLICY"], "0")}
    assert not list(root.glob(".probe*"))
    wait_for(lambda: not workers())  # and a cluster that others started runs on


class KillsOne:
    """A listener that kills a worker when the first point is done."""

    def __init__(self) -> None:
        self.killed: list[psutil.Process] = []

    def planned(self, *_: object) -> None: ...

    def began(self, *_: object) -> None: ...

    def closed(self, *_: object) -> None: ...

    def ended(self, *_: object) -> None:
        if not self.killed:
            worker, kernels = next((worker, kernels) for worker, kernels in workers().items() if kernels)
            self.killed = [worker, *kernels]
            worker.kill()


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_is_replaced_and_no_point_is_lost(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    listener = KillsOne()

    summary = sweep(sweep_file(), tmp_path / "runs", listener=listener)

    assert (summary.done, summary.failed) == (6, 0)
    assert len(made(tmp_path / "runs")) == 6
    assert len(listener.killed) >= 2  # the worker, and its kernel
    wait_for(lambda: not any(lives(process.pid) for process in listener.killed))


@pytest.mark.usefixtures("cluster")
def test_a_point_that_kills_its_workers_is_recorded_as_failed(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "runs"

    summary = sweep(sweep_file(DEADLY, seeds="2..4"), root)

    assert (summary.done, summary.failed) == (2, 1)
    failure = json.loads(next(root.glob("*/failure.json")).read_text())
    assert failure["error"]["code"] == "process_killed"
    assert (failure["axes"], failure["attempts"]) == ({"seed": 3}, 1)
    assert not (next(root.glob("*/failure.json")).parent / "clip.mp4").exists()
    again = sweep(tmp_path / "sweep.yaml", root, retry_failed=False)
    assert (again.done, again.failed, again.before) == (0, 0, 3)


@pytest.mark.usefixtures("cluster")
def test_workers_that_do_not_see_the_folder_send_the_runs_back(
    sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sweep_file("assert seed != 2", seeds="1..3")
    monkeypatch.chdir(tmp_path)  # the workers stay where they are, and for them this path is another

    summary = sweep(file, Path("/proc/self/cwd/runs"), workers=1)

    assert (summary.done, summary.failed) == (2, 1)
    root = tmp_path / "runs"
    _, tasks = planned(file, tmp_path / "local", None)
    assert {run["key"] for run in made(root)} == {task.key for task in tasks if task.params.seed != 2}
    for done in root.glob("*/manifest.json"):
        assert {file.name for file in done.parent.iterdir()} >= {
            "clip.mp4",
            "clip.mp4.json",
            "poster.png",
            "notebook.ipynb",
        }
    failure = json.loads(next(root.glob("*/failure.json")).read_text())
    assert failure["request"]["imagePath"] == tasks[0].params.image_path
    assert "assert seed" in failure["error"]["traceback"]


def test_an_interrupt_leaves_no_process_and_nothing_half_made(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    file, root = sweep_file("import time; time.sleep(30 if seed > 1 else 0)", seeds="1..3"), tmp_path / "runs"
    command = [sys.executable, "-m", "vidkit", "sweep", file, "--output", root, "--executor", "ray", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        wait_for(lambda: list(root.glob("*/manifest.json")), seconds=120)
        started = psutil.Process(process.pid).children(recursive=True)
        assert any("ipykernel_launcher" in " ".join(child.cmdline()) for child in started)
        since = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        _, log = process.communicate(timeout=30)
        assert time.monotonic() - since < 10
        assert process.returncode == 130, log.decode()
        assert b"Finished points are kept" in log
        wait_for(lambda: not any(lives(child.pid) for child in started), seconds=3)
    finally:
        process.kill()
        process.wait()
    assert [folder.name for folder in root.glob("[0-9a-f]*")] == [run["key"][:16] for run in made(root)]


def test_without_ray_the_error_names_the_extra(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['ray'] = None; from vidkit.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", blocked, "sweep", sweep_file(), "--output", tmp_path / "runs", "--executor", "ray"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 3
    error = json.loads(done.stdout)
    assert (error["code"], error["suggestions"]) == ("missing_dependency", ["pip install 'vidkit[ray]'"])


def test_an_address_without_a_cluster_is_an_error_soon() -> None:
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = "import sys; from vidkit.sweep.ray_executor import connected\nwith connected(sys.argv[1]): pass"
        addresses = ("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}")
        started = [
            subprocess.Popen([sys.executable, "-c", code, address], stderr=subprocess.PIPE, text=True)
            for address in addresses
        ]
        for process, address in zip(started, addresses, strict=True):
            _, log = process.communicate(timeout=40)
            assert "SetupError" in log and f"No Ray cluster at {address}" in log


def test_no_workers_is_out_of_range() -> None:
    with pytest.raises(InputError, match="workers is 0"):
        RayExecutor(workers=0)


@pytest.mark.parametrize(
    ("count", "amounts", "each"),
    [(2, [2], 1), (1, [8], 8), (3, [8, 8], 4), (4, [2], 1 / 2), (3, [2], 1 / 2), (2, [0], 0), (2, [64, 4], 32)],
)
def test_workers_ask_for_no_more_than_lets_all_of_them_fit(count: int, amounts: list[int], each: float) -> None:
    assert share(count, amounts) == each
