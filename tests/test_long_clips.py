"""The benchmark of long clips sees a seam where there is one, and colours that go."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from benchmarks import long_clips
from benchmarks.long_clips import LongClip, main, seams
from vidkit.params import GenerationParams
from vidkit.pipelines.windows import Windows

WINDOWS = Windows(30, 14, "")  # three, 8 frames apart: they meet in the changes 7 to 13 and 15 to 21
STEADY = LongClip("svd", "chained", "photo.jpg", False, 1, 30, 3, 1.0, 3.0, 1.0, 1.1, 2.0, 2.0, 25.0, 20.0)


def clip_of(changes: np.ndarray) -> np.ndarray:
    levels = np.concatenate([[0], np.cumsum(changes)]).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (30, 4, 4, 3))


def test_a_steady_clip_has_no_seam() -> None:
    assert seams(clip_of(np.full(29, 3)), WINDOWS) == (3.0, 1.0, 1.0)


@pytest.mark.parametrize("place", [7, 13, 15, 21])
def test_a_jump_where_windows_meet_is_a_seam(place: int) -> None:
    changes = np.full(29, 3)
    changes[place] = 30
    _, seam, worst = seams(clip_of(changes), WINDOWS)
    assert seam == pytest.approx((3 * 13 + 30) / 14 / 3)
    assert worst == 10


@pytest.mark.parametrize("place", [0, 6, 14, 22])
def test_a_jump_inside_of_a_window_is_none(place: int) -> None:
    changes = np.full(29, 3)
    changes[place] = 30
    _, seam, worst = seams(clip_of(changes), WINDOWS)
    assert seam < 1
    assert worst <= 1


@pytest.mark.parametrize(("place", "is_border"), [(6, True), (13, True), (15, True), (7, False), (22, False)])
def test_windows_made_together_meet_where_they_begin_and_end(place: int, is_border: bool) -> None:
    """Of 14, at 0, 7, 14 and 16: they begin after the changes 6, 13 and 15, and end before 13, 20 and 27."""
    changes = np.full(29, 3)
    changes[place] = 30
    _, seam, worst = seams(clip_of(changes), Windows(30, 14, "", together=True))
    assert (seam > 1) == (worst > 1) == is_border


def test_what_holds() -> None:
    assert STEADY.holds
    assert not replace(STEADY, seam=1.21).holds
    assert not replace(STEADY, drift=20.1).holds
    assert not replace(STEADY, spread=30.1).holds


def test_it_runs(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = partial(GenerationParams, width=64, height=64, num_inference_steps=2)
    monkeypatch.setattr(long_clips, "GenerationParams", smaller)
    folder = tmp_path_factory.mktemp("photographs")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((256, 256)).save(folder / "a.png")
    target, sheet = folder / "numbers.json", folder / "sheet.jpg"
    options = ["--photographs", "2", "--frames", "17", "--only", "svd", "--json", str(target), "--sheet", str(sheet)]
    code = main([str(folder), *options])
    (clip,) = json.loads(target.read_text())["clips"]
    assert (clip["mode"], clip["frames"], clip["windows"]) == ("svd", 17, 2)
    assert code == (0 if json.loads(target.read_text())["passed"] else 1)
    assert Image.open(sheet).width == 12 * 64
    assert "a.png" in capsys.readouterr().out
    assert main([str(folder / "nowhere")]) == 2
