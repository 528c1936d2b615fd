"""The files in parameters/: each says when to use it and how, and runs as it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import vidkit
from vidkit.cli import main, make_parser
from vidkit.params import GenerationParams
from vidkit.shipped import shipped
from vidkit.sweep.plan import make_plan
from vidkit.video import read_frames

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "parameters").glob("*.yaml"))
SWEEPS = [file for file in FILES if file.name.startswith("sweep_")]
CLIPS = [file for file in FILES if file not in SWEEPS]
SMALL = {"width": 64, "height": 64, "num_frames": 4, "num_inference_steps": 2}

#: the names that the files give to models that have to be fetched, and such models at their full size
FETCHED = {
    "svd-xt": "svd",
    "realistic-vision-5.1": "sd15",
    "animatediff-v1-5-3": "motion_adapter",
    "sparsectrl-rgb": "sparse_controlnet",
}

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


def name(path: Path) -> str:
    return path.stem


def request(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def is_bundled(request: dict[str, Any]) -> bool:
    return all(request.get(part, "bundled:").startswith("bundled:") for part in ("base_model", "motion_adapter"))


BUNDLED = [file for file in CLIPS if is_bundled(request(file))]


@pytest.fixture
def fetched_models(tmp_path: Path, full_size_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A models folder in which the models have their names of the catalogue."""
    for model, folder in FETCHED.items():
        (tmp_path / model).symlink_to(full_size_models / folder)
    monkeypatch.setenv("VIDKIT_MODELS", str(tmp_path))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_begins_with_when_to_use_it_and_commands_that_the_command_line_takes(file: Path) -> None:
    head = re.match(r"(?:#.*\n)+", file.read_text(encoding="utf-8"))
    assert head is not None
    lines = head[0].splitlines()
    assert 3 <= len(lines) <= 7
    commands = [line.removeprefix("#").split("  #")[0].strip() for line in lines if line.startswith("#   ")]
    assert any(f"parameters/{file.name}" in command for command in commands)
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "vidkit":
            _, rest = make_parser().parse_known_args(arguments)
            assert not rest, command
        else:
            assert program == "papermill"
            assert (ROOT / arguments[0]).is_file()


@pytest.mark.parametrize("file", CLIPS, ids=name)
@pytest.mark.usefixtures("fetched_models")
def test_each_request_can_be_planned(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", "--request", str(file), "--free", "11"])
    text = capsys.readouterr().out
    assert code == 0, text
    assert "Fits:     yes" in text
    assert "is ignored" not in text.replace("prompt is ignored", "")


@pytest.mark.usefixtures("fetched_models")
def test_a_card_of_12_gb_gets_svd_xt_as_it_is() -> None:
    asked = GenerationParams(**request(shipped("parameters") / "card_12gb.yaml"))
    planned = vidkit.plan(asked, free=11)
    assert (planned.params.width, planned.params.height, planned.params.num_frames) == (1024, 576, 25)
    assert planned.planned is not None
    assert not planned.planned.plan.changes
    assert planned.needed.peak / 2**30 < 11
    assert not vidkit.plan(asked, free=1).fits


@pytest.mark.parametrize("file", BUNDLED, ids=name)
def test_requests_of_bundled_models_run(file: Path, tmp_path: Path) -> None:
    made = vidkit.generate(request(file) | SMALL | {"output_path": str(tmp_path / "clip.mp4")})
    assert read_frames(made.output).shape == (4, 64, 64, 3)
    assert made.seed == 7


@pytest.mark.parametrize("file", SWEEPS, ids=name)
def test_sweeps_are_checked_and_their_first_and_last_points_run(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(file), "--dry-run"]) == 0
    plan = make_plan(file)
    assert f"Points:    {len(plan.points)} " in capsys.readouterr().out
    assert 6 <= len(plan.points) <= 16
    assert plan.name == file.stem.removeprefix("sweep_")
    clips = []
    for point in (plan.points[0], plan.points[-1]):
        given = point.params.replace(**SMALL, output_path=str(tmp_path / f"{point.index}.mp4"))
        clips.append(read_frames(vidkit.generate(given).output))
    if file.stem != "sweep_frames_fps":  # small clips are all of one length
        assert not np.array_equal(*clips)


def test_a_draft_differs_from_the_final_clip_in_its_steps_alone() -> None:
    draft, final = (request(shipped("parameters") / f"{one}.yaml") for one in ("draft", "final"))
    assert draft.pop("num_inference_steps") < final.pop("num_inference_steps")
    assert draft == final


def test_every_family_has_a_file() -> None:
    kinds = {(one.get("pipeline", "svd"), one.get("conditioning")) for one in map(request, CLIPS)}
    assert kinds == {("svd", None), ("animatediff", "init"), ("animatediff", "pia"), ("animatediff", "sparsectrl")}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prompt: a\nprompt: b\n", "second time"),
        ("- prompt\n", "no names and values"),
        ("axes: {seed: 1}\n", "is a sweep"),
        ("prompt: [\n", "not YAML"),
        (b"prompt: \xff\n", "not UTF-8"),
    ],
)
def test_a_yaml_file_that_is_no_request_is_refused(
    text: str | bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "request.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["plan", "--request", str(file)]) == 2
    assert complaint in capsys.readouterr().out
