"""What a manifest says of a finished clip."""

from __future__ import annotations

import pytest

from vidkit.params import GenerationParams
from vidkit.runs.finished import finished_content

PARAMS = GenerationParams(image_path="x", prompt="y", seed=3)


@pytest.mark.parametrize(("used", "told"), [(9.46, 9.46), (0.0, None)])
def test_the_peak_memory_is_that_of_the_response_and_none_where_it_was_not_measured(
    used: float, told: float | None
) -> None:
    timing = {"load": 1.0, "denoise": 2.0, "write": 0.5, "total": 3.6}
    metadata = {"seed": 3, "notes": [], "vramUsed": used, "timing": timing}
    content = finished_content(PARAMS, {}, metadata, seconds=4.5, files={"clip": "clip.mp4"}, metrics_seconds=0.25)
    assert content["peakMemoryGiB"] == told
    assert content["timing"] == timing | {"metrics": 0.25, "overhead": 0.75, "total": 4.5}
