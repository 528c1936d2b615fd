"""A base model with another UNet in its place, and the sampler of the model that this is for."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from command_line import environment, run
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

import vidkit
from vidkit import generation
from vidkit.device import Plan
from vidkit.errors import InputError, SetupError, VidkitError
from vidkit.models.catalogue import find_published
from vidkit.models.combining import combine
from vidkit.models.entries import register_model, write_card
from vidkit.models.inspection import inspect
from vidkit.models.locate import find
from vidkit.pipelines.consistency import VideoConsistencyScheduler
from vidkit.settings import load_settings
from vidkit.video import read_frames
from vidkit.warm import fresh_pipeline

MODELS = (sys.executable, "-m", "vidkit", "models")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    clips.cold()
    yield clips.saved(tmp_path)
    clips.cold()


def unet_weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "unet").glob("*.safetensors")
    return load_file(file)


@pytest.fixture
def other_unet(tiny_svd_folder: Path, tmp_path: Path) -> Path:
    """Alone in its file, as AnimateLCM-SVD is published."""
    file = tmp_path / "tuned.safetensors"
    save_file({key: value * 0.9 for key, value in unet_weights(tiny_svd_folder).items()}, file)
    return file


def made(model: Path | str, image: Path, **more: Any) -> vidkit.GenerationResult:
    return vidkit.generate(clips.svd_request(Path(model), image) | {"base_model": str(model)} | more)


def test_it_makes_the_clip_of_a_folder_with_that_unet(tiny_svd_folder: Path, other_unet: Path, image: Path) -> None:
    entry = combine(str(tiny_svd_folder), str(other_unet), "tuned", load_settings())
    assert entry.family == "svd"
    by_hand = Path(shutil.copytree(tiny_svd_folder, image.parent / "by-hand"))
    (own,) = (by_hand / "unet").glob("*.safetensors")
    save_file(load_file(other_unet), own)
    frames = [read_frames(made(model, image, seed=4).output) for model in ("tuned", by_hand, tiny_svd_folder)]
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])
    weights = list(entry.path.rglob("*.safetensors"))
    assert len(weights) == 3
    assert all(path.is_symlink() for path in weights)
    assert (entry.path / "unet" / "diffusion_pytorch_model.safetensors").resolve() == other_unet.resolve()


def test_cards_are_put_together_and_the_unets_goes_first(
    tiny_svd_folder: Path, other_unet: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_svd_folder, tmp_path / "base"))
    (base / "vidkit.json").write_text(json.dumps({"windowFrames": 9, "defaults": {"fps": 6, "numFrames": 5}}))
    other_unet.with_name("tuned.vidkit.json").write_text(json.dumps({"defaults": {"numFrames": 7}, "licence": "MIT"}))
    entry = combine(str(base), str(other_unet), "both", load_settings())
    assert json.loads((entry.path / "vidkit.json").read_text()) == {
        "windowFrames": 9,
        "defaults": {"fps": 6, "numFrames": 7},
        "licence": "MIT",
        "name": "both",
    }


def test_what_does_not_fit_is_refused_and_nothing_is_left(
    tiny_svd_folder: Path, other_unet: Path, tmp_path: Path
) -> None:
    settings, weights = load_settings(), load_file(other_unet)
    key = sorted(weights)[5]
    wrong = tmp_path / "wrong.safetensors"
    save_file({**weights, key: weights[key][:1].clone()}, wrong)
    lacking = tmp_path / "lacking.safetensors"
    save_file({name: value for name, value in weights.items() if name != key}, lacking)

    def refused(base: Path, unet: Path, name: str = "new") -> VidkitError:
        with pytest.raises(VidkitError) as caught:
            combine(str(base), str(unet), name, settings)
        return caught.value

    assert key in refused(tiny_svd_folder, wrong).message
    assert f"{key} is not there" in refused(tiny_svd_folder, lacking).message
    assert "no base model in diffusers' layout" in refused(other_unet, other_unet).message
    assert "no UNet in one .safetensors file" in refused(tiny_svd_folder, tiny_svd_folder).message
    assert refused(tiny_svd_folder, tmp_path / "missing").code == "model_not_found"
    assert not (settings.models / "new").exists()
    (settings.models / "taken").mkdir(parents=True)
    assert isinstance(taken := refused(tiny_svd_folder, other_unet, "taken"), InputError)
    assert taken.code == "output_exists"
    assert isinstance(refused(tiny_svd_folder, other_unet, "../out"), InputError)
    register_model(settings, inspect(tiny_svd_folder), "known")
    assert "another model of the name 'known'" in refused(tiny_svd_folder, other_unet, "known").message
    assert not (settings.models / "known").exists()  # or it would be found before the registry's
    (settings.models / "models.json").write_text("{")
    assert refused(tiny_svd_folder, other_unet).code == "invalid_config"
    assert not (settings.models / "new").exists()


def test_a_unet_as_a_base_model_is_told_what_to_do(other_unet: Path, image: Path) -> None:
    with pytest.raises(SetupError, match="is no base model") as caught:
        made(other_unet, image)
    assert any("vidkit models combine BASE" in str(advice) for advice in caught.value.suggestions)


# --- the sampler ----------------------------------------------------------------------------------------------------


def test_the_command_and_a_clip_in_four_steps_by_the_catalogues_card(
    tiny_svd_folder: Path, other_unet: Path, image: Path, tmp_path: Path
) -> None:
    published = find_published("animatelcm-svd-xt")
    assert published is not None and "vidkit models combine" in str(published.before_use)
    write_card(published, other_unet)
    settings = load_settings()
    around = environment(settings.models.parent)
    told = run("combine", str(tiny_svd_folder), str(other_unet), "--name", "lcm", "--json", command=MODELS, env=around)
    assert told.response["status"] == "success", told
    plain = clips.svd_request(find("lcm", settings, "base model"), image)
    request = {key: value for key, value in plain.items() if key != "num_inference_steps"}
    clip = vidkit.generate(request)
    asked = clip.record["request"]
    assert asked["numInferenceSteps"] == 4
    assert (asked["minGuidanceScale"], asked["maxGuidanceScale"]) == (1.0, 1.2)
    pipe = generation.last_pipeline()
    assert type(pipe.scheduler) is VideoConsistencyScheduler
    assert len(pipe.scheduler.timesteps) == 4
    first = read_frames(clip.output)
    assert np.array_equal(read_frames(vidkit.generate(request).output), first)  # it draws noise, by the seed
    assert not np.array_equal(read_frames(vidkit.generate({**request, "seed": 8}).output), first)
    turbo = vidkit.generate({**request, "speed": "turbo"})
    assert any("VideoConsistencyScheduler" in note for note in turbo.notes)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_step_takes_the_sample_to_the_end_as_eulers_foresees_it(steps: int) -> None:
    """Of a network that predicts v, whose end result diffusers' own Euler works out too."""
    scheduler = VideoConsistencyScheduler()
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    for number, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number]
        sample, output = (torch.randn(1, 2, 4, 8, 8, generator=generator) for _ in range(2))
        sample = sample * (sigma**2 + 1) ** 0.5
        euler = EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous")
        euler.sigmas, euler.timesteps = torch.tensor([sigma, 0.0]), timestep[None]
        scaled = scheduler.scale_model_input(sample, timestep)
        torch.testing.assert_close(scaled, euler.scale_model_input(sample, timestep))
        foreseen = euler.step(output, timestep, sample).pred_original_sample
        torch.manual_seed(number)
        noise = torch.randn(output.shape)
        torch.manual_seed(number)
        stepped = scheduler.step(output, timestep, sample).prev_sample
        level = scheduler.sigmas[number + 1] if number + 1 < steps else torch.tensor(0.0)
        torch.testing.assert_close(stepped, foreseen + noise * level, rtol=1e-4, atol=1e-3)


def test_its_noise_is_none_that_the_clip_begins_with(
    tiny_svd_folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are drawn by the seed, and a generator of the same seed draws the same."""
    folder = Path(shutil.copytree(tiny_svd_folder, image.parent / "noisy"))
    (folder / "vidkit.json").write_text(json.dumps({"scheduler": {"class": "VideoConsistencyScheduler"}}))
    job = clips.prepared(clips.svd_request(folder, image, num_inference_steps=8, num_frames=8))
    drawn: list[torch.Tensor] = []
    plain = torch.randn

    def noted(*arguments: Any, **options: Any) -> torch.Tensor:
        drawn.append(plain(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn", noted)
    pipe = fresh_pipeline(job, Plan("cpu", "float32"))
    with torch.no_grad():
        job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)
    values = torch.cat([noise.flatten() for noise in drawn])
    assert len(drawn) >= 9
    assert len(values.unique()) > 0.99 * len(values)


def test_noise_levels_and_what_the_network_is_told_of_them() -> None:
    """Karras's levels from 700 down, evenly spread over the forty of training; a quarter of their logarithm."""
    scheduler = VideoConsistencyScheduler()
    scheduler.set_timesteps(4)
    ends = 700 ** (1 / 7), 0.002 ** (1 / 7)
    levels = [(ends[0] + place / 39 * (ends[1] - ends[0])) ** 7 for place in (0, 10, 20, 30)]
    assert scheduler.sigmas[:4].tolist() == pytest.approx(levels, rel=1e-5)
    assert scheduler.timesteps.tolist() == pytest.approx([0.25 * np.log(level) for level in levels], rel=1e-5)
    assert scheduler.init_noise_sigma == pytest.approx((700**2 + 1) ** 0.5)


def test_an_svd_models_card_names_its_scheduler(tiny_svd_folder: Path, image: Path) -> None:
    folder = Path(shutil.copytree(tiny_svd_folder, image.parent / "carded"))
    card = {"scheduler": {"class": "EulerDiscreteScheduler", "config": {"use_karras_sigmas": False}}}
    (folder / "vidkit.json").write_text(json.dumps(card))
    made(folder, image)
    assert generation.last_pipeline().scheduler.config.use_karras_sigmas is False
    (folder / "vidkit.json").write_text(json.dumps({"scheduler": {"class": "NoSuchScheduler"}}))
    with pytest.raises(SetupError, match="NoSuchScheduler"):
        made(folder, image)
