"""`vidkit lab`: the user's copies, and a real JupyterLab on them."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest
from command_line import Running, environment, wait_for

from vidkit.cli import main, make_parser
from vidkit.cli_lab import split

LAB = (sys.executable, "-m", "vidkit", "lab")


@pytest.mark.parametrize(
    ("given", "name", "jupyter"),
    [
        ("", "quickstart", []),
        ("sweep", "sweep", []),
        ("sweep --port 9000 --no-browser", "sweep", ["--port", "9000", "--no-browser"]),
        ("--port 9000", "quickstart", ["--port", "9000"]),
        ("--no-browser --port 9000", "quickstart", ["--no-browser", "--port", "9000"]),
        ("--folder here sweep --ServerApp.ip=::", "sweep", ["--ServerApp.ip=::"]),
    ],
)
def test_options_that_are_not_ours_go_to_jupyter(given: str, name: str, jupyter: list[str]) -> None:
    options, rest = make_parser().parse_known_args(["lab", *given.split()])
    options.unknown_options = rest
    assert split(options) == (name, jupyter)


def test_other_verbs_still_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "clip.mp4", "--port", "9000"]) == 2
    assert "Unknown option '--port'" in capsys.readouterr().out


def test_copies_only(vidkit_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--copy-only"]) == 0
    assert capsys.readouterr().out.strip() == str(vidkit_home / "notebooks")
    assert (vidkit_home / "parameters" / "one.yaml").is_file()
    (vidkit_home / "notebooks" / "sweep.ipynb").write_text("{}")
    assert main(["lab", "--copy-only", "--folder", str(tmp_path)]) == 0
    capsys.readouterr()
    assert (tmp_path / "notebooks" / "sweep.ipynb").is_file()
    assert main(["lab", "--copy-only"]) == 0
    assert "Kept as you left them: notebooks/sweep.ipynb" in capsys.readouterr().err


def test_a_name_that_is_none(vidkit_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--copy-only", "quikstart.ipynb"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert "Did you mean quickstart?" in told["message"]
    assert told["suggestions"][0] == "vidkit lab quickstart"
    (vidkit_home / "notebooks" / "mine.ipynb").write_text("{}")
    assert main(["lab", "--copy-only", "mine"]) == 0


def test_without_jupyterlab(
    vidkit_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else found(name))
    assert main(["lab"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["code"] == "missing_dependency"
    assert told["suggestions"][0] == f"Install it: {sys.executable} -m pip install jupyterlab"
    assert (vidkit_home / "notebooks" / "quickstart.ipynb").is_file()


def test_a_real_server_shows_the_copies_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    home, runtime = tmp_path / ".hidden" / "home", tmp_path / "runtime"
    places = {"JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_TOKEN": "t"}
    options = ("sweep", "--no-browser", "--port=0", "--ServerApp.allow_root=True")
    with Running(*options, command=LAB, env=environment(home, **places)) as running:
        files = wait_for(lambda: list(runtime.glob("jpserver-*.json")), seconds=60)
        server = wait_for(lambda: json.loads(files[0].read_text() or "{}"))
        assert server["pid"] == running.process.pid
        assert Path(server["root_dir"]) == home
        listing = httpx.get(f"{server['url']}api/contents/notebooks", params={"token": "t"}).json()
        shown = {one["name"] for one in listing["content"]}
        assert {"quickstart.ipynb", "sweep.ipynb"} <= shown
        wait_for(lambda: any("/lab/tree/notebooks/sweep.ipynb" in line for line in running.lines))
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        assert any("stopping" in line for line in running.lines)
