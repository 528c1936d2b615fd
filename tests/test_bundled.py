"""The bundled tiny-svd on a picture it has not seen: a faithful first frame, and motion that follows its setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clips
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

import vidkit
from benchmarks.motion import Motion, fit_motion
from vidkit.models.locate import picture_path
from vidkit.video import read_cover, read_frames

SEED = 3


@dataclass(frozen=True)
class Clip:
    path: Path
    frames: clips.Frames

    @property
    def first_frame_psnr(self) -> float:
        """dB of the decoded first frame of the real MP4 against the fitted input picture."""
        fitted = np.asarray(read_cover(self.path)[0], float)
        return float(-10 * np.log10(np.mean((self.frames[0] - fitted) ** 2) / 255**2))

    @property
    def motion(self) -> Motion:
        """How the picture moves from the first frame to the last."""
        pair = torch.from_numpy(self.frames[[0, -1]]).permute(0, 3, 1, 2).float() / 255
        return fit_motion(pair[:1], pair[1:])

    @property
    def displacement(self) -> float:
        """As a fraction of the width."""
        return float(self.motion.displacement)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example photograph at another crop, mirrored, with its colours turned and a lamp of ours in it."""
    image = Image.open(picture_path("example:photo")).convert("RGB")
    width, height = image.size
    image = image.crop((width // 5, height // 8, width // 5 + height * 3 // 4, height // 8 + height * 3 // 4))
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = Image.merge("RGB", image.split()[::-1])
    draw = ImageDraw.Draw(image)
    side = image.width
    draw.ellipse((side * 0.6, side * 0.15, side * 0.8, side * 0.35), fill=(250, 220, 120))
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    image.filter(ImageFilter.GaussianBlur(1)).save(path)
    return path


@pytest.fixture(scope="module")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Clip]]:
    """Four clips of default size and steps: three amounts of motion, and one of them with another seed."""
    folder = tmp_path_factory.mktemp("clips")
    clips.cold()

    def make(name: str, bucket: int, seed: int) -> Clip:
        target = folder / f"{name}.mp4"
        vidkit.generate(
            {
                "pipeline": "svd",
                "base_model": "bundled:tiny-svd",
                "image_path": str(photo),
                "prompt": "a slow camera move",
                "motion_bucket_id": bucket,
                "seed": seed,
                "output_path": str(target),
            }
        )
        return Clip(target, read_frames(target))

    yield {
        "little": make("little", 20, SEED),
        "some": make("some", 127, SEED),
        "much": make("much", 255, SEED),
        "other seed": make("other seed", 127, SEED + 1),
    }
    clips.cold()


def test_the_clips_have_the_models_size(made: dict[str, Clip]) -> None:
    assert {clip.frames.shape for clip in made.values()} == {(14, 128, 128, 3)}


@pytest.mark.parametrize("name", ["little", "some", "much", "other seed"])
def test_the_first_frame_is_the_picture(made: dict[str, Clip], name: str) -> None:
    assert made[name].first_frame_psnr >= 22


def test_more_motion_moves_more(made: dict[str, Clip]) -> None:
    little, some, much = (made[name].displacement for name in ("little", "some", "much"))
    assert little < some < much
    assert much >= 0.08


@pytest.mark.parametrize("name", ["some", "much", "other seed"])
def test_the_last_frame_is_the_first_one_moved(made: dict[str, Clip], name: str) -> None:
    assert made[name].motion.psnr.min() >= 18


def test_little_motion_is_coherent(made: dict[str, Clip]) -> None:
    """No frame departs from the one before it: no flicker, no cut."""
    steps = np.abs(np.diff(made["little"].frames.astype(float), axis=0)).mean((1, 2, 3))
    assert steps.max() < 8  # 8-bit levels


def test_seeds_differ_and_one_seed_repeats(made: dict[str, Clip], photo: Path) -> None:
    assert (made["some"].frames != made["other seed"].frames).any()
    small = {"image_path": str(photo), "seed": SEED, "num_frames": 4, "num_inference_steps": 2}
    first = vidkit.generate({**small, "base_model": "bundled:tiny-svd", "prompt": "a slow camera move"})
    again = vidkit.generate({**small, "prompt": "other words"})  # the default model is this one
    np.testing.assert_array_equal(read_frames(again.output), read_frames(first.output))
    assert any("No baseModel was given: tiny-svd" in note for note in again.notes)
