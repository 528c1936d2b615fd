"""The catalogue: what the issue names is there, each entry whole and true to the schema."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from vidkit.models.catalogue import Published, catalogue, find_published
from vidkit.models.checkpoints.findings import Kind
from vidkit.models.entries import write_card
from vidkit.models.locate import describe
from vidkit.pipelines.schedulers import scheduler_class

NAMED = [
    *("svd", "svd-xt", "svd-xt-1.1", "animatelcm-svd-xt"),
    *("animatediff-v1-5-2", "animatediff-v1-5-3", "sparsectrl-rgb", "pia", "animatelcm", "animatediff-lightning-4step"),
    *("realistic-vision-5.1", "epicrealism", "dreamshaper-8", "sd15"),
]


def entry(**changes: Any) -> dict[str, Any]:
    whole = {"name": "one", "title": "One", "kind": "base model", "family": "animatediff", "repository": "org/one"}
    return {**whole, "files": ["*.safetensors"], "gigabytes": 1, "licence": "MIT", **changes}


def test_what_users_want_is_there() -> None:
    assert {one.name for one in catalogue()} >= set(NAMED)
    assert Counter(one.kind for one in catalogue())["motion LoRA"] == 8


def test_each_says_what_it_is_and_where_it_comes_from() -> None:
    for one in catalogue():
        assert one.kind in get_args(Kind)
        assert one.page.startswith("https://huggingface.co/")
        assert any(pattern.endswith((".safetensors", ".ckpt")) for pattern in one.files) or not one.files
        assert one.needs or "base model" in one.kind or one.kind in ("Stable Video Diffusion", "safety checker")


def test_few_step_models_say_their_steps_guidance_and_scheduler() -> None:
    told = {name: find_published(name) for name in ("animatelcm", "animatediff-lightning-4step")}
    limits = told["animatelcm"].limits()  # type: ignore[union-attr]
    assert (limits["steps"], limits["guidance"], limits["scheduler"]) == ("4 to 8", "1 to 2", "LCMScheduler")
    for one in told.values():
        assert one is not None and one.steps is not None and one.guidance is not None
        defaults = one.card["defaults"]
        assert one.steps[0] <= defaults["numInferenceSteps"] <= one.steps[1]
        assert one.guidance[0] <= defaults["guidanceScale"] <= one.guidance[1]


def test_schedulers_can_be_made_as_the_cards_say() -> None:
    for one in catalogue():
        if "scheduler" in one.card:
            wanted = one.card["scheduler"]
            scheduler = scheduler_class(wanted["class"], Path("card")).from_config({}, **wanted["config"])
            assert {key: scheduler.config[key] for key in wanted["config"]} == wanted["config"]


def test_it_is_found_by_name_or_repository() -> None:
    one = find_published("svd-xt")
    assert one is not None
    assert find_published(" SVD-XT ") == find_published("stabilityai/stable-video-diffusion-img2vid-xt") == one
    assert find_published("wangfuyun/AnimateLCM") is None  # two of the catalogue are in it
    assert find_published("nothing") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"repository": "no slash"},
        {"repository": None},
        {"repository": None, "url": "https://host/file"},
        {"url": "https://host/file"},
        {"repository": None, "files": [], "url": "http://plain"},
        {"gigabytes": 0},
        {"licence": ""},
        {"family": "other"},
        {"kind": "something"},
        {"name": "Big Name"},
        {"surprise": 1},
        {"needs": [{"what": ""}]},
        {"card": {"defaults": {"stepz": 3}}},
        {"card": {"defaults": {"numInferenceSteps": 0}}},
    ],
)
def test_a_wrong_entry_is_refused(changes: dict[str, Any]) -> None:
    Published(**entry())
    with pytest.raises(ValidationError):
        Published(**entry(**changes))


def test_what_was_learned_of_a_model_becomes_its_card(tmp_path: Path) -> None:
    published = find_published("svd-xt-1.1")
    assert published is not None
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    write_card(published, tmp_path)
    model = describe(tmp_path)
    assert model.name == "svd-xt-1.1"
    assert model.card_defaults() == {"fps": 6, "motion_bucket_id": 127}
    (tmp_path / "vidkit.json").write_text('{"name": "its own"}')
    write_card(published, tmp_path)
    assert json.loads((tmp_path / "vidkit.json").read_text()) == {"name": "its own"}


def test_every_card_is_one_that_is_read(tmp_path: Path) -> None:
    for one in catalogue():
        folder = tmp_path / one.name
        folder.mkdir()
        (folder / "config.json").write_text('{"_class_name": "MotionAdapter"}')
        write_card(one, folder)
        assert describe(folder).card.get("scheduler") == one.card.get("scheduler")
