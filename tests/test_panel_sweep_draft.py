from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidkit.errors import InputError
from vidkit.models.locate import picture_path
from vidkit.panel.outlook import outlook_of
from vidkit.panel.sweep_draft import (
    SweepDraft,
    axis_names,
    parameters_folder,
    plan_draft,
    plan_in_words,
    problem_lines,
    proposed_name,
    proposed_values,
    seconds_of,
    with_free_name,
    write_draft,
)
from vidkit.params import GenerationParams
from vidkit.settings import Settings
from vidkit.sweep.axes import expand
from vidkit.sweep.plan import make_plan
from vidkit.sweep.sweep_file import NOT_IN_A_SWEEP


@pytest.fixture(autouse=True)
def notebook_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the notebook is: relative paths are meant from there."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    yield folder


def request(**more: Any) -> GenerationParams:
    given = {"image_path": "example:photo", "prompt": "slow: camera, # move", "base_model": "bundled:tiny-svd"}
    return GenerationParams(**{**given, **more})


def proposal(name: str, params: GenerationParams) -> str:
    return proposed_values(name, outlook_of(params, Settings(), lambda *_: None), Settings())


def test_axes_are_what_the_family_uses() -> None:
    svd, diff = axis_names(request()), axis_names(request(pipeline="animatediff", base_model=None))
    assert {"seed", "motion_bucket_id", "width", "image_path", "base_model"} <= set(svd)
    assert not {"prompt", "prompt_sr", "guidance_scale", "controlnet", "schema_version", *NOT_IN_A_SWEEP} & set(svd)
    assert {"prompt", "prompt_sr", "negative_prompt", "strength", "guidance_scale"} <= set(diff)
    assert "motion_bucket_id" not in diff
    assert "conditioning_scale" not in diff


def test_proposals_are_around_the_present_value() -> None:
    assert proposal("seed", request()) == "random [4]"
    assert proposal("motion_bucket_id", request(motion_bucket_id=127)) == "40..200 [3]"
    assert proposal("fit", request(fit="pad")) == "pad, crop, stretch"
    assert proposal("bare", request()) == "false, true"
    assert proposal("image_path", request(image_path="a, b.png")) == '"a, b.png"'
    assert proposal("prompt", request(pipeline="animatediff")) == "slow: camera, # move || "
    assert proposal("base_model", request()).split(", ")[0] == "bundled:tiny-svd"
    sizes = [int(side) for side in proposal("width", request(width=128, height=128)).split(", ")]
    assert 128 in sizes
    assert len(sizes) == 3


@pytest.mark.parametrize("more", [{}, {"num_frames": 2, "num_inference_steps": 1, "fps": 1, "motion_bucket_id": 0}])
def test_every_proposal_of_a_number_can_be_planned(more: dict[str, Any], tmp_path: Path) -> None:
    params = request(**more)
    for name in axis_names(params):
        if name in ("image_path", "pipeline", "base_model"):  # texts: as given above
            continue
        values = proposal(name, params)
        assert expand(name, values), name
        plan_draft(SweepDraft(params, {name: values}, "any"), tmp_path)


def test_the_file_says_what_the_form_says(notebook_folder: Path, tmp_path: Path) -> None:
    params = request(motion_bucket_id=60, seed=-1, output_path="/nowhere/x.mp4", overwrite=True, width=64, height=64)
    draft = SweepDraft(params, {"motion_bucket_id": "40, 120", "seed": "random [2]", "fit": "crop, pad"}, "no")
    folder = tmp_path / "elsewhere"
    plan = make_plan(write_draft(draft, folder, tmp_path / "runs"))
    assert plan.name == "no"
    assert len(plan.points) == 8
    assert plan.axes["motion_bucket_id"] == [40, 120]
    assert plan.axes["fit"] == ["crop", "pad"]
    assert plan.base == {
        "image_path": "example:photo",
        "prompt": "slow: camera, # move",
        "base_model": "bundled:tiny-svd",
        "width": 64,
        "height": 64,
    }


def test_pictures_beside_the_notebook_are_found_from_elsewhere(notebook_folder: Path, tmp_path: Path) -> None:
    """In base and on an axis, with a comma in a name."""
    for name in ("b.jpg", "a, b.jpg"):
        shutil.copy(picture_path("example:photo"), notebook_folder / name)
    draft = SweepDraft(request(image_path="b.jpg"), {"seed": "1"}, "base")
    plan = make_plan(write_draft(draft, tmp_path / "parameters", tmp_path / "runs"))
    assert plan.points[0].params.image_path == str(notebook_folder / "b.jpg")
    draft = SweepDraft(request(image_path="b.jpg"), {"image_path": 'b.jpg, "a, b.jpg", example:photo'}, "axis")
    plan = make_plan(write_draft(draft, tmp_path / "parameters", tmp_path / "runs"))
    pictures = [point.params.image_path for point in plan.points]
    assert pictures == [str(notebook_folder / "b.jpg"), str(notebook_folder / "a, b.jpg"), "example:photo"]


def test_all_problems_in_words(tmp_path: Path) -> None:
    draft = SweepDraft(request(), {"motion_bucket_id": "40..400 [3]", "seed": "one"}, "wrong")
    with pytest.raises(InputError) as caught:
        plan_draft(draft, tmp_path)
    lines = problem_lines(caught.value, draft.file_name)
    assert len(lines) == 2
    assert "motionBucketId is 400" in " ".join(lines)
    assert "'one' is neither a number nor a range" in " ".join(lines)
    assert not any("wrong.yaml" in line for line in lines)
    with pytest.raises(InputError) as caught:
        plan_draft(SweepDraft(request(), {"seed": "one"}, "wrong"), tmp_path)
    assert problem_lines(caught.value, "wrong.yaml")[0].startswith("axis seed: 'one'")


def test_time_grows_with_steps_and_size(tmp_path: Path) -> None:
    params = request(width=64, height=64, num_frames=4, num_inference_steps=10)
    plan = plan_draft(SweepDraft(params, {"num_inference_steps": "10, 30", "seed": "1, 2"}, "a"), tmp_path)
    resolved = outlook_of(params, Settings(), lambda *_: None).resolved
    assert resolved is not None
    assert seconds_of(plan, 2.0, resolved.params) == pytest.approx(2 * 2 + 2 * 6)
    assert seconds_of(plan, 2.0, None) == 8
    assert seconds_of(plan, None, resolved.params) is None
    assert plan_in_words(plan, 16) == "4 points (num_inference_steps 2 x seed 2); about 16 s."
    assert "is known after" in plan_in_words(plan, None)


def test_where_files_go(notebook_folder: Path, vidkit_home: Path) -> None:
    assert parameters_folder(notebook_folder) == vidkit_home / "parameters"
    (notebook_folder.parent / "parameters").mkdir()
    assert parameters_folder(notebook_folder) == notebook_folder.parent / "parameters"
    (notebook_folder / "parameters").mkdir()
    assert parameters_folder(notebook_folder) == notebook_folder / "parameters"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder, runs = tmp_path / "parameters", tmp_path / "runs"
    draft = SweepDraft(request(), {"seed": "1, 2"}, proposed_name(["seed"]))
    file = write_draft(draft, folder, runs)
    assert file.name == "sweep_seed.yaml"
    (runs / "sweep_seed").mkdir(parents=True)  # it has run
    assert write_draft(draft, folder, runs) == file  # the same sweep, to go on
    assert with_free_name(draft, folder, runs) == draft
    before = file.read_bytes()
    other = SweepDraft(request(), {"seed": "1, 3"}, "sweep_seed")
    with pytest.raises(InputError, match=r"sweep_seed\.yaml is there already"):
        write_draft(other, folder, runs)
    assert file.read_bytes() == before
    (runs / "sweep_seed-2").mkdir()  # of a sweep whose file is gone: its seeds are kept there
    assert with_free_name(other, folder, runs).name == "sweep_seed-3"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "x ", "0123456789abcdef", "a" * 101, "a\nb"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    for act in (lambda draft: plan_draft(draft, tmp_path), lambda draft: write_draft(draft, tmp_path, tmp_path)):
        with pytest.raises(InputError, match="cannot name a sweep"):
            act(SweepDraft(request(), {"seed": "1"}, name))
    assert list(tmp_path.glob("*.yaml")) == []


def test_loads_neither_widgets_nor_torch() -> None:
    code = "import sys, vidkit.panel.sweep_draft, vidkit.panel.sweep_process\n"
    code += "print([name for name in ('ipywidgets', 'anywidget', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
