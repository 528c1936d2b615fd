"""From a sweep file to its points: what is refused, all at once; the order; the seeds that are kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from vidkit.errors import InputError, SetupError
from vidkit.params import MAX_SEED, GenerationParams
from vidkit.sweep.dry_run import in_words
from vidkit.sweep.plan import Plan, make_plan, plan_sweep

ROOT = Path(__file__).parent.parent
BASE = {"image_path": "example:photo", "prompt": "slow zoom in", "base_model": "bundled:tiny-svd"}
ANIMATED = {"image_path": "example:photo", "prompt": "zoom in, rain", "pipeline": "animatediff"}

Sweep = Callable[..., Path]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Writes a sweep file; `base` is complete unless given."""

    def write(text: str | None = None, **content: Any) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text or yaml.safe_dump({"base": BASE, **content}, sort_keys=False), encoding="utf-8")
        return path

    return write


def points_of(plan: Plan) -> list[tuple[Any, ...]]:
    return [tuple(point.axes.values()) for point in plan.points]


def refusal(path: Path, root: Path | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        make_plan(path, root)
    return caught.value


def test_points_are_the_product_in_the_written_order(sweep: Sweep) -> None:
    plan = make_plan(sweep(axes={"motion_bucket_id": [20, 60], "fps": "8, 12"}))
    assert points_of(plan) == [(20, 8), (20, 12), (60, 8), (60, 12)]
    assert plan.axes == {"motion_bucket_id": [20, 60], "fps": [8, 12]}
    assert [point.index for point in plan.points] == [0, 1, 2, 3]
    first = plan.points[0].params
    assert (first.motion_bucket_id, first.fps, first.base_model) == (20, 8, "bundled:tiny-svd")
    assert GenerationParams(**first.to_wire()) == first
    assert first.width is None  # the model's defaults stay open


def test_camel_case_is_taken_everywhere(sweep: Sweep) -> None:
    base = {"imagePath": "example:photo", "prompt": "x", "baseModel": "bundled:tiny-svd"}
    axes = {"motionBucketId": [20, 60], "numFrames": [4, 6]}
    plan = make_plan(
        sweep(base=base, axes=axes, zip=[["motionBucketId", "numFrames"]], exclude=[{"motionBucketId": 60}])
    )
    assert points_of(plan) == [(20, 4)]
    assert list(plan.axes) == ["motion_bucket_id", "num_frames"]


def test_dear_axes_go_outermost_and_are_shown_as_written(sweep: Sweep, tiny_svd_folder: Path) -> None:
    models = ["bundled:tiny-svd", str(tiny_svd_folder)]
    base = {"image_path": "example:photo", "prompt": "x", "height": 128}
    plan = make_plan(sweep(base=base, axes={"seed": [1, 2], "width": [64, 128], "base_model": models}))
    assert list(plan.axes) == ["seed", "width", "base_model"] == list(plan.points[0].axes)
    order = [(model, width, seed) for seed, width, model in points_of(plan)]
    assert order == [(model, width, seed) for model in models for width in (64, 128) for seed in (1, 2)]
    assert plan.loads == 2


def test_conditioning_reloads_too(sweep: Sweep) -> None:
    plan = make_plan(sweep(base=ANIMATED, axes={"seed": [1, 2], "conditioning": ["init", "pia"]}))
    assert [point.params.conditioning for point in plan.points] == ["init", "init", "pia", "pia"]
    assert plan.loads == 2


def test_zipped_axes_advance_together(sweep: Sweep) -> None:
    axes = {"width": [64, 128, 128], "seed": [1, 2], "height": [64, 64, 128]}
    for written in ([["width", "height"]], ["width", "height"]):
        plan = make_plan(sweep(axes=axes, zip=written))
        sizes = [(point.params.width, point.params.height) for point in plan.points]
        assert sizes == [(64, 64), (64, 64), (128, 64), (128, 64), (128, 128), (128, 128)]
    assert plan.axes["width"] == [64, 128]


def test_excluded_points_are_left_out(sweep: Sweep) -> None:
    axes = {"motion_bucket_id": "20, 60, 100", "fps": [8, 12], "seed": 7}
    plan = make_plan(sweep(axes=axes, exclude=[{"motion_bucket_id": "60..100", "fps": 12}, {"motion_bucket_id": 20}]))
    assert points_of(plan) == [(60, 8, 7), (100, 8, 7)]


def test_excluded_points_are_not_judged(sweep: Sweep) -> None:
    axes = {"width": [64, 512], "seed": [1, 2]}  # tiny-svd takes up to 256
    assert len(make_plan(sweep(axes=axes, exclude=[{"width": 512}])).points) == 2


def test_prompt_search_and_replace(sweep: Sweep) -> None:
    base = {**ANIMATED, "negative_prompt": "rain, blur"}
    axes = {"prompt_sr": ["zoom in", "zoom out"], "prompt_sr_weather": "rain, zoom in, snow"}
    plan = make_plan(sweep(base=base, axes=axes))
    assert [point.params.prompt for point in plan.points] == [
        *("zoom in, rain", "zoom in, zoom in", "zoom in, snow"),
        *("zoom out, rain", "zoom out, zoom in", "zoom out, snow"),
    ]
    assert plan.points[2].params.negative_prompt == "snow, blur"
    assert plan.points[-1].axes == {"prompt_sr": "zoom out", "prompt_sr_weather": "snow"}


def test_of_two_searches_the_longer_one_counts_where_both_match(sweep: Sweep) -> None:
    base = {**ANIMATED, "prompt": "zoom in, no zoom"}
    plan = make_plan(sweep(base=base, axes={"prompt_sr": ["zoom", "pan"], "prompt_sr_2": ["zoom in", "tilt"]}))
    assert plan.points[-1].params.prompt == "tilt, no pan"


def test_null_is_the_models_own_default(sweep: Sweep) -> None:
    plan = make_plan(sweep(axes={"num_frames": [None, 4], "seed": [1]}))
    assert [point.params.num_frames for point in plan.points] == [None, 4]
    assert "numFrames" not in plan.points[0].params.to_wire()


def test_paths_are_relative_to_the_file(sweep: Sweep, tmp_path: Path, vidkit_home: Path, tiny_svd_folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "model").symlink_to(tiny_svd_folder)
    (vidkit_home / "models").mkdir()
    (vidkit_home / "models" / "named").symlink_to(tiny_svd_folder)
    (tmp_path / "mine.ipynb").write_text("{}")
    axes = {"image_path": ["a.png", "example:photo"], "base_model": ["model", "bundled:tiny-svd"]}
    plan = make_plan(sweep(base={"prompt": "x"}, axes=axes, notebook="mine.ipynb"))
    assert plan.notebook == tmp_path / "mine.ipynb"
    assert plan.points[0].axes == {"image_path": "a.png", "base_model": "model"}
    assert plan.points[0].params.image_path == str(tmp_path / "a.png")
    assert plan.points[0].params.base_model == str(tmp_path / "model")
    assert plan.points[-1].params.image_path == "example:photo"
    named = make_plan(sweep(base={**BASE, "base_model": "named"}))
    assert named.points[0].params.base_model == "named"


# --- refusals


#: (content of the sweep, parts of the message)
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"axis": {"fps": [8]}}, ["Unknown key 'axis'. Did you mean 'axes'?"]),
    ({"seed": 3}, ["'seed' stands at the top"]),
    ({"schemaVersion": 99}, ["schemaVersion is 99"]),
    ({"name": "../up"}, ["name is '../up'"]),
    ({"name": 5}, ["name is 5"]),
    ({"notebook": "no.ipynb"}, ["no.ipynb does not exist"]),
    ({"repeats": 0}, ["repeats is 0"]),
    ({"repeats": True}, ["repeats is True"]),
    ({"base": [1]}, ["base is [1]", "image_path is neither"]),
    ({"base": {**BASE, "motion_buckt_id": 3}}, ["Did you mean 'motionBucketId'"]),
    ({"base": {**BASE, "fps": "1..3"}}, ["base: fps is '1..3'"]),
    ({"base": {**BASE, "fps": 999}}, ["base: fps is 999"]),
    ({"base": {**BASE, "numFrames": 3, "num_frames": 4}}, ["given twice"]),
    ({"base": {**BASE, "output_path": "a.mp4"}}, ["output_path has no place"]),
    ({"base": {**BASE, "prompt_sr": "a"}}, ["prompt_sr is an axis"]),
    ({"base": {"prompt": "x"}}, ["image_path is neither in base nor an axis"]),
    ({"base": {"image_path": "example:photo"}}, ["prompt is neither in base nor an axis"]),
    ({"base": {**BASE, "prompt": " "}}, ["prompt is empty"]),
    ({"base": {**BASE, "image_path": "gone.jpg"}}, ["gone.jpg' was not found"]),
    ({"base": {**BASE, "image_path": "example:none"}}, ["no picture 'example:none'"]),
    ({"base": {**BASE, "image_path": "sweep.yaml"}}, ["is no JPEG"]),
    ({"base": {**BASE, "base_model": "nowhere"}}, ["base model", "nowhere", "was not found"]),
    ({"axes": [1]}, ["axes is [1]"]),
    ({"axes": {"motion_buckt_id": [1]}}, ["axes: Unknown parameter 'motion_buckt_id'", "'motionBucketId'"]),
    ({"axes": {"promt_sr": ["a"]}}, ["Did you mean 'prompt_sr'"]),
    ({"axes": {"output_path": ["a"]}}, ["output_path has no place"]),
    ({"axes": {"fps": []}}, ["axis fps has no values"]),
    ({"axes": {"fps": None}}, ["axis fps has no values"]),
    ({"axes": {"fps": "1..x"}}, ["axis fps: '1..x'"]),
    ({"axes": {"fps": [8, 0]}}, ["axis fps: fps is 0"]),
    ({"axes": {"fps": "118..125"}}, ["fps is 121", "fps is 123", "axis fps: 124, 125 likewise"]),
    ({"axes": {"fps": [8, 8.5]}}, ["axis fps: fps is 8.5"]),
    ({"axes": {"fps": [True]}}, ["axis fps: fps is True"]),
    ({"axes": {"fps": [None]}}, ["axis fps: fps has no value"]),
    ({"axes": {"bare": ["yes"]}}, ["axis bare: bare is 'yes'"]),
    ({"axes": {"fit": ["crop", "crap"]}}, ["axis fit: fit is 'crap'"]),
    ({"axes": {"prompt": [5]}, "base": {"image_path": "example:photo"}}, ["prompt is 5"]),
    ({"axes": {"noise_aug_strength": "0..2 [5]"}}, ["noiseAugStrength is 1.5", "noiseAugStrength is 2.0"]),
    ({"axes": {"fps": [8], "prompt": ["x"]}}, ["prompt is both an axis and in base"]),
    ({"axes": {"numFrames": [3], "num_frames": [4]}}, ["given twice"]),
    ({"axes": {"fps": [8, 8]}}, ["axis fps has 8 more than once"]),
    ({"axes": {"fps": [8, 12, 8], "seed": [1, 2, 1]}, "zip": [["fps", "seed"]]}, ["has (8, 1) more than once"]),
    ({"axes": {"fps": [8, 9], "seed": [1]}, "zip": [["fps", "seed"]]}, ["as many values each: fps 2, seed 1"]),
    ({"axes": {"fps": [8]}, "zip": [["fps", "seed"]]}, ["zip names 'seed', which is no axis"]),
    ({"axes": {"fps": [8]}, "zip": [["fps"]]}, ["which is no group of axes"]),
    ({"axes": {"fps": [8]}, "zip": "fps"}, ["zip is 'fps', not a list"]),
    (
        {"axes": {"fps": [8], "seed": [1], "width": [64]}, "zip": [["fps", "seed"], ["seed", "width"]]},
        ["zip has 'seed' twice"],
    ),
    ({"axes": {"fps": [8]}, "exclude": [{"seed": 1}]}, ["exclude 1 names 'seed', which is no axis"]),
    ({"axes": {"fps": [8, 9]}, "exclude": [{"fps": 8}, {"fps": 10}]}, ["exclude 2 matches no point: fps 10"]),
    ({"axes": {"fps": [8]}, "exclude": [{}]}, ["exclude 1 is {}"]),
    ({"axes": {"fps": [8]}, "exclude": {"fps": 8}}, ["exclude is {'fps': 8}, not a list"]),
    ({"axes": {"fps": [8]}, "exclude": [{"fps": 8}]}, ["The grid has no points"]),
    ({"axes": {"motion_bucket_id": "0..255", "seed": "1..500"}}, ["128,000 points", "more than 100,000"]),
    ({"axes": {"fps": [8, 9]}, "repeats": 100_000}, ["200,000 points (fps 2, repeats 100,000)"]),
    ({"axes": {"seed": [1, 2]}, "repeats": 2}, ["repeats is 2, but seed is an axis"]),
    ({"base": {**BASE, "seed": 7}, "repeats": 2}, ["repeats is 2, but seed is 7 in base"]),
    ({"axes": {"prompt_sr": ["pan", "zoom"]}}, ["looks for 'pan', which is not in the prompt 'slow zoom in'"]),
    ({"axes": {"prompt_sr": ["slow zoom in", " "]}}, ["prompt_sr: The prompt is empty"]),
    ({"axes": {"prompt_sr": [5]}}, ["5 is no text"]),
]


@pytest.mark.parametrize(("content", "parts"), REFUSED, ids=lambda part: str(part)[:60])
def test_what_is_wrong_is_named(sweep: Sweep, content: dict[str, Any], parts: list[str]) -> None:
    error = refusal(sweep(**content))
    for part in parts:
        assert part in error.message
    assert "problems" not in error.message or len(parts) > 1, "one thing wrong is one problem"
    assert error.suggestions


def test_all_problems_are_listed_at_once(sweep: Sweep) -> None:
    text = """
nam: x
base: {image_path: gone.jpg, promt: x, prompt: y, num_frames: 2.5, seed: 007}
axes:
  motion_buckt_id: 1..3
  fps: 0..3
  noise_aug_strength: 0..x
  decode_chunk_size: []
  width: [100, 512]
  fit: crop, pad
  fit: pad
zip: [[fps, fit]]
exclude: [{decode_chunk_size: 1}, {width: 77}]
"""
    error = refusal(sweep(text))
    expected = [
        *("007", "line 11: 'fit'", "'nam'", "'promt'", "'motion_buckt_id'", "'0..x'", "decode_chunk_size has no"),
        *("fps 4, fit 1", "gone.jpg", "numFrames is 2.5", "fps is 0", "exclude 2 matches no point"),
        "100x128 pixels is not a size",
        "width is 512; tiny-svd takes 64 to 256. (at 3 of 8 points, first fps 1, width 512, fit 'pad')",
    ]
    assert [part for part in expected if part not in error.message] == []
    assert error.message.splitlines()[0] == f"sweep.yaml has {len(expected)} problems:"
    assert len(error.message.splitlines()) == len(expected) + 1


def test_limits_of_a_combination_are_checked(sweep: Sweep) -> None:
    """Neither value is wrong alone: strength leaves no step of so few."""
    axes = {"strength": [0.1, 0.5], "num_inference_steps": [4, 20], "seed": [1, 2]}
    message = refusal(sweep(base=ANIMATED, axes=axes)).message
    assert "(at 2 of 8 points, first strength 0.1, num_inference_steps 4, seed 1)" in message


def test_a_parameters_file_is_told_from_a_sweep(tmp_path: Path) -> None:
    message = refusal(ROOT / "parameters" / "one.yaml").message
    assert "'image_path' stands at the top" in message
    assert "cannot be read" in refusal(tmp_path / "none.yaml").message
    (tmp_path / "list.yaml").write_text("- 1")
    assert "it holds list" in refusal(tmp_path / "list.yaml").message
    (tmp_path / "broken.yaml").write_text("a: [1")
    assert "broken.yaml: it is not YAML (line 1" in refusal(tmp_path / "broken.yaml").message
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    assert "cannot be read" in refusal(tmp_path / "latin.yaml").message


def test_one_request_written_in_two_ways_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    axes = {"image_path": ["a.png", "./a.png"], "num_frames": [None, 14], "fps": [8, 12]}
    message = refusal(sweep(base={"prompt": "x"}, axes=axes)).message
    assert "(image_path 'a.png', num_frames None, fps 8) and (image_path './a.png', num_frames None, fps 8)" in message
    assert "and 5 more pairs" in message


def test_axes_without_effect_are_noted(sweep: Sweep) -> None:
    plan = make_plan(sweep(axes={"guidance_scale": [2, 7], "fps": [8, 12]}))
    assert any(note.startswith("guidanceScale is ignored") for note in plan.notes)
    assert any("4 points differ in ignored parameters, and make only 2 different clips" in note for note in plan.notes)
    assert not any("different clips" in note for note in make_plan(sweep(axes={"fps": [8, 12]})).notes)


# --- seeds


def test_missing_seeds_are_drawn_for_each_point_and_copy(sweep: Sweep) -> None:
    plan = make_plan(sweep(axes={"fps": [8, 12]}, repeats=3))
    assert len({point.seed for point in plan.points}) == 6
    assert all(0 <= point.seed <= MAX_SEED for point in plan.points)
    assert points_of(plan) == [(8, 1), (8, 2), (8, 3), (12, 1), (12, 2), (12, 3)]
    assert plan.axes == {"fps": [8, 12], "repeat": [1, 2, 3]}


def test_seeds_of_a_random_axis_are_shared_by_the_other_axes(sweep: Sweep) -> None:
    plan = make_plan(sweep(axes={"seed": "random [3]", "fps": [8, 12]}))
    seeds = list(plan.axes["seed"])
    assert len(set(seeds)) == 3
    assert [point.seed for point in plan.points] == [seed for seed in seeds for _ in (8, 12)]
    assert [point.axes["seed"] for point in plan.points] == [point.seed for point in plan.points]


def test_planning_again_keeps_seeds_and_draws_only_new_ones(sweep: Sweep, tmp_path: Path) -> None:
    root = tmp_path / "root"

    def seeds(**content: Any) -> dict[tuple[Any, ...], int]:
        plan = plan_sweep(sweep(**content), root)
        return {(point.axes.get("fps"), point.repeat): point.seed for point in plan.points}

    first = seeds(axes={"fps": [8, 12]})
    assert seeds(axes={"fps": [8, 12]}) == first
    wider = seeds(axes={"fps": [6, 8, 12]}, repeats=2)
    assert {key: wider[key] for key in first} == first
    assert len(set(wider.values())) == 6
    assert seeds(axes={"fps": [12]}) == {(12, 1): first[12, 1]}
    assert seeds(axes={"fps": [6, 8, 12]}, repeats=2) == wider  # narrowed and widened again
    changed = seeds(base={**BASE, "motion_bucket_id": 99}, axes={"fps": [8, 12]})
    assert changed == first


def test_planning_again_keeps_the_seeds_of_an_axis(sweep: Sweep, tmp_path: Path) -> None:
    first = plan_sweep(sweep(axes={"seed": "random [2]"}), tmp_path / "root").axes["seed"]
    second = plan_sweep(sweep(axes={"seed": ["random [3]", 5]}), tmp_path / "root").axes["seed"]
    assert second[:2] == first
    assert second[3] == 5
    assert len(set(second)) == 4
    assert json.loads((tmp_path / "root" / "plan.json").read_text())["axisSeeds"] == second[:3]


def test_the_plan_file(sweep: Sweep, tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = sweep(axes={"fps": [8, 12]}, name="two", description="both")
    plan = plan_sweep(path, root, keys_of=lambda plan: [f"{point.index:064x}" for point in plan.points])
    content = json.loads((root / "plan.json").read_text(encoding="utf-8"))
    assert (content["name"], content["description"], content["base"]) == ("two", "both", BASE)
    assert content["axes"] == [{"name": "fps", "values": [8, 12]}]
    assert content["points"][1] == {
        "index": 1,
        "axes": {"fps": 12},
        "repeat": 1,
        "seed": plan.points[1].seed,
        "key": f"{1:064x}",
    }
    assert {file.name for file in root.iterdir()} <= {"plan.json", ".plan.json.lock"}


def test_a_dry_run_writes_nothing_and_reads_kept_seeds(sweep: Sweep, tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = sweep(axes={"fps": [8]})
    assert make_plan(path, root).new_seeds
    assert not root.exists()
    kept = plan_sweep(path, root)
    again = make_plan(path, root)
    assert again.points == kept.points
    assert not again.new_seeds


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"schemaVersion": 99}', '{"schemaVersion": 1, "drawnSeeds": {"a": -4}, "axisSeeds": []}'],
)
def test_a_damaged_plan_is_left_alone(sweep: Sweep, tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    path = sweep(axes={"fps": [8]})
    with pytest.raises(InputError, match="holds the seeds"):
        plan_sweep(path, tmp_path)
    assert (tmp_path / "plan.json").read_text() == content


def test_a_wrong_sweep_leaves_the_plan_as_it_is(sweep: Sweep, tmp_path: Path) -> None:
    plan_sweep(sweep(axes={"fps": [8]}), tmp_path)
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(InputError):
        plan_sweep(sweep(axes={"fps": [0]}), tmp_path)
    assert (tmp_path / "plan.json").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_typed_error(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError) as caught:
        plan_sweep(sweep(axes={"fps": [8]}), tmp_path / "file" / "root")
    assert caught.value.code == "output_not_writable"


def test_planners_at_the_same_time_get_the_same_seeds(sweep: Sweep, tmp_path: Path) -> None:
    path = sweep(axes={"fps": "1..20"})
    with ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(lambda _: plan_sweep(path, tmp_path / "root"), range(8)))
    assert len({tuple(point.seed for point in plan.points) for plan in plans}) == 1


# --- the table, the estimate, the scale


def test_the_table_of_a_dry_run(sweep: Sweep) -> None:
    base = {**BASE, "image_path": "example:photo"}
    lines = make_plan(
        sweep(base=base, axes={"noise_aug_strength": "0..0.1 [3]", "seed": ["random [2]", 5]}, name="noise")
    ).table(seconds_per_point=100)
    rows = lines.splitlines()
    assert rows[0] == "Sweep:     noise"
    assert "Points:    9 (noise_aug_strength 3 x seed 3)" in rows
    assert "Models:    loaded once" in rows
    assert "Estimate:  about 15 min (9 x 100.0 s)" in rows
    assert "Seeds:     2 to be drawn when the sweep is started, and kept" in rows
    table = rows[rows.index("") + 1 :]
    assert [row.split(maxsplit=2) for row in table[:4]] == [
        ["#", "noise_aug_strength", "seed"],
        ["1", "0", "random 1"],
        ["2", "0", "random 2"],
        ["3", "0", "5"],
    ]
    assert table[5].split()[1] == "0.05"
    assert len(table) == 10


def test_points_that_do_not_fit_are_told_and_not_refused(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_LIMIT_MEMORY", "0.14")
    axes = {"width": [64, 256], "motion_bucket_id": [20, 60], "seed": [1, 2]}
    base = {"image_path": "example:photo", "prompt": "x", "height": 256, "base_model": "bundled:tiny-svd"}
    plan = make_plan(sweep(base=base, axes=axes))
    assert len(plan.points) == 8
    (note,) = [note for note in plan.notes if "would not fit" in note]
    assert note.startswith("4 of 8 points would not fit into the memory that is free here. The first at width 256, ")
    assert "0.14 GiB are free" in note
    assert f"Note:      {note}" in plan.table().splitlines()
    monkeypatch.delenv("VIDKIT_LIMIT_MEMORY")
    assert not any("would not fit" in note for note in make_plan(sweep(base=base, axes=axes)).notes)


def test_a_long_table_is_abbreviated_in_the_middle(sweep: Sweep) -> None:
    plan = make_plan(sweep(axes={"motion_bucket_id": "0..100"}))
    short, full = plan.table().splitlines(), plan.table(full=True).splitlines()
    assert "... 61 points left out ..." in short
    assert short[-1].split() == ["101", "100"] == full[-1].split()
    assert len(full) - len(short) == 60
    assert "Estimate:  unknown, as nothing was run yet" in short


def test_long_texts_and_defaults_in_cells(sweep: Sweep) -> None:
    axes = {"prompt": ["slow " * 20 + "zoom", "x\ny"], "num_frames": [None, 3]}
    table = make_plan(sweep(base={**ANIMATED, "prompt": None}, axes=axes)).table(full=True)
    assert "slow slow slow slow slow slow slow slow…" in table
    assert "x y" in table
    assert "default" in table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "2 h 0 min"), (3 * 3600, "3 h 0 min"), (200_000, "2 d 7 h")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


def test_two_thousand_points_are_planned_and_planned_again_in_two_seconds(sweep: Sweep, tmp_path: Path) -> None:
    """In processor time, which other work on the machine does not lengthen; the harder case: no two points share a
    combination of checked parameters."""
    path = sweep(axes={"motion_bucket_id": "1..50", "noise_aug_strength": "0..1 [40]"})
    for _ in range(2):
        started = time.process_time()
        plan = plan_sweep(path, tmp_path / "root")
        assert time.process_time() - started <= 2.0
        assert len(plan.points) == 2000


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys; from vidkit.sweep.plan import make_plan; make_plan(sys.argv[1]); "
        "print([name for name in ('torch', 'pandas', 'matplotlib', 'ipywidgets') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(ROOT / "parameters" / "sweep_motion_noise.yaml")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["sweep_seeds.yaml", "sweep_motion_noise.yaml"])
def test_the_example_sweeps_are_good(name: str) -> None:
    plan = make_plan(ROOT / "parameters" / name)
    assert 4 <= len(plan.points) <= 30
