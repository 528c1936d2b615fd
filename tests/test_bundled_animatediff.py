"""The bundled tiny-animatediff and its motion adapter: a request that names no model at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import clips
import pytest

import vidkit
from vidkit.errors import SetupError
from vidkit.models.locate import BUNDLED_FOLDER, describe
from vidkit.video import probe

pytestmark = pytest.mark.skipif(
    not (BUNDLED_FOLDER / "tiny-animatediff").is_dir(), reason="tiny-animatediff is still to be trained"
)

NOTES = [
    "No baseModel was given: tiny-animatediff was used.",
    "No motionAdapter was given: tiny-motion-adapter was used.",
]


@pytest.fixture(autouse=True, scope="module")
def cold() -> Iterator[None]:
    clips.cold()
    yield
    clips.cold()


def request(conditioning: str, **more: int) -> dict[str, object]:
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


@pytest.mark.parametrize("conditioning", ["init", "pia"])
def test_long_clips(conditioning: str) -> None:
    frames, notes = clips.computed(request(conditioning, num_frames=48, num_inference_steps=4))
    assert len(frames) == 48
    assert notes[:2] == NOTES
    assert "made in sliding windows" in notes[2]
