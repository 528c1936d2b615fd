"""`vidkit.compare`: what differs between two clips is told by the clips themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import saved, svd_request

import vidkit
from vidkit.errors import InputError
from vidkit.record import request_from_clip
from vidkit.video import write_video

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, tiny_svd_folder: Path) -> list[vidkit.GenerationResult]:
    folder = tmp_path_factory.mktemp("clips")
    request = svd_request(tiny_svd_folder, saved(folder))
    changes = {"calm": {}, "lively": {"motion_bucket_id": 200}, "bare": {"bare": True}}
    return [
        vidkit.generate({**request, **more, "output_path": str(folder / f"{name}.mp4")})
        for name, more in changes.items()
    ]


def test_differences_are_those_of_the_requests(clips: list[vidkit.GenerationResult]) -> None:
    calm, lively, _ = clips
    shown = vidkit.compare(calm, str(lively.output), labels=("calm", "<lively>"))
    assert shown.differences == [("motion bucket id", "127", "200")]
    assert shown.mode == "static"  # nobody watches a test
    text = shown._repr_mimebundle_()["text/html"]
    assert text.count("data:video/mp4") == 2
    assert "<td style='text-align:left'>200</td>" in text
    assert "&lt;lively&gt;" in text


def test_the_same_picture_by_another_name_is_no_difference(
    clips: list[vidkit.GenerationResult], tiny_svd_folder: Path, tmp_path: Path
) -> None:
    remade = request_from_clip(clips[0].output) | {"baseModel": str(tiny_svd_folder)}
    again = vidkit.generate(remade | {"seed": 8, "outputPath": str(tmp_path / "again.mp4")})
    assert vidkit.compare(clips[0], again).differences == [("seed", "7", "8")]
    cat = vidkit.generate(remade | {"imagePath": "example:photo", "outputPath": str(tmp_path / "cat.mp4")})
    assert vidkit.compare(clips[0], cat).differences == [("image path", "picture.png", "photo.jpg")]


def test_a_player_where_somebody_watches(clips: list[vidkit.GenerationResult]) -> None:
    shown = vidkit.compare(*clips[:2], mode="live")
    data, _ = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data


def test_clips_that_hold_no_settings_are_compared_all_the_same(
    clips: list[vidkit.GenerationResult], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.mp4"
    write_video(np.zeros((4, 64, 64, 3), np.uint8), foreign, fps=8, output_format="mp4", record=None)
    for other in (clips[2].output, foreign):
        shown = vidkit.compare(clips[0], other)
        assert shown.differences is None
        assert shown._repr_mimebundle_()["text/html"].count("data:video/mp4") == 2


def test_a_clip_that_is_not_there(clips: list[vidkit.GenerationResult], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        vidkit.compare(clips[0], tmp_path / "gone.mp4")
    assert caught.value.code == "clip_not_found"
