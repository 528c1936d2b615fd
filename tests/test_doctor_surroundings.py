"""What vidkit doctor makes of memory, disk, models, settings, packages, Jupyter and ffmpeg that are really not well."""

from __future__ import annotations

import json
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import psutil
import pytest
from tiny_models import TinyAnimateDiff

from vidkit.doctor import bytecode, configuration, jupyter, machine, media, models, packages, storage, toolchain
from vidkit.finding import Finding

GIB = 2**30

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Packages as pip leaves them, before the installed ones on the path: name, version, and what they ask for."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def put(name: str, version: str, *requirements: str) -> None:
        there = folder / f"{name}-{version}.dist-info"
        there.mkdir()
        asked = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
        (there / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{asked}")

    return put


def problems(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.status == "problem"]


# --- the machine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process's control group, version 2."""
    own, root = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("0::/pod/box\n")
    (root / "pod" / "box").mkdir(parents=True)
    monkeypatch.setattr(machine, "OWN_CGROUP", own)
    monkeypatch.setattr(machine, "CGROUPS", root)
    return root / "pod" / "box"


def test_the_limit_of_a_container_is_the_least_above_it(control_group: Path) -> None:
    (control_group / "memory.max").write_text("max\n")
    assert machine.container_limit() is None
    (control_group.parent / "memory.max").write_text(f"{3 * GIB}\n")
    (control_group / "memory.current").write_text(f"{GIB}\n")
    (control_group / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    assert machine.container_limit() == 3 * GIB
    assert machine.container_use() == GIB // 2
    first, second = machine.memory()
    assert "this container may use 3.0 GiB" in first.what
    assert first.status == "note"
    assert first.data["containerLimitBytes"] == 3 * GIB
    assert "VIDKIT_LIMIT_MEMORY=2.7" in second.remedies[0]
    (control_group / "memory.max").write_text(f"{GIB}\n")
    assert next(iter(machine.memory())).status == "problem"


def test_the_limit_of_an_older_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control_group: Path) -> None:
    machine.OWN_CGROUP.write_text("5:cpu,cpuacct:/x\n4:memory:/box\n")
    folder = machine.CGROUPS / "memory" / "box"
    folder.mkdir(parents=True)
    (folder.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # none
    assert machine.container_limit() is None
    (folder / "memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    assert machine.container_limit() == 2 * GIB


def test_this_machine() -> None:
    (found,) = machine.python()
    assert found.status == "ok"
    assert found.data["executable"] == sys.executable
    assert next(iter(machine.memory())).data["totalBytes"] == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("release", "status"), [("4.4.0-19041-Microsoft", "problem"), ("5.15.153.1-microsoft-standard-WSL2", "ok")]
)
def test_the_two_kinds_of_wsl(monkeypatch: pytest.MonkeyPatch, release: str, status: str) -> None:
    monkeypatch.setattr(machine.platform, "release", lambda: release)
    monkeypatch.setenv("VIDKIT_HOME", "/mnt/d/vidkit")
    first, *others = machine.system()
    assert first.status == status
    assert [other.status for other in others] == ["note"] * (status == "ok")


# --- disk -----------------------------------------------------------------------------------------------------------


def test_folders_that_can_be_written_and_are_left_empty(vidkit_home: Path) -> None:
    assert not problems(list(storage.findings()))
    assert list(vidkit_home.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/vidkit", "/dev/null/vidkit", "{tmp}/file/vidkit"])
def test_a_data_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VIDKIT_HOME", place.format(tmp=tmp_path))
    found = problems(list(storage.findings()))
    assert {finding.topic for finding in found} >= {"data folder", "clips", "models folder"}
    assert found[0].stops
    assert "VIDKIT_HOME" in found[0].remedies[-1]
    assert not next(finding for finding in found if finding.topic == "models folder").stops


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * GIB))
    assert storage.examined("models folder", tmp_path, storage.FOR_A_MODEL, "move", stops=False).status == "note"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=GIB // 4))
    found = storage.examined("clips", tmp_path, storage.LEAST, "move", stops=True)
    assert (found.status, found.stops) == ("problem", True)


# --- models and settings --------------------------------------------------------------------------------------------


def test_a_broken_registry(vidkit_home: Path) -> None:
    (vidkit_home / "models").mkdir()
    (vidkit_home / "models" / "models.json").write_text('{"svd": [')
    (found,) = models.findings()
    assert found.status == "problem"
    assert "models.json" in found.what
    assert found.remedies


def test_models_that_are_gone_or_broken_or_alone(vidkit_home: Path, tiny_animatediff: TinyAnimateDiff) -> None:
    folder = vidkit_home / "models"
    folder.mkdir()
    (folder / "broken.safetensors").write_bytes(b"no header")
    (folder / "mine").symlink_to(tiny_animatediff.base)
    (folder / "models.json").write_text(json.dumps({"svd": {"gone": {"path": "/nowhere/gone.safetensors"}}}))
    (vidkit_home / "config.json").write_text(json.dumps({"defaultModels": {"svd": "nothing"}}))
    *broken, svd, animatediff = models.findings()
    told = {finding.what.split(":")[0]: finding for finding in broken}
    assert set(told) == {"broken.safetensors", "gone", "nothing"}
    assert "vidkit models remove gone" in told["gone"].remedies[0]
    assert "defaultModels" in told["nothing"].remedies[0]
    assert svd.data["models"] == ["bundled:tiny-svd"]
    assert animatediff.data["models"] == ["bundled:tiny-animatediff"]
    assert "No motion adapter here goes with mine." in animatediff.what
    (folder / "adapter").symlink_to(tiny_animatediff.motion_adapter)
    *_, animatediff = models.findings()
    assert animatediff.data["models"] == ["bundled:tiny-animatediff", "mine"]
    assert animatediff.status == "ok"


def test_settings(vidkit_home: Path) -> None:
    (found,) = configuration.settings_file()
    assert found.status == "ok"
    (vidkit_home / "config.json").write_text("[]")
    (found,) = configuration.settings_file()
    assert found.stops
    assert str(vidkit_home / "config.json") in found.what


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)  # which a clip made in this process has set
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("VIDKIT_DEVIZE", "cpu")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    first, *others = configuration.environment()
    assert first.data["variables"]["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:128"
    assert "hf_secret" not in repr([first, *others])
    told = {finding.what.split()[0]: finding for finding in others}
    assert set(told) == {"PYTORCH_CUDA_ALLOC_CONF:", "CUDA_LAUNCH_BLOCKING", "vidkit"}
    assert told["vidkit"].remedies == ("Did you mean VIDKIT_DEVICE?",)


def test_all_variables_of_the_settings_are_known() -> None:
    assert {"VIDKIT_HOME", "VIDKIT_MODELS", "VIDKIT_DEVICE", "VIDKIT_LIMIT_MEMORY"} <= configuration.known_variables()


# --- packages and Jupyter -------------------------------------------------------------------------------------------


def test_what_is_installed_here_belongs_together() -> None:
    (found,) = packages.findings()
    assert found.status == "ok", found
    assert found.data["versions"]["diffusers"]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large one that was installed and not compiled."""
    folder = tmp_path / "uncompiled" / "large_library"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/deep.py"):
        (folder / name).write_text("")
    monkeypatch.syspath_prepend(folder.parent)
    names = ("__init__.py", "inner/deep.py", "of_another_release.py")
    monkeypatch.setattr(bytecode, "LIBRARIES", {"large_library": names, "not_installed": names})
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    return folder


def test_libraries_that_each_process_compiles(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = bytecode.findings()
    assert found.status == "ok", "the first process will"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    py_compile.compile(str(library / "__init__.py"))
    (found,) = bytecode.findings()
    assert found.status == "note"
    assert "large_library: each process compiles the modules anew" in found.what
    assert "PYTHONDONTWRITEBYTECODE is set" in found.what
    subprocess.run(shlex.split(found.remedies[0]), check=True)
    (found,) = bytecode.findings()
    assert found.status == "ok"


def test_a_library_whose_folder_cannot_be_written(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # permissions bind no administrator
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(library))
    (found,) = bytecode.findings()
    assert "their folder cannot be written" in found.what
    assert "PYTHONPYCACHEPREFIX" in found.remedies[0]
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "not yet there"))
    (found,) = bytecode.findings()
    assert found.status == "ok"
    monkeypatch.setattr(sys, "pycache_prefix", str(library / "not yet there"))
    (found,) = bytecode.findings()
    assert found.status == "note"


def test_a_library_without_sources(library: Path) -> None:
    for name in ("__init__", "inner/deep"):
        py_compile.compile(str(library / f"{name}.py"), cfile=str(library / f"{name}.pyc"))
        (library / f"{name}.py").unlink()
    (found,) = bytecode.findings()
    assert found.status == "ok"


def test_packages_out_of_range_or_missing(install: Install) -> None:
    install(
        "vidkit", "9.9", "diffusers>=0.40", "nonesuch>=1", 'winonly>=1; sys_platform == "no"', "other; extra == 'x'"
    )
    install("diffusers", "0.30.0", "old-friend==1.0")
    install("old_friend", "2.0")
    found = {finding.what.split(";")[0]: finding for finding in packages.findings()}
    assert set(found) == {
        "vidkit asks for diffusers>=0.40",
        "vidkit asks for nonesuch>=1",
        "diffusers asks for old-friend==1.0",
    }
    assert not found["vidkit asks for diffusers>=0.40"].stops
    assert found["vidkit asks for nonesuch>=1"].stops
    assert found["vidkit asks for diffusers>=0.40"].remedies[0] == f'{sys.executable} -m pip install "diffusers>=0.40"'
    assert found["diffusers asks for old-friend==1.0"].status == "note"


@pytest.mark.parametrize(
    ("versions", "issue", "remedy"),
    [
        ({"ipykernel": "7.0.1", "ipywidgets": "8.1.7"}, "ipywidgets#4001", '"ipykernel>=7.1"'),
        ({"ipywidgets": "8.1.7", "jupyterlab_widgets": "1.1.11"}, "ipywidgets#3577", '"jupyterlab_widgets>=3.0.15"'),
        ({"ipywidgets": "7.8.5", "jupyterlab_widgets": "3.0.15"}, "ipywidgets#3577", '"ipywidgets>=8.1"'),
    ],
)
def test_versions_of_jupyter_that_do_not_go_together(
    install: Install, versions: dict[str, str], issue: str, remedy: str
) -> None:
    for name, version in versions.items():
        install(name, version)
    found = problems(list(jupyter.findings()))
    assert issue in found[0].what
    assert found[0].remedies[0].endswith(remedy)
    assert not found[0].stops


def test_versions_of_jupyter_that_are_here() -> None:
    assert not problems(list(jupyter.findings()))


def test_no_jupyter_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (found,) = jupyter.findings()
    assert found.status == "problem"
    assert "ipykernel, ipywidgets, papermill is missing" in found.what
    assert not found.stops


def test_a_jupyter_of_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "jupyter-lab"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    *_, found = jupyter.findings()
    assert found.status == "note"
    assert str(program) in found.what
    assert found.remedies == (f"Start this one's: {sys.executable} -m jupyterlab",)


# --- ffmpeg and compilers -------------------------------------------------------------------------------------------


def test_an_ffmpeg_that_lacks_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, program = imageio_ffmpeg.get_ffmpeg_exe(), tmp_path / "ffmpeg"
    lacks = 'case "$*" in *libvpx-vp9*) echo "Unknown encoder \'libvpx-vp9\'" >&2; exit 1;; esac'
    program.write_text(f'#!/bin/sh\n{lacks}\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    (found,) = media.findings()
    assert found.status == "note"
    assert "no WEBM: This ffmpeg lacks an encoder" in found.what
    assert set(found.data["formats"]) == {"mp4", "gif"}
    assert found.remedies[0].startswith("Unset IMAGEIO_FFMPEG_EXE")


@pytest.mark.parametrize("broken", ["/nowhere/ffmpeg", "/bin/false"])
def test_no_ffmpeg_that_runs(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", broken)
    (found,) = media.findings()
    assert found.stops
    assert found.remedies


def test_imageio_ffmpeg_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (found,) = media.findings()
    assert found.stops
    assert "imageio-ffmpeg" in found.remedies[0]


def test_frames_that_come_back_wrong_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    read = media.read_frames
    monkeypatch.setattr(media, "read_frames", lambda path: 255 - read(path))
    assert "levels off" in str(media.why_not("mp4"))


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (found,) = toolchain.findings()
    assert found.status == "note"
    assert "a C compiler" in found.what
