"""A small sweep over a tiny model, and ways to run it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import clips
import nbformat
import pytest
import yaml

from vidkit.runs import read_manifest, run_folders
from vidkit.sweep.engine import shutdown_kernels
from vidkit.sweep.runner import Summary, run_sweep

GENERATE = Path(__file__).parent.parent / "notebooks" / "generate.ipynb"


class Sweep:
    """A sweep file over the tiny model, and its folder."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.root = folder, folder / "out"
        self.picture = clips.saved(folder)
        request = clips.svd_request(model, self.picture)
        self.base = {key: value for key, value in request.items() if key not in ("pipeline", "seed")}
        self.notebook: Path | None = None
        self.write(seed=[1, 2])

    @property
    def file(self) -> Path:
        return self.folder / "sweep.yaml"

    def write(self, **axes: Sequence[Any]) -> None:
        content: dict[str, Any] = {"base": self.base, "axes": {name: list(values) for name, values in axes.items()}}
        if self.notebook:
            content["notebook"] = str(self.notebook)
        self.file.write_text(yaml.safe_dump(content))

    def with_cell(self, source: str) -> None:
        """Let the sweep use a notebook of its own: the usual one with a cell before the clip is made."""
        notebook = nbformat.read(GENERATE, as_version=4)
        at = next(number for number, cell in enumerate(notebook.cells) if cell.id == "generate")
        notebook.cells.insert(at, nbformat.v4.new_code_cell(source))
        self.notebook = self.folder / "own.ipynb"
        nbformat.write(notebook, self.notebook)
        self.write(seed=[1, 2])

    def run(self, **options: Any) -> Summary:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTEST_CURRENT_TEST")  # another in each test: each would start a kernel of its own
            return run_sweep(self.file, self.root, **options)

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "vidkit", "sweep", str(self.file), "--output", str(self.root), *options]

    def start(self, *options: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
        )

    def done(self) -> dict[int, int]:
        """By seed, when the manifest was written."""
        return {
            int(manifest.seed or 0): run.manifest.stat().st_mtime_ns
            for run in run_folders(self.root)
            if (manifest := read_manifest(run)) is not None
        }


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def one_home(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For the fixture `vidkit_home` of a module: a kernel lives as long as its environment stays the same."""
    home = factory.mktemp("vidkit_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDKIT_HOME", str(home))
        yield home
    shutdown_kernels()
