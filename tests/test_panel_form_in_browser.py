"""The form as a person meets it: in a real JupyterLab, by label, by keyboard, by a screen reader's names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from browser import launch
from lab import Notebook, jupyterlab
from playwright.sync_api import Locator, expect, sync_playwright

from vidkit.panel.copy_as import copy_as
from vidkit.params import GenerationParams

CELL = """
import threading
import ipywidgets
from vidkit.panel.copy_as import CopyView
from vidkit.panel.request_form import RequestForm
from vidkit.params import GenerationParams, Limits

lock = threading.RLock()
form = RequestForm(GenerationParams(image_path="example:photo", prompt="slow zoom in"), lock=lock)
ranges = {"width": (64, 256), "height": (64, 256)}
form.narrow(Limits(model="small", defaults={"width": 128, "height": 128, "num_frames": 14}, ranges=ranges))
copy = CopyView(form.params, lock=lock)
form.on_change(lambda: copy.show(form.params))
ipywidgets.VBox([form.widget, copy.widget], layout={"width": "440px"})
"""

#: the accessible name of each thing that takes the keyboard, as the browser computes it
NAMELESS = """(form) => [...form.querySelectorAll("input, select, textarea, button, [role=slider], summary")]
    .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
    .map((one) => one.outerHTML)"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with sync_playwright() as playwright, jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        lab.add("form.ipynb", [CELL])
        browser = launch(playwright)
        with lab.opened(browser, "form.ipynb", height=1600) as opened:
            opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
            opened.run_all()
            yield opened
        browser.close()


def form(notebook: Notebook) -> Locator:
    return notebook.page.locator(".vidkit-form")


def given(notebook: Notebook) -> dict[str, Any]:
    wire = ast.literal_eval(notebook.run_cell("form.params.to_wire()"))
    assert isinstance(wire, dict)
    return wire


def test_everything_has_a_name_and_inputs_have_a_description(notebook: Notebook) -> None:
    slider = form(notebook).get_by_role("slider", name="Width (pixels)")
    expect(slider).to_be_visible()
    assert form(notebook).evaluate(NAMELESS) == []
    box = form(notebook).get_by_role("spinbutton", name="Width (pixels)")
    expect(box).to_have_accessible_description("Width of the clip.")
    expect(box).to_have_attribute("title", "Width of the clip.")


def test_what_is_typed_stays_where_the_slider_has_no_place_for_it(notebook: Notebook) -> None:
    box = form(notebook).get_by_role("spinbutton", name="Width (pixels)")
    box.fill("100")
    box.press("Tab")
    expect(form(notebook).get_by_role("button", name="Reset to 128: Width (pixels)")).to_be_enabled()
    notebook.page.wait_for_timeout(500)  # for what the slider might send back
    expect(box).to_have_value("100")
    assert given(notebook)["width"] == 100


def test_a_slider_moves_by_the_keyboard(notebook: Notebook) -> None:
    slider = form(notebook).get_by_role("slider", name="Noise on the picture")
    for _ in range(3):
        slider.press("ArrowRight")
    box = form(notebook).get_by_role("spinbutton", name="Noise on the picture")
    expect(box).to_have_value("0.05")
    assert given(notebook)["noiseAugStrength"] == 0.05
    form(notebook).get_by_role("button", name="Reset to 0.02: Noise on the picture").press("Enter")
    expect(box).to_have_value("0.02")
    assert "noiseAugStrength" not in given(notebook)


def test_controls_answer_while_a_cell_runs(notebook: Notebook) -> None:
    notebook.run_cell("import time; time.sleep(6)", wait=False)
    box = form(notebook).get_by_role("spinbutton", name="Height (pixels)")
    box.fill("96")
    box.press("Tab")
    expect(form(notebook).get_by_role("button", name="Reset to 128: Height (pixels)")).to_be_enabled(timeout=4_000)
    notebook.wait_until_run()
    assert given(notebook)["height"] == 96


def test_an_emptied_prompt_is_said_at_its_box(notebook: Notebook) -> None:
    prompt = form(notebook).get_by_role("textbox", name="Prompt", exact=True)
    prompt.fill("")
    prompt.press("Tab")
    expect(form(notebook).get_by_role("alert")).to_contain_text("The prompt is empty")
    assert "The prompt is empty" in prompt.evaluate(
        "(box) => box.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id)?.textContent)"
        ".join(' ')"
    )
    form(notebook).get_by_role("button", name="Back to slow zoom in").click()
    expect(prompt).to_have_value("slow zoom in")
    expect(form(notebook).get_by_role("alert")).to_have_count(0)


def test_help_opens_by_the_keyboard(notebook: Notebook) -> None:
    form(notebook).get_by_label("Help: Motion bucket").press("Enter")
    expect(form(notebook).get_by_text("Amount of motion.")).to_be_visible()


def test_the_button_copies_the_text(notebook: Notebook) -> None:
    notebook.outputs.get_by_label("Copy as").select_option("Command line")
    expected = copy_as(GenerationParams(**given(notebook)), "cli")
    expect(notebook.outputs.get_by_label("Text", exact=True)).to_have_value(expected)
    notebook.outputs.get_by_role("button", name="Copy", exact=True).click()
    expect(notebook.outputs.get_by_text("Copied.")).to_be_visible()
    assert notebook.page.evaluate("navigator.clipboard.readText()") == expected
