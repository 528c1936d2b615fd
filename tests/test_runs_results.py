"""The table of runs: its rows and columns, their types, and how it is written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vidkit.errors import CriticalError, InputError, SetupError
from vidkit.params import GenerationParams
from vidkit.runs import RunFolder, describe_error, table, write_failure, write_manifest, write_table


def add_run(root: Path, number: int, *, error: Exception | None = None, **more: Any) -> RunFolder:
    """A run of seed `number`, with everything that a manifest holds."""
    params = GenerationParams(
        image_path="a.png", prompt='waves, "big"\nones', seed=number, motion_bucket_id=number % 5 * 20, num_frames=14
    )
    paths = ("imagePath", "lastImagePath", "outputPath", "baseModel", "motionAdapter", "controlnet")
    names = {} if error else {"clip": "clip.mp4", "poster": "poster.png", "notebook": "notebook.ipynb"}
    run = RunFolder(root, f"{number:016x}" * 4)
    manifest = {
        "schemaVersion": 1,
        "key": run.key,
        "status": "failed" if error else "done",
        "axes": {"seed": number, "motion_bucket_id": number % 5 * 20, "look": "warm"},
        "request": {name: value for name, value in params.to_record().items() if name not in paths},
        "seed": number,
        "models": {"baseModel": {"name": "bundled:tiny-svd", "sha256": "ab" * 32}},
        "pictures": [{"name": "photo.jpg", "sha256": "cd" * 32}],
        "versions": {"torch": "2.11"},
        "notes": ["prompt is ignored.", "A note."],
        "timing": {"load": 0.0, "denoise": 4.1, "decode": 0.8, "write": 0.2, "total": 5.4} if not error else {},
        "peakMemoryGiB": None,
        "metrics": {} if error else {"motion": 1.9, "flicker": 0.4, "sharpness": 0.02, "firstFramePsnr": 28.1},
        "files": names,
        "started": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:00:05+00:00",
        "attempts": 1,
        "error": describe_error(error) if error else None,
        **more,
    }
    run.path.mkdir(parents=True, exist_ok=True)
    for name in names.values():
        (run.path / name).write_bytes(b"content")
    (write_failure if error else write_manifest)(run, manifest)
    return run


def test_one_row_a_run_done_failed_or_damaged(tmp_path: Path) -> None:
    done = add_run(tmp_path, 1)
    failed = add_run(tmp_path, 2, error=CriticalError("gpu_driver", "The GPU fell off the bus."))
    damaged = add_run(tmp_path, 3)
    damaged.manifest.write_bytes(damaged.manifest.read_bytes()[:200])
    RunFolder(tmp_path, "f" * 64).path.mkdir()  # begun
    (tmp_path / ".locks").mkdir(exist_ok=True)
    (tmp_path / "report.html").write_text("")

    rows = table(tmp_path)
    assert list(rows["key"]) == [done.key, failed.key, damaged.name]
    assert list(rows["status"]) == ["done", "failed", "damaged"]
    row = rows.iloc[0]
    assert (row["seed"], row["motion_bucket_id"], row["num_frames"], row["look"]) == (1, 20, 14, "warm")
    assert (row["base_model"], row["picture"]) == ("bundled:tiny-svd", "photo.jpg")
    assert (row["timing_denoise"], row["timing_total"], row["motion"], row["first_frame_psnr"]) == (4.1, 5.4, 1.9, 28.1)
    assert Path(row["clip"]).read_bytes() == Path(row["notebook"]).read_bytes() == b"content"
    assert row["notes"] == "prompt is ignored. A note."
    assert rows["error_code"].isna().tolist() == [True, False, True]
    assert (rows["error_code"][1], rows["error_category"][1]) == ("gpu_driver", "critical")
    assert rows["error_message"][1] == "The GPU fell off the bus."
    assert str(damaged.manifest) in rows["error_message"][2]
    assert rows["motion"].isna().tolist() == [False, True, True]
    assert rows.attrs["axes"] == ["seed", "motion_bucket_id", "look"]
    assert not [name for name in rows.columns if name != name.lower() or name in ("image_path", "output_path")]


def test_columns_have_the_types_of_the_schema(tmp_path: Path) -> None:
    add_run(tmp_path, 1)
    add_run(tmp_path, 2, error=ValueError("no"))
    types = {name: str(kind) for name, kind in table(tmp_path).dtypes.items()}
    wanted = {
        "key": "string",
        "status": "category",
        "pipeline": "category",
        "prompt": "string",
        "seed": "Int64",
        "guidance_scale": "float64",
        "num_frames": "Int64",
        "timing_total": "float64",
        "peak_memory_gib": "float64",
        "motion": "float64",
        "clip": "string",
        "attempts": "Int64",
        "error_message": "string",
        "look": "string",
        "width": "Int64",
        "min_guidance_scale": "float64",
        "speed": "category",
        "timing_encode": "float64",
    }
    assert {name: types[name] for name in wanted} == wanted
    assert "object" not in types.values()
    assert list(table(tmp_path)["pipeline"].cat.categories) == ["svd", "animatediff"]


def test_what_does_not_fit_its_column_is_kept_as_text(tmp_path: Path) -> None:
    """A manifest of another version, or axes of mixed values: nothing is lost and nothing raises."""
    add_run(tmp_path, 1, axes={"look": 1, "status": "x", "shape": [1, 2]}, seed=1)
    add_run(tmp_path, 2, axes={"look": "warm"}, request={"pipeline": "cogvideox", "numFrames": "many", "newThing": 7})
    rows = table(tmp_path)
    assert rows["look"].tolist() == ["1", "warm"]
    assert rows["axis_status"][0] == "x"
    assert rows["status"].tolist() == ["done", "done"]
    assert rows["shape"][0] == "[1, 2]"
    assert rows["pipeline"].tolist() == ["svd", "cogvideox"]
    assert rows["num_frames"].tolist() == ["14", "many"]
    write_table(tmp_path, tmp_path / "all.parquet")


def test_an_axis_that_is_a_path_has_its_column(tmp_path: Path) -> None:
    add_run(tmp_path, 1, axes={"image_path": "photo.jpg", "seed": 99}, seed=1)
    rows = table(tmp_path)
    assert rows["image_path"].tolist() == ["photo.jpg"]
    assert rows["seed"].tolist() == [1]  # what was run, not what the axis says


def test_a_folder_without_runs_gives_an_empty_table(tmp_path: Path) -> None:
    rows = table(tmp_path)
    assert len(rows) == 0
    assert {"key", "status", "motion", "clip"} <= set(rows.columns)
    with pytest.raises(InputError) as caught:
        table(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in caught.value.message


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_the_table_is_written_as_the_suffix_says(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "runs"
    add_run(root, 1)
    add_run(root, 2, error=ValueError("no"))
    path = write_table(root, tmp_path / "new" / f"all{suffix}")
    read = pd.read_csv(path) if suffix.lower() == ".csv" else pd.read_parquet(path)
    expected = table(root)
    assert list(read.columns) == list(expected.columns)
    assert read["seed"].tolist() == [1, 2]
    assert read["prompt"][0] == 'waves, "big"\nones'
    assert read["motion"][0] == 1.9
    assert read["motion"].isna().tolist() == [False, True]
    if suffix == ".parquet":
        pd.testing.assert_frame_equal(read, expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.xlsx") as caught:
        write_table(tmp_path, tmp_path / "all.xlsx")
    assert ".csv" in caught.value.suggestions[0]


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    add_run(tmp_path / "runs", 1)
    (tmp_path / "file").write_text("old")
    with pytest.raises(SetupError) as caught:
        write_table(tmp_path / "runs", tmp_path / "file" / "all.csv")
    assert caught.value.code == "output_not_writable"
    assert (tmp_path / "file").read_text() == "old"


def test_two_thousand_runs_load_in_a_second(tmp_path: Path) -> None:
    first = add_run(tmp_path, 0)
    manifest = json.loads(first.manifest.read_text())
    for number in range(1, 2000):
        run = RunFolder(tmp_path, f"{number:016x}" * 4)
        run.path.mkdir()
        run.clip().write_bytes(b"content")
        changed = {**manifest, "key": run.key, "seed": number, "axes": {**manifest["axes"], "seed": number}}
        run.manifest.write_text(json.dumps({**changed, "request": {**manifest["request"], "seed": number}}))
    started = time.process_time()  # others may use this machine too
    rows = table(tmp_path)
    assert time.process_time() - started < 1
    assert rows["seed"].tolist() == list(range(2000))


def test_importing_runs_and_metrics_loads_nothing_heavy() -> None:
    code = "import sys, vidkit.runs, vidkit.metrics; print([m for m in sys.modules if m in %r])"
    heavy = ["torch", "pandas", "matplotlib", "skimage", "scipy", "ipywidgets", "diffusers", "pyarrow"]
    found = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
