"""Live, foreground or static: told by who asked for the cell."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest
from jupyter_client.manager import start_new_kernel
from jupyter_client.session import Session

from vidkit.errors import InputError
from vidkit.panel.surroundings import find_mode

CELL = "from vidkit.panel.surroundings import find_mode; print(find_mode())"


def test_no_kernel_is_static() -> None:
    assert find_mode() == "static"


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_PANEL", "foreground")
    assert find_mode() == "foreground"
    assert find_mode("live") == "live"
    monkeypatch.setenv("VIDKIT_PANEL", "loud")
    with pytest.raises(InputError, match="loud"):
        find_mode()


def test_colab_is_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert find_mode() == "foreground"


def test_papermill_is_static(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False)
    output = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs[0]
    assert output.text.strip() == "static"


@pytest.mark.parametrize(("username", "metadata"), [("", {}), ("someone", {"cellId": "1"})])
def test_a_front_end_is_live(username: str, metadata: dict[str, str]) -> None:
    """What JupyterLab (no user name, a cell's id) and others send, to a real kernel."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.session = Session(username=username, key=client.session.key)
        content = {"code": CELL, "silent": False, "store_history": False, "user_expressions": {}}
        message = client.session.msg("execute_request", content | {"allow_stdin": False}, metadata=metadata)
        client.shell_channel.send(message)
        while (heard := client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        assert heard["content"]["text"].strip() == "live"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
