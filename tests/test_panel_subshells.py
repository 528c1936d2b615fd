"""Widgets in a real JupyterLab: what reaches the page, and what runs, while a cell runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from browser import launch
from lab import JupyterLab, Notebook, jupyterlab
from playwright.sync_api import Browser, expect, sync_playwright

CELLS = [
    """
import threading, time
import ipywidgets
from vidkit.panel.subshells import answer_while_busy

steps, answer, free = (ipywidgets.Label(text) for text in ("not begun", "no answer", "no free answer"))
start, grow, bound, unbound = (ipywidgets.Button(description=text) for text in ("Begin", "Grow", "Bound", "Unbound"))

def count():
    for step in range(5):
        steps.value = f"step {step}"
        time.sleep(0.3)
    steps.value = "all steps"

def add(_):
    later = ipywidgets.Button(description="Later")
    later.on_click(lambda _: setattr(answer, "value", "later answered"))
    box.children = (*box.children, later)
    answer_while_busy(box)

start.on_click(lambda _: threading.Thread(target=count).start())
grow.on_click(add)
bound.on_click(lambda _: setattr(answer, "value", "bound answered"))
unbound.on_click(lambda _: setattr(free, "value", "unbound answered"))
box = ipywidgets.VBox([start, grow, unbound, steps, answer, free])
answer_while_busy(box)
ipywidgets.VBox([box, bound])
"""
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    with jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        lab.add("widgets.ipynb", CELLS)
        yield lab


def press(notebook: Notebook, name: str) -> None:
    notebook.outputs.get_by_role("button", name=name, exact=True).click()


def busy(notebook: Notebook, seconds: float) -> None:
    """Begin a cell that takes this long."""
    notebook.run_cell(f"print('busy'); time.sleep({seconds})", wait=False)
    notebook.outputs.get_by_text("busy").last.wait_for()


def test_widgets_live_while_a_cell_runs_and_after_the_page_was_closed(lab: JupyterLab, browser: Browser) -> None:
    with lab.opened(browser, "widgets.ipynb") as notebook:
        notebook.run_all()
        press(notebook, "Grow")
        notebook.outputs.get_by_role("button", name="Later").wait_for()

        busy(notebook, 6)
        began = time.monotonic()
        press(notebook, "Unbound")
        notebook.wait_for("unbound answered")
        press(notebook, "Begin")
        notebook.wait_for("all steps")
        press(notebook, "Later")
        notebook.wait_for("later answered")
        assert time.monotonic() - began < 4
        assert notebook.is_running()
        notebook.wait_until_run()
        notebook.save()
        notebook.run_cell("free.value = 'no free answer'; answer.value = 'no answer'")
        notebook.wait_for("no free answer")
        kernel = notebook.kernel_id()

    with lab.opened(browser, "widgets.ipynb") as notebook:
        assert notebook.kernel_id() == kernel
        notebook.wait_for("all steps")
        press(notebook, "Unbound")
        notebook.wait_for("unbound answered")
        press(notebook, "Later")  # was made on the closed page's subshell
        notebook.wait_for("later answered")


def test_it_is_still_needed(lab: JupyterLab, browser: Browser) -> None:
    """When this fails, ipykernel routes widgets' messages by itself again: remove `answer_while_busy`."""
    with lab.opened(browser, "widgets.ipynb") as notebook:
        notebook.run_all()
        busy(notebook, 3)
        press(notebook, "Bound")
        notebook.page.wait_for_timeout(1500)
        expect(notebook.outputs.get_by_text("bound answered")).to_have_count(0)
        notebook.wait_until_run()
        notebook.wait_for("bound answered")
