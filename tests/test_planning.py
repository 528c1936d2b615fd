"""Plans of full-size requests for cards of all sizes: the quickest that fits, the least change, what would fit, why."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import quickest

from vidkit.device import GIB, Plan
from vidkit.errors import GenerationError, Remedy, SetupError
from vidkit.memory.fitting import Room, with_tolerance
from vidkit.memory.measures import cost, exact_plans, leanest_plans
from vidkit.memory.planning import Planned, next_plan, plan_request
from vidkit.memory.prediction import PHASES, predict
from vidkit.params import GenerationParams
from vidkit.resolving import Resolved, resolve_request
from vidkit.settings import load_settings

#: the rows of the specification's table
TABLE = [
    ("svd", 512, 512, 250),
    ("svd", 768, 768, 80),
    ("svd", 1024, 576, 60),
    ("animatediff", 512, 512, 64),
    ("animatediff", 768, 768, 32),
]

CARDS = (3, 4, 6, 8, 11, 16, 24, 80)  # GiB


@pytest.fixture(scope="module")
def models(full_size_models: Path) -> Path:
    return full_size_models


def resolved(models: Path, family: str, width: int, height: int, frames: int, **more: Any) -> Resolved:
    names = {"base_model": str(models / "svd")}
    if family == "animatediff":
        adapter = "pia_adapter" if more.get("conditioning") == "pia" else "motion_adapter"
        names = {"base_model": str(models / "sd15"), "motion_adapter": str(models / adapter)}
    if more.get("conditioning") == "sparsectrl":
        names["controlnet"] = str(models / "sparse_controlnet")
    shape = {"width": width, "height": height, "num_frames": frames, "seed": 1}
    params = GenerationParams(
        pipeline=family, image_path="example:photo", prompt="the sea", **{**shape, **names, **more}
    )
    return resolve_request(params, load_settings())


def planned(found: Resolved, free: float | None, host: float | None = None, device: str = "cuda") -> Planned:
    sizes = [None if size is None else round(size * GIB) for size in (free, host)]
    return plan_request(found.params, found.models, device, sizes[0], host=sizes[1])


def refused(found: Resolved, free: float, host: float | None = None, device: str = "cuda") -> GenerationError:
    with pytest.raises(GenerationError) as raised:
        planned(found, free, host, device)
    return raised.value


def drawn(models: Path, count: int) -> list[Resolved]:
    draw = random.Random(5)
    found = []
    for _ in range(count):
        family = draw.choice(["svd", "animatediff"])
        more: dict[str, Any] = {"decode_chunk_size": draw.randrange(1, 20)}
        if family == "animatediff":
            more |= {"conditioning": draw.choice(["init", "pia", "sparsectrl"]), "guidance_scale": draw.choice([1, 7])}
        width, height = draw.randrange(4, 16) * 64, draw.randrange(4, 16) * 64
        found.append(resolved(models, family, width, height, draw.randrange(8, 120), **more))
    return found


# --- the quickest that fits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE)
def test_the_specifications_table_fits_into_11_gib_without_a_change_of_the_clip(
    models: Path, row: tuple[str, int, int, int]
) -> None:
    found = planned(resolved(models, *row), 11)
    assert found.notes == []
    assert with_tolerance(found.prediction.peak) <= 11 * GIB


def test_a_plan_fits_and_none_that_is_quicker_does(models: Path) -> None:
    for found in drawn(models, 25):
        for card in CARDS:
            try:
                plan = planned(found, card, host=16)
            except GenerationError:
                continue
            assert with_tolerance(plan.prediction.peak) <= card * GIB
            assert with_tolerance(plan.prediction.host) <= 16 * GIB
            assert plan.prediction == predict(found.params, found.models, plan.plan)
            for other in exact_plans(found.params, Plan("cuda", "float16")):
                if cost(found.params.pipeline, other) < cost(found.params.pipeline, plan.plan):
                    assert not plan.room.holds(predict(found.params, found.models, other))


def test_the_leanest_plan_needs_least_in_every_phase(models: Path) -> None:
    """On which the search relies: what does not fit with it fits with none."""
    small = {"image_path": "example:photo", "prompt": "the sea", "width": 256, "height": 192}
    tiny = [GenerationParams(pipeline=family, **small) for family in ("svd", "animatediff")]
    for found in [*drawn(models, 25), *(resolve_request(params, load_settings()) for params in tiny)]:
        plain = Plan("cuda", "float16")
        least = [predict(found.params, found.models, plan) for plan in leanest_plans(found.params, plain)]
        for plan in exact_plans(found.params, plain):
            other = predict(found.params, found.models, plan)
            for phase in PHASES:
                assert min(getattr(lean, phase) for lean in least) <= getattr(other, phase), (plan, phase)


def test_more_memory_is_never_slower(models: Path) -> None:
    for found in drawn(models, 10):
        costs = []
        for card in CARDS:
            try:
                costs.append(cost(found.params.pipeline, planned(found, card).plan))
            except GenerationError:
                assert costs == []
        assert costs == sorted(costs, reverse=True)


def test_without_knowing_what_is_free_no_measure_is_taken(models: Path) -> None:
    assert planned(resolved(models, *TABLE[0]), None).plan == Plan("cuda", "float16")


def test_halves_only_where_there_is_guidance(models: Path) -> None:
    guided = resolved(models, "svd", 512, 512, 250)
    alone = resolved(models, "svd", 512, 512, 250, max_guidance_scale=1.0, min_guidance_scale=1.0)
    assert any(plan.halves for plan in exact_plans(guided.params, Plan("cuda", "float16")))
    assert not any(plan.halves for plan in exact_plans(alone.params, Plan("cuda", "float16")))


def test_nothing_waits_in_a_host_without_room(models: Path) -> None:
    found = resolved(models, "svd", 1024, 576, 25)
    assert planned(found, 6, host=32).plan.offload == "model"
    tight = planned(found, 10, host=1).plan
    assert (tight.offload, tight.host_skips) == ("none", False)
    error = refused(found, 5, host=1)
    assert "can wait in the host's, of which 1.0 GiB are free" in error.message


def test_frames_that_do_not_mix_are_decoded_fewer_at_once_without_asking(models: Path) -> None:
    found = resolved(models, "animatediff", 768, 768, 16, decode_chunk_size=16)
    plan = planned(found, 8)
    (change,) = plan.plan.changes
    assert change[0] == "decode_chunk_size"
    assert 1 <= change[1] < 16
    assert plan.notes == []
    more = dataclasses.replace(plan.plan, changes=(("decode_chunk_size", change[1] + 1),))
    assert not plan.room.holds(predict(found.params, found.models, more))


# --- changes --------------------------------------------------------------------------------------------------------


def test_changes_need_leave_and_are_the_least_that_fits(models: Path) -> None:
    shape = ("svd", 1024, 576, 25)
    asked = resolved(models, *shape, decode_chunk_size=25)
    least = predict(asked.params, asked.models, leanest_plans(asked.params, Plan("cuda", "float16"))[0])
    free = with_tolerance(least.decode) / GIB * 0.9
    assert refused(asked, free).code == "out_of_memory"

    found = planned(resolved(models, *shape, decode_chunk_size=25, allow_changes=True), free)
    ((name, chunk),) = found.plan.changes
    assert name == "decode_chunk_size"
    assert found.notes == [f"{chunk} frames are decoded at once, not 25: more does not fit into memory."]
    one_more = asked.params.replace(decode_chunk_size=chunk + 1)
    leanest = leanest_plans(one_more, Plan("cuda", "float16"))[0]
    assert not found.room.holds(predict(one_more, asked.models, leanest))


def test_windows_before_a_smaller_size(models: Path) -> None:
    asked = resolved(models, "svd", 512, 512, 250, allow_changes=True)
    least = predict(asked.params, asked.models, leanest_plans(asked.params, Plan("cuda", "float16"))[0])
    changes = dict(planned(asked, with_tolerance(least.denoise) / GIB * 0.85).plan.changes)
    assert set(changes) == {"window_frames"}
    assert 100 < changes["window_frames"] < 250


def test_a_smaller_size_keeps_the_shape_and_is_one_that_the_model_takes(models: Path) -> None:
    asked = resolved(models, "svd", 1024, 576, 25, allow_changes=True)
    changes = dict(planned(asked, 2).plan.changes)
    assert {"width", "height"} <= set(changes)
    assert changes["width"] % 64 == changes["height"] % 64 == 0
    assert changes["width"] / changes["height"] == pytest.approx(1024 / 576, rel=0.1)
    resolve_request(asked.params.replace(**changes), load_settings())


def test_what_the_model_does_not_take_is_no_change(models: Path) -> None:
    """No windows where the last frame is given: the windows before the last would not know of it."""
    shape: dict[str, Any] = {"conditioning": "sparsectrl", "last_image_path": "example:photo", "allow_changes": True}
    asked = resolved(models, "animatediff", 768, 768, 32, **shape)
    for card in (1.5, 2, 2.5, 3):
        try:
            found = planned(asked, card)
        except GenerationError as error:
            assert not any("window" in suggestion for suggestion in error.suggestions)
        else:
            assert "window_frames" not in dict(found.plan.changes)


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_refusal_says_how_much_is_missing_and_what_would_fit(models: Path) -> None:
    found = resolved(models, "svd", 512, 512, 250)
    error = refused(found, 2)
    assert "250 frames of 512x512 pixels" in error.message
    assert "2.0 GiB are free" in error.message
    remedies = [remedy for remedy in error.suggestions if isinstance(remedy, Remedy)]
    assert remedies[0].changes == {"allow_changes": True}
    assert len(remedies) > 2
    for remedy in remedies:
        changed = resolve_request(found.params.replace(**remedy.changes), load_settings())
        assert planned(changed, 2).room.device == round(2 * GIB)
    assert "more" in error.suggestions[-1]


def test_what_nothing_helps_is_refused_with_leave_too(models: Path) -> None:
    error = refused(resolved(models, "svd", 1024, 576, 25, allow_changes=True), 0.2)
    assert not any(isinstance(suggestion, Remedy) for suggestion in error.suggestions)


def test_an_unreadable_model_is_named(models: Path, tmp_path: Path) -> None:
    found = resolved(models, "svd", 512, 512, 14)
    config = tmp_path / "svd" / "unet" / "config.json"
    for part in ("unet", "vae", "image_encoder"):
        (tmp_path / "svd" / part).mkdir(parents=True)
        for file in (models / "svd" / part).iterdir():
            (tmp_path / "svd" / part / file.name).symlink_to(file)
    content = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps({key: value for key, value in content.items() if key != "down_block_types"}))
    base = dataclasses.replace(found.models["base_model"], path=tmp_path / "svd")
    with pytest.raises(SetupError) as raised:
        plan_request(found.params, {"base_model": base}, "cuda", GIB)
    assert raised.value.code == "invalid_model"
    assert "svd" in raised.value.message


# --- when it runs out all the same ----------------------------------------------------------------------------------


def test_the_next_plan_needs_a_tenth_less_and_the_last_has_none(models: Path) -> None:
    found = planned(resolved(models, "svd", 512, 512, 250), 40)
    tried = [found]
    while (following := next_plan(tried[-1])) is not None:
        tried.append(following)
        assert following.prediction.peak <= 0.9 * tried[-2].prediction.peak * 1.001
        assert following.reasons[: len(tried[-2].reasons)] == tried[-2].reasons
    assert len(tried) >= 3
    assert tried[-1].notes == []


def test_the_next_plan_needs_less_where_it_ran_out(models: Path) -> None:
    found = planned(resolved(models, "animatediff", 768, 768, 16, decode_chunk_size=8), 30)
    assert found.plan == Plan("cuda", "float16")
    for phase in ("denoise", "decode"):
        following = next_plan(found, phase)
        assert following is not None
        assert getattr(following.prediction, phase) <= 0.9 * getattr(found.prediction, phase) * 1.001
    assert dict(following.plan.changes).keys() == {"decode_chunk_size"}  # nothing but the decoding had to change
    assert not following.plan.halves
    assert (
        f"{found.prediction.decode / GIB:.1f} GiB (decoding) were predicted, but memory ran out." in following.reasons
    )


def test_a_safer_autoencoder_stays_one(models: Path) -> None:
    found = resolved(models, "svd", 512, 512, 60)
    plan = plan_request(found.params, found.models, "cuda", 60 * GIB, vae_float32=True)
    assert plan.plan == Plan("cuda", "float16", vae_float32=True)
    following = next_plan(plan)
    assert following is not None
    assert following.plan.vae_float32


# --- the CPU, words, time -------------------------------------------------------------------------------------------


def test_on_the_cpu_measures_are_for_a_host_that_is_short_of_memory() -> None:
    found = resolve_request(
        GenerationParams(image_path="example:photo", prompt="the sea", max_guidance_scale=3.0), load_settings()
    )
    plain = planned(found, 8, device="cpu")
    assert plain.plan == Plan("cpu", "float32")
    assert len(plain.reasons) == 1
    lean = planned(found, with_tolerance(plain.prediction.denoise) * 0.97 / GIB, device="cpu").plan
    assert lean.slices or lean.halves
    assert lean.offload == "none"
    assert refused(found, 0.02, device="cpu").code == "out_of_host_memory"


def test_reasons_are_told_one_by_one_with_what_each_brings(models: Path) -> None:
    found = planned(resolved(models, "svd", 1024, 576, 25), 6)
    assert found.reasons[0].startswith("With all of the model on the GPU, 12.0 GiB (denoising) would be needed;")
    assert found.reasons[0].endswith("6.0 GiB are free.")
    assert found.reasons[1].startswith("One part of the model is on the GPU at a time: 10.")
    assert f"{found.prediction.peak / GIB:.1f} GiB ({PHASES[found.prediction.phase]})" in found.reasons[-1]
    close = planned(resolved(models, "svd", 1024, 576, 25), 12.2).reasons
    assert close[0].endswith("12.2 GiB are free, which is too close.")


def test_what_is_free_now_is_limited_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    free = Room.now("cpu").device
    assert free is not None
    more = Room.now("cpu", kept_on_host=50 * GIB).device
    assert more is not None
    assert more > free + 40 * GIB
    monkeypatch.setenv("VIDKIT_LIMIT_MEMORY", "0.5")
    assert Room.now("cpu", more=GIB).device == GIB // 2


def test_a_plan_takes_milliseconds(models: Path) -> None:
    found = resolved(models, "svd", 512, 512, 250)
    planned(found, 8)
    assert quickest(lambda: planned(found, 6)) < 0.1  # 10 ms measured
    assert quickest(lambda: refused(found, 2)) < 0.5  # 70 ms measured


def test_loads_no_torch() -> None:
    code = (
        "import sys, vidkit; vidkit.plan({'imagePath': 'example:photo', 'prompt': 'x'}); print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"]
