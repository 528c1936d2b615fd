"""One control for each parameter. The widgets are real; the page's part is played by setting their values."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal

import ipywidgets
import pytest
from panel_schema import added_parameter

from vidkit.errors import InputError, Remedy
from vidkit.panel.controls import Control, help_of, label_of, make_control
from vidkit.params import MAX_SEED, GenerationParams, choices_of, group_of, parameter

Number = ipywidgets.IntText | ipywidgets.FloatText

NAMES = [name for name in GenerationParams.model_fields if group_of(name) != "hidden"]


def control(name: str) -> tuple[Control, list[str]]:
    """A control, and the names that its callback is told."""
    made, told = make_control(name, threading.RLock()), []
    made.on_change(told.append)
    return made, told


def children(made: Control, kind: Any) -> list[Any]:
    return [child for child in made.widget.children if isinstance(child, kind)]


def field(made: Control) -> Any:
    """What a person types or chooses in."""
    return children(made, (*Number.__args__, ipywidgets.Text, ipywidgets.Checkbox, ipywidgets.Dropdown))[0]


def slider(made: Control) -> Any:
    found = children(made, (ipywidgets.IntSlider, ipywidgets.FloatSlider))
    return found[0] if found else None


def button(made: Control, text: str) -> ipywidgets.Button:
    return next(child for child in children(made, ipywidgets.Button) if child.description == text)


def words(widget: ipywidgets.Widget) -> str:
    """All HTML below a widget."""
    below = "".join(words(child) for child in getattr(widget, "children", ()))
    return below + (widget.value if isinstance(widget, ipywidgets.HTML) else "")


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_its_label_and_its_help(name: str) -> None:
    made, _ = control(name)
    # ipywidgets makes a real <label> of the description of these widgets; see also test_panel_form_in_browser
    assert field(made).description == label_of(name)
    assert help_of(name).replace("'", "&#x27;") in words(made.widget)
    assert made.get() is None


@pytest.mark.parametrize(
    ("name", "label"),
    [("width", "Width (pixels)"), ("motion_bucket_id", "Motion bucket"), ("fps", "Frame rate (frames/s)")],
)
def test_labels_are_the_parameters_name_and_its_unit(name: str, label: str) -> None:
    assert label_of(name) == label


def test_a_fields_title_is_its_label() -> None:
    with added_parameter(
        "sparkle_rate", int, parameter(1, "How it sparkles.", unit="Hz", title="Sparkles", ge=0, le=9)
    ):
        assert label_of("sparkle_rate") == "Sparkles (Hz)"


@pytest.mark.parametrize(
    ("kind", "default", "bounds", "expected"),
    [
        (int, 3, {"ge": 0, "le": 9}, ipywidgets.IntText),
        (float, 0.5, {"ge": 0, "le": 1}, ipywidgets.FloatText),
        (float | None, None, {"gt": 0, "lt": 1}, ipywidgets.FloatText),
        (bool, False, {}, ipywidgets.Checkbox),
        (str, "", {}, ipywidgets.Text),
        (str | None, None, {}, ipywidgets.Text),
        (Literal["a", "b"], "a", {}, ipywidgets.Dropdown),
        (Literal["a", "b"] | None, None, {}, ipywidgets.Dropdown),
    ],
)
def test_a_new_parameter_of_any_type_has_a_control(kind: Any, default: Any, bounds: Any, expected: type) -> None:
    with added_parameter("sparkle", kind, parameter(default, "How it sparkles.", **bounds)):
        made, _ = control("sparkle")
        assert isinstance(field(made), expected)
        assert field(made).description == "Sparkle"


# --- numbers --------------------------------------------------------------------------------------------------------


def test_a_number_shows_the_default_until_it_is_changed_and_can_be_taken_back() -> None:
    made, told = control("width")
    made.narrow(128, 64, 256, 8)
    assert (field(made).value, made.get()) == (128, None)
    assert button(made, "default").disabled

    field(made).value = 192

    assert (made.get(), told) == (192, ["width"])
    assert slider(made).value == 192
    reset = button(made, "Reset to 128")
    assert not reset.disabled

    reset.click()

    assert (made.get(), field(made).value, slider(made).value, told) == (None, 128, 128, ["width", "width"])
    assert button(made, "default").disabled


def test_the_models_default_is_shown_where_nothing_is_given_and_leaves_what_is() -> None:
    free, _ = control("width")
    given, _ = control("width")
    given.set(96)
    for made in (free, given):
        made.narrow(512, 64, 1024, 8)
    assert (field(free).value, free.get()) == (512, None)
    assert (field(given).value, given.get()) == (96, 96)
    assert not button(given, "Reset to 512").disabled


def test_setting_a_value_calls_nobody() -> None:
    for name, value in {"width": 64, "strength": 0.5, "prompt": "x", "bare": True, "fit": "pad", "seed": 7}.items():
        made, told = control(name)
        made.set(value)
        assert made.get() == value
        made.set(None)
        assert made.get() is None
        assert told == [], name


def test_a_number_out_of_range_is_kept_never_clamped() -> None:
    made, told = control("motion_bucket_id")
    field(made).value = 300
    assert (made.get(), field(made).value, told) == (300, 300, ["motion_bucket_id"])
    made.narrow(127, 10, 20, None)
    assert (made.get(), field(made).value, told) == (300, 300, ["motion_bucket_id"])
    assert slider(made).value == 20  # its end is nearest


def test_a_slider_has_the_models_range_and_step() -> None:
    made, told = control("width")
    assert slider(made) is None  # 16 to 4096 by one: too long to slide over
    made.narrow(128, 64, 256, 8)
    assert (slider(made).min, slider(made).max, slider(made).step) == (64, 256, 8)
    made.narrow(1024, 512, 2048, 64)  # beyond the former range
    assert (slider(made).min, slider(made).max, slider(made).step) == (512, 2048, 64)
    made.narrow(128, 64, 256, 8)
    assert (slider(made).min, slider(made).max, slider(made).value) == (64, 256, 128)
    made.narrow(128, None, None, 1)
    assert slider(made) is None
    assert told == []


@pytest.mark.parametrize(
    ("name", "low", "high", "step"),
    [("guidance_scale", 1, 30, 0.1), ("strength", 0.01, 1, 0.01), ("noise_aug_strength", 0, 1, 0.01)],
)
def test_a_slider_over_the_schemas_bounds(name: str, low: float, high: float, step: float) -> None:
    made, _ = control(name)
    assert (slider(made).min, slider(made).max, slider(made).step) == pytest.approx((low, high, step))
    assert slider(made).value == GenerationParams.model_fields[name].default
    GenerationParams(**{"image_path": "x", "prompt": "x", name: slider(made).min})  # its lowest place is a value


def test_a_slider_gives_numbers_without_the_noise_of_fractions() -> None:
    made, told = control("noise_aug_strength")
    slider(made).value = 0.1 + 0.2  # as noUiSlider adds up its steps
    assert (made.get(), field(made).value, told) == (0.3, 0.3, ["noise_aug_strength"])
    field(made).value = 0.12345  # typed: to the digit
    assert made.get() == 0.12345


def test_a_slider_stands_on_a_place_and_its_echo_is_no_change() -> None:
    """The page moves a handle to the nearest place and sends that back as if a person had moved it."""
    width, told = control("width")
    width.narrow(128, 64, 256, 8)
    field(width).value = 101
    assert (slider(width).value, width.get()) == (104, 101)
    noise, _ = control("noise_aug_strength")
    field(noise).value = 0.12345
    assert slider(noise).value == pytest.approx(0.12)
    slider(noise).value = slider(noise).value + 1e-15
    assert noise.get() == 0.12345
    slider(noise).value = 0.13
    assert noise.get() == 0.13
    assert told == ["width"]


# --- texts, choices, checks -----------------------------------------------------------------------------------------


def test_an_emptied_text_is_not_given() -> None:
    made, told = control("output_path")
    field(made).value = "  clip.mp4 "
    assert made.get() == "clip.mp4"
    field(made).value = "   "
    assert (made.get(), told) == (None, ["output_path"] * 2)


def test_a_choice_offers_what_the_schema_does() -> None:
    fit, told = control("fit")
    assert [value for _, value in field(fit).options] == list(choices_of(GenerationParams.model_fields["fit"]))
    field(fit).value = "pad"
    assert fit.get() == "pad"
    field(fit).value = "crop"  # the default
    assert (fit.get(), told) == (None, ["fit", "fit"])

    form, _ = control("output_format")  # has no default
    assert field(form).options[0] == ("not given", None)
    field(form).value = "webm"
    assert form.get() == "webm"
    field(form).value = None
    assert form.get() is None


def test_the_models_default_choice_is_named() -> None:
    made, told = control("output_format")
    made.narrow("gif", None, None, None)
    assert (field(made).value, made.get()) == ("gif", None)
    assert ("gif (default)", "gif") in field(made).options
    assert told == []


def test_a_check() -> None:
    made, told = control("bare")
    field(made).value = True
    assert made.get() is True
    field(made).value = False
    assert (made.get(), told) == (None, ["bare", "bare"])


# --- seed -----------------------------------------------------------------------------------------------------------


def lock_box(made: Control) -> ipywidgets.Checkbox:
    return children(made, ipywidgets.Checkbox)[0]


def test_an_unlocked_seed_is_not_given_and_the_dice_draws_and_locks_one() -> None:
    made, told = control("seed")
    assert (made.get(), lock_box(made).value) == (None, False)
    assert "each run draws one" in words(made.widget)
    button(made, "Dice").click()
    first = made.get()
    button(made, "Dice").click()
    assert first != made.get()
    assert 0 <= made.get() <= MAX_SEED
    assert lock_box(made).value
    assert "every run has this seed" in words(made.widget)
    assert told == ["seed", "seed"]
    lock_box(made).value = False
    assert (made.get(), told) == (None, ["seed"] * 3)


def test_the_lock_keeps_the_seed_of_the_last_run() -> None:
    made, told = control("seed")
    made.drawn(42)
    assert made.get() is None
    assert "the last was 42" in words(made.widget)
    lock_box(made).value = True
    assert (made.get(), field(made).value, told) == (42, 42, ["seed"])


def test_the_lock_draws_a_seed_where_no_run_has() -> None:
    made, _ = control("seed")
    lock_box(made).value = True
    assert 0 <= made.get() <= MAX_SEED


def test_a_typed_seed_is_locked_and_minus_one_unlocks() -> None:
    made, told = control("seed")
    field(made).value = 7
    assert (made.get(), lock_box(made).value) == (7, True)
    field(made).value = -1
    assert (made.get(), lock_box(made).value) == (None, False)
    made.set(-1)  # given, but it means the same
    assert (made.get(), lock_box(made).value, told) == (None, False, ["seed", "seed"])


# --- problems -------------------------------------------------------------------------------------------------------


def test_a_problem_is_said_at_the_control_with_a_button_for_each_remedy() -> None:
    made, _ = control("width")
    applied: list[Mapping[str, Any]] = []
    problem = InputError("invalid_size", "Width is <100>.", ["Ask somebody", Remedy("Set width to 96", width=96)])

    made.show_problem(problem, applied.append)

    view = made.widget.children[-1]
    assert view.layout.display != "none"
    assert "Width is &lt;100&gt;." in words(view)
    assert "Ask somebody" in words(view)
    buttons = [child for child in view.children if isinstance(child, ipywidgets.Button)]
    assert [one.description for one in buttons] == ["Set width to 96"]
    buttons[0].click()
    assert applied == [{"width": 96}]

    made.show_problem(None, applied.append)
    assert "Width is" not in words(made.widget)


# --- threads --------------------------------------------------------------------------------------------------------


def test_a_users_change_waits_for_the_lock_and_is_not_lost() -> None:
    """While one thread shows a value, what the page sends in another is still the user's change."""
    lock = threading.RLock()
    made, told = make_control("fps", lock), []
    made.on_change(told.append)
    with lock, made._quietly():  # as `set` does
        page = threading.Thread(target=lambda: setattr(field(made), "value", 12))
        page.start()
        page.join(0.2)
        assert page.is_alive()
        assert told == []
    page.join(5)
    assert (made.get(), told) == (12, ["fps"])
