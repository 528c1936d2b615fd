"""The API reference, which is built from the docstrings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vidkit

ROOT = Path(__file__).parent.parent


def test_it_is_built_and_has_what_the_package_offers(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "api.py", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "vidkit.html").read_text()
    assert [name for name in vidkit.__all__ if f'id="{name}"' not in page] == []
    assert "Make one clip. One at a time in a process" in page
    assert 'id="run_sweep"' in (tmp_path / "vidkit" / "sweep.html").read_text()
