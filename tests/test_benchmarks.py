"""The benchmark of the bundled models: measures on clips whose answer is known, verdicts, and real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from benchmarks import criteria
from benchmarks.bundled_models import evaluate, exit_code, main, photographs, report, sheet, table
from benchmarks.criteria import CRITERIA, Criterion, Result, Scope
from benchmarks.measures import Clip, largest_jump, measure
from benchmarks.motion import MOVES, STATIC, fit_motion
from benchmarks.prompts import ASKED, SENTENCES, UNRELATED, asked_move
from vidkit import GenerationParams
from vidkit.container import Frames
from vidkit.images import fit_image, load_image
from vidkit.models.locate import picture_path

ROOT = Path(__file__).parent.parent
SIZE, LARGE = 128, 512
REQUEST = GenerationParams(image_path="any", prompt="any")


# --- clips with known answers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """The middle of the example photograph, with its mirror image around it: room for any move."""
    return mirrored(fit_image(load_image(picture_path("example:photo")), LARGE, LARGE))


@pytest.fixture(scope="module")
def stars() -> Image.Image:
    """Like `photo`, of small bright discs on black: a fit that begins a little off finds no way to the right one."""
    draw = np.random.default_rng(1)
    sky = Image.new("RGB", (LARGE, LARGE), (12, 10, 20))
    for x, y in draw.uniform(0, LARGE, (150, 2)):
        ImageDraw.Draw(sky).ellipse((x - 4, y - 4, x + 4, y + 4), fill=(int(draw.integers(100, 256)),) * 3)
    return mirrored(sky)


def mirrored(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.pad(np.asarray(image), ((LARGE, LARGE), (LARGE, LARGE), (0, 0)), mode="reflect"))


def view(photo: Image.Image, x: float = 0, y: float = 0, scale: float = 1, clockwise: float = 0) -> Image.Image:
    """What a camera sees. x, y: where it looks, in widths right and down of the middle; scale: how much it sees;
    clockwise: how far it is turned, in radians."""
    cos, sin = scale * np.cos(clockwise), scale * np.sin(clockwise)
    middle, half = 1.5 * LARGE, LARGE / 2
    left, top = middle + x * LARGE - (cos - sin) * half, middle + y * LARGE - (sin + cos) * half
    seen = photo.transform((LARGE, LARGE), Image.Transform.AFFINE, (cos, -sin, left, sin, cos, top), Image.BICUBIC)
    return seen.resize((SIZE, SIZE), Image.Resampling.BOX)


def clip_of(views: Sequence[Image.Image]) -> Frames:
    return np.stack([np.asarray(frame) for frame in views])


def panned(photo: Image.Image, frames: int, step: float) -> Frames:
    return clip_of([view(photo, x=step * k) for k in range(frames)])


def measured(frames: Frames, request: GenerationParams = REQUEST, **more: Any) -> Clip:
    """With the clip's own first frame as the picture."""
    told = {"steps": 8, "seconds": 6.0, "warm": True, "picture": Image.fromarray(frames[0])} | more
    return measure(request, frames, **told)


def degraded(frame: Image.Image, noise: np.random.Generator) -> torch.Tensor:
    """(1, 3, SIZE, SIZE) at 24 dB: half of the squared error from noise, the other from blur, up to 1.5 pixels."""
    clean = np.asarray(frame) / 255
    allowed, soft = 10**-2.4, clean
    for radius in (0.5, 1.0, 1.5):
        blurred = np.asarray(frame.filter(ImageFilter.GaussianBlur(radius))) / 255
        if ((blurred - clean) ** 2).mean() <= allowed / 2:
            soft = blurred
    left = allowed - ((soft - clean) ** 2).mean()
    noisy = (soft + noise.normal(0, left**0.5, clean.shape)).clip(0, 1)
    return torch.from_numpy(noisy).permute(2, 0, 1).float()[None]


#: what the viewer sees for each name, made without the measuring code
CAMERA: dict[str, Callable[[Image.Image], Image.Image]] = {
    "pan right": lambda photo: view(photo, x=0.07),
    "pan left": lambda photo: view(photo, x=-0.07),
    "tilt down": lambda photo: view(photo, y=0.07),
    "tilt up": lambda photo: view(photo, y=-0.07),
    "zoom in": lambda photo: view(photo, scale=1 - 0.07 / 0.3826),
    "zoom out": lambda photo: view(photo, scale=1 + 0.07 / 0.3826),
    "rotate clockwise": lambda photo: turned(photo, -0.07 / 0.3826),
    "rotate counterclockwise": lambda photo: turned(photo, 0.07 / 0.3826),
}


def turned(photo: Image.Image, counterclockwise: float) -> Image.Image:
    """The picture turned on the screen: Pillow turns counterclockwise."""
    return view(photo.rotate(np.degrees(counterclockwise), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("move", MOVES)
def test_a_move_is_named_by_what_the_viewer_sees(photo: Image.Image, move: str) -> None:
    clip = measured(clip_of([view(photo), CAMERA[move](photo)]))
    assert clip.move == move
    assert clip.displacement == pytest.approx(0.07, rel=0.02)
    assert clip.coherence > 35


def test_under_half_a_percent_is_static(photo: Image.Image) -> None:
    assert measured(clip_of([view(photo), view(photo, x=0.004)])).move == STATIC
    assert measured(clip_of([view(photo), view(photo, x=0.006)])).move == "pan right"
    assert measured(clip_of([view(photo)] * 2)).displacement < 1e-4


@pytest.mark.parametrize("picture", ["photo", "stars"])
def test_the_fit_finds_mixed_moves_of_up_to_15_percent_in_poor_frames(
    picture: str, request: pytest.FixtureRequest
) -> None:
    seen: Image.Image = request.getfixturevalue(picture)
    draw = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 21)] * 2), -1) @ np.array([1, 1j])  # x + iy, in widths
    lasts, truths = [], []
    while len(lasts) < 60:
        x, y, zoom, turn = draw.normal(size=4) * (1, 1, 1 / 0.3826, 1 / 0.3826) * 0.08
        truth = x + 1j * y + np.exp(zoom + 1j * turn) * grid
        if np.abs(truth - grid).mean() <= 0.15:
            truths.append(truth)
            lasts.append(degraded(view(seen, x, y, np.exp(zoom), turn), draw))
    firsts = torch.cat([degraded(view(seen), draw) for _ in lasts])
    x, y, zoom, turn = fit_motion(firsts, torch.cat(lasts)).parameters.numpy().T[..., None, None]
    found = x / 2 + 1j * y / 2 + np.exp(zoom + 1j * turn) * grid
    errors = np.abs(found - np.stack(truths)).mean((1, 2))
    assert max(np.abs(truth - grid).mean() for truth in truths) > 0.14
    assert errors.max() < 0.005  # of the width
    assert np.median(errors) < 0.0005


def test_the_fit_survives_frames_with_nothing_in_them() -> None:
    motion = fit_motion(torch.zeros(1, 3, SIZE, SIZE), torch.full((1, 3, SIZE, SIZE), 0.5))
    assert motion.parameters.isfinite().all()
    assert motion.psnr.item() == pytest.approx(6.02, abs=0.01)


def test_coherence_falls_as_a_clip_dissolves(photo: Image.Image) -> None:
    first, last = view(photo), view(photo, x=0.03, scale=0.92)
    fog = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    found = [measured(clip_of([first, Image.blend(last, fog, share)])).coherence for share in (0, 0.2, 0.4, 0.8)]
    assert found[0] > 30
    assert found == sorted(found, reverse=True)
    assert found[-1] < 12


def test_a_shuffled_picture_is_not_coherent(photo: Image.Image) -> None:
    last = np.asarray(view(photo)).reshape(8, 16, 8, 16, 3).swapaxes(1, 2).reshape(64, 16, 16, 3)
    last = np.random.default_rng(0).permutation(last).reshape(8, 8, 16, 16, 3).swapaxes(1, 2).reshape(SIZE, SIZE, 3)
    assert measured(clip_of([view(photo), Image.fromarray(last)])).coherence < 17


def test_a_long_clip_is_followed_from_leg_to_leg(photo: Image.Image) -> None:
    """After 48 frames nothing of the first is in sight; 16 frames apart the picture is the same one."""
    frames = panned(photo, 48, 0.009)
    clip = measured(frames)
    assert clip.frames == 48
    assert clip.legs > 30
    assert clip.coherence < 25
    frames[47] = 255 - frames[47]  # the last of three legs ends elsewhere
    assert measured(frames).legs < clip.legs - 5


def test_a_steady_clip_has_no_jump(photo: Image.Image) -> None:
    assert largest_jump(panned(photo, 48, 0.005)) < 1.5


@pytest.mark.parametrize("fault", ["seam", "flash", "start over"])
def test_a_jump_stands_out(photo: Image.Image, fault: str) -> None:
    frames = panned(photo, 48, 0.005)
    if fault == "seam":  # the next window goes on a tenth of the width further
        frames[24:] = clip_of([view(photo, x=0.1 + 0.005 * k) for k in range(24, 48)])
    elif fault == "flash":
        frames[20] = 255 - (255 - frames[20]) // 2
    else:
        frames[24:] = frames[:24]
    assert largest_jump(frames) > 3


def test_compression_noise_in_a_still_clip_is_no_jump(photo: Image.Image) -> None:
    frames = clip_of([view(photo)] * 20) // 2
    frames[10:] += 1  # one level, once
    assert largest_jump(frames) == pytest.approx(1)


def test_the_first_frame_is_compared_with_the_picture_and_with_its_blur(photo: Image.Image) -> None:
    picture = view(photo)
    soft = picture.filter(ImageFilter.GaussianBlur(4))
    noisy = np.asarray(picture) // 2 + 60
    exact = measured(clip_of([picture] * 2), picture=picture)
    assert exact.first_frame == pytest.approx(100)
    blurred = measured(clip_of([soft] * 2), picture=picture)
    assert blurred.blurred == pytest.approx(100)
    assert blurred.first_frame < 30
    off = measured(np.stack([noisy + 16, noisy]), picture=Image.fromarray(noisy))
    assert off.first_frame == pytest.approx(20 * np.log10(255 / 16), abs=0.01)


# --- verdicts --------------------------------------------------------------------------------------------------------

SCOPE = Scope(["a.png", "b.png"], quick=False)


def good(request: GenerationParams) -> Clip:
    """A clip that does all that is wanted of it."""
    long = request.num_frames == 48
    svd = request.pipeline == "svd"
    asked = next((move for words, move in ASKED.items() if words in request.prompt), "zoom in")
    return Clip(
        request=request,
        frames=48 if long else 14,
        width=128,
        steps=8,
        seconds=6.0,
        warm=True,
        first_frame=30.0,
        blurred=20.0,
        displacement=request.motion_bucket_id / 255 * 0.1,
        move=MOVES[request.seed % 8] if svd else asked,
        coherence=25.0,
        legs=25.0,
        jump=1.5,
    )


def spoiled(clips: list[Clip], change: Callable[[Clip], dict[str, Any]]) -> list[Clip]:
    return [replace(clip, **change(clip)) for clip in clips]


def verdicts(results: Sequence[Result]) -> dict[str, bool | None]:
    return {result.name: result.passed for result in results}


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c.pipeline], ids=lambda c: f"{c.pipeline} {c.name}")
@pytest.mark.parametrize("quick", [False, True])
def test_good_clips_pass(criterion: Criterion, quick: bool) -> None:
    results = criterion.judge([good(request) for request in criterion.requests(replace(SCOPE, quick=quick))])
    assert not [result for result in results if result.passed is False]
    assert any(result.passed for result in results)


def bucket(number: int, **change: Any) -> Callable[[Clip], dict[str, Any]]:
    return lambda clip: change if clip.request.motion_bucket_id == number else {}


def guidance(scale: float, **change: Any) -> Callable[[Clip], dict[str, Any]]:
    return lambda clip: change if clip.request.guidance_scale == scale else {}


def always(**change: Any) -> Callable[[Clip], dict[str, Any]]:
    return lambda clip: change


def one_disobeys(clip: Clip) -> dict[str, Any]:
    return {"move": "zoom out"} if clip.request.prompt == "zoom in" else {}


@pytest.mark.parametrize(
    ("name", "change", "fails"),
    [
        ("faithful", always(first_frame=25.9), "first frame"),
        ("coherent", bucket(60, coherence=20.9), "coherence at bucket 60"),
        ("coherent", bucket(127, coherence=20.9), "coherence at bucket 127"),
        ("coherent", bucket(255, coherence=20.9), "coherence at bucket 255"),
        ("coherent", lambda c: {"coherence": 16.9 if c.request.seed == 0 else 40.0}, "clips under 17 dB"),
        ("bucket", bucket(80, displacement=0.06), "motion at buckets (0, 40, 80, 127, 180, 255)"),
        ("bucket", bucket(80, displacement=40 / 255 * 0.1), "motion at buckets (0, 40, 80, 127, 180, 255)"),
        ("bucket", bucket(0, displacement=0.31 / 128), "motion at bucket 0"),
        ("bucket", bucket(255, displacement=0.079), "motion at bucket 255"),
        ("seeds", lambda c: {"move": [STATIC, *MOVES[:3]][c.request.seed % 4]}, "different moves of 12 seeds"),
        ("long", always(frames=47), "48 frames"),
        ("long", always(legs=18.9), "coherence of 48 frames, 16 apart"),
        ("long", lambda c: {"jump": 3.1 if c.request.image_path == "a.png" else 1.0}, "largest jump in 48 frames"),
        ("speed", always(seconds=15.1), "a clip, model loaded"),
        ("speed", always(steps=11), "default steps"),
        ("prompt, pia", one_disobeys, "asked motion"),
        ("prompt, pia", always(first_frame=23.9), "first frame"),
        ("prompt, init", always(blurred=13.9), "first frame against the blurred picture"),
        ("any prompt, pia", always(coherence=16.9), "coherence, unrelated prompt"),
        ("any prompt, pia", always(first_frame=23.9), "first frame, unrelated prompt"),
        ("guidance, pia", guidance(1.0, first_frame=23.9), "first frame, guidance 1"),
        ("guidance, pia", guidance(7.5, coherence=18.9), "coherence, guidance 7.5"),
        ("long, pia", always(legs=18.9), "coherence of 48 frames, 16 apart"),
        ("long, init", always(frames=32), "48 frames"),
    ],
)
def test_what_falls_short_fails_and_nothing_else_does(
    name: str, change: Callable[[Clip], dict[str, Any]], fails: str
) -> None:
    criterion = next(c for c in CRITERIA if c.name == name)
    clips = spoiled([good(request) for request in criterion.requests(SCOPE)], change)
    found = verdicts(criterion.judge(clips))
    assert [name for name, passed in found.items() if passed is False] == [fails]


def test_init_has_no_target_for_long_clips_but_their_number_of_frames() -> None:
    criterion = next(c for c in CRITERIA if c.name == "long, init")
    clips = spoiled([good(request) for request in criterion.requests(SCOPE)], always(legs=5.0, jump=9.0))
    assert list(verdicts(criterion.judge(clips)).values()) == [True, None, None]


def test_the_time_of_a_clip_leaves_loading_out() -> None:
    clips = [good(request) for request in criteria.moving_requests(SCOPE)]
    clips[0] = replace(clips[0], warm=False, seconds=100.0)
    clip_time = criteria.clips_are_quick(clips)[1]
    assert (clip_time.value, clip_time.details["longest"]) == (6.0, 6.0)


@pytest.mark.parametrize(
    ("file", "mib", "fails"),
    [
        ("a/model.safetensors", 15, []),
        ("a/model.safetensors", 17, ["largest file"]),
        ("a/model.bin", 1, ["files that are neither safetensors nor text"]),
        ("b/model-2.safetensors", 12, ["weights of both models"]),
    ],
)
def test_weights_are_counted(tmp_path: Path, file: str, mib: int, fails: list[str]) -> None:
    sizes = {"a/model.safetensors": 15, "b/model.safetensors": 14, "a/config.json": 0, file: mib}
    for name, size in sizes.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(size * 2**20)
    results = criteria.weights_are_small(tmp_path)
    assert [result.name for result in results if not result.passed] == fails


def test_each_prompt_asks_for_one_move_and_the_unrelated_for_none() -> None:
    assert {words: move for words, move in ASKED.items() if words != move} == {"static shot": STATIC}
    for words, move in ASKED.items():
        for prompt in (words, *(sentence.format(words) for sentence in SENTENCES)):
            assert [other for other in ASKED if other in prompt.lower()] == [words]
            assert asked_move(prompt) == move
    assert not [prompt for prompt in UNRELATED if {"zoom", "pan", "tilt", "rotate", "shot"} & set(prompt.split())]


# --- what is made ----------------------------------------------------------------------------------------------------


def wanted(scope: Scope, pipeline: str) -> list[GenerationParams]:
    return list(dict.fromkeys(r for c in CRITERIA if c.pipeline == pipeline for r in c.requests(scope)))


@pytest.mark.parametrize("pipeline", ["svd", "animatediff"])
def test_quick_makes_few_clips_and_the_full_form_uses_every_photograph(pipeline: str) -> None:
    names = [f"{k}.png" for k in range(8)]
    assert len(wanted(Scope(names, quick=True), pipeline)) <= 26
    full = wanted(Scope(names, quick=False), pipeline)
    assert {request.image_path for request in full} == set(names)
    assert all(request.base_model is None and request.motion_adapter is None for request in full)


def test_one_photograph_is_enough() -> None:
    assert {request.image_path for request in wanted(Scope(["a.png"], quick=True), "animatediff")} == {"a.png"}


def test_photographs_are_taken_evenly_and_damaged_ones_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, suffix in enumerate(["png", "jpg", "webp", "tif", "gif", "bmp", "JPEG"]):
        Image.new("RGB", (40 + k, 30), (k, 0, 0)).save(tmp_path / f"{k}.{suffix}")
    (tmp_path / "3.txt").write_text("no picture")
    (tmp_path / "sub").mkdir()
    assert [Path(path).stem for path in photographs(tmp_path, None)] == list("0123456")
    assert [Path(path).stem for path in photographs(tmp_path, 3)] == list("036")
    (tmp_path / "3.tif").write_bytes(b"II*\0 cut short")
    assert [Path(path).stem for path in photographs(tmp_path, 3)] == list("06")
    assert "3.tif" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_no_photographs_is_an_error_that_says_so(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / folder), "--quick"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert folder in told.err
    assert not told.out


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--json", str(tmp_path / "no" / "numbers.json")])
    assert stopped.value.code == 2
    assert "does not exist" in capsys.readouterr().err


# --- real runs -------------------------------------------------------------------------------------------------------


def small(bucket: int, **more: Any) -> Callable[[Scope], list[GenerationParams]]:
    size = {"width": 64, "height": 64, "num_frames": 4, "num_inference_steps": 2}
    return lambda scope: [criteria.svd(scope.photographs[0], seed, bucket, **size | more) for seed in range(2)]


@pytest.mark.usefixtures("no_warm_pipeline")
def test_clips_are_made_measured_and_judged(
    tmp_path: Path, vidkit_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled model, whatever the user's settings name; each request once; every outcome in table and JSON."""
    (vidkit_home / "config.json").write_text('{"defaultModels": {"svd": "no such model"}}')
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scope = Scope([str(picture_path("example:photo"))], quick=True)
    holds = Criterion("holds", "svd", small(20), criteria.clips_are_quick)
    short = Criterion("short", "svd", small(20), lambda clips: [criteria.judged("frames", clips[0].frames, "<", 4)])
    impossible = Criterion("impossible", "svd", small(20, width=32), criteria.clips_are_quick)

    results, outcomes, strips = evaluate([holds, short, impossible], scope)
    assert exit_code(results) == 1
    assert exit_code(results[:1]) == 0
    assert exit_code(results[2:]) == 1
    lines = table(results).splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["PASS", "PASS", "FAIL", "FAIL"]
    assert "4" in lines[4]
    assert "< 4" in lines[4]
    assert "2 of 2 failed: " in lines[5]

    clips = [outcome for outcome in outcomes.values() if isinstance(outcome, Clip)]
    assert [(clip.frames, clip.width, clip.steps, clip.warm) for clip in clips] == [(4, 64, 2, False), (4, 64, 2, True)]
    assert min(clip.first_frame for clip in clips) > 15  # the picture, read back from the MP4
    written = json.loads(json.dumps(report(results, outcomes, scope, 1.0)))
    assert written["passed"] is False
    assert {"vidkit", "torch"} <= set(written["versions"])
    assert [clip["request"]["imagePath"] for clip in written["clips"]] == ["photo.jpg"] * 4
    assert str(tmp_path) not in json.dumps(written)
    assert [("error" in clip) for clip in written["clips"]] == [False, False, True, True]
    assert sheet(strips).size == (6 * 64, 64 + 14)
    assert capsys.readouterr().err.count("photo.jpg, seed") == 4
    assert list(tmp_path.glob("vidkit-*")) == []  # torch may keep a folder of its own
    assert os.environ["VIDKIT_HOME"] == str(vidkit_home)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    photo = picture_path("example:photo")
    command = [sys.executable, "-m", "benchmarks.bundled_models", str(photo.parent), "--quick", "--only", "svd"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("vidkit-benchmark-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # the first clip is being made
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    # 130 to a shell either way: CPython ends by the signal itself when the interrupt came within an exec()
    assert process.returncode in (130, -signal.SIGINT), err
    assert out == ""
    assert err.splitlines()[-1] == "Interrupted: no numbers."
    assert "Traceback" not in err
    assert list(tmp_path.glob("vidkit-*")) == []  # torch may keep a folder of its own
