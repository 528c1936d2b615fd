from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from panel_runs import made

from vidkit.panel.estimate import seconds_for
from vidkit.panel.history import Entry, History
from vidkit.params import GenerationParams

REQUEST = {
    "pipeline": "svd",
    "numFrames": 10,
    "width": 128,
    "height": 64,
    "numInferenceSteps": 8,
    "maxGuidanceScale": 1.0,
}
MODEL = {"baseModel": {"name": "bundled:tiny-svd", "sha256": "ab" * 32}}


def timing(denoise: float = 16.0) -> dict[str, float | None]:
    rest = {"load": 30.0, "encode": 1.0, "decode": 2.0, "write": 1.0, "overhead": 0.5}
    return {**rest, "denoise": denoise, "total": sum(rest.values()) + denoise}


def wanted(**more: Any) -> GenerationParams:
    return GenerationParams(**{**REQUEST, "imagePath": "any", "prompt": "any", **more})


class Runs:
    def __init__(self, folder: Path) -> None:
        self.root, self.count = folder / "runs", 0

    def add(self, *, device: str = "cpu", **more: Any) -> None:
        self.count += 1
        content = {"models": MODEL, "request": REQUEST, "timing": timing(), "plan": {"device": device}, **more}
        made(self.root, self.count, **content)

    def entries(self) -> list[Entry]:
        return History(self.root, self.root.parent / "cache").entries()

    def seconds(self, params: GenerationParams, model: str = "tiny-svd", **more: Any) -> float | None:
        return seconds_for(params, model, self.entries(), **more)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_nothing_is_known_before_the_first_clip(runs: Runs) -> None:
    assert runs.seconds(wanted()) is None


def test_the_same_request_takes_as_long_but_for_loading(runs: Runs) -> None:
    runs.add()
    assert runs.seconds(wanted()) == pytest.approx(20.5)


@pytest.mark.parametrize("model", ["tiny-svd", "bundled:tiny-svd", "ab" * 32])
def test_a_model_is_known_by_its_name_and_its_hash(runs: Runs, model: str) -> None:
    runs.add()
    assert runs.seconds(wanted(), model) is not None
    assert runs.seconds(wanted(), "other") is None
    assert runs.seconds(wanted(), "") is None


def test_denoising_grows_with_steps_frames_pixels_and_guidance_the_rest_as_it_does(runs: Runs) -> None:
    runs.add()
    assert runs.seconds(wanted(numInferenceSteps=16)) == pytest.approx(32 + 4 + 0.5)
    assert runs.seconds(wanted(numFrames=20)) == pytest.approx(32 + 8 + 0.5)
    assert runs.seconds(wanted(width=256, height=128)) == pytest.approx(64 + 16 + 0.5)
    assert runs.seconds(wanted(maxGuidanceScale=3.0)) == pytest.approx(32 + 4 + 0.5)


def test_strength_leaves_out_steps_of_animatediff_init_alone(runs: Runs) -> None:
    request = {**REQUEST, "pipeline": "animatediff", "conditioning": "init", "strength": 0.4, "guidanceScale": 7.5}
    runs.add(request=request)
    runs.add(request={**request, "conditioning": "pia"}, timing=timing(100.0))
    asked = {"pipeline": "animatediff", "guidanceScale": 7.5}
    assert runs.seconds(wanted(**asked, strength=0.8)) == pytest.approx(32 + 4 + 0.5)
    assert runs.seconds(wanted(**asked, conditioning="pia", strength=0.4)) == pytest.approx(100 + 4 + 0.5)


def test_one_slow_run_does_not_count_and_the_nearest_do(runs: Runs) -> None:
    for seconds in (15.0, 16.0, 300.0):
        runs.add(timing=timing(seconds))
    assert runs.seconds(wanted()) == pytest.approx(20.5)
    for _ in range(20):  # much smaller clips, whose steps cost more than their pixels
        small = {**REQUEST, "width": 16, "height": 16}
        runs.add(request=small, timing=timing(10.0))
    for _ in range(9):
        runs.add()
    assert runs.seconds(wanted()) == pytest.approx(20.5)


def test_another_device_tells_nothing(runs: Runs) -> None:
    runs.add(device="cpu")
    runs.add(device="cuda", timing=timing(1.0))
    assert runs.seconds(wanted()) == pytest.approx(5.5)  # the newest ran on the GPU
    assert runs.seconds(wanted(), device="cpu") == pytest.approx(20.5)
    assert runs.seconds(wanted(), device="other") is None


def test_manifests_that_say_little_are_passed_over(runs: Runs) -> None:
    runs.add(request={"pipeline": "svd"})
    runs.add(timing={})
    runs.add(timing={"total": None})
    assert runs.seconds(wanted()) is None
    runs.add()
    assert runs.seconds(wanted()) == pytest.approx(20.5)
