"""A command whose answer nobody gets: a full disk is told by the exit code, a reader that has left is not."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import environment, run

from vidkit.params import GenerationParams
from vidkit.record import make_record
from vidkit.video import write_video

COMMANDS = ["show CLIP", "doctor --json", "models list", "explain timeout"]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lost")
    params = GenerationParams(image_path="x", prompt="x")
    record = make_record(params, models={}, pictures=[], plan={}, notes=[], safety_checker={})
    write_video(np.zeros((2, 64, 64, 3), np.uint8), folder / "clip.mp4", fps=8, output_format="mp4", record=record)
    return folder


def shell(folder: Path, command: str) -> str:
    words = command.replace("CLIP", shlex.quote(str(folder / "clip.mp4")))
    return f"{shlex.quote(sys.executable)} -m vidkit {words}"


@FULL
@pytest.mark.parametrize("command", COMMANDS)
def test_an_answer_that_is_lost_is_a_failure(folder: Path, command: str) -> None:
    whole = f"{shell(folder, command)} > /dev/full"
    done = run(command=("sh", "-c", whole), env=environment(folder / "home"))
    assert done.code == 4
    assert not any("Traceback" in line for line in done.log)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_left_has_lost_nothing(folder: Path, command: str) -> None:
    whole = f"{{ {shell(folder, command)}; echo code $? >&2; }} | head -c0"
    done = run(command=("sh", "-c", whole), env=environment(folder / "home"))
    assert "code 0" in done.log
    assert not any("Traceback" in line for line in done.log)
