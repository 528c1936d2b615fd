"""The bundled tiny-animatediff and its motion adapter: a request that names no model at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import clips
import pytest
import torch

import vidkit
from benchmarks.motion import fit_motion
from vidkit.errors import SetupError
from vidkit.models.locate import BUNDLED_FOLDER, describe
from vidkit.video import probe

NOTES = [
    "No baseModel was given: tiny-animatediff was used.",
    "No motionAdapter was given: tiny-motion-adapter was used.",
]


@pytest.fixture(autouse=True, scope="module")
def cold() -> Iterator[None]:
    clips.cold()
    yield
    clips.cold()


def request(conditioning: str, **more: object) -> dict[str, object]:
    named = {} if conditioning == "init" else {"conditioning": conditioning}  # init is the default
    return {
        "pipeline": "animatediff",
        "image_path": "example:photo",
        "prompt": "slow zoom in",
        "seed": 3,
        **named,
        **more,
    }


@pytest.mark.parametrize("conditioning", ["init", "pia"])
def test_a_picture_and_a_prompt_are_enough(conditioning: str, tmp_path: Path) -> None:
    result = vidkit.generate({**request(conditioning), "output_path": str(tmp_path / "clip.mp4")})
    defaults = describe(BUNDLED_FOLDER / "tiny-animatediff").card_defaults()
    info = probe(result.output)
    assert (info.frames, info.width, info.height) == (defaults["num_frames"], defaults["width"], defaults["height"])
    assert result.record["request"]["numInferenceSteps"] == defaults["num_inference_steps"]
    assert result.notes == NOTES
    assert {name: model["name"] for name, model in result.record["models"].items()} == {
        "baseModel": "bundled:tiny-animatediff",
        "motionAdapter": "bundled:tiny-motion-adapter",
    }


def test_sparsectrl_has_no_bundled_model() -> None:
    with pytest.raises(SetupError, match="needs a controlnet, and the request names none"):
        clips.prepared(request("sparsectrl"))


@pytest.mark.parametrize(
    ("words", "move"),
    [
        ("pan left", "pan left"),
        ("a fishing boat at dusk, camera slowly zooming out, film grain", "zoom out"),
        ("rotate clockwise", "rotate clockwise"),
        ("static shot of a city at night", "static"),
    ],
)
def test_the_words_decide_the_move(words: str, move: str) -> None:
    small = {"width": 64, "height": 64}  # in which the moves are as clear: 6 % of the width and more
    frames, _ = clips.computed(request("pia", prompt=words, num_frames=8, num_inference_steps=4, **small))
    pair = torch.from_numpy(frames[[0, -1]]).permute(0, 3, 1, 2).float() / 255
    assert fit_motion(pair[:1], pair[1:]).move == [move]


@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_guidance_does_not_tear_the_picture(scale: float) -> None:
    frames, _ = clips.computed(request("pia", guidance_scale=scale, num_inference_steps=6))
    pair = torch.from_numpy(frames[[0, -1]]).permute(0, 3, 1, 2).float() / 255
    motion = fit_motion(pair[:1], pair[1:])
    assert motion.move == ["zoom in"]
    assert motion.psnr.min() > 19  # of the last frame against the first, moved


@pytest.mark.parametrize("conditioning", ["init", "pia"])
def test_long_clips(conditioning: str) -> None:
    small = {"width": 64, "height": 64, "num_inference_steps": 2}
    frames, notes = clips.computed(request(conditioning, num_frames=48, **small))
    assert len(frames) == 48
    assert notes[:2] == NOTES
    assert "made in sliding windows" in notes[2]
