"""The training code: its pictures, its moves, and one real round from nothing to a diffusers folder."""

from __future__ import annotations

import importlib
import json
import random
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch
from diffusers import MotionAdapter, PIAPipeline, StableVideoDiffusionPipeline

from benchmarks.motion import fit_motion
from training import train_animatediff
from training.camera import AMPLITUDE, affine_path, boost_code, move_from_code, named_moves, read_code, warp_clip
from training.code_reader import install
from training.pictures import PicturePool, dead_leaves
from training.prompts import MOVES, NO_MOVE, draw_prompt
from training.resume import animatediff_parts
from training.rollout import AGES, Group, Rollout
from training.state import load_weights
from training.tiny_animatediff import SIGMA_MAX, make_unet
from training.tiny_svd import TinySvd, make_scheduler
from training.tiny_svd import make_unet as make_svd_unet
from training.train_text import make_tokenizer, tokenize
from vidkit.models.locate import BUNDLED_FOLDER, describe


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
        (3, ("rotate counterclockwise", "rotate clockwise")),
    ],
)
def test_a_move_is_measured_as_what_it_is(pictures: torch.Tensor, component: int, names: tuple[str, str]) -> None:
    """The camera's maths against the measuring code, which knows nothing of it."""
    for sign, name in zip((1.0, -1.0), names, strict=True):
        code = torch.full((3, 4), 0.1)
        code[:, component] = 3 * sign
        path = affine_path(move_from_code(code), torch.full((3,), AMPLITUDE), 5)
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


def test_every_move_has_words_and_a_vector() -> None:
    table = named_moves("cpu")
    assert table.norm(dim=1).tolist() == [0.0 if name == "static shot" else 1.0 for name in MOVES]
    assert len({tuple(row) for row in table.tolist()}) == len(MOVES)
    draw = random.Random(0)
    for move, name in enumerate(MOVES):
        prompts = [draw_prompt(move, draw, []).lower() for _ in range(200)]
        assert any(name in prompt for prompt in prompts)
    assert draw_prompt(NO_MOVE, random.Random(1), ["word"]) != draw_prompt(NO_MOVE, random.Random(2), ["word"])


def test_the_bundled_text_encoder_reads_moves_out_of_sentences(tmp_path: Path) -> None:
    """Prompts that ask for the same move, in other words, are nearer to each other than to those for another."""
    encoder, tokenizer = animatediff_parts(BUNDLED_FOLDER)["text_encoder"].float(), make_tokenizer(tmp_path)
    asked = ["zoom in", "zoom out", "pan left", "pan right", "tilt up", "tilt down", "rotate clockwise", "static shot"]
    around = "slow cinematic {}, woman turning head slowly, wind blowing through hair, golden hour lighting, film grain"
    with torch.no_grad():
        short, long = (
            torch.nn.functional.normalize(encoder(tokenize(tokenizer, prompts)).last_hidden_state[:, -1], dim=-1)
            for prompts in (asked, [around.format(move) for move in asked])
        )
    assert (short @ long.T).argmax(1).tolist() == list(range(len(asked)))


def test_a_prompt_without_words_asks_for_the_slow_zoom_only_where_sampling_starts() -> None:
    """And a clip and its twin without words share noise, noise level and everything else."""
    torch.manual_seed(0)
    shown = torch.ones(3, dtype=torch.bool)
    latents = torch.randn(3, 2, 4, 4, 4)
    clips, shown = train_animatediff.again(latents, 1), train_animatediff.again(shown, 1)
    seen = set()
    for _ in range(20):
        state, sigma, start = train_animatediff.first_state(clips, shown, 1)
        assert torch.equal(state[0], state[3])
        assert sigma[0] == sigma[3]
        assert start[0] == start[3]
        assert (sigma[start] >= 0.85 * SIGMA_MAX).all()
        seen.add(bool(start[0]))
    assert seen == {True, False}


def test_rollout_takes_eulers_steps_from_answers_as_guidance_mixes_them() -> None:
    """Against diffusers' own scheduler, at the noise levels that the rollout chose."""
    torch.manual_seed(0)
    group = Group.paired(3, batch=4, pairs=2)
    assert group.members == [0, 4, 2]  # a clip, its twin without words, and one that is alone
    batch, level = 6, 10.0
    inputs = {
        "state": torch.randn(batch, 2, 4, 3, 3).mul(level),
        "sigma": torch.full((batch,), level),
        "guidance": torch.tensor([7.5, 2.0, 3.0, 1.0, 7.5, 2.0]),
        "target": torch.arange(6.0),
    }
    inputs["state"][4] = inputs["state"][0]
    rollout = Rollout(group)
    answers = torch.randn(batch, 2, 4, 3, 3)
    clips = rollout.enter(inputs, answers)
    assert clips["target"].tolist() == [0, 4, 2] * AGES
    young = {name: value[:3].clone() for name, value in clips.items()}
    mixed = answers[4] + 7.5 * (answers[0] - answers[4])
    for place, member, answer in ((0, 0, mixed), (1, 4, mixed), (2, 2, answers[2])):
        scheduler = make_scheduler(level)
        scheduler.set_timesteps(1)
        scheduler.sigmas = torch.tensor([level, young["sigma"][place]])
        velocity = (inputs["state"][member] / (level**2 + 1) - answer) * (level**2 + 1) ** 0.5 / level
        after = scheduler.step(velocity, scheduler.timesteps[0], inputs["state"][member]).prev_sample
        assert torch.allclose(after, young["state"][place], atol=1e-4)
    assert young["sigma"][0] == young["sigma"][1] < 10

    rollout.go_on(torch.randn(3 * AGES, 2, 4, 3, 3))
    older = rollout.enter(inputs | {"target": torch.arange(6.0) + 10}, answers)
    assert older["target"].tolist() == [10, 14, 12] + [0, 4, 2] * (AGES - 1)
    assert (older["sigma"][3:6] < young["sigma"]).all()


#: pixels a side of the clips that are trained on, a sixteenth of the usual ones: all layers take any size
SMALL = 32


def run(name: str, *arguments: str) -> None:
    """A script as `python -m training.NAME` runs it, on small clips and but for the seconds that the imports take."""
    precision = torch.get_float32_matmul_precision()
    module = importlib.import_module(f"training.{name}")
    smaller = mock.patch.object(module, "SIZE", SMALL) if hasattr(module, "SIZE") else nullcontext()
    with smaller, mock.patch.object(sys, "argv", [name, *arguments]):
        module.main()
    torch.set_float32_matmul_precision(precision)


def check_exported(folder: Path, state: Path) -> None:
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert {"vae", "unet"} <= {entry["stage"] for entry in log}
    assert all(entry["loss"] > 0 for entry in log if "loss" in entry)
    for tree in (folder, state):
        assert max(file.stat().st_size for file in tree.rglob("*")) < 16 * 2**20


def test_tiny_svd_trains_resumes_and_exports_a_model_that_loads(tmp_path: Path) -> None:
    """The real scripts, a step each: what they write is a pipeline that diffusers loads."""
    state, bundled = tmp_path / "state", tmp_path / "bundled"
    common = ["--steps", "1", "--batch", "2", "--pictures", "2", "--state", str(state)]
    run("train_vae", "svd", *common)
    run("train_vae", "svd", *common, "--progress", "0.6", "1")
    run("train_svd", *common)
    run("export", "svd", str(state), str(bundled))
    check_exported(bundled / "tiny-svd", state)
    assert describe(bundled / "tiny-svd").card_defaults()["num_frames"] == 14
    trained, loaded = (
        TinySvd.fresh(),
        StableVideoDiffusionPipeline.from_pretrained(bundled / "tiny-svd", local_files_only=True),
    )
    load_weights(trained.unet, state, "average_unet")
    weights = loaded.unet.state_dict()
    assert all(torch.equal(weights[key].float(), value) for key, value in trained.unet.state_dict().items())


@pytest.mark.parametrize(("model", "more"), [("svd", []), ("animatediff", ["--prompts", "2"])])
def test_a_bundled_model_can_be_trained_further(model: str, more: list[str], tmp_path: Path) -> None:
    state = tmp_path / "state"
    run("resume", model, str(BUNDLED_FOLDER), str(state))
    common = ["--steps", "1", "--batch", "1", "--pictures", "2", "--progress", "0.9", "1", "--state", str(state)]
    run(f"train_{model}", *common, *more)
    entries = [json.loads(line) for line in (state / "log.jsonl").read_text().splitlines()]
    assert next(entry for entry in reversed(entries) if "error" in entry)["error"] < 0.5  # untrained: 1


def test_a_fresh_unet_is_begun_so_that_the_code_can_be_read(tmp_path: Path) -> None:
    """After the first attention over space: half of what single channels say is the code, far from chance."""
    torch.manual_seed(0)
    unet = make_svd_unet()
    install(unet)
    seen: list[torch.Tensor] = []
    block = unet.down_blocks[1].attentions[0].transformer_blocks[0]
    block.register_forward_hook(lambda module, given, output: seen.append(output.mean(1)))  # over places
    codes = []
    with torch.no_grad():
        for _ in range(24):
            noise = torch.randn(2, 2, 8, 32, 32)
            given = torch.cat([noise, torch.randn(2, 1, 8, 32, 32).expand_as(noise)], 2)
            conditions = {"encoder_hidden_states": torch.zeros(2, 1, 64), "added_time_ids": torch.ones(2, 3)}
            unet(given, torch.full((2,), 0.75), **conditions)
            codes.append(read_code(noise))
    channels = torch.cat(seen).unflatten(0, (-1, 2))[:, 0]  # of the first frames
    correlation = torch.corrcoef(torch.cat([channels[:, 4:8], torch.cat(codes)], 1).T)[:4, 4:].diagonal()
    assert (correlation > 0.5).all()


def test_tiny_animatediff_trains_and_exports_models_that_load(tmp_path: Path) -> None:
    state, bundled = tmp_path / "state", tmp_path / "bundled"
    common = ["--batch", "2", "--state", str(state)]
    pictures = ["--steps", "1", "--pictures", "2"]
    run("train_text", *common, "--steps", "2")
    run("train_vae", "animatediff", *common, *pictures)
    run("train_animatediff", *common, *pictures, "--prompts", "2")
    run("export", "animatediff", str(state), str(bundled))
    check_exported(bundled / "tiny-animatediff", state)
    base, adapter = (describe(bundled / name) for name in ("tiny-animatediff", "tiny-motion-adapter"))
    assert base.card["scheduler"] == "model"
    assert adapter.card["conditionings"] == ["init", "pia"]

    parts = {"motion_adapter": MotionAdapter.from_pretrained(adapter.path, local_files_only=True)}
    pipe = PIAPipeline.from_pretrained(base.path, **parts, local_files_only=True)
    trained = make_unet()
    load_weights(trained, state, "average_unet")
    weights = pipe.unet.state_dict()
    assert all(torch.equal(weights[key].float(), value) for key, value in trained.state_dict().items())
