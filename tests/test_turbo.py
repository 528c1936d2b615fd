"""Speed turbo: steps are skipped where they can be foreseen, and only there; the clip stays close to exact's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, LCMScheduler
from tiny_models import TinyAnimateDiff

import vidkit
from vidkit import device
from vidkit.computing import Job, denoise
from vidkit.device import Plan, plain_plan
from vidkit.errors import Cancelled, InputError
from vidkit.params import GenerationParams
from vidkit.pipelines.turbo import LEAST, Steps, skipping, spread
from vidkit.placement import place, release
from vidkit.progress import CancelToken, Reporter
from vidkit.warm import fresh_pipeline

pytestmark = pytest.mark.usefixtures("no_warm_pipeline", "without_gradients")

FAST = Plan("cpu", "float64", speed="fast")
MODES = ("svd", "init", "sparsectrl", "pia")
STEPS = 12


@pytest.fixture(scope="module")
def request_of(tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path) -> Callable[..., dict[str, Any]]:
    def made(mode: str, **more: Any) -> dict[str, Any]:
        more = {"num_inference_steps": STEPS, "speed": "turbo", **more}
        if mode == "svd":
            return clips.svd_request(tiny_svd_folder, image, max_guidance_scale=3.0, **more)
        return clips.animatediff_request(tiny_animatediff, image, mode, **more)

    return made


@pytest.fixture(scope="module")
def made(request_of: Callable[..., dict[str, Any]]) -> dict[str, tuple[Job, Any]]:
    """Of each mode the request and its pipeline."""
    jobs = {mode: clips.prepared(request_of(mode)) for mode in MODES}
    return {mode: (job, fresh_pipeline(job, FAST)) for mode, job in jobs.items()}


@pytest.fixture(params=MODES)
def case(request: pytest.FixtureRequest, made: dict[str, tuple[Job, Any]]) -> Iterator[tuple[Job, Any]]:
    job, pipe = made[request.param]
    yield job, pipe
    place(pipe, FAST)


def asked(job: Job, **changes: Any) -> Job:
    return replace(job, params=job.params.replace(**changes))


def made_of(job: Job, pipe: Any) -> tuple[torch.Tensor, list[str], int]:
    """Latents, what is said of the speed, and how often the UNet was computed."""
    calls = 0

    def count(module: Any, arguments: Any) -> None:
        nonlocal calls
        calls += 1

    handle = pipe.unet.mid_block.register_forward_pre_hook(count)
    try:
        latents, notes = denoise(job, pipe, Reporter(None, None), lambda: None)
    finally:
        handle.remove()
    return latents, [note for note in notes if "speed" in note], calls


def error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result.double() - exact.double()).norm() / exact.double().norm())


# --- which steps ------------------------------------------------------------------------------------------------------


def test_the_steps_are_spread_evenly() -> None:
    """By hand: from the first to the last, no more of them than the share asks for."""
    assert sorted(spread(1, 24, 0.25)) == [1, 6, 10, 15, 19, 24]
    assert sorted(spread(0, 24, 0.28)) == [0, 4, 8, 12, 16, 20, 24]
    assert sorted(spread(1, 7, 0.25)) == [1, 3, 4, 5, 7]
    assert spread(0, 24, 1.0) == {*range(25)}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 25, 200])
def test_the_first_and_the_last_step_are_computed(count: int) -> None:
    for share in (0.001, 0.1, 1 / 3, 0.5, 0.99, 1.0):
        found = spread(3, 3 + count - 1, share)
        assert {3, 3 + count - 1} <= found <= {*range(3, 3 + count)}
        assert len(found) == min(count, max(LEAST, math.ceil(share * count - 1e-9)))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_end_results_on_a_straight_line_are_foreseen(prediction: str) -> None:
    """diffusers' scheduler and a network whose end result moves evenly."""
    torch.manual_seed(1)
    start, whole, path = torch.randn(3, 1, 4, 3, 8, 8, dtype=torch.float64)
    scheduler = EulerDiscreteScheduler(prediction_type=prediction, timestep_spacing="trailing")
    calls: list[int] = []

    def network(sample: torch.Tensor) -> torch.Tensor:
        number = scheduler.step_index
        assert number is not None
        calls.append(number)
        sigma, result = float(scheduler.sigmas[number]), whole + number * path
        noise = (sample - result) / sigma
        share = (sigma**2 + 1) ** -0.5  # of the signal, where signal and noise have the variance 1 together
        by_type = {"sample": result, "epsilon": noise, "v_prediction": share * noise - share * sigma * result}
        return by_type[prediction]

    steps, own = Steps(scheduler, 0.3), scheduler.step
    for _ in range(2):  # a second call begins anew
        calls.clear()
        scheduler.set_timesteps(20)
        sample = start * scheduler.init_noise_sigma
        for number, time in enumerate(scheduler.timesteps):
            scheduler.scale_model_input(sample, time)
            made = steps.step(own, steps.answer(network, sample), time, sample)
            # the scheduler is in single precision
            assert error(made.pred_original_sample, whole + number * path) < 1e-4, number
            sample = made.prev_sample
        assert calls == [0, 1, 2, 3, 4, 8, 12, 15, 19]  # at 4, the path is a quarter of the whole for the first time
    assert (steps.computed, steps.all) == (18, 40)


# --- pipelines --------------------------------------------------------------------------------------------------------


def test_with_no_tolerance_it_is_fast(case: tuple[Job, Any]) -> None:
    job, pipe = case
    fast, notes, calls = made_of(asked(job, speed="fast"), pipe)
    assert notes == []
    result, notes, same_calls = made_of(asked(job, turbo_share=1.0), pipe)
    assert torch.equal(result, fast)
    assert same_calls == calls
    assert notes == [f"speed turbo: {calls} of {calls} denoising steps were computed."]


@pytest.mark.parametrize("measures", [{}, {"halves": True, "offload": "layers", "host_skips": True}], ids=["", "lean"])
def test_fewer_steps_and_close_to_exact(case: tuple[Job, Any], measures: dict[str, Any]) -> None:
    job, pipe = case
    place(pipe, replace(FAST, **measures))
    fast, _, whole = made_of(asked(job, speed="fast"), pipe)
    whole //= (each := 2 if measures else 1)  # the halves of guidance are computed by themselves
    found = []
    for share in (0.8, 0.1):
        result, notes, calls = made_of(asked(job, turbo_share=share), pipe)
        assert notes == [f"speed turbo: {calls // each} of {whole} denoising steps were computed."]
        found.append((calls // each, error(result, fast)))
    (many, near), (few, far) = found
    assert LEAST < few < many <= whole
    assert near < far
    assert 0 < far < 0.5


def test_the_last_step_is_computed(made: dict[str, tuple[Job, Any]]) -> None:
    """Its end result is the clip."""
    job, pipe = made["svd"]
    job, results, told = asked(job, turbo_share=0.25), [], []
    own = type(pipe.scheduler).step

    def see(scheduler: Any, output: torch.Tensor, *given: Any, **more: Any) -> Any:
        result = own(scheduler, output, *given, **more)
        results.append(result.pred_original_sample)
        return result

    def guided(module: Any, arguments: Any, output: Any) -> None:
        told.append(int(pipe.scheduler.step_index))

    handle = pipe.unet.mid_block.register_forward_hook(guided)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipe.scheduler), "step", see)
        latents, _, _ = made_of(job, pipe)
    handle.remove()
    assert told[:2] == [0, 1]
    assert told[-1] == STEPS - 1
    assert len(told) < STEPS
    assert error(results[-1], latents) < 1e-6


def test_each_window_has_its_own_steps(request_of: Callable[..., dict[str, Any]]) -> None:
    request = request_of("init", num_frames=8, window_frames=4, strength=1.0, turbo_share=0.25)
    job = clips.prepared(request)
    pipe = fresh_pipeline(job, FAST)
    numbers: list[int] = []
    pipe.unet.mid_block.register_forward_pre_hook(lambda *_: numbers.append(int(pipe.scheduler.step_index)))
    denoise(job, pipe, Reporter(None, None), lambda: None)
    begins = [place for place, number in enumerate(numbers) if number == 0]
    assert len(begins) > 1
    assert all(numbers[place : place + 2] == [0, 1] for place in begins)
    assert all(numbers[place - 1] == STEPS - 1 for place in begins)  # of the first window, that of the last
    assert len(numbers) < len(begins) * STEPS


def test_of_another_scheduler_every_step_is_computed(made: dict[str, tuple[Job, Any]]) -> None:
    job, pipe = made["init"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipe, "scheduler", LCMScheduler.from_config(pipe.scheduler.config))
        job = asked(job, num_inference_steps=4, turbo_share=0.25)
        _, notes, calls = made_of(job, pipe)
    assert notes == ["speed turbo skips no steps of LCMScheduler: all were computed."]
    assert calls == job.family.steps(pipe, job.params, job.models)


def test_the_pipeline_is_left_as_it_was(case: tuple[Job, Any]) -> None:
    job, pipe = case
    networks = [network for network in (pipe.unet, getattr(pipe, "controlnet", None)) if network is not None]
    before = [dict(vars(owner)) for owner in (pipe.scheduler, *networks)]
    token = CancelToken()

    def stop() -> None:
        token.cancel()

    with pytest.raises(Cancelled):
        denoise(job, pipe, Reporter(None, token), stop)
    with pytest.raises(ZeroDivisionError), skipping(pipe, job.params):
        1 / 0  # noqa: B018
    for owner, was in zip((pipe.scheduler, *networks), before, strict=True):
        assert vars(owner).get("step") == was.get("step")
        assert vars(owner).get("forward") == was.get("forward")


def test_looks_at_a_clip_in_the_making(made: dict[str, tuple[Job, Any]]) -> None:
    """They are hung on the scheduler too."""
    job, pipe = made["svd"]
    job, seen = asked(job, turbo_share=0.25), []
    plain = made_of(job, pipe)[0]
    looked = denoise(job, pipe, Reporter(None, None), lambda: None, seen.append)[0]
    assert torch.equal(plain, looked)
    assert seen
    assert "step" not in vars(pipe.scheduler)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_bundled_models_clip(tmp_path: Path) -> None:
    """As good as the page on speed says, in fewer steps."""
    request = {"image_path": "example:photo", "prompt": "the camera pans left", "num_inference_steps": 8, "seed": 7}
    frames: dict[str, clips.Frames] = {}
    for speed in ("exact", "turbo"):
        path = str(tmp_path / f"{speed}.mp4")
        result = vidkit.generate(
            request | {"speed": speed, "output_path": path},
            on_frames=lambda made, speed=speed: frames.update({speed: made}),  # type: ignore[misc]
        )
    assert result.record["request"]["speed"] == result.record["plan"]["speed"] == "turbo"
    assert "speed turbo: 6 of 8 denoising steps were computed." in result.notes
    off = frames["turbo"].astype(float) - frames["exact"]
    assert off.any()
    assert 10 * np.log10(255**2 / np.square(off).mean()) > 32


@pytest.mark.parametrize("mode", MODES)
def test_a_cpu_that_has_bfloat16_computes_turbo_in_it_and_nothing_else(
    request_of: Callable[..., dict[str, Any]], mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Any CPU can, if slowly, so that every machine tests it."""
    made: dict[bool, clips.Frames] = {}
    for has in (False, True):
        monkeypatch.setattr(device, "cpu_has_bfloat16", lambda has=has: has)
        assert {plain_plan("cpu", speed=speed).dtype for speed in ("exact", "fast")} == {"float32"}
        seen: list[clips.Frames] = []
        result = vidkit.generate(
            request_of(mode, num_inference_steps=8, output_path=str(tmp_path / f"{has}.mp4")),
            on_frames=lambda frames, has=has: made.update({has: frames}),  # type: ignore[misc]
            on_preview=seen.append,
        )
        plan = result.record["plan"]
        assert plan["dtype"] == ("bfloat16" if has else "float32")
        assert ("speed turbo computes in bfloat16 on this CPU." in result.notes) == has
        assert seen
    off = made[True].astype(float) - made[False]
    assert 10 * np.log10(255**2 / np.square(off).mean()) > 25
    assert off.any()


def test_in_little_memory_too(request_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    job = clips.prepared(request_of("svd", speed="turbo", num_inference_steps=8))
    plan = plain_plan("cpu", speed="turbo")
    latents = []
    for measures in ({}, {"slices": True, "halves": True}):
        pipe = fresh_pipeline(job, replace(plan, **measures))
        with skipping(pipe, job.params):
            latents.append(job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)[0])
        release(pipe)
    assert latents[0].dtype == torch.bfloat16
    assert (latents[0].float() - latents[1].float()).norm() / latents[0].float().norm() < 0.05


@pytest.mark.parametrize(
    ("told", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sha_ni\n", True),
        ("processor\t: 0\nflags\t\t: amx_bf16 fpu\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_what_a_cpu_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, has: bool
) -> None:
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    assert device.cpu_has_bfloat16.__wrapped__() is has


def test_the_share_has_bounds() -> None:
    for value in (0, 1.1):
        with pytest.raises(InputError, match="turboShare"):
            GenerationParams(image_path="x.png", prompt="x", turbo_share=value)


def test_at_other_speeds_the_share_is_noted_as_ignored(request_of: Callable[..., dict[str, Any]]) -> None:
    notes = {
        (speed, share): clips.prepared(request_of("svd", speed=speed, turbo_share=share)).notes
        for speed in ("exact", "fast", "turbo")
        for share in (0.5, 0.25)
    }
    told = {case for case, found in notes.items() if any("turboShare is ignored" in note for note in found)}
    assert told == {("exact", 0.5), ("fast", 0.5)}
