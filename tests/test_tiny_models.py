"""Each pipeline runs two steps with plain diffusers: the ground truth that other tests compare with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffSparseControlNetPipeline,
    AnimateDiffVideoToVideoPipeline,
    MotionAdapter,
    PIAPipeline,
    SparseControlNetModel,
    StableDiffusionPipeline,
    StableVideoDiffusionPipeline,
)
from PIL import Image
from tiny_models import TEST_SIZE, TinyAnimateDiff, make_animatediff, make_svd

FRAMES = 4


def _picture(value: int = 0) -> Image.Image:
    """A colour gradient, so that a transposed or dropped picture changes the result."""
    ramp = np.linspace(0, 255, TEST_SIZE, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(value)), axis=-1)
    return Image.fromarray(pixels)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _load(pipeline_class: Any, parts: TinyAnimateDiff, adapter: Path, **more: Any) -> Any:
    pipeline = pipeline_class.from_pretrained(
        parts.base, motion_adapter=MotionAdapter.from_pretrained(adapter), local_files_only=True, **more
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _assert_real_frames(frames: np.ndarray, count: int) -> None:
    assert frames.shape == (count, TEST_SIZE, TEST_SIZE, 3)
    assert np.isfinite(frames).all()
    assert frames.std() > 0.01  # neither black nor one grey


def test_svd_runs_and_depends_on_the_image(tiny_svd_folder: Path) -> None:
    pipeline = StableVideoDiffusionPipeline.from_pretrained(tiny_svd_folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def run(value: int) -> np.ndarray:
        return pipeline(
            _picture(value),
            height=TEST_SIZE,
            width=TEST_SIZE,
            num_inference_steps=2,
            decode_chunk_size=3,
            generator=_generator(),
            output_type="np",
        ).frames[0]

    frames = run(0)
    _assert_real_frames(frames, count=6)
    assert np.array_equal(frames, run(0))
    assert not np.array_equal(frames, run(200))


def test_svd_scheduler_is_svds_own(tiny_svd_folder: Path) -> None:
    config = StableVideoDiffusionPipeline.from_pretrained(tiny_svd_folder, local_files_only=True).scheduler.config
    assert config.prediction_type == "v_prediction"
    assert config.timestep_type == "continuous"
    assert config.use_karras_sigmas
    assert (config.sigma_min, config.sigma_max) == (0.002, 700.0)
    assert (config.timestep_spacing, config.steps_offset) == ("leading", 1)


def test_animatediff_video_to_video_runs_and_depends_on_video_and_prompt(tiny_animatediff: TinyAnimateDiff) -> None:
    pipeline = _load(AnimateDiffVideoToVideoPipeline, tiny_animatediff, tiny_animatediff.motion_adapter)

    def run(value: int, prompt: str) -> np.ndarray:
        return pipeline(
            video=[_picture(value)] * FRAMES,
            prompt=prompt,
            strength=0.8,
            num_inference_steps=3,  # 3 x 0.8: two are run
            generator=_generator(),
            output_type="np",
        ).frames[0]

    frames = run(0, "a cat")
    _assert_real_frames(frames, FRAMES)
    assert np.array_equal(frames, run(0, "a cat"))
    assert not np.array_equal(frames, run(200, "a cat"))
    assert not np.array_equal(frames, run(0, "a dog"))


def test_sparse_controlnet_runs_and_depends_on_the_image(tiny_animatediff: TinyAnimateDiff) -> None:
    pipeline = _load(
        AnimateDiffSparseControlNetPipeline,
        tiny_animatediff,
        tiny_animatediff.motion_adapter,
        controlnet=SparseControlNetModel.from_pretrained(tiny_animatediff.sparse_controlnet),
    )

    def run(value: int, **options: Any) -> np.ndarray:
        # diffusers 0.42 samples the condition's latents from torch's global generator, not from `generator`
        torch.manual_seed(0)
        return pipeline(
            prompt="a cat",
            conditioning_frames=[_picture(value)],
            controlnet_frame_indices=[0],
            height=TEST_SIZE,
            width=TEST_SIZE,
            num_frames=FRAMES,
            num_inference_steps=2,
            generator=_generator(),
            output_type="np",
            **options,
        ).frames[0]

    frames = run(0)
    _assert_real_frames(frames, FRAMES)
    assert np.array_equal(frames, run(0))
    assert not np.array_equal(frames, run(200))
    assert not np.array_equal(frames, run(0, controlnet_conditioning_scale=0.5))


def test_pia_runs_and_depends_on_image_and_motion_scale(tiny_animatediff: TinyAnimateDiff) -> None:
    pipeline = _load(PIAPipeline, tiny_animatediff, tiny_animatediff.pia_adapter)
    assert pipeline.unet.config.in_channels == 9

    def run(value: int, motion_scale: int) -> np.ndarray:
        return pipeline(
            image=_picture(value),
            prompt="a cat",
            height=TEST_SIZE,
            width=TEST_SIZE,
            num_frames=FRAMES,
            num_inference_steps=2,
            motion_scale=motion_scale,
            generator=_generator(),
            output_type="np",
        ).frames[0]

    frames = run(0, motion_scale=0)
    _assert_real_frames(frames, FRAMES)
    assert np.array_equal(frames, run(0, motion_scale=0))
    assert not np.array_equal(frames, run(200, motion_scale=0))
    assert not np.array_equal(frames, run(0, motion_scale=2))


@pytest.mark.parametrize(("frames", "fits"), [(32, True), (33, False)])
def test_motion_adapter_holds_32_frames_as_the_real_one(
    tiny_animatediff: TinyAnimateDiff, frames: int, fits: bool
) -> None:
    unet = _load(AnimateDiffVideoToVideoPipeline, tiny_animatediff, tiny_animatediff.motion_adapter).unet
    sample, text = torch.zeros(1, 4, frames, 4, 4), torch.zeros(frames, 77, 32)
    with torch.no_grad():
        if fits:
            assert unet(sample, 1, text).sample.shape == sample.shape
        else:
            with pytest.raises(RuntimeError, match="must match"):
                unet(sample, 1, text)


def test_tokenizer_has_the_real_clip_vocabulary(tiny_animatediff: TinyAnimateDiff) -> None:
    tokenizer = StableDiffusionPipeline.from_pretrained(tiny_animatediff.base, local_files_only=True).tokenizer
    assert len(tokenizer) == 49408
    assert tokenizer.model_max_length == 77
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_weights_do_not_depend_on_the_global_seed_nor_change_it(
    tmp_path: Path, tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff
) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    svd, parts = make_svd(tmp_path / "svd"), make_animatediff(tmp_path / "animatediff")
    assert torch.equal(torch.get_rng_state(), state)
    assert _weight_hashes(svd) == _weight_hashes(tiny_svd_folder)
    assert _weight_hashes(parts.base.parent) == _weight_hashes(tiny_animatediff.base.parent)


def _weight_hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
