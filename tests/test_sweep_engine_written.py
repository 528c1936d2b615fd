"""The warm engine writes the notebook that papermill's own engine writes: compared whole, line by line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError
from sweep_notebooks import WARM, notebook

from vidkit.sweep.engine import shutdown_kernels

SHOWS_MUCH = [
    "# parameters\nx = 1",
    "import sys; print('out'); print('err', file=sys.stderr); x + 1",
    "from IPython.display import HTML, display, clear_output\n"
    "handle = display(HTML('<b>1</b>'), display_id='one'); handle.update(HTML('<b>2</b>'))",
    "for i in range(3):\n    print(i); clear_output(wait=True)",
    "import ipywidgets; ipywidgets.IntSlider(value=3)",
    "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.gca()",
    "import warnings; warnings.warn('mind this')",
    "_ + 0 if isinstance(_, int) else (_3, Out.keys(), len(In))",
    "%who_ls",
    "!echo from a shell",
    "await __import__('asyncio').sleep(0); 'awaited'",
    "def f(depth):\n    return f(depth - 1) if depth else 1 / 0",
]
ERRORS = [
    "f(2)",
    "this is no Python",
    "%no_such_magic",
    "try:\n    {}['a']\nexcept KeyError as e:\n    raise RuntimeError('why') from e",
    "%%bash\nexit 3",
]


@pytest.fixture(autouse=True)
def no_kernels_left() -> Iterator[None]:
    yield
    shutdown_kernels()


RANDOM_NAME = re.compile(r"[0-9a-f]{32}")  # of widgets


def written(engine: str | None, folder: Path, cells: list[str], **options: Any) -> list[str]:
    """The output file's lines without what differs between any two runs: times, processes, addresses, random names."""
    out = folder / "out.ipynb"
    with pytest.raises(PapermillExecutionError):
        papermill.execute_notebook(notebook(*cells), out, {"x": 5}, engine_name=engine, progress_bar=False, **options)
    content = json.loads(out.read_text())
    cells_run = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    for metadata in [content["metadata"]["papermill"], *[cell["metadata"]["papermill"] for cell in cells_run]]:
        for name in ("start_time", "end_time", "duration"):
            metadata[name] = metadata[name] is not None
    for cell in cells_run:
        if "execution" in cell["metadata"]:
            cell["metadata"]["execution"] = sorted(cell["metadata"]["execution"])
    widgets = content["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]
    models = sorted(
        RANDOM_NAME.sub("NAME", json.dumps(state, sort_keys=True)) for state in widgets.pop("state").values()
    )
    text = RANDOM_NAME.sub("NAME", json.dumps([content, models], indent=1))
    text = re.sub(r'"id": "[0-9a-f-]+"', '"id": "NEW"', text)  # of the cells that papermill adds
    return re.sub(r"0x[0-9a-f]+", "ADDRESS", re.sub(r"ipykernel_\d+", "ipykernel_PID", text)).splitlines()


@pytest.mark.parametrize("allow_errors", [False, True])
def test_the_notebook_is_the_same(allow_errors: bool, tmp_path: Path) -> None:
    cells = [*SHOWS_MUCH, *ERRORS]
    expected = written(None, tmp_path, cells, allow_errors=allow_errors)
    for _ in range(2):  # in a new kernel, and in one that has run it
        assert written(WARM, tmp_path, cells, allow_errors=allow_errors) == expected
    errors = sum('"output_type": "error"' in line for line in expected)
    assert errors == (len(ERRORS) - 1 if allow_errors else 1)  # a magic that does not exist is told on stderr
    assert any("mind this" in line for line in expected)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]
