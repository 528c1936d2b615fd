"""The training code: its pictures, its moves, and one real round from nothing to a diffusers folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.motion import fit_motion
from training.camera import AMPLITUDE, affine_path, boost_code, move_from_code, read_code, warp_clip
from training.pictures import PicturePool, dead_leaves

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    torch.manual_seed(0)
    return dead_leaves(3, 128)


def test_pictures_use_the_whole_range_and_differ(pictures: torch.Tensor) -> None:
    assert pictures.shape == (3, 3, 128, 128)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert pictures.std((1, 2, 3)).min() > 0.05
    assert (pictures[0] - pictures[1]).abs().mean() > 0.05


def test_pool_hands_out_crops_of_the_size_asked_for() -> None:
    torch.manual_seed(0)
    drawn = PicturePool(2, 64, "cpu").draw(5, 32)
    assert drawn.shape == (5, 3, 32, 32)
    assert drawn.abs().max() <= 1


def test_code_of_plain_noise_is_standard_normal_and_a_boost_scales_only_the_code() -> None:
    torch.manual_seed(0)
    noise = torch.randn(400, 2, 4, 16, 16)
    code = read_code(noise)
    assert abs(code.mean()) < 0.1
    assert abs(code.std() - 1) < 0.1
    louder = boost_code(noise, 6.0)
    assert torch.allclose(read_code(louder), 6 * code, atol=1e-4)
    assert torch.equal(louder[:, 1:], noise[:, 1:])
    assert torch.equal(boost_code(noise, 1.0), noise)


@pytest.mark.parametrize(
    ("component", "names"),
    [
        (0, ("pan right", "pan left")),
        (1, ("tilt down", "tilt up")),
        (2, ("zoom in", "zoom out")),
        (3, ("rotate left", "rotate right")),
    ],
)
def test_a_move_is_measured_as_what_it_is(pictures: torch.Tensor, component: int, names: tuple[str, str]) -> None:
    """The camera's maths against the measuring code, which knows nothing of it."""
    for sign, name in zip((1.0, -1.0), names, strict=True):
        code = torch.full((3, 4), 0.1)
        code[:, component] = 3 * sign
        path = affine_path(move_from_code(code), torch.full((3,), 255.0), 5)
        clip = warp_clip(pictures, path, 64)
        motion = fit_motion(clip[:, 0], clip[:, -1])
        assert motion.move == [name] * 3
        assert motion.displacement.tolist() == pytest.approx([AMPLITUDE] * 3, rel=0.2)  # a zoom: to first order
        assert motion.psnr.min() > 25


def test_bucket_zero_stands_still(pictures: torch.Tensor) -> None:
    clip = warp_clip(pictures, affine_path(move_from_code(torch.ones(3, 4)), torch.zeros(3), 4), 64)
    assert torch.allclose(clip[:, 0], clip[:, -1], atol=1e-5)
    motion = fit_motion(clip[:, 0], clip[:, -1])
    assert motion.move == ["static"] * 3


def test_training_runs_resumes_and_exports_a_model_that_loads(tmp_path: Path) -> None:
    """The real scripts, a step or two each: what they write is a pipeline that diffusers loads."""
    state, folder = tmp_path / "state", tmp_path / "model"
    base = [sys.executable, "-m", "training.train_tiny_svd"]
    common = ["--steps", "1", "--batch", "1", "--pictures", "2", "--state", str(state)]
    for arguments in (["vae", *common], ["vae", *common, "--progress", "0.6", "1"], ["unet", *common]):
        subprocess.run([*base, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=240)
    log = [json.loads(line) for line in (state / "log.jsonl").read_text().splitlines()]
    assert {"vae", "unet"} == {entry["stage"] for entry in log}
    assert all(entry["loss"] > 0 for entry in log if "loss" in entry)
    export = [sys.executable, "-m", "training.export_tiny_svd", str(state), str(folder)]
    subprocess.run(export, cwd=ROOT, check=True, capture_output=True, timeout=240)

    from diffusers import StableVideoDiffusionPipeline

    pipe = StableVideoDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert pipe.unet.dtype == torch.float32
    assert json.loads((folder / "vidkit.json").read_text())["name"] == "tiny-svd"
    assert max(file.stat().st_size for file in folder.rglob("*")) < 16 * 2**20
