"""Metrics against known answers: shifts of known size, light that pulses, blur, and clips as they are written."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from vidkit.errors import InputError
from vidkit.metrics import IDENTICAL_PSNR, METRICS_MIMETYPE, ClipMetrics, measure
from vidkit.models.locate import picture_path
from vidkit.video import write_video

Frames = npt.NDArray[np.uint8]

PHOTO = Image.open(picture_path("example:photo")).convert("RGB")


def textured(width: int, height: int) -> Image.Image:
    """Soft grey blobs: something to be seen everywhere, unlike in photographs."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width), np.uint8))
    blurred = np.asarray(noise.filter(ImageFilter.GaussianBlur(max(2, height / 32))), np.float32)
    grey = np.clip((blurred - blurred.mean()) / blurred.std() * 50 + 128, 0, 255)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def moved(picture: Image.Image, width: int, height: int, count: int, right: float, down: float = 0) -> Frames:
    """Frames of a view of the picture, whose content moves by so many pixels from each frame to the next."""
    margin = [40 + round(count * abs(shift)) for shift in (right, down)]
    large = picture.resize((width + 2 * margin[0], height + 2 * margin[1]), Image.Resampling.LANCZOS)
    views = [
        large.transform(
            (width, height),
            Image.Transform.AFFINE,
            (1, 0, margin[0] - right * at, 0, 1, margin[1] - down * at),
            Image.Resampling.BICUBIC,
        )
        for at in range(count)
    ]
    return np.stack([np.asarray(view) for view in views])


def still(count: int = 8, size: int = 128) -> Frames:
    return moved(PHOTO, size, size, count, 0)


@pytest.mark.parametrize("size", [(128, 128), (256, 144), (64, 64), (288, 512)], ids=str)
@pytest.mark.parametrize("percent", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("picture", [PHOTO, textured(400, 400)], ids=["photo", "texture"])
def test_a_shift_by_k_pixels_gives_k(picture: Image.Image, percent: float, size: tuple[int, int]) -> None:
    shift = size[0] * percent / 100
    metrics = measure(moved(picture, *size, 4, shift))
    assert metrics.motion == pytest.approx(percent, rel=0.08, abs=0.05)
    assert metrics.flicker < 0.7  # of 100: what moves does not flicker


def test_motion_has_no_preferred_direction() -> None:
    right, left, down, slanted = (
        measure(moved(PHOTO, 128, 128, 4, *shift)).motion for shift in ((2, 0), (-2, 0), (0, 2), (1.2, -1.6))
    )
    assert [left, down, slanted] == pytest.approx([right] * 3, rel=0.06)


def test_what_moves_alone_counts_with_its_area() -> None:
    """Half of the picture moves: half of the motion, roughly, since motion has no sharp border."""
    frames = moved(textured(400, 400), 128, 128, 4, 2)
    frames[:, 64:] = frames[0, 64:]
    assert measure(frames).motion == pytest.approx(100 * 2 / 128 / 2, rel=0.25)


@pytest.mark.parametrize("picture", [PHOTO, textured(300, 300), Image.new("RGB", (200, 200), "grey")])
def test_identical_frames_neither_move_nor_flicker(picture: Image.Image) -> None:
    metrics = measure(moved(picture, 128, 128, 5, 0))
    assert (metrics.motion, metrics.flicker) == (0, 0)


def test_pulsing_light_is_flicker_and_no_motion() -> None:
    frames = still().astype(np.float32) * 0.8
    frames[::2] += 25.5  # 10 % of black to white, everywhere
    metrics = measure(frames.round().astype(np.uint8))
    assert metrics.flicker == pytest.approx(10, abs=0.3)
    assert metrics.motion < 0.1
    dimmed = still().astype(np.float32)
    dimmed[::2] *= 0.8
    metrics = measure(dimmed.astype(np.uint8))
    assert metrics.flicker == pytest.approx(20 * luminance(still()[0]).mean(), rel=0.05)
    assert metrics.motion < 0.15


def luminance(frame: Frames) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(frame).convert("L"), np.float32) / 255


def test_a_lamp_in_one_corner_is_flicker_and_hardly_motion() -> None:
    down, across = np.mgrid[:128, :128]
    lamp = 1 - 0.3 * np.exp(-((down - 40) ** 2 + (across - 40) ** 2) / (2 * 20**2))
    frames = still().astype(np.float32)
    frames[::2] *= lamp[None, :, :, None]
    metrics = measure(frames.astype(np.uint8))
    assert 0.5 < metrics.flicker < 5
    assert metrics.motion < 0.35


def test_moving_does_not_hide_flicker() -> None:
    frames = moved(PHOTO, 128, 128, 6, 2).astype(np.float32) * 0.8
    frames[::2] += 25.5
    metrics = measure(frames.round().astype(np.uint8))
    assert metrics.flicker == pytest.approx(10, rel=0.1)
    assert metrics.motion == pytest.approx(100 * 2 / 128, rel=0.1)


def test_noise_on_an_even_picture_is_no_motion() -> None:
    noise = np.random.default_rng(0).integers(-1, 2, (5, 128, 128, 3))
    assert measure((120 + noise).astype(np.uint8)).motion < 0.15


def test_a_picture_that_dissolves_flickers_more() -> None:
    frames = still(6)
    blobs = np.asarray(textured(128, 128), np.float32)
    shares = np.array([0, 0.5, 0.1, 0.6, 0.2, 0.7], np.float32)[:, None, None, None]
    assert measure((frames * (1 - shares) + blobs * shares).astype(np.uint8)).flicker > 3


def test_blur_lowers_sharpness_and_contrast_does_not() -> None:
    picture = PHOTO.resize((128, 128), Image.Resampling.LANCZOS)
    values = [
        measure(np.stack([np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))] * 2)).sharpness
        for radius in (0, 0.5, 1, 2)
    ]
    assert all(blurred < sharper * 0.8 for sharper, blurred in itertools.pairwise(values))
    frame = np.asarray(picture, np.float32)
    pale = np.stack([(frame * 0.5 + 64).round().astype(np.uint8)] * 2)
    assert measure(pale).sharpness == pytest.approx(values[0], rel=0.05)
    assert measure(np.full((2, 64, 64, 3), 99, np.uint8)).sharpness == 0


def test_the_first_frame_is_compared_with_the_picture() -> None:
    frames = moved(PHOTO, 128, 128, 3, 1)
    picture = Image.fromarray(frames[0])
    same = measure(frames, picture)
    assert (same.first_frame_psnr, same.first_frame_ssim) == (IDENTICAL_PSNR, 1)
    worse = frames.copy()
    worse[0] = np.clip(frames[0].astype(int) + 10, 0, 245) - 5  # 5 levels off, all but a few pixels
    known = measure(worse, np.asarray(picture))
    assert known.first_frame_psnr == pytest.approx(20 * np.log10(255 / 5), abs=0.3)
    assert measure(frames[1:], picture).first_frame_ssim < 0.9  # type: ignore[operator]
    without = measure(frames)
    assert (without.first_frame_psnr, without.first_frame_ssim) == (None, None)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="64x32") as caught:
        measure(still(2), Image.new("RGB", (64, 32)))
    assert caught.value.code == "invalid_size"
    assert "128, 128" in caught.value.suggestions[0]


def test_a_clip_is_measured_with_its_stored_picture(tmp_path: Path) -> None:
    frames = moved(PHOTO, 128, 128, 14, 1)
    clip = tmp_path / "clip.mp4"
    write_video(frames, clip, fps=8, output_format="mp4", record=None, cover=[Image.fromarray(frames[0])])
    metrics = measure(clip)
    assert metrics.motion == pytest.approx(100 / 128, rel=0.06)
    assert metrics.first_frame_psnr is not None and 35 < metrics.first_frame_psnr < 60  # what the compression leaves
    assert measure(str(clip), Image.fromarray(frames[9])).first_frame_psnr < 30  # type: ignore[operator]
    bare = tmp_path / "bare.mp4"
    write_video(frames, bare, fps=8, output_format="mp4", record=None)
    assert measure(bare).first_frame_psnr is None
    with pytest.raises(InputError) as caught:
        measure(tmp_path / "nowhere.mp4")
    assert caught.value.code == "clip_not_found"


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (2, 16, 16, 3), (3, 16, 512, 3), (3, 512, 16, 3), (2, 100, 36, 3)])
def test_any_size_gives_finite_numbers(shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    numbers = [number for number in measure(frames, frames[0]).to_json().values() if number is not None]
    assert len(numbers) == 5
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 64, 64, 3), np.float32), np.zeros((64, 64, 3), np.uint8), np.zeros((0, 64, 64, 3), np.uint8)],
)
def test_other_arrays_are_refused(frames: Frames) -> None:
    with pytest.raises(ValueError, match="frames: uint8"):
        measure(frames)


def test_a_notebook_shows_a_table_and_keeps_the_numbers() -> None:
    metrics = ClipMetrics(1.9, 0.4, 0.02, 28.1, 0.91)
    bundle = metrics._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", METRICS_MIMETYPE}
    assert json.loads(json.dumps(bundle[METRICS_MIMETYPE])) == metrics.to_json()
    assert metrics.to_json() == {
        "motion": 1.9,
        "flicker": 0.4,
        "sharpness": 0.02,
        "firstFramePsnr": 28.1,
        "firstFrameSsim": 0.91,
    }
    assert "1.90 % of the width" in bundle["text/plain"]
    assert "28.1 dB" in bundle["text/html"]
    assert "no picture" in ClipMetrics(1.9, 0.4, 0.02)._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(("size", "count", "limit"), [((128, 128), 14, 0.3), ((1024, 576), 25, 3.0)], ids=str)
def test_measuring_is_quick(size: tuple[int, int], count: int, limit: float) -> None:
    frames = moved(PHOTO, *size, count, size[0] / 100)
    measure(frames[:2], frames[0])  # imports
    started = time.process_time()  # others may use this machine too
    measure(frames, frames[0])
    assert time.process_time() - started < limit
