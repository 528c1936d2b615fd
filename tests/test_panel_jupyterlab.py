"""The panel as a person meets it: a real JupyterLab in a real Chromium, with the bundled models."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import pytest
from command_line import wait_for
from lab import REPOSITORY, JupyterLab, Notebook, jupyterlab
from PIL import Image
from playwright.sync_api import Browser, Locator, expect, sync_playwright

NOTEBOOK = REPOSITORY / "notebooks" / "control_panel.ipynb"
MINUTE = 60_000

#: a clip of a second, not of five
QUICK = "panel.params = panel.params.replace(width=64, height=64, num_frames=4, num_inference_steps=6)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = chromium.launch(playwright)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    with jupyterlab(tmp_path_factory.mktemp("lab"), OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive") as running:
        yield running


@pytest.fixture
def lab(server: JupyterLab) -> Iterator[JupyterLab]:
    """The one server, with a new notebook and an empty home for each test."""
    server.add("panel.ipynb", NOTEBOOK)
    yield server
    server.forget()


def shown(notebook: Notebook) -> Locator:
    """The panel."""
    panel = notebook.page.locator(".vidkit-panel").first
    panel.get_by_role("button", name="Run", exact=True).wait_for()
    return panel


def opened(notebook: Notebook) -> Locator:
    notebook.run_all()
    return shown(notebook)


def press(panel: Locator, name: str | re.Pattern[str], *, exact: bool = True) -> None:
    panel.get_by_role("button", name=name, exact=exact).first.click()


def section(panel: Locator, name: str) -> None:
    """Open a section: the front end makes toggle buttons of them."""
    panel.locator(".widget-toggle-buttons").get_by_role("button", name=name, exact=True).click()


def run(panel: Locator) -> None:
    press(panel, "Run")
    cancel = panel.get_by_role("button", name="Cancel", exact=True)
    expect(cancel).to_be_enabled()
    expect(cancel).to_be_disabled(timeout=MINUTE)
    expect(panel.get_by_role("status").filter(has_text=re.compile("^Done")).first).to_be_visible()


def number(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("spinbutton", name=name, exact=True)


def value(notebook: Notebook, expression: str) -> str:
    return notebook.run_cell(f"print({expression})")


@pytest.mark.timeout(600)
def test_a_first_session(lab: JupyterLab, browser: Browser, tmp_path: Path) -> None:
    """Upload, change, run and watch, cancel, history, compare; nothing of the upload in the notebook."""
    picture = tmp_path / "holiday.png"
    Image.effect_noise((200, 150), 60).convert("RGB").save(picture)

    with lab.opened(browser, "panel.ipynb", height=1800) as notebook:
        panel = opened(notebook)
        notebook.screenshot("panel-opened", panel)

        # upload
        with notebook.page.expect_file_chooser() as chooser:
            press(panel, "Upload", exact=False)
        chooser.value.set_files(picture)
        expect(panel.get_by_text("from 200x150").first).to_be_visible()
        assert value(notebook, "panel.params.image_path").endswith("-holiday.png")

        # change: a number, by the keyboard; the plan follows
        number(panel, "Frames").fill("10")
        number(panel, "Frames").press("Enter")
        expect(panel.get_by_text("tiny-svd: 10 frames of 128x128").first).to_be_visible()
        assert value(notebook, "panel.params.num_frames") == "10"

        # run: progress moves, the clip grows, cells run meanwhile
        press(panel, "Run")
        seen: set[str] = set()
        looked = False
        cell = ""
        done = panel.get_by_role("status").filter(has_text=re.compile("^Done"))
        end = time.monotonic() + 90
        while not done.count():
            assert time.monotonic() < end
            seen.update(panel.get_by_role("status").all_inner_texts())
            looked = looked or panel.locator(".vidkit-look").is_visible()
            if looked and not cell:
                cell = notebook.run_cell("6 * 7")
                assert not done.count(), "the cell waited for the clip"
                notebook.screenshot("panel-running", panel)
            notebook.page.wait_for_timeout(100)
        assert cell == "42"
        assert looked
        assert len({text for text in seen if re.match(r"\d+ %", text)}) >= 5

        # it plays at once
        video = panel.locator(".vidkit-compare video")
        expect(video).to_be_visible()
        notebook.page.wait_for_function(
            "() => { const video = document.querySelector('.vidkit-compare video');"
            " return video && !video.paused && video.currentTime > 0.2; }"
        )
        notebook.screenshot("panel-done", panel)

        # cancel another in mid-run; the panel is ready at once
        number(panel, "Motion bucket").fill("40")
        number(panel, "Motion bucket").press("Enter")
        press(panel, "Run")
        expect(panel.get_by_text(re.compile(r"\d+ %: Denoising step [2-9]")).first).to_be_visible(timeout=MINUTE)
        asked = time.monotonic()
        press(panel, "Cancel")
        expect(panel.get_by_text("Cancelled; nothing was written. Ready.").first).to_be_visible()
        assert time.monotonic() - asked < 5
        expect(panel.get_by_role("button", name="Run", exact=True)).to_be_enabled()

        # the upload is not in the notebook, nor its bytes in the widgets' state
        assert value(notebook, "panel._live.pictures['image_path']._upload.value") == "()"
        saved = json.dumps(notebook.save())
        assert base64.b64encode(picture.read_bytes()).decode()[400:600] not in saved


@pytest.mark.timeout(600)
def test_history_compare_and_queue(lab: JupyterLab, browser: Browser) -> None:
    with lab.opened(browser, "panel.ipynb", height=1800) as notebook:
        panel = opened(notebook)
        notebook.run_cell(QUICK + "; panel.params = panel.params.replace(seed=1)")
        run(panel)
        notebook.run_cell("panel.params = panel.params.replace(seed=2, prompt='another move')")
        run(panel)

        # two wait while one runs: moved, removed
        notebook.run_cell(
            "import vidkit\n"
            "long = panel.params.replace(width=128, height=128, num_inference_steps=150, num_frames=14, seed=3)\n"
            "panel.params = long; panel.run()\n"
            "panel.params = long.replace(seed=4); panel.run()\n"
            "panel.params = long.replace(seed=5); panel.run()"
        )
        press(panel, re.compile("Move up: .*seed 5"), exact=False)
        expect(panel.locator(".vidkit-queue").get_by_text(re.compile("Waiting, number 1..*seed 5"))).to_be_visible()
        order = "[job.params.seed for job in panel._live._session.queue.jobs()][:3]"
        wait_for(lambda: value(notebook, order) == "[3, 5, 4]")
        notebook.screenshot("panel-queue", panel)
        for seed in (5, 4):
            press(panel, re.compile(f"Remove: .*seed {seed}"), exact=False)
            expect(panel.locator(".vidkit-queue").get_by_text(re.compile(f"seed {seed}"))).to_have_count(0)
        press(panel, "Cancel")
        expect(panel.get_by_text("Cancelled; nothing was written. Ready.").first).to_be_visible()

        # history: moving posters, restore
        section(panel, "History")
        history = panel.locator(".vidkit-history")
        clips = history.locator(".vidkit-clip")
        expect(clips).to_have_count(2)
        moving = clips.first.locator("img").evaluate(
            "async (img) => { while (img.naturalWidth < 2) await new Promise((r) => setTimeout(r, 50));"
            " const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());"
            " return new TextDecoder('latin1').decode(bytes).includes('ANIM'); }"
        )
        assert moving
        clips.filter(has_text="seed 1").get_by_role("button").click()
        press(history, "Restore settings")
        expect(panel.get_by_text("Settings and picture are restored.").first).to_be_visible()
        assert value(notebook, "panel.params.seed, panel.params.num_inference_steps") == "1 6"

        # star, delete, undo
        press(history, "Star")
        expect(clips.filter(has_text="★")).to_have_count(1)
        press(history, "Delete")
        expect(clips).to_have_count(1)
        press(history, "Undo delete")
        expect(clips).to_have_count(2)

        # compare
        clips.filter(has_text="seed 1").get_by_role("button").click()
        press(history, "Pin left")
        clips.filter(has_text="seed 2").get_by_role("button").click()
        press(history, "Pin right")
        player = panel.get_by_role("region", name="Clip player")
        expect(player.get_by_text("Playing in step.")).to_be_visible()
        player.get_by_role("button", name="Frame forward").click()
        paused = re.compile("Paused: A frame ([0-9]+) of 4, B frame ([0-9]+) of 4")
        expect(player.get_by_role("status")).to_have_text(paused)
        found = paused.match(player.get_by_role("status").inner_text())
        assert found is not None
        assert found[1] == found[2]
        player.get_by_role("button", name="Wipe", exact=True).click()
        border = player.get_by_role("slider", name="Wipe border")
        before = int(border.input_value())
        border.press("ArrowRight")
        expect(border).to_have_value(str(before + 1))
        notebook.screenshot("panel-compare", panel)

        # again with a new seed
        press(history, "New seed again")
        expect(clips).to_have_count(3, timeout=MINUTE)
        notebook.screenshot("panel-history", panel)


@pytest.mark.timeout(600)
def test_problems_are_mended_where_they_are(lab: JupyterLab, browser: Browser) -> None:
    with lab.opened(browser, "panel.ipynb", width=900, height=1600) as notebook:
        panel = opened(notebook)
        notebook.run_cell("panel.params = panel.params.replace(width=1024)")
        control = panel.locator(".vidkit-control").filter(has_text="Width").first
        expect(control.get_by_role("alert")).to_contain_text("tiny-svd takes 64 to 256")
        expect(panel.get_by_role("button", name="Run", exact=True)).to_be_disabled()
        notebook.screenshot("panel-problem-900", panel)
        control.get_by_role("button", name="Set width to 256").click()
        expect(panel.get_by_role("button", name="Run", exact=True)).to_be_enabled()
        assert value(notebook, "panel.params.width") == "256"

        # nothing wider than the page
        assert panel.evaluate("(element) => element.scrollWidth <= element.clientWidth + 1")

        # an emptied prompt leaves the last valid request
        panel.get_by_role("textbox", name="Prompt", exact=True).fill("")
        expect(panel.get_by_role("alert").filter(has_text="The prompt is empty").first).to_be_visible()
        assert value(notebook, "panel.params.prompt") == "slow cinematic zoom in"
        panel.get_by_role("textbox", name="Prompt", exact=True).fill("pan left")
        expect(panel.get_by_role("alert")).to_have_count(0)

        # text control: words count, and are ignored by svd
        expect(panel.get_by_text("prompt is ignored: Stable Video Diffusion takes no text").first).to_be_visible()
        panel.get_by_role("combobox", name="Pipeline").select_option("animatediff")
        expect(panel.get_by_text(re.compile("of 75 tokens")).first).to_be_visible()

        # examples
        section(panel, "Prompts")
        panel.get_by_role("textbox", name="Search").fill("golden hour")
        panel.get_by_role("listbox", name="Examples").select_option(index=0)
        press(panel, "Add to prompt")
        assert "golden hour" in value(notebook, "panel.params.prompt")

        # models: what goes with the request and what does not
        section(panel, "Models")
        models = panel.get_by_role("listbox", name="Models")
        expect(models).to_contain_text("tiny-animatediff: base model of animatediff")
        expect(models).to_contain_text("does not go with this request")
        models.select_option(index=1)
        expect(panel.get_by_text("million, float16").first).to_be_visible()
        notebook.screenshot("panel-models", panel)

        section(panel, "Copy as")
        expect(panel.get_by_role("textbox", name="Text", exact=True)).to_have_value(re.compile("GenerationParams"))


@pytest.mark.timeout(600)
def test_closing_the_page_and_a_new_kernel_lose_nothing(lab: JupyterLab, browser: Browser) -> None:
    with lab.opened(browser, "panel.ipynb") as notebook:
        panel = opened(notebook)
        notebook.run_cell(QUICK + "; panel.params = panel.params.replace(seed=1, num_inference_steps=60)")
        press(panel, "Run")
        expect(panel.get_by_text(re.compile("Denoising")).first).to_be_visible(timeout=MINUTE)
        notebook.save()
        kernel = notebook.kernel_id()
    # the clip goes on while no page is open
    with lab.opened(browser, "panel.ipynb") as notebook:
        assert notebook.kernel_id() == kernel
        panel = shown(notebook)
        expect(number(panel, "Seed")).to_have_value("1")
        expect(panel.get_by_role("status").filter(has_text=re.compile("^Done")).first).to_be_visible(timeout=MINUTE)
        expect(panel.locator(".vidkit-compare video")).to_be_visible()

        # two are queued when the kernel is killed
        notebook.run_cell(
            "for seed, steps in ((7, 60), (8, 2)):\n"
            "    panel.params = panel.params.replace(seed=seed, num_inference_steps=steps)\n"
            "    panel.run()"
        )
        notebook.page.wait_for_timeout(1500)  # the settings are kept a second after the last change
        notebook.run_cell("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", wait=False)
        notebook.page.get_by_role("button", name="Ok").or_(
            notebook.page.get_by_text("Kernel Restarting")
        ).first.wait_for()
        notebook.page.keyboard.press("Escape")
        notebook.wait_for_kernel()
    notebook_file = lab.add("panel.ipynb", NOTEBOOK)
    assert notebook_file.is_file()
    with lab.opened(browser, "panel.ipynb", strict=False) as notebook:
        panel = opened(notebook)
        assert value(notebook, "panel.params.seed, panel.params.num_inference_steps") == "8 2"
        expect(panel.get_by_text("Waiting from an earlier session.")).to_have_count(2)
        notebook.screenshot("panel-after-a-crash", panel)
        press(panel, "Start waiting requests")
        section(panel, "History")
        expect(panel.locator(".vidkit-history .vidkit-clip")).to_have_count(3, timeout=2 * MINUTE)


@pytest.mark.timeout(600)
def test_a_sweep_from_the_panel(lab: JupyterLab, browser: Browser) -> None:
    with lab.opened(browser, "panel.ipynb", height=1800) as notebook:
        panel = opened(notebook)
        notebook.run_cell(QUICK + "; panel.params = panel.params.replace(num_inference_steps=1)")
        section(panel, "Sweep")
        box = panel.get_by_role("textbox", name="Values")
        for axis, proposed, values in (("motion_bucket_id", "40..200 [3]", "40, 120"), ("seed", "random [4]", "1, 2")):
            panel.get_by_role("combobox", name="Axis").select_option(axis)
            expect(box).to_have_value(proposed)  # which comes from the kernel
            box.fill(values)
            press(panel, "Add axis")
        expect(panel.get_by_text(re.compile(r"\b4 points")).first).to_be_visible()
        notebook.screenshot("panel-sweep", panel)
        press(panel, "Run sweep")
        expect(panel.get_by_text(re.compile("4 of 4")).first).to_be_visible(timeout=3 * MINUTE)
        notebook.screenshot("panel-sweep-done", panel)
        section(panel, "History")
        expect(panel.locator(".vidkit-history .vidkit-clip")).to_have_count(4)


@pytest.mark.timeout(300)
def test_in_the_foreground(lab: JupyterLab, browser: Browser) -> None:
    """As in Colab: the clip is made in the button's own call, and nothing is sent by another thread."""
    lab.add("foreground.ipynb", ["import vidkit", "panel = vidkit.ControlPanel(mode='foreground')\npanel"])
    with lab.opened(browser, "foreground.ipynb", height=1800) as notebook:
        panel = opened(notebook)
        notebook.run_cell(QUICK)
        run(panel)
        expect(panel.locator(".vidkit-compare video")).to_be_visible()
        threads = value(notebook, "[t.name for t in __import__('threading').enumerate() if 'vidkit' in t.name]")
        assert "queue" not in threads
