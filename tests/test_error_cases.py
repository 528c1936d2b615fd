"""The specification's twelve cases of failure, each produced for real and answered by `vidkit generate`'s protocol.

A line of `CASES` is a case. One that computes runs in a warm worker under the supervisor, whose response and exit code
are what `vidkit generate` prints and ends with; the others in processes of their own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import GENERATE, children, environment, names, run, save_picture
from safetensors.numpy import load_file, save_file

from vidkit.errors import CODES, EXIT_CODES, Category
from vidkit.models.locate import BUNDLED_FOLDER, CARD_FILE
from vidkit.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of processes and mounts a small disk")

LAUNCHER = Path(__file__).parent.parent / "generate.py"

#: a disk of 1 MiB for what follows
ON_A_SMALL_DISK = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"')

Answer = tuple[dict[str, Any], int]


class Machine:
    """A data folder with a tiny model in it, a picture, a folder for clips, and a worker, started when needed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.output = folder, folder / "home", folder / "output"
        self.output.mkdir()
        # without its card, which bounds the size: this one may be asked for too much
        bundled = BUNDLED_FOLDER / "tiny-svd"
        shutil.copytree(bundled, self.home / "models" / "small", ignore=shutil.ignore_patterns(CARD_FILE))
        self.picture = save_picture(folder / "photo.png")
        self._supervisor = Supervisor(worker="failing_worker")
        self._others = set(children(os.getpid()))

    def request(self, **changes: Any) -> dict[str, Any]:
        small = {"width": 64, "height": 64, "numFrames": 6, "numInferenceSteps": 2, "seed": 7}
        clip = str(self.output / "clip.mp4")
        return {
            "baseModel": "small", "imagePath": str(self.picture), "prompt": "x", "outputPath": clip, **small, **changes,
        }  # fmt: skip

    def once(self, *command: str, **changes: Any) -> Answer:
        """In a process of its own."""
        request = json.dumps(self.request(**changes))
        finished = run(request, command=command or GENERATE, env=environment(self.home), cwd=self.folder)
        return finished.response, finished.code

    def warm(self, on_event: Callable[[dict[str, Any]], None] = lambda event: None, **changes: Any) -> Answer:
        """In the warm worker."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VIDKIT_HOME", str(self.home))
            return self._supervisor.run(self.request(**changes), on_event)

    def make_a_clip(self) -> None:
        """As the worker should, whatever it met before."""
        response, exit_code = self.warm(outputPath=str(self.folder / "clip.mp4"), overwrite=True)
        assert (response["status"], exit_code) == ("success", 0)

    def worker(self) -> int:
        (worker,) = set(children(os.getpid())) - self._others
        return worker

    def close(self) -> None:
        self._supervisor.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()


# --- how each is produced ---------------------------------------------------------------------------------------------


def empty_prompt(machine: Machine) -> Answer:
    return machine.once(prompt="  ")


def invalid_image(machine: Machine) -> Answer:
    """A photograph as telephones store it, under another name."""
    path = machine.folder / "holiday.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    return machine.once(imagePath=str(path))


def out_of_range(machine: Machine) -> Answer:
    return machine.once(fps=500, numFrames=1)


def python_not_found(machine: Machine) -> Answer:
    """The Python that is started has none of the packages that were installed."""
    return machine.once(sys.executable, "-S", str(LAUNCHER))


def cuda_not_available(machine: Machine) -> Answer:
    return machine.once("env", "VIDKIT_DEVICE=cuda", "CUDA_VISIBLE_DEVICES=-1", *GENERATE)


def models_not_downloaded(machine: Machine) -> Answer:
    return machine.once(baseModel="svd-xt")


def out_of_memory(machine: Machine) -> Answer:
    """The system gives the worker 16 MiB more of address space than it has, and torch asks it for more."""
    machine.make_a_clip()
    worker = machine.worker()
    taken = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.prlimit(worker, resource.RLIMIT_AS, (taken + 2**24, resource.RLIM_INFINITY))
    try:
        return machine.warm(width=512, height=512, decodeChunkSize=1)
    finally:
        resource.prlimit(worker, resource.RLIMIT_AS, before)


def timeout(machine: Machine) -> Answer:
    machine.make_a_clip()
    settings = machine.home / "config.json"
    settings.write_text('{"limits": {"time": 1}}')
    try:
        return machine.warm(numInferenceSteps=200)
    finally:
        settings.unlink()


def corrupted_output(machine: Machine) -> Answer:
    """A decoder whose weights are damaged: all of them are NaN."""
    model = machine.folder / "damaged"
    shutil.copytree(machine.home / "models" / "small", model)
    file = next((model / "vae").glob("*.safetensors"))
    save_file({name: weight * float("nan") for name, weight in load_file(file).items()}, file)
    return machine.warm(baseModel=str(model))


def driver_crash(machine: Machine) -> Answer:
    worker = machine.worker()
    (machine.home / "driver-crash").touch()
    try:
        return machine.warm()
    finally:
        (machine.home / "driver-crash").unlink()
        assert worker not in children(os.getpid())  # no CUDA call works in it any more


def disk_full(machine: Machine) -> Answer:
    disk = machine.folder / "disk"
    disk.mkdir()
    if subprocess.run([*ON_A_SMALL_DISK, disk, "true"], capture_output=True).returncode != 0:
        pytest.skip("no disk can be mounted here; test_cli.py has a limit on the size of files")
    return machine.once(*ON_A_SMALL_DISK, str(disk), *GENERATE, outputPath=str(disk / "clip.mp4"))


def process_killed(machine: Machine) -> Answer:
    """As the system ends what takes too much memory."""

    def kill(event: dict[str, Any]) -> None:
        if "progress" in event:
            os.kill(machine.worker(), 9)

    return machine.warm(kill)


# --- what is answered -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A case of the specification. told: parts of the message; advice: what suggestions begin with, in their order."""

    provoke: Callable[[Machine], Answer]
    category: Category
    code: str
    told: tuple[str, ...]
    advice: tuple[str, ...]


CASES = (
    Case(empty_prompt, "input", "empty_prompt", ("prompt is empty",), ("Set prompt to any words",)),
    Case(invalid_image, "input", "invalid_image", ("holiday.jpg", "no JPEG, PNG"), ("Open it in a picture editor",)),
    Case(
        out_of_range,
        "input",
        "out_of_range",
        ("fps is 500", "numFrames is 1"),
        ("Set numFrames to 2", "Set fps to 120"),
    ),
    Case(python_not_found, "system", "python_not_found", (sys.executable, "No module named"), ()),
    Case(
        cuda_not_available,
        "system",
        "cuda_not_available",
        ("VIDKIT_DEVICE is cuda", "torch 2"),
        ("Set VIDKIT_DEVICE to auto",),
    ),
    Case(
        models_not_downloaded,
        "system",
        "model_not_found",
        ("'svd-xt'", "home/models"),
        ("Fetch it: vidkit models download svd-xt", "Use small, which is here", "Use bundled:tiny-svd"),
    ),
    Case(out_of_memory, "generation", "out_of_host_memory", ("6 frames of 512x512",), ("Set width to ",)),
    Case(
        timeout,
        "generation",
        "timeout",
        ("limit of 1 s", "while denoising", "At this pace all of it takes about "),
        ("Raise the limit: VIDKIT_LIMIT_TIME",),
    ),
    Case(
        corrupted_output,
        "generation",
        "corrupted_output",
        ("frame 0 of 6", "NaN"),
        ("Set seed to 8", "Check the files of damaged: vidkit models verify "),
    ),
    Case(
        driver_crash,
        "critical",
        "gpu_driver",
        ("illegal memory access",),
        ("Set an overclocked", "Make the clip again in a new process", "If it fails again"),
    ),
    Case(
        disk_full,
        "critical",
        "disk_full",
        ("256 MiB are to stay free", "1 MiB are free in", "/disk"),
        ("Free 255 MiB more on the disk of ", "Set outputPath to "),
    ),
    Case(
        process_killed,
        "critical",
        "process_killed",
        ("SIGKILL",),
        ("Reduce num_frames to 4", "Close other programs: of ", "Send the request again"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.provoke.__name__)
def test_a_case_of_the_specification(machine: Machine, case: Case) -> None:
    response, exit_code = case.provoke(machine)
    assert (response["code"], response["category"]) == (case.code, case.category)
    assert exit_code == EXIT_CODES[case.category]
    assert response["suggestions"] and all(response["suggestions"])
    assert set(response) == {"status", "error", "message", "suggestions", "code", "category"}
    assert (response["status"], response["error"]) == ("error", CODES[case.category][case.code].title)
    for part in case.told:
        assert part in response["message"]
    suggestions = iter(response["suggestions"])
    for start in case.advice:
        assert any(advice.startswith(start) for advice in suggestions), (start, response["suggestions"])
    assert names(machine.output) == []  # nothing half-made


def test_all_categories_have_three_cases_each() -> None:
    assert [case.category for case in CASES] == [category for category in CODES for _ in range(3)]
