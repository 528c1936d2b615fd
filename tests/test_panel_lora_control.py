"""The rows of LoRAs in the form. The widgets are real; the page's part is played by setting their values."""

from __future__ import annotations

import threading

import pytest

from vidkit.errors import InputError
from vidkit.panel.lora_control import LoraControl
from vidkit.panel.request_form import RequestForm
from vidkit.params import GenerationParams


@pytest.fixture
def control() -> LoraControl:
    return LoraControl("loras", threading.RLock())


@pytest.fixture
def told(control: LoraControl) -> list[str]:
    names: list[str] = []
    control.on_change(names.append)
    return names


def rows(control: LoraControl) -> list[tuple[str, float]]:
    return [(row.name.value, row.weight.value) for row in control.rows]


def test_rows_are_added_filled_and_removed(control: LoraControl, told: list[str]) -> None:
    assert control.get() is None
    control.add.click()
    assert (control.get(), rows(control), told) == (None, [("", 1.0)], [])  # no LoRA before it has a name
    control.rows[0].name.value = " pan.safetensors "
    assert control.get() == "pan.safetensors:1"
    control.rows[0].weight.value = 0.5
    control.add.click()
    control.rows[1].name.value = "a, b"
    assert control.get() == 'pan.safetensors:0.5, "a, b":1'
    control.rows[0].remove.click()
    assert (control.get(), rows(control)) == ('"a, b":1', [("a, b", 1.0)])
    control.rows[0].remove.click()
    assert (control.get(), rows(control)) == (None, [])
    assert told == ["loras"] * 5


def test_a_value_fills_the_rows_and_calls_nobody(control: LoraControl, told: list[str]) -> None:
    control.set("pan:0.5, zoom")
    assert rows(control) == [("pan", 0.5), ("zoom", 1.0)]
    widgets = [row.widget for row in control.rows]
    control.set("tilt:2, zoom:-1, pan")
    assert rows(control) == [("tilt", 2.0), ("zoom", -1.0), ("pan", 1.0)]
    assert [row.widget for row in control.rows][:2] == widgets  # the page keeps what it shows
    control.set(None)
    assert (rows(control), told) == ([], [])


def test_a_row_without_a_name_outlives_changes_elsewhere(control: LoraControl) -> None:
    control.set("pan:0.5")
    control.add.click()
    control.set("pan:0.5")
    control.narrow(None, None, None, None)
    assert rows(control) == [("pan", 0.5), ("", 1.0)]


def test_models_are_offered_and_chosen(control: LoraControl, told: list[str]) -> None:
    control.offer(["pan", "zoom"], None)
    control.choose("pan")
    control.choose("pan")
    control.add.click()
    assert control.get() == "pan:1"
    assert [row.name.options for row in control.rows] == [("pan", "zoom")] * 2
    control.offer(["tilt"], None)
    assert [row.name.options for row in control.rows] == [("tilt",)] * 2
    assert told == ["loras"]


def test_every_row_has_names_of_its_own(control: LoraControl) -> None:
    control.set("a, b")
    labels = [row.name.description for row in control.rows] + [row.weight.description for row in control.rows]
    assert labels == ["LoRA 1", "LoRA 2", "Weight of LoRA 1", "Weight of LoRA 2"]
    control.rows[0].remove.click()
    assert control.rows[0].name.description == "LoRA 1"


def test_what_is_wrong_is_said_and_the_last_right_list_counts() -> None:
    lock = threading.RLock()
    control = LoraControl("loras", lock)
    params = GenerationParams(image_path="a.png", prompt="x", pipeline="animatediff", loras="pan:0.5, zoom")
    form = RequestForm(params, lock=lock, special={"loras": control})
    control.rows[0].weight.value = 99
    assert form.params.loras == "pan:0.5, zoom"
    (problem,) = form.invalid
    assert isinstance(problem, InputError)
    assert "it can be -4 to 4" in problem.message
    assert rows(control) == [("pan", 99.0), ("zoom", 1.0)]  # what the user wrote stays to be mended
    control.rows[0].weight.value = 3
    assert (form.params.loras, list(form.invalid)) == ("pan:3, zoom:1", [])
    control.rows[1].name.value = "pan"
    assert "twice" in form.invalid[0].message
    form.change(loras="tilt")
    assert (rows(control), list(form.invalid)) == ([("tilt", 1.0)], [])
