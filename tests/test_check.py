"""`vidkit check` with real models, good ones and broken ones, and what it makes of clips that are not well."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import saved
from command_line import PROMISE, Running, environment, lives, names, run
from PIL import Image
from tiny_models import TinyAnimateDiff

from vidkit.device import GIB, Plan
from vidkit.errors import InputError, SetupError
from vidkit.finding import WIDTH, Finding
from vidkit.memory.prediction import Prediction, predict
from vidkit.model_check import judging, looking
from vidkit.model_check.making import Clip, Maker, plan_of
from vidkit.model_check.request import CheckRequest, check_request
from vidkit.params import GenerationParams
from vidkit.settings import load_settings
from vidkit.supervisor import Supervisor
from vidkit.video import write_video

CHECK = (sys.executable, "-m", "vidkit", "check")
SMALL = ("--num-frames", "4", "--num-inference-steps", "2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """home: the data folder; temporary: where temporary files go."""
    return {name: tmp_path_factory.mktemp(name) for name in ("home", "temporary")}


@pytest.fixture(scope="module")
def bundled(folders: dict[str, Path]) -> dict[str, Any]:
    """The report on the bundled model."""
    done = run(*SMALL, "--json", command=CHECK, env=environment(folders["home"], TMPDIR=str(folders["temporary"])))
    assert done.code == 0, done.stdout
    assert [event["progress"] for event in done.progress].count(100) == 3
    return done.response


def of(report: dict[str, Any], topic: str) -> dict[str, Any]:
    found = next(finding for finding in report["findings"] if finding["topic"] == topic)
    assert isinstance(found, dict)
    return found


def test_the_bundled_model_is_well(bundled: dict[str, Any]) -> None:
    assert bundled["isWell"], bundled
    assert bundled["model"] == "tiny-svd"
    assert bundled["summary"] == "tiny-svd: all is well (no problems)."
    topics = [finding["topic"] for finding in bundled["findings"]]
    assert topics == [
        *("clip", "speed", "memory", "memory", "determinism", "low memory", "picture", "first frame", "motion", "file")
    ]
    assert of(bundled, "speed")["data"]["steps"] == 2
    assert of(bundled, "determinism")["data"]["same"] is True
    assert of(bundled, "first frame")["data"]["correlation"] > 0.9
    assert of(bundled, "file")["data"]["codec"] == "h264"
    assert of(bundled, "memory")["data"]["hostPeakBytes"] > 0.2 * GIB


def test_the_second_setting_is_another_one(bundled: dict[str, Any]) -> None:
    """In less memory, with measures, and the frames are the same up to rounding."""
    plain, again, lean = bundled["clips"]
    assert plain["plan"] == again["plan"] != lean["plan"]
    found = of(bundled, "low memory")
    assert found["data"]["mostLevels"] <= 1
    assert found["data"]["measures"] == lean["plan"]
    limits = [finding["data"]["limitBytes"] for finding in bundled["findings"] if finding["topic"] == "memory"]
    predicted = [finding["data"]["predictedBytes"] for finding in bundled["findings"] if finding["topic"] == "memory"]
    assert limits[0] is None
    assert predicted[1] < predicted[0]
    assert predicted[1] * 1.05 <= limits[1] < predicted[0] * 1.05


def test_nothing_is_kept(bundled: dict[str, Any], folders: dict[str, Path]) -> None:
    assert names(folders["temporary"]) == []
    assert not [path for path in folders["home"].rglob("*") if path.suffix in (".mp4", ".npy")]


def test_a_model_with_random_weights_is_told_apart(tiny_svd_folder: Path, tmp_path: Path) -> None:
    """It runs, the same each time, but what it makes is no clip of the picture. In words, for a person."""
    small = (*SMALL, "--width", "64", "--height", "64", "--image-path", saved(tmp_path))
    done = run(tiny_svd_folder, *small, command=CHECK, env=environment(tmp_path / "home"))
    assert done.code == 1, done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "ok       determinism  The same request twice" in done.stdout
    assert "made so: as it fits, the same again, low memory." in " ".join(done.stdout.split())
    assert "problem  " in done.stdout
    assert "-> " in done.stdout
    assert lines[-1].startswith("tiny_svd0: not all is well (")


def test_ctrl_c_ends_it_in_time_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    slow = ("--num-frames", "14", "--num-inference-steps", "60", "--json")
    place = environment(tmp_path / "home", TMPDIR=str(tmp_path / "temporary"))
    with Running(*slow, command=CHECK, env=place) as check:
        check.wait_for_step(1)
        worker = check.worker()
        check.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        done = check.finish()
        assert time.monotonic() - began < PROMISE
    assert done.code == 130
    assert json.loads(done.stdout)["code"] == "cancelled"
    assert not lives(worker)
    assert names(tmp_path / "temporary") == []


# --- wrong input ----------------------------------------------------------------------------------------------------


def wanted(model: str | None, **given: Any) -> CheckRequest:
    return check_request(model, given, load_settings())


def test_wrong_models_are_refused_before_anything_is_loaded(
    tiny_animatediff: TinyAnimateDiff, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SetupError, match="'nothing' was not found") as caught:
        wanted("nothing")
    assert caught.value.code == "model_not_found"
    with pytest.raises(InputError, match="is no base model but another kind: motion adapter") as part:
        wanted(str(tiny_animatediff.motion_adapter))
    assert part.value.suggestions[0].startswith("Give it with its base model: vidkit check BASE --motion-adapter ")
    with pytest.raises(SetupError):  # a base of one's own, and no motion adapter for it
        wanted(str(tiny_animatediff.base))
    with pytest.raises(InputError):
        wanted(None, image_path="nowhere.png", num_frames=10_000)


def test_wrong_options_are_typed_errors(tmp_path: Path) -> None:
    done = run("nothing", command=CHECK, env=environment(tmp_path))
    assert (done.code, done.response["code"]) == (3, "model_not_found")
    done = run("--num-frames", "many", command=CHECK, env=environment(tmp_path))
    assert (done.code, done.response["code"]) == (2, "invalid_value")


def test_a_picture_that_is_not_there_is_no_fault_of_the_model(tmp_path: Path) -> None:
    done = run("--image-path", tmp_path / "none.png", command=CHECK, env=environment(tmp_path / "home"))
    assert (done.code, done.response["code"]) == (2, "image_not_found")


# --- the request ----------------------------------------------------------------------------------------------------


def test_what_is_made_is_short_unless_asked_otherwise(
    full_size_models: Path, tiny_animatediff: TinyAnimateDiff
) -> None:
    made, usual = wanted(str(full_size_models / "svd")).found.params, wanted(str(full_size_models / "svd")).usual
    assert (usual.width, usual.height, usual.num_frames, usual.num_inference_steps) == (1024, 576, 25, 25)
    assert (made.num_frames, made.num_inference_steps) == (8, 6)
    assert (made.width, made.height) == (320, 192)
    asked = wanted(str(full_size_models / "svd"), num_frames=25, width=512, height=512, seed=3).found.params
    assert (asked.num_frames, asked.width, asked.height, asked.seed) == (25, 512, 512, 3)
    adapter = str(tiny_animatediff.motion_adapter)
    found = wanted(str(tiny_animatediff.base), motion_adapter=adapter).found
    assert found.params.pipeline == "animatediff"


def test_a_plan_is_read_from_a_record() -> None:
    plan = Plan(
        "cuda", "float16", "model", halves=True, host_skips=True, vae_float32=True, changes=(("num_frames", 8),)
    )
    assert plan_of(plan.to_json()) == plan


def test_the_limit_of_the_second_setting(tmp_path: Path) -> None:
    """Below what the first clip took; none where that took the least already."""
    found = wanted(None, width=64, height=64).found  # layers this small gain nothing by any measure
    plan = Plan("cpu", "float32")
    least = predict(found.params, found.models, plan)
    maker = Maker(found, tmp_path, Supervisor(), print)
    first = clip_of(moving(), plan=plan, predicted=least)
    assert maker.low_memory_limit(first) is None
    limit = maker.low_memory_limit(replace(first, predicted=replace(least, denoise=2 * least.peak)))
    assert limit is not None
    assert 1.05 * 1.2 * least.peak < limit < 1.05 * 1.3 * least.peak
    on_a_gpu = clip_of(moving(), plan=Plan("cuda", "float16"), predicted=replace(least, denoise=2 * least.peak))
    assert maker.low_memory_limit(on_a_gpu) is None  # torch's segments alone take more than is saved


# --- judgements -----------------------------------------------------------------------------------------------------

PARAMS = GenerationParams(image_path="x", prompt="x", num_frames=6, width=64, height=64, num_inference_steps=4)


def photograph() -> Any:
    path = Path(looking.__file__).parents[1] / "examples" / "photo.jpg"
    return np.asarray(Image.open(path).convert("RGB").resize((64, 64)))


def clip_of(frames: Any, **more: Any) -> Clip:
    """As a check gets it, of these frames."""
    usual: dict[str, Any] = {
        "setting": "as it fits",
        "file": Path("clip.mp4"),
        "frames": frames,
        "metadata": {
            "vramUsed": 4.0,
            "timing": {"load": 1.0, "denoise": 8.0, "decode": 2.0, "total": 12.0},
            "notes": [],
        },
        "plan": Plan("cuda", "float16"),
        "predicted": Prediction(GIB, 4 * GIB, 2 * GIB, 4),
        "limit": None,
        "steps": 4,
        "host_peak": 2 * GIB,
    }
    return Clip(**{**usual, **more})


def moving() -> Any:
    return np.stack([np.roll(photograph(), number, axis=1) for number in range(6)])


def test_speed_and_what_the_usual_clip_would_take() -> None:
    found = judging.speed(clip_of(moving()), PARAMS, PARAMS.replace(num_frames=12, num_inference_steps=8))
    assert found.data["secondsPerStep"] == 2.0
    assert found.data["usualSeconds"] == 2 * (2 * 8 + 2)
    assert "usualSeconds" not in judging.speed(clip_of(moving()), PARAMS, PARAMS).data


@pytest.mark.parametrize(("taken", "status"), [(4.0, "ok"), (4.15, "ok"), (4.5, "problem"), (2.5, "note")])
def test_memory_against_the_prediction(taken: float, status: str) -> None:
    clip = clip_of(moving())
    found = judging.memory(replace(clip, metadata={**clip.metadata, "vramUsed": taken}))
    assert found.status == status
    assert found.data["measuredBytes"] == round(taken * GIB)
    assert f"{taken / 4 - 1:+.1%}" in found.what


def test_memory_of_a_cpu_is_said_not_to_be_measured() -> None:
    found = judging.memory(clip_of(moving(), plan=Plan("cpu", "float32")))
    assert found.status == "ok"
    assert "not measured, as the CPU computes" in found.what
    assert found.data["measuredBytes"] is None


def test_one_value_that_differs_is_no_determinism() -> None:
    clip = clip_of(moving())
    other = clip.frames.copy()
    other[3, 5, 5, 1] ^= 1
    assert judging.determinism(clip, clip).status == "ok"
    found = judging.determinism(clip, replace(clip, frames=other))
    assert (found.status, found.data["mostLevels"]) == ("problem", 1)


def test_frames_that_are_equal_up_to_rounding() -> None:
    clip = clip_of(moving())
    off = (clip.frames.astype(int) + np.random.default_rng(0).integers(-1, 2, clip.frames.shape)).clip(0, 255)
    far = np.roll(clip.frames, 3, axis=2)

    def judged(frames: Any, dtype: str) -> Finding:
        plan = Plan("cuda", dtype, halves=True)
        return judging.low_memory(clip, replace(clip, plan=plan, frames=frames.astype(np.uint8)), PARAMS)

    assert judged(clip.frames, "float16").data["mostLevels"] == 0
    assert [judged(off, dtype).status for dtype in ("float32", "float16")] == ["ok", "ok"]
    assert [judged(far, dtype).status for dtype in ("float32", "float16")] == ["problem", "problem"]
    three = (clip.frames.astype(int) + 3).clip(0, 255)
    assert [judged(three, dtype).status for dtype in ("float32", "float16")] == ["problem", "ok"]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a clip of these frames, with the photograph as the picture that it was made of."""

    def write(frames: Any) -> Clip:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.mp4"
        write_video(frames, file, fps=8, output_format="mp4", record={}, cover=[Image.fromarray(photograph())])
        return clip_of(frames, file=file)

    return write


def looked_at(clip: Clip, params: GenerationParams = PARAMS) -> dict[str, Finding]:
    return {finding.topic: finding for finding in looking.picture(clip, params)}


def test_what_a_clip_looks_like(written: Any) -> None:
    good = looked_at(written(moving()))
    assert [finding.status for finding in good.values()] == ["ok", "ok", "ok"]
    noise = np.random.default_rng(0).integers(0, 256, moving().shape).astype(np.uint8)
    assert "the clip is noise" in looked_at(written(noise))["picture"].what
    assert "the clip is black" in looked_at(written((moving() // 60).astype(np.uint8)))["picture"].what
    assert "about one colour" in looked_at(written((128 + moving() // 64).astype(np.uint8)))["picture"].what
    still = looked_at(written(np.stack([photograph()] * 6)))
    assert [finding.status for finding in still.values()] == ["ok", "ok", "note"]


def test_a_first_frame_of_another_picture(written: Any) -> None:
    other = written(moving()[:, :, ::-1].copy())
    assert looked_at(other)["first frame"].status == "problem"
    repainted = PARAMS.replace(pipeline="animatediff", conditioning="init")
    assert looked_at(other, repainted)["first frame"].status == "note"


def test_an_even_picture_is_like_itself_and_like_no_other() -> None:
    """Without contrast there is nothing to correlate."""
    even = np.full((64, 64, 3), 128, np.uint8)
    assert looking.likeness(even + np.uint8(2), even) == 1.0
    assert looking.likeness(even + np.uint8(60), even) == 0.0
    assert looking.likeness(photograph(), even) == 0.0


def test_a_file_that_is_not_what_was_computed(written: Any) -> None:
    clip = written(moving())
    assert looking.file(clip).status == "ok"
    assert looking.file(replace(clip, frames=255 - clip.frames)).status == "problem"
    assert looking.file(replace(clip, frames=clip.frames[:-1])).status == "problem"
