"""The panel where nobody can press anything: plain HTML, no widgets."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

import vidkit
from vidkit.errors import InputError
from vidkit.panel.static_panel import static_html
from vidkit.params import GenerationParams

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("engine", [None, "vidkit-warm"])
def test_papermill_shows_picture_and_settings_and_no_widgets(tmp_path: Path, engine: str | None) -> None:
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        REPOSITORY / "notebooks" / "control_panel.ipynb",
        out,
        engine_name=engine,
        kernel_name="python3",
        progress_bar=False,
    )
    notebook = nbformat.read(out, as_version=4)
    assert "widgets" not in notebook.metadata
    panel = next(
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    )
    assert "application/vnd.jupyter.widget-view+json" not in panel
    assert "data:image/png;base64," in panel["text/html"]
    assert "slow cinematic zoom in" in panel["text/html"]
    assert "<td style='text-align:left'>14</td>" in panel["text/html"]  # the model's default number of frames


def test_what_would_not_run_says_why() -> None:
    text = static_html(GenerationParams(image_path="example:photo", prompt="<b>x</b>", width=1000, seed=-1))
    assert "width is 1000" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_params_without_widgets() -> None:
    panel = vidkit.ControlPanel({"seed": 3}, mode="static")
    assert panel.params.seed == 3
    panel.params = {"image_path": "a.png", "prompt": "x"}
    assert panel.params.image_path == "a.png"
    with pytest.raises(InputError):
        panel.params = {"image_path": "a.png", "prompt": ""}
    assert panel.params.image_path == "a.png"
    assert panel.run() is None
    assert "a.png" in repr(panel)
    with pytest.raises(InputError, match="loud"):
        vidkit.ControlPanel(mode="loud")  # type: ignore[arg-type]
