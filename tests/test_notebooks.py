"""The notebooks: committed without outputs, and they run under stock papermill with the files in parameters/."""

from __future__ import annotations

import json
from pathlib import Path

import papermill
import pytest
import yaml

from vidkit.params import GenerationParams

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = [file for file in sorted((ROOT / "parameters").glob("*.yaml")) if "\naxes:" not in file.read_text()]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_hold_no_outputs(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("file", PARAMETERS, ids=lambda path: path.name)
def test_parameter_files_are_valid_requests(file: Path) -> None:
    GenerationParams(**yaml.safe_load(file.read_text()))


def test_generate_runs_under_papermill(tmp_path: Path, tiny_svd_folder: Path) -> None:
    given = yaml.safe_load((ROOT / "parameters" / "one.yaml").read_text())
    small = {"base_model": str(tiny_svd_folder), "num_frames": 3, "num_inference_steps": 2, "width": 64, "height": 64}
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / "generate.ipynb",
        out,
        parameters={**given, **small, "output_path": str(clip)},
        kernel_name="python3",
        progress_bar=False,
    )
    assert clip.stat().st_size > 1000
    outputs = {cell["id"]: cell.get("outputs", []) for cell in json.loads(out.read_text())["cells"]}
    assert "data:video/mp4" in "".join(outputs["generate"][-1]["data"]["text/html"])
    assert "'seed': 7" in "".join(outputs["metadata"][-1]["data"]["text/plain"])
