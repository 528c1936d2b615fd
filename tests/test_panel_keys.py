"""Keys typed into the panel, in a real JupyterLab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import launch
from lab import Notebook, jupyterlab
from playwright.sync_api import sync_playwright

CELLS = [
    """
import ipywidgets
from vidkit.panel.keys import PanelKeys

parts = lambda: [ipywidgets.Button(description="Press"), ipywidgets.IntSlider(description="Level"),
                 ipywidgets.Dropdown(options=["one", "two"], description="Which"),
                 ipywidgets.ToggleButtons(options=["P", "Q"])]
panel = ipywidgets.VBox([*parts(), PanelKeys()])
panel.add_class("vidkit-panel")
panel
""",
    "ipywidgets.Button(description='Outside')",
]
CONTROLS = ("button:has-text('Press')", ".noUi-handle", "select", "button:has-text('P'):not(:has-text('Press'))")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with jupyterlab(tmp_path_factory.mktemp("lab")) as lab, sync_playwright() as playwright:
        lab.add("keys.ipynb", CELLS)
        browser = launch(playwright)
        with lab.opened(browser, "keys.ipynb") as notebook:
            notebook.run_all()
            notebook.page.wait_for_selector(".vidkit-panel select")
            yield notebook
        browser.close()


def cells(notebook: Notebook) -> int:
    return int(notebook.page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length"))


@pytest.mark.parametrize("control", CONTROLS)
def test_no_key_changes_the_notebook(notebook: Notebook, control: str) -> None:
    before = cells(notebook)
    notebook.page.locator(".vidkit-panel").locator(control).first.focus()
    for key in ("b", "a", "x", "d", "d", "z", "m", "ArrowDown", "Shift+m"):
        notebook.page.keyboard.press(key)
    notebook.page.wait_for_timeout(300)
    assert cells(notebook) == before
    assert notebook.page.locator(".vidkit-panel select").count() == 1


def test_keys_still_do_what_they_do_in_a_control(notebook: Notebook) -> None:
    notebook.page.locator(".vidkit-panel .noUi-handle").focus()
    notebook.page.keyboard.press("ArrowRight")
    notebook.page.wait_for_timeout(300)
    assert notebook.run_cell("panel.children[1].value") == "1"


def test_shortcuts_with_ctrl_and_keys_elsewhere_are_jupyterlabs(notebook: Notebook) -> None:
    notebook.page.locator(".vidkit-panel select").focus()
    notebook.page.keyboard.press("Control+s")
    notebook.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    before = cells(notebook)
    notebook.outputs.get_by_role("button", name="Outside").focus()
    notebook.page.keyboard.press("b")
    notebook.page.wait_for_timeout(300)
    assert cells(notebook) == before + 1
