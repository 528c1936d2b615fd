"""The request as a form. The widgets are real; the page's part is played by setting their values."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances
from panel_schema import added_parameter

from vidkit.errors import InputError, Remedy, SetupError
from vidkit.panel.controls import make_control
from vidkit.panel.request_form import RequestForm
from vidkit.params import GenerationParams, Limits, is_used, parameter, resolve

FIRST = GenerationParams(image_path="example:photo", prompt="slow zoom in")

LIMITS = Limits(
    model="small",
    defaults={"width": 128, "height": 128, "num_frames": 14, "num_inference_steps": 8},
    ranges={"width": (64, 256), "num_frames": (2, 25)},
    size_multiple=32,
)


def make_form(params: GenerationParams = FIRST, **more: Any) -> tuple[RequestForm, list[GenerationParams]]:
    """A form, and the requests that its callback saw."""
    form, seen = RequestForm(params, lock=threading.RLock(), **more), []
    form.on_change(lambda: seen.append(form.params))
    return form, seen


def below(widget: Any) -> list[Any]:
    """A widget and all that is shown in it."""
    return [widget, *(one for child in getattr(widget, "children", ()) for one in below(child))]


def labels(form: RequestForm) -> list[str]:
    fields = (ipywidgets.IntText, ipywidgets.FloatText, ipywidgets.Text, ipywidgets.Dropdown, ipywidgets.Checkbox)
    return [widget.description for widget in below(form.widget) if isinstance(widget, fields)]


def field(form: RequestForm, label: str) -> Any:
    """By its label, as a person finds it."""
    return next(widget for widget in below(form.widget) if getattr(widget, "description", "") == label)


def buttons(form: RequestForm) -> list[str]:
    return [widget.description for widget in below(form.widget) if isinstance(widget, ipywidgets.Button)]


def press(form: RequestForm, text: str) -> None:
    next(widget for widget in below(form.widget) if getattr(widget, "description", "") == text).click()


def words(form: RequestForm) -> str:
    return " ".join(widget.value for widget in below(form.widget) if isinstance(widget, ipywidgets.HTML))


def open_more(form: RequestForm) -> None:
    more = next(widget for widget in below(form.widget) if isinstance(widget, ipywidgets.ToggleButton))
    more.value = True


# --- built from the schema ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["size", "more"])
def test_a_new_parameter_appears_by_itself(group: Any) -> None:
    line = parameter(3, "How it sparkles.", group=group, unit="stars", ge=0, le=9)
    with added_parameter("sparkle_rate", int, line):
        form, seen = make_form()
        open_more(form)
        box = field(form, "Sparkle rate (stars)")
        assert box.value == 3
        assert "How it sparkles." in words(form)
        box.value = 7
        assert form.params.sparkle_rate == 7
        assert seen == [form.params]
        form.params = GenerationParams(**FIRST.to_wire(), sparkleRate=2)
        assert box.value == 2


def test_a_new_parameter_of_one_family_is_shown_for_it_alone() -> None:
    with added_parameter("sparkle", int, parameter(3, "x.", group="motion", used_by=("animatediff/pia",), ge=0, le=9)):
        form, _ = make_form()
        assert "Sparkle" not in labels(form)
        field(form, "Pipeline").value = "animatediff"
        assert "Sparkle" not in labels(form)
        field(form, "Conditioning").value = "pia"
        assert "Sparkle" in labels(form)


@pytest.mark.parametrize(
    ("pipeline", "conditioning"),
    [("svd", "init"), ("animatediff", "init"), ("animatediff", "sparsectrl"), ("animatediff", "pia")],
)
def test_what_is_shown_is_what_the_family_uses(pipeline: str, conditioning: str) -> None:
    form, _ = make_form(FIRST.replace(pipeline=pipeline, conditioning=conditioning))
    open_more(form)
    fields = GenerationParams.model_fields
    expected = [name for name in fields if is_used(name, pipeline, conditioning) or fields[name].is_required()]
    expected.remove("schema_version")
    assert len(labels(form)) == len(expected) + 1  # the seed has its lock
    for name in expected:
        assert form.control(name).widget in below(form.widget), name


def test_changing_the_family_changes_what_is_shown_at_once_and_keeps_what_was_given() -> None:
    form, _ = make_form()
    field(form, "Motion bucket").value = 60
    field(form, "Pipeline").value = "animatediff"
    assert "Motion bucket" not in labels(form)
    assert {"Guidance scale", "Strength", "Conditioning", "Negative prompt"} <= set(labels(form))
    field(form, "Pipeline").value = "svd"
    assert field(form, "Motion bucket").value == 60
    assert form.params == FIRST.replace(motion_bucket_id=60)


def test_controls_made_elsewhere_are_used() -> None:
    lock = threading.RLock()
    special = make_control("prompt", lock)
    form, seen = RequestForm(FIRST, lock=lock, special={"prompt": special}), []
    form.on_change(lambda: seen.append(form.params.prompt))
    assert special.widget in below(form.widget)
    assert special.get() == "slow zoom in"
    field(form, "Prompt").value = "pan left"
    assert seen == ["pan left"]
    form.change(prompt="tilt up")
    assert special.get() == "tilt up"


# --- always valid ---------------------------------------------------------------------------------------------------


def test_an_emptied_prompt_leaves_the_last_valid_one_and_is_said_at_its_control() -> None:
    form, seen = make_form()
    field(form, "Prompt").value = ""
    assert form.params == FIRST
    assert [problem.code for problem in form.invalid] == ["empty_prompt"]
    assert "The prompt is empty" in words(form)
    assert seen == [FIRST]

    field(form, "Width (pixels)").value = 96  # others go on being taken
    assert form.params == FIRST.replace(width=96)
    assert "The prompt is empty" in words(form)

    field(form, "Prompt").value = "pan left"
    assert form.params == FIRST.replace(width=96, prompt="pan left")
    assert form.invalid == []
    assert "The prompt is empty" not in words(form)


def test_the_last_valid_value_comes_back_by_a_button() -> None:
    form, seen = make_form()
    field(form, "Prompt").value = ""
    press(form, "Back to slow zoom in")
    assert field(form, "Prompt").value == "slow zoom in"
    assert form.invalid == []

    field(form, "Frame rate (frames/s)").value = 0
    assert form.params.fps == 8
    assert field(form, "Frame rate (frames/s)").value == 0  # as typed, until it is mended
    assert "fps is 0" in words(form)
    press(form, "Back to the default")
    assert field(form, "Frame rate (frames/s)").value == 8
    assert form.params == FIRST
    assert "fps" not in form.params.model_fields_set
    assert "fps is 0" not in words(form)
    assert len(seen) == 4


def test_what_is_typed_elsewhere_survives_a_remedy() -> None:
    form, _ = make_form()
    field(form, "Prompt").value = ""
    form.change(width=96)
    assert field(form, "Prompt").value == ""
    assert [problem.concerns for problem in form.invalid] == [("prompt",)]


# --- assigning ------------------------------------------------------------------------------------------------------


def test_assigning_a_request_sets_every_control_and_tells_once() -> None:
    form, seen = make_form()
    open_more(form)
    field(form, "Prompt").value = ""
    field(form, "Fit").value = "pad"
    seen.clear()
    new = GenerationParams(
        image_path="photo.jpg",
        prompt="pan left",
        width=96,
        fps=12,
        seed=5,
        noise_aug_strength=0.25,
        decode_chunk_size=2,
        output_format="gif",
        bare=True,
    )

    form.params = new

    assert form.params is new
    assert seen == [new]
    assert form.invalid == []
    shown = {label: field(form, label).value for label in labels(form)}
    assert shown["Image path"] == "photo.jpg"
    assert shown["Prompt"] == "pan left"
    assert shown["Width (pixels)"] == 96
    assert shown["Fit"] == "crop"  # taken back
    assert shown["Frame rate (frames/s)"] == 12
    assert (shown["Seed"], shown["Lock seed"]) == (5, True)
    assert shown["Noise on the picture"] == 0.25
    assert shown["Decode chunk (frames)"] == 2
    assert shown["Output format"] == "gif"
    assert shown["Bare"] is True
    for name in new.model_fields_set:
        assert form.control(name).get() == getattr(new, name), name


def test_controls_made_later_show_what_was_assigned_before() -> None:
    form, _ = make_form()
    form.narrow(LIMITS)
    form.params = FIRST.replace(decode_chunk_size=2, pipeline="animatediff", strength=0.5)
    open_more(form)
    assert field(form, "Decode chunk (frames)").value == 2
    assert field(form, "Steps").value == 8
    assert field(form, "Strength").value == 0.5


def test_a_seed_of_minus_one_is_an_open_lock() -> None:
    form, _ = make_form(FIRST.replace(seed=5))
    field(form, "Lock seed").value = False
    assert form.params.seed == -1
    press(form, "Dice")
    assert form.params.seed == form.control("seed").get() >= 0


def test_change_is_checked_before_anything_is_set() -> None:
    form, seen = make_form()
    with pytest.raises(InputError, match="fps is 0"):
        form.change(width=96, fps=0)
    assert form.params == FIRST
    assert form.control("width").get() is None
    assert seen == []
    form.change(width=96, height=64)
    assert len(seen) == 1
    form.change(width=None)
    assert form.params == FIRST.replace(height=64)
    assert form.control("width").get() is None


def test_closed_groups_say_how_many_of_theirs_are_set() -> None:
    form, _ = make_form()
    assert "Decode chunk (frames)" not in labels(form)
    form.change(decode_chunk_size=2, output_format="gif")
    assert field(form, "More settings (2 set)")
    form.params = FIRST
    assert field(form, "More settings")


# --- what the model narrows -----------------------------------------------------------------------------------------


def test_defaults_ranges_and_the_sizes_step_come_from_the_model() -> None:
    form, seen = make_form(FIRST.replace(num_frames=60))
    form.narrow(LIMITS)
    sliders = {widget.max: widget for widget in below(form.widget) if isinstance(widget, ipywidgets.IntSlider)}
    assert field(form, "Width (pixels)").value == 128
    assert (sliders[256].min, sliders[256].step) == (64, 32)
    assert (sliders[25].min, sliders[25].step) == (2, 1)
    assert field(form, "Frames").value == 60  # kept: it is said, not changed
    assert form.params.width is None
    assert seen == []
    with pytest.raises(InputError) as caught:
        resolve(form.params, LIMITS)
    assert form.show_problems(caught.value.problems) == []
    press(form, "Set numFrames to 25")
    assert form.params.num_frames == 25


# --- problems -------------------------------------------------------------------------------------------------------


def test_problems_stand_at_the_control_they_concern_and_others_are_given_back() -> None:
    form, _ = make_form()
    size = InputError("invalid_size", "Odd size.", [Remedy("Set both to 96", width=96, height=96)], ["width", "height"])
    tall = InputError("out_of_range", "Too wide.", [Remedy("Set width to 64", width=64)], ["width"])
    model = SetupError("model_not_found", "No such model.", [], ["motion_adapter"])  # svd has no control for it
    disk = InputError("invalid_request", "Something else.")
    assert form.show_problems([size, tall, model, disk]) == [model, disk]
    inside = " ".join(one.value for one in below(form.control("width").widget) if isinstance(one, ipywidgets.HTML))
    assert "Odd size. Too wide." in inside
    assert {"Set both to 96", "Set width to 64"} <= set(buttons(form))

    press(form, "Set both to 96")

    assert form.params == FIRST.replace(width=96, height=96)
    assert form.show_problems([]) == []
    assert "Odd size" not in words(form)


def test_a_problem_in_a_closed_group_opens_it() -> None:
    form, _ = make_form()
    problem = InputError("invalid_value", "outputPath ends in nothing.", [], ["output_path"])
    assert form.show_problems([problem]) == []
    assert "outputPath ends in nothing" in words(form)
    assert "Output path" in labels(form)


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_form_is_there_in_a_blink() -> None:
    make_form()  # what is shared by all
    before, took = len(_instances), []
    for _ in range(3):
        began = time.perf_counter()
        form, _ = make_form()
        form.narrow(LIMITS)
        took.append(time.perf_counter() - began)
    assert statistics.median(took) <= 0.3
    assert (len(_instances) - before) / 3 <= 100


def test_a_change_takes_milliseconds() -> None:
    form, _ = make_form()
    form.narrow(LIMITS)
    box = field(form, "Width (pixels)")
    began = time.perf_counter()
    for width in range(64, 164):
        box.value = width
    assert (time.perf_counter() - began) / 100 <= 0.02
    assert form.params.width == 163
