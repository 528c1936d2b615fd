"""The notebooks: short, committed without outputs, and each runs from its first cell to its last."""

from __future__ import annotations

import base64
import json
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browser as chromium
import nbformat
import papermill
import pytest
import yaml
from lab import jupyterlab
from nbformat import NotebookNode
from playwright.sync_api import TimeoutError as WaitedInVain
from playwright.sync_api import sync_playwright

from vidkit.generation import RESULT_MIMETYPE
from vidkit.shipped import shipped
from vidkit.sweep.engine import WarmEngine, shutdown_kernels

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [notebook.stem for notebook in NOTEBOOKS]

#: the least that shows the same
SMALL: dict[str, dict[str, Any]] = {
    "quickstart": {"size": 64, "steps": 2},
    "compare": {"size": 64, "frames": 4, "steps": 2},
    "sweep": {"size": 64, "frames": 4, "steps": 1},
    "generate": {"num_frames": 4, "num_inference_steps": 2},
    "bring_your_models": {"settings": {"num_inference_steps": 2, "width": 64, "height": 64}},
}


@dataclass
class Executed:
    """What came of a notebook: itself with its outputs, the folder that it ran in, and what it raised."""

    notebook: NotebookNode
    folder: Path
    error: Exception | None = None

    def text(self, cell: str) -> str:
        """What a cell printed and showed, as text."""
        return "".join(
            output.get("text") or output["data"].get("text/plain", "") for output in self.outputs(cell) if output
        )

    def html(self, cell: str) -> str:
        return "".join(output.get("data", {}).get("text/html", "") for output in self.outputs(cell))

    def outputs(self, cell: str) -> list[Any]:
        return list(next(one for one in self.notebook.cells if one.id == cell).outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, tiny_svd_folder: Path) -> Iterator[dict[str, Executed]]:
    """Each notebook run once, on the bundled models, all in one warm kernel."""
    papermill.engines.papermill_engines.register("vidkit-warm", WarmEngine)
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDKIT_HOME", str(tmp_path_factory.mktemp("home")))
        for notebook in NOTEBOOKS:
            folder = tmp_path_factory.mktemp(notebook.stem)
            given = dict(SMALL.get(notebook.stem, {}))
            if notebook.stem == "bring_your_models":
                given["model"] = str(tiny_svd_folder)
            done[notebook.stem] = execute(notebook, folder, given)
        yield done
    shutdown_kernels()


def execute(notebook: Path, folder: Path, given: dict[str, Any]) -> Executed:
    out = folder / notebook.name
    try:
        papermill.execute_notebook(
            notebook,
            out,
            given,
            engine_name="vidkit-warm",
            kernel_name="python3",
            cwd=folder,
            progress_bar=False,
        )
        error = None
    except Exception as raised:  # noqa: BLE001  (told by the test of this notebook)
        error = raised
    return Executed(nbformat.read(out, as_version=4), folder, error)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=NAMES)
def test_committed_without_outputs_and_ids_that_say_what_is_in_a_cell(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not cell["id"].startswith("cell-")
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    nbformat.validate(content)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=NAMES)
def test_links_lead_to_what_is_there(notebook: Path) -> None:
    texts = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\(([^)]+)\)", "".join(texts))
    for link in links:
        if not link.startswith(("attachment:", "https://")):
            assert (notebook.parent / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_runs_to_its_end(executed: dict[str, Executed], name: str) -> None:
    done = executed[name]
    assert done.error is None, done.error
    for cell in done.notebook.cells:
        for output in cell.get("outputs", []):
            assert "Warning" not in output.get("text", ""), output.text


def test_quickstart_shows_clips_and_what_made_them(executed: dict[str, Executed]) -> None:
    done = executed["quickstart"]
    assert "data:video/mp4" in done.html("first")
    assert "data:video/mp4" in done.html("words")
    assert "Seed:   7" in done.text("record")
    assert done.html("again").count("data:video/mp4") == 2
    assert "<td style='text-align:left'>127</td>" in done.html("again")


def test_sweep_runs_all_points_and_shows_them(executed: dict[str, Executed]) -> None:
    done = executed["sweep"]
    assert "Points:    6 (motion_bucket_id 2 x seed 3)" in done.text("plan")
    assert "6 clips made, 0 were there, 0 failed" in done.text("run")
    assert any("image/png" in output.data for output in done.outputs("look"))
    assert done.html("numbers").count("<tr") == 7
    assert "data:video/mp4" in done.html("best")
    assert (done.folder / "my-sweep" / "report.html").is_file()


def test_compare_tells_the_one_difference(executed: dict[str, Executed]) -> None:
    done = executed["compare"]
    assert "motion bucket id</td><td style='text-align:left'>30</td><td style='text-align:left'>127" in done.html("eye")
    assert "% of the width per frame" in done.html("numbers")
    assert done.html("frames").count("data:image/png") == 3


def test_bring_your_models_registers_and_uses_a_model(executed: dict[str, Executed], tiny_svd_folder: Path) -> None:
    done = executed["bring_your_models"]
    assert "bundled:tiny-svd" in done.text("list")
    assert "Stable Video Diffusion XT" in done.text("available")
    assert "Stable Video Diffusion" in done.text("inspect")
    assert done.text("add").startswith("mine: Stable Video Diffusion")
    assert "It fits." in done.text("plan")
    assert "data:video/mp4" in done.html("clip")
    result = next(output.data[RESULT_MIMETYPE] for output in done.outputs("clip"))
    assert result["record"]["models"]["baseModel"]["name"] == tiny_svd_folder.name


def test_colab_installs_nothing_elsewhere(executed: dict[str, Executed]) -> None:
    badge = nbformat.read(ROOT / "notebooks" / "colab.ipynb", as_version=4).cells[0]
    assert badge.source.startswith(
        "[![Open in Colab](attachment:open-in-colab.png)](https://colab.research.google.com/"
    )
    assert base64.b64decode(badge.attachments["open-in-colab.png"]["image/png"]).startswith(b"\x89PNG")
    assert not executed["colab"].outputs("install")
    assert "vidkit control panel" in executed["colab"].html("panel")


def test_the_install_cell_keeps_torch_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as in Colab, with pip's command line in place of pip: the constraint names what is installed here."""
    import importlib.metadata

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    colab, output = types.ModuleType("google.colab"), types.ModuleType("google.colab.output")
    enabled: list[bool] = []
    output.enable_custom_widget_manager = lambda: enabled.append(True)  # type: ignore[attr-defined]
    colab.output = output  # type: ignore[attr-defined]
    google = types.ModuleType("google")
    for name, module in {"google": google, "google.colab": colab, "google.colab.output": output}.items():
        monkeypatch.setitem(sys.modules, name, module)
    cells = nbformat.read(ROOT / "notebooks" / "colab.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if cell.id == "install")
    (tmp_path / "vidkit-0.1.0-py3-none-any.whl").touch()
    commands: list[str] = []
    line = next(line.strip() for line in source.splitlines() if "%pip" in line)
    code = source.replace(line, f"commands.append(f{line!r})")
    exec(code, {"commands": commands})  # noqa: S102  (the notebook's own cell)
    assert commands == ["%pip install --quiet --constraint keep.txt vidkit-0.1.0-py3-none-any.whl"]
    kept = (tmp_path / "keep.txt").read_text().splitlines()
    assert f"torch=={importlib.metadata.version('torch')}" in kept
    assert f"ipykernel=={importlib.metadata.version('ipykernel')}" in kept
    assert enabled == [True]


#: Of a page that is to have so many pictures and clips: those that are not there to be seen, and what is wider than its
#: place. JupyterLab puts cells into the page one after the other.
_LOOK = """(expected) => {
    const shown = window.jupyterapp.shell.currentWidget.node;
    const images = [...shown.querySelectorAll('img')], videos = [...shown.querySelectorAll('video')];
    const wide = [...shown.querySelectorAll('.jp-OutputArea-output, .jp-RenderedMarkdown')]
        .filter((part) => part.scrollWidth > part.clientWidth + 1);
    const found = [
        ...images.filter((image) => !image.naturalWidth), ...videos.filter((video) => video.readyState < 2), ...wide
    ].map((part) => part.outerHTML.slice(0, 200));
    const count = images.length + videos.length;
    return count === expected ? found : [`${count} pictures and clips for ${expected}`, ...found];
}"""


def pictures_and_clips(done: Executed) -> int:
    """Of its outputs and its text."""
    code = [cell.id for cell in done.notebook.cells if cell.cell_type == "code"]
    shown = "".join(done.html(cell) for cell in code)
    pictures = sum("image/png" in output.get("data", {}) for cell in code for output in done.outputs(cell))
    text = "".join(cell.source for cell in done.notebook.cells if cell.cell_type == "markdown")
    return shown.count("<img") + shown.count("<video") + pictures + text.count("![")


def test_executed_notebooks_look_well_in_jupyterlab(executed: dict[str, Executed], tmp_path: Path) -> None:
    """All in one page, one after the other: every picture and clip is shown, and nothing is cut off."""
    with sync_playwright() as playwright, jupyterlab(tmp_path / "lab") as lab:
        for name, done in executed.items():
            lab.add(f"{name}.ipynb", done.folder / f"{name}.ipynb")
            lab.trust(f"{name}.ipynb")
        browser = chromium.launch(playwright)
        with lab.opened(browser, f"{NAMES[0]}.ipynb", width=1000, height=1600) as page:
            for name in NAMES:
                page.open(f"{name}.ipynb")
                count = pictures_and_clips(executed[name])
                try:  # not again afterwards: a clip that plays from its beginning again is not ready for a moment
                    page.page.wait_for_function(f"(expected) => !({_LOOK})(expected).length", arg=count, timeout=20_000)
                except WaitedInVain:
                    pytest.fail(f"{name}: {page.page.evaluate(_LOOK, count)}")
                page.screenshot(f"notebook-{name}")
        browser.close()


def test_generate_runs_under_stock_papermill(tmp_path: Path, tiny_svd_folder: Path) -> None:
    given = yaml.safe_load((shipped("parameters") / "one.yaml").read_text(encoding="utf-8"))
    small = {"base_model": str(tiny_svd_folder), "num_frames": 3, "num_inference_steps": 2, "width": 64, "height": 64}
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.ipynb"
    papermill.execute_notebook(
        shipped("notebooks") / "generate.ipynb",
        out,
        parameters={**given, **small, "output_path": str(clip)},
        kernel_name="python3",
        progress_bar=False,
    )
    assert clip.stat().st_size > 1000
    outputs = {cell["id"]: cell.get("outputs", []) for cell in json.loads(out.read_text())["cells"]}
    assert "data:video/mp4" in "".join(outputs["generate"][-1]["data"]["text/html"])
    assert "'seed': 7" in "".join(outputs["metadata"][-1]["data"]["text/plain"])
