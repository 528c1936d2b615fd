"""Models made for a few steps: their own cards set steps, guidance and scheduler, and a request goes before a card."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import ipywidgets
import pytest
from command_line import environment, run
from pydantic import ValidationError
from tiny_models import TinyAnimateDiff
from tiny_single_files import save_motion_module

import vidkit
from vidkit import generation
from vidkit.errors import SetupError
from vidkit.models.catalogue import Published, catalogue, find_published
from vidkit.models.entries import write_card
from vidkit.models.locate import card_file, describe
from vidkit.panel.request_form import RequestForm
from vidkit.params import GenerationParams, Limits

MODELS = (sys.executable, "-m", "vidkit", "models")
LIGHTNING = ("animatediff-lightning-2step", "animatediff-lightning-4step", "animatediff-lightning-8step")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    clips.cold()
    yield clips.saved(tmp_path)
    clips.cold()


def published(name: str) -> Published:
    found = find_published(name)
    assert found is not None
    return found


def as_folder(parts: TinyAnimateDiff, folder: Path) -> Path:
    return Path(shutil.copytree(parts.motion_adapter, folder / "adapter"))


def as_file(parts: TinyAnimateDiff, folder: Path) -> Path:
    """As it is published: one file. Its configuration lies beside it, which is not that of the full size."""
    folder = folder / "adapter"
    shutil.copytree(parts.motion_adapter, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return save_motion_module(parts.motion_adapter, folder / "mm.safetensors")


def few_step_request(parts: TinyAnimateDiff, adapter: Path, image: Path, **more: Any) -> dict[str, Any]:
    request = clips.animatediff_request(replace(parts, motion_adapter=adapter), image, **more)
    return {name: value for name, value in request.items() if name != "num_inference_steps" or name in more}


@pytest.mark.parametrize("made", [as_folder, as_file])
@pytest.mark.parametrize("name", [*LIGHTNING, "animatelcm"])
def test_a_model_of_the_catalogue_brings_what_it_was_made_for(
    tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, name: str, made: Any
) -> None:
    one = published(name)
    adapter = made(tiny_animatediff, tmp_path)
    write_card(one, adapter)
    request = few_step_request(tiny_animatediff, adapter, image)
    made_with = clips.prepared(request).params
    defaults = one.card["defaults"]
    assert made_with.num_inference_steps == defaults["numInferenceSteps"]
    assert made_with.guidance_scale == defaults["guidanceScale"]
    # what a request gives goes first, though it be what the schema would have had
    asked = clips.prepared({**request, "num_inference_steps": 5, "guidance_scale": 7.5}).params
    assert (asked.num_inference_steps, asked.guidance_scale) == (5, 7.5)


@pytest.mark.parametrize("made", [as_folder, as_file])
def test_the_clip_is_made_with_it_and_says_so(
    tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, made: Any
) -> None:
    adapter = made(tiny_animatediff, tmp_path)
    write_card(published("animatelcm"), adapter)
    request = few_step_request(tiny_animatediff, adapter, image, output_path=str(tmp_path / "clip.mp4"))
    result = vidkit.generate(request)
    scheduler = generation.last_pipeline().scheduler
    assert (type(scheduler).__name__, scheduler.config.beta_schedule) == ("LCMScheduler", "linear")
    shown = result.record["request"]
    assert (shown["numInferenceSteps"], shown["guidanceScale"]) == (6, 1.5)
    planned = vidkit.plan(request).to_json()["request"]
    assert (planned["numInferenceSteps"], planned["guidanceScale"]) == (6, 1.5)
    # another card, and the same weights: what is loaded stays, with the other scheduler
    card_file(adapter).unlink()
    write_card(published("animatediff-lightning-4step"), adapter)
    result = vidkit.generate({**request, "overwrite": True})
    scheduler = generation.last_pipeline().scheduler
    assert (type(scheduler).__name__, scheduler.config.timestep_spacing) == ("EulerDiscreteScheduler", "trailing")
    assert result.record["request"]["numInferenceSteps"] == 4


def test_svds_card_sets_both_guidances_and_what_has_a_default(
    tiny_svd_folder: Path, image: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_svd_folder, tmp_path / "svd")
    defaults = published("animatelcm-svd-xt").card["defaults"] | published("svd-xt-1.1").card["defaults"]
    (folder / "vidkit.json").write_text(json.dumps({"defaults": defaults}))
    request = clips.svd_request(folder, image)
    del request["num_inference_steps"]
    found = clips.prepared(request).params
    assert (found.num_inference_steps, found.min_guidance_scale, found.max_guidance_scale) == (4, 1.0, 1.2)
    assert (found.fps, found.motion_bucket_id) == (6, 127)
    asked = clips.prepared({**request, "fps": 8, "max_guidance_scale": 3.0}).params
    assert (asked.fps, asked.min_guidance_scale, asked.max_guidance_scale) == (8, 1.0, 3.0)


def test_the_card_of_a_file_is_its_own(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    adapter = as_file(tiny_animatediff, tmp_path)
    assert describe(adapter).card == {}
    write_card(published("animatediff-lightning-2step"), adapter)
    assert card_file(adapter).name == "mm.vidkit.json"
    assert describe(adapter).card_defaults() == {"num_inference_steps": 3, "guidance_scale": 1.0}
    other = adapter.with_name("other.safetensors")
    shutil.copy(adapter, other)
    assert describe(other).card == {}


@pytest.mark.parametrize("key", ["conditioning", "pipeline", "baseModel", "outputPath", "prompt", "imagePath"])
def test_a_card_cannot_choose_models_or_files(tiny_svd_folder: Path, tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(tiny_svd_folder, tmp_path / "svd")
    value = {"conditioning": "pia", "pipeline": "animatediff"}.get(key, "x")
    (folder / "vidkit.json").write_text(json.dumps({"defaults": {key: value}}))
    with pytest.raises(SetupError, match="which requests alone decide") as caught:
        describe(folder)
    assert caught.value.code == "invalid_model"
    with pytest.raises(ValidationError, match="sets"):
        Published(**{**published("animatelcm").model_dump(), "card": {"defaults": {key: value}}})


def test_all_of_the_catalogues_few_step_models_say_what_they_need() -> None:
    few = [one for one in catalogue() if one.steps is not None]
    assert {one.name for one in few} == {*LIGHTNING, "animatelcm", "animatelcm-svd-xt"}
    for one in few:
        defaults = one.card["defaults"]
        scales = [value for key, value in defaults.items() if key.lower().endswith("guidancescale")]
        assert one.steps is not None and one.steps[0] <= defaults["numInferenceSteps"] <= one.steps[1]
        assert scales and all(one.guidance and one.guidance[0] <= scale <= one.guidance[1] for scale in scales)
        assert "scheduler" in one.card


def test_it_is_told_and_goes_with_its_file(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    adapter = save_motion_module(tiny_animatediff.motion_adapter, models / "mm.safetensors")
    write_card(published("animatelcm"), adapter)
    around = environment(tmp_path / "home", VIDKIT_MODELS=str(models))
    told = run("inspect", "mm.safetensors", "--json", command=MODELS, env=around)
    assert told.response["card"]["defaults"] == {"numInferenceSteps": 6, "guidanceScale": 1.5}
    gone = run("remove", "mm.safetensors", "--files", "--yes", "--json", command=MODELS, env=around)
    assert gone.code == 0
    assert not list(models.glob("mm*"))


def test_the_panel_shows_a_cards_default_where_the_schema_has_one_too() -> None:
    form = RequestForm(GenerationParams(pipeline="animatediff", image_path="x.png", prompt="x"), lock=threading.RLock())
    form.narrow(Limits("few steps", defaults={"guidance_scale": 1.0}))
    shown = [one.value for one in below(form.control("guidance_scale").widget) if hasattr(one, "max")]
    assert 1.0 in shown
    assert form.params.guidance_scale == 7.5 and "guidance_scale" not in form.params.model_fields_set


def below(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from below(child)
