"""What papermill asks of an engine, asked of its own and of the warm one alike.

Adapted from papermill's tests (papermill/tests/test_engines.py, test_execute.py, test_autosave.py,
version 2.7.0; BSD 3-Clause, Copyright (c) 2017, nteract contributors): the same expectations, with the notebooks
written here and with real kernels in place of mocks. papermill's own files pass with the warm engine as they are.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError
from papermill.engines import NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from sweep_notebooks import WARM, notebook, run, texts

from vidkit.sweep.engine import shutdown_kernels

ENGINES = [None, WARM]
pytestmark = pytest.mark.parametrize("engine", ENGINES, ids=["papermill", "vidkit-warm"])


@pytest.fixture(autouse=True)
def used_kernel(engine: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The warm engine is tested with a kernel that has run another notebook."""
    monkeypatch.chdir(tmp_path)
    if engine == WARM:
        with pytest.raises(PapermillExecutionError):
            run("x = 1", "print(x)", "1 / 0")
    yield
    shutdown_kernels()


def count_saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever papermill saves the notebook in mid-run."""
    saves: list[int] = []
    original = NotebookExecutionManager.save

    def save(self: Any, **kwargs: Any) -> None:
        saves.append(len(saves))
        original(self, **kwargs)

    monkeypatch.setattr(NotebookExecutionManager, "save", save)
    return saves


# ---- test_engines.py


def test_execute(engine: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saves = count_saves(monkeypatch)
    node = papermill_engines.get_engine(engine).execute_notebook(
        load_notebook_node(write(notebook("print(None)", "2", "# no more"), tmp_path)),
        "python",
        output_path=str(tmp_path / "out.ipynb"),
        progress_bar=False,
        log_output=True,
    )
    assert len(saves) == 8  # start, complete, and two for each cell
    assert isinstance(node, nbformat.NotebookNode)
    for metadata in [node.metadata.papermill, *[cell.metadata.papermill for cell in node.cells]]:
        assert metadata["start_time"] is not None
        assert metadata["end_time"] is not None
        assert isinstance(metadata["duration"], float)
        assert not metadata["exception"]
    assert {cell.metadata.papermill["status"] for cell in node.cells} == {NotebookExecutionManager.COMPLETED}


def write(node: nbformat.NotebookNode, folder: Path) -> str:
    nbformat.write(node, folder / "in.ipynb")
    return str(folder / "in.ipynb")


def test_log_output(engine: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="papermill"):
        run("import sys; print('to stdout'); print('to stderr', file=sys.stderr)", "'a value'", log_output=True)
    records = [(record.levelname, record.getMessage().strip()) for record in caplog.records]
    expected = [
        ("INFO", "Executing notebook with kernel: python3"),
        ("INFO", "Executing Cell 1---------------------------------------"),
        ("INFO", "to stdout"),
        ("INFO", "Ending Cell 1------------------------------------------"),
        ("INFO", "Executing Cell 2---------------------------------------"),
        ("INFO", "'a value'"),
        ("INFO", "Ending Cell 2------------------------------------------"),
    ]
    assert [record for record in records if record in expected] == expected
    assert ("WARNING", "to stderr") in records


def test_stdout_and_stderr_files(engine: str | None) -> None:
    out, err = io.StringIO(), io.StringIO()
    run("import sys; print('to stdout'); print('to stderr', file=sys.stderr)", stdout_file=out, stderr_file=err)
    assert (out.getvalue(), err.getvalue()) == ("to stdout\n", "to stderr\n")


def test_timeouts(engine: str | None) -> None:
    with pytest.raises(CellTimeoutError, match="after 1 seconds"):
        run("import time; time.sleep(30)", execution_timeout=1)


def test_an_unknown_kernel(engine: str | None) -> None:
    with pytest.raises(NoSuchKernel):
        run("1", kernel_name="no-such-kernel")


def test_start_timeout(engine: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "kernels" / "silent"
    spec.mkdir(parents=True)
    command = '{"argv": ["python", "-c", "import time; time.sleep(60)", "{connection_file}"], '
    (spec / "kernel.json").write_text(command + '"display_name": "Silent", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="Kernel didn't respond in 1 seconds"):
        run("1", kernel_name="silent", start_timeout=1)


# ---- test_execute.py


def test_parameters(engine: str | None, tmp_path: Path) -> None:
    for value, line in [
        ("Hello", 'msg = "Hello"'),
        ('"Hello"', r'msg = "\"Hello\""'),
        (r"do\ not", r'msg = "do\\ not"'),
    ]:
        papermill.execute_notebook(
            notebook("# parameters\nmsg = None", "print(msg)"),
            tmp_path / "out.ipynb",
            {"msg": value},
            engine_name=engine,
            progress_bar=False,
        )
        node = load_notebook_node(str(tmp_path / "out.ipynb"))
        assert node.cells[1].source.split("\n") == ["# Parameters", line, ""]
        assert node.metadata.papermill.parameters == {"msg": value}
        assert texts(node)[-1] == value


def test_prepare_only(engine: str | None) -> None:
    assert texts(run("raise KeyboardInterrupt", prepare_only=True)) == [""]


def test_a_failed_cell_is_marked_in_the_notebook(engine: str | None, tmp_path: Path) -> None:
    with pytest.raises(PapermillExecutionError):
        run("1", "raise ValueError('no')", "3", output=tmp_path / "out.ipynb")
    node = load_notebook_node(str(tmp_path / "out.ipynb"))
    assert [cell.cell_type for cell in node.cells] == ["markdown", "code", "markdown", "code", "code"]
    assert re.search(r'<a href="#papermill-error-cell">In \[2\]', node.cells[0].source)
    assert 'id="papermill-error-cell"' in node.cells[2].source
    assert [node.cells[i].execution_count for i in (1, 3, 4)] == [1, 2, None]
    assert node.cells[3].outputs[0].output_type == "error"
    statuses = [node.cells[i].metadata.papermill["status"] for i in (1, 3, 4)]
    assert statuses == ["completed", "failed", "pending"]


@pytest.mark.parametrize("code", ["import sys; sys.exit()", "import sys; sys.exit(0)", "raise SystemExit"])
def test_a_notebook_may_end_itself(engine: str | None, code: str) -> None:
    node = run("1", code, "3")
    assert [cell.execution_count for cell in node.cells] == [1, 2, None]
    assert node.cells[1].outputs[0].ename == "SystemExit"


def test_a_notebook_that_ends_itself_with_a_status_failed(engine: str | None) -> None:
    with pytest.raises(PapermillExecutionError, match="SystemExit: 1"):
        run("import sys; sys.exit(1)")


def test_the_working_directory(engine: str | None, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "check.txt").write_text("exists")
    node = run("open('check.txt').read()", output=Path("out.ipynb"), cwd=tmp_path / "work")
    assert texts(node) == ["'exists'"]
    assert (tmp_path / "out.ipynb").exists()
    assert Path.cwd() == tmp_path


def test_no_output_path(engine: str | None, tmp_path: Path) -> None:
    assert texts(run("1")) == ["1"]
    assert list(tmp_path.iterdir()) == []


def test_report_mode(engine: str | None) -> None:
    node = run("1", report_mode=True)
    assert node.cells[0].metadata["jupyter"]["source_hidden"] is True


def test_saving_in_mid_run_can_be_switched_off(
    engine: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.ipynb"
    cell = "import os; os.path.exists('out.ipynb')"
    assert texts(run(cell, output=out, request_save_on_cell_execute=False)) == ["False"]
    assert texts(run(cell, output=out)) == ["True"]


# ---- test_autosave.py


def test_autosave_in_a_slow_cell(engine: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "import time\nfor _ in range(8):\n    print('.', flush=True); time.sleep(0.4)"
    saves = count_saves(monkeypatch)
    run(cell, output=tmp_path / "out.ipynb", autosave_cell_every=0)
    without = len(saves)
    run(cell, output=tmp_path / "out.ipynb", autosave_cell_every=1)
    assert len(saves) - without == without + 2
