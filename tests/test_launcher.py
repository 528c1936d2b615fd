"""`generate.py` under a Python that cannot run vidkit: one JSON error, which says which would and how to get it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from vidkit.errors import CODES, EXIT_CODES

ROOT = Path(__file__).parent.parent
LAUNCHER = ROOT / "generate.py"

#: the launcher, with the version that an older Python would tell
AS_OLD = "import runpy, sys; sys.version_info = (3, 9, 18); runpy.run_path(sys.argv[1], run_name='__main__')"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the launcher stands with vidkit's source, but no environment."""
    shutil.copy(LAUNCHER, tmp_path)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def answered(*command: str | Path, path: Path | str = "") -> dict[str, Any]:
    """What the launcher answers. path: where programs are looked for."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, timeout=60, env={**os.environ, "PATH": str(path)}
    )
    response = json.loads(done.stdout)
    assert set(response) == {"status", "error", "message", "suggestions", "code", "category"}
    assert (response["code"], response["category"]) == ("python_not_found", "system")
    assert response["error"] == CODES["system"]["python_not_found"].title
    assert done.returncode == EXIT_CODES["system"]
    assert done.stderr == b""
    return dict(response)


def test_a_python_without_vidkit_is_given_an_environment(folder: Path) -> None:
    response = answered("-S", "-P", folder / "generate.py", "{}")
    assert "No module named 'vidkit'" in response["message"] and sys.executable in response["message"]
    python = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    assert response["suggestions"] == [
        f"Make an environment for vidkit: {sys.executable} -m venv {folder / '.venv'}",
        f"Install vidkit there: {python} -m pip install {folder}",
        f"Then start: {python} {folder / 'generate.py'}",
    ]


@pytest.mark.skipif(os.name == "nt", reason="makes a program of a script")
def test_an_environment_that_is_there_is_named(folder: Path) -> None:
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    for command in (("-S", "-P"), ("-c", AS_OLD)):
        response = answered(*command, folder / "generate.py")
        assert response["suggestions"] == [f"Start it with vidkit's own Python: {python} {folder / 'generate.py'}"]


@pytest.mark.skipif(os.name == "nt", reason="makes a program of a script")
def test_an_old_python_is_told_of_a_newer_one(folder: Path) -> None:
    response = answered("-c", AS_OLD, folder / "generate.py")
    assert "it is Python 3.9, and vidkit needs 3.11 or newer" in response["message"]
    assert response["suggestions"] == ["Install Python 3.11 or newer: https://www.python.org/downloads/"]
    newer = folder / "python3.12"
    newer.symlink_to(sys.executable)
    response = answered("-c", AS_OLD, folder / "generate.py", path=folder)
    assert response["suggestions"][0] == f"Make an environment for vidkit: {newer} -m venv {folder / '.venv'}"


def test_old_pythons_can_read_it() -> None:
    """Python 3.4's grammar; and the newest that it refuses is the newest that pip does."""
    source = LAUNCHER.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 4))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=").split(".")
    assert f"OLDEST = ({', '.join(oldest)})" in source
