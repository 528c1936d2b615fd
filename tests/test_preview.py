"""The look at a clip while it is made: it shows the clip, costs little, and changes nothing."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio as psnr

import vidkit
from vidkit import generation
from vidkit.pipelines import preview
from vidkit.pipelines.preview import PAUSE, Budget
from vidkit.video import read_frames

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")

#: few frames: what is looked at is how each is shown
FEW = {"num_frames": 4, "num_inference_steps": 4}
REQUEST: dict[str, Any] = {"image_path": "example:photo", "prompt": "pan left", "seed": 3, **FEW}
FAMILIES: list[dict[str, Any]] = [
    {"pipeline": "svd"},
    {"pipeline": "animatediff", "conditioning": "pia"},
    {"pipeline": "animatediff", "conditioning": "init", "strength": 1.0},
]


def small(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Frames `(frames, 4h, 4w, 3)` as the mean of each 4x4 pixels."""
    count, height, width, _ = frames.shape
    return frames.reshape(count, height // 4, 4, width // 4, 4, 3).mean((2, 4)).round().astype(np.uint8)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.get("conditioning", "svd")))
def test_the_last_look_is_the_clip(family: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "PAUSE", 0.0)  # each step is shown, however fast it was
    looks: list[np.ndarray[Any, Any]] = []

    shown = vidkit.generate(REQUEST | family, on_preview=looks.append)
    plain = vidkit.generate(REQUEST | family)

    frames = read_frames(shown.output)
    assert np.array_equal(frames, read_frames(plain.output))
    assert all(look.shape == (len(frames), 32, 32, 3) and look.dtype == np.uint8 for look in looks)
    matching = psnr(looks[-1], small(frames))
    assert matching > 17  # 19 to 23 measured: the function is linear, the decoder is not
    assert matching > psnr(looks[-1][::-1], small(frames)[:, :, ::-1]) + 3  # nothing is mirrored or turned round


def test_a_slow_listener_is_shown_less() -> None:
    looks: list[float] = []

    def slow(frames: object) -> None:
        looks.append(time.monotonic())
        time.sleep(1)

    vidkit.generate(REQUEST, on_preview=slow)

    assert len(looks) == 1  # of 4 steps: 2 % of some seconds are less than its second


def test_budget() -> None:
    budget = Budget(share=0.5)
    assert budget.allows()
    with budget.spending():
        time.sleep(0.5)
    time.sleep(PAUSE)
    assert not budget.allows()  # 0.5 of 0.8 s
    time.sleep(0.3)
    assert budget.allows()
    with budget.spending():
        pass
    assert not budget.allows()  # just now


def test_the_scheduler_is_left_as_it_was() -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(frames: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        vidkit.generate(REQUEST, on_preview=stop)
    assert "step" not in vars(generation.last_pipeline().scheduler)


def test_preload_and_unload() -> None:
    generation.unload()
    assert generation.loaded_models() == []
    said: list[str] = []

    generation.preload(REQUEST, on_progress=lambda progress: said.append(progress.message))

    assert generation.loaded_models() == ["tiny-svd"]
    assert said[-1] == "Complete!"
    pipe = generation.last_pipeline()
    assert pipe is not None
    vidkit.generate(REQUEST)
    assert generation.last_pipeline() is pipe
    generation.unload()
    assert generation.loaded_models() == []
