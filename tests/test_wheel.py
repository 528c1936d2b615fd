"""The wheel alone: built from the source archive, installed into an environment without the repository, and used there.

Its dependencies are this environment's: their folder is put on the new one's path, without what its .pth files would
add, which is this repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
#: what a source archive is made of
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "vidkit", "notebooks", "parameters")


@dataclass(frozen=True)
class Installed:
    """folder: of the environment; elsewhere: an empty working directory; environment: variables, a home of its own."""

    folder: Path
    elsewhere: Path
    environment: dict[str, str]

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def run(self, *command: str | Path) -> str:
        """stdout of a Python command line, which must succeed."""
        done = subprocess.run(
            [self.python, *command],
            cwd=self.elsewhere,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked source archive, so that the archive is whole too."""
    tree, dist = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in SOURCE:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copyfile(source, target)
    built = built_by("build_sdist", tree, dist)
    with tarfile.open(built) as archive:
        archive.extractall(dist, filter="data")
    return built_by("build_wheel", dist / built.name.removesuffix(".tar.gz"), dist)


def built_by(hook: str, tree: Path, dist: Path) -> Path:
    """What pip and `python -m build` call, with this environment's setuptools, as there is no network."""
    script = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, dist], cwd=tree, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return dist / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder, elsewhere = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    left_out = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"VIDKIT_HOME": str(elsewhere / "home"), "HOME": str(elsewhere), "OMP_NUM_THREADS": "1"}
    new = Installed(folder, elsewhere, environment)
    pip = [sys.executable, "-m", "pip", "--python", new.python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, cwd=elsewhere)
    packages = Path(new.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return new


def test_holds_every_file_of_the_package_and_what_ships_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vidkit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= inside, package - inside
    data = next(name.split("/")[0] for name in inside if name.split("/")[0].endswith(".data"))
    for folder, ending in (("notebooks", "*.ipynb"), ("parameters", "*.yaml")):
        shipped = {f"{data}/data/share/vidkit/{folder}/{path.name}" for path in (ROOT / folder).glob(ending)}
        assert shipped
        assert shipped <= inside
    strangers = {name.split("/")[0] for name in inside} - {"vidkit", data, data.replace(".data", ".dist-info")}
    assert not strangers


def test_nothing_of_the_repository_is_used(installed: Installed) -> None:
    script = (
        "import importlib, json, pkgutil, sys, vidkit\n"
        "from vidkit.shipped import shipped\n"
        "names = [one.name for one in pkgutil.walk_packages(vidkit.__path__, 'vidkit.')]\n"
        "from vidkit import cli\n"
        "files = [module.__file__ for name, module in sys.modules.items() if name.split('.')[0] == 'vidkit']\n"
        "print(json.dumps([vidkit.__file__, *files, str(shipped('notebooks')), str(shipped('parameters'))]))\n"
    )
    used = json.loads(installed.run("-c", script))
    assert len(used) > 10
    assert all(Path(path).is_relative_to(installed.folder.resolve()) for path in used), used


def test_the_demonstration_runs(installed: Installed) -> None:
    told = installed.run("-m", "vidkit", "demo", "--output", "demo.mp4")
    assert "Made:  14 frames of 128x128" in told
    assert (installed.elsewhere / "demo.mp4").stat().st_size > 1000


def test_lab_finds_its_notebooks_and_quickstart_runs_there(installed: Installed) -> None:
    notebooks = Path(installed.run("-m", "vidkit", "lab", "--copy-only").strip())
    assert notebooks == installed.elsewhere / "home" / "notebooks"
    assert {path.name for path in notebooks.iterdir()} == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    small = ("-p", "size", "64", "-p", "steps", "2", "--no-progress-bar")
    out = installed.elsewhere / "out.ipynb"
    installed.run("-m", "papermill", notebooks / "quickstart.ipynb", out, "--kernel", "python3", *small)
    cells = {cell.id: cell for cell in nbformat.read(out, as_version=4).cells}
    assert "data:video/mp4" in cells["first"].outputs[0].data["text/html"]
    assert "data:video/mp4" in cells["again"].outputs[0].data["text/html"]
    assert str(installed.elsewhere / "home" / "output") in cells["record"].outputs[0].text


def test_a_sweep_finds_its_notebook(installed: Installed) -> None:
    file = installed.elsewhere / "home" / "parameters" / "sweep_seeds.yaml"
    assert "Notebook:  generate.ipynb" in installed.run("-m", "vidkit", "sweep", file, "--dry-run")
