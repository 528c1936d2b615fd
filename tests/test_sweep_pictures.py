"""Contact sheets and heat maps, read back as pixels and as text positions."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sweep_folders import HOSTILE_PROMPT, write_plan, write_run

from vidkit.errors import InputError
from vidkit.sweep.pictures import contact_sheet, heat_map
from vidkit.sweep.report_data import read_sweep

AXES: dict[str, list[Any]] = {"seed": [1, 2], "motion_bucket_id": [60, 120, 180], "prompt": ["$x$ {a}", HOSTILE_PROMPT]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of seed 2, motion 180 is missing with both prompts; seed 1, motion 180 failed with the first."""
    folder = tmp_path_factory.mktemp("sweep")
    keys = {}
    for values in itertools.product(*AXES.values()):
        point = dict(zip(AXES, values, strict=True))
        if values[:2] == (2, 180):
            continue
        error = {"code": "out_of_memory", "message": "13 GiB needed"} if values == (1, 180, "$x$ {a}") else None
        keys[json.dumps(point)] = write_run(folder, point, error=error)["key"]
    write_plan(folder, AXES, keys)
    return folder


def test_contact_sheet_puts_each_clip_in_its_cell(root: Path) -> None:
    path = contact_sheet(root, rows="seed", columns="motion_bucket_id", frames=3, width=64)
    assert path == root / "contact_sheet.png"
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    cell_width = 2 * (3 * 64 + 2) + 6  # two prompts side by side, three frames each
    assert sheet.shape[1] == 150 + 3 * cell_width + 3 * 6
    row_height = 48 + 6
    for row, seed in enumerate((1, 2)):
        for column in range(2):
            left, top = 150 + column * (cell_width + 6), 34 + row * row_height
            for clip in range(2):
                for frame, bar in enumerate((4, 32, 60)):  # the bar's middle in the first, middle and last frame
                    start = left + clip * (3 * 64 + 2 + 6) + frame * 65
                    red = sheet[top + 24, start : start + 64, 0]
                    assert abs(int(np.argmax(np.convolve(red, np.ones(8), "same"))) - bar) < 6
                    green = sheet[top + 24, start + (20 if frame != 0 else 40), 1]
                    assert abs(green - 47 * seed) < 12
    missing = sheet[34 + row_height + 40, 150 + 2 * (cell_width + 6) + 40]
    assert missing.min() > 225  # a pale card, no clip


def test_contact_sheet_of_posters_and_one_axis(root: Path) -> None:
    sheet = Image.open(contact_sheet(root, columns="seed", width=40))
    assert sheet.width == 6 + 2 * (4 * 46 - 6) + 6 + 6  # no row labels; six clips in a cell, four abreast
    with pytest.raises(ValueError, match="at least 1"):
        contact_sheet(root, frames=0)


def heat_map_texts(
    monkeypatch: pytest.MonkeyPatch, *arguments: Any
) -> tuple[Path, dict[tuple[float, float], str], Any]:
    """The picture, the texts in its cells by (row, column), and the drawn axes."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *args: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    path = heat_map(*arguments)
    axes = figures[0].axes[0]
    return path, {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}, axes


def test_heat_map_shows_means_over_the_other_axes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts, axes = heat_map_texts(monkeypatch, root, "motion", "seed", "motion_bucket_id")
    assert path == root / "heat_map-motion.png" and Image.open(path).format == "PNG"
    assert texts == {
        (0, 0): "1.01", (0, 1): "2.01", (0, 2): "3.01", (1, 0): "1.02", (1, 1): "2.02", (1, 2): "–",  # noqa: RUF001
    }  # fmt: skip
    assert axes.get_title() == "motion\nmean over prompt"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["60", "120", "180"]
    _, texts, _ = heat_map_texts(monkeypatch, root, "seconds", "prompt", "motion_bucket_id")
    assert texts[1, 0] == "5.55"  # of 5.5 and 5.6 s


def test_a_dollar_in_a_prompt_is_a_dollar(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, axes = heat_map_texts(monkeypatch, root, "motion", "prompt", "seed")
    label = axes.get_yticklabels()[0]
    assert label.get_text() == "$x$ {a}" and not label.get_parse_math()


def test_unknown_names_are_refused_with_the_known_ones(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'sead' is no axis") as caught:
        heat_map(root, "motion", "sead", "prompt")
    assert caught.value.suggestions == ["Use one of: 'seed', 'motion_bucket_id', 'prompt'"]
    with pytest.raises(InputError, match="No clip has the metric 'beauty'") as caught:
        heat_map(root, "beauty", "seed", "prompt")
    assert "flicker" in caught.value.suggestions[0] and "seconds" in caught.value.suggestions[0]
    with pytest.raises(InputError, match="same axis"):
        contact_sheet(root, "seed", "seed")
    with pytest.raises(InputError, match="holds no runs"):
        contact_sheet(tmp_path)


def test_a_plan_orders_axes_and_tells_what_is_missing(root: Path) -> None:
    sweep = read_sweep(root)
    assert [axis.name for axis in sweep.axes] == list(AXES)
    assert [axis.labels for axis in sweep.axes[:2]] == [["1", "2"], ["60", "120", "180"]]
    assert [point.status for point in sweep.points].count("missing") == 2
    assert sweep.points[4].status == "failed" and sweep.points[4].at == [0, 2, 0]


def test_planned_points_without_keys_are_known_by_their_values(root: Path, tmp_path: Path) -> None:
    manifest = write_run(tmp_path, {"seed": 5, "fps": 10})
    write_plan(tmp_path, {"seed": [6, 5], "fps": [10]}, {})
    sweep = read_sweep(tmp_path)
    assert [(point.status, point.at) for point in sweep.points] == [("missing", [0, 0]), ("done", [1, 0])]
    assert sweep.points[1].key == manifest["key"]


def test_importing_loads_no_matplotlib() -> None:
    import subprocess

    heavy = "{'matplotlib', 'torch', 'pandas'} & set(sys.modules)"
    code = f"import sys, vidkit.sweep.pictures, vidkit.sweep.report; print(sorted({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
