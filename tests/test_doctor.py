"""`vidkit doctor` as a person and as a program use it, on this machine and on ones that are really broken."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import environment, run

from vidkit.doctor import examination
from vidkit.finding import WIDTH, note, ok, problem, table

DOCTOR = (sys.executable, "-m", "vidkit", "doctor")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def here(home: Path) -> dict[str, Any]:
    """The report on the machine that runs the tests."""
    done = run("--json", command=DOCTOR, env=environment(home))
    assert done.code == 0, done.stdout
    return done.response


def of(report: dict[str, Any], topic: str) -> dict[str, Any]:
    """The first finding of a topic."""
    found = next(finding for finding in report["findings"] if finding["topic"] == topic)
    assert isinstance(found, dict)
    return found


def with_module(folder: Path, name: str, code: str) -> dict[str, str]:
    """The environment of a Python that finds this package before the installed one."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    return environment(folder / "home", PYTHONPATH=str(folder))


def test_a_machine_that_makes_clips(here: dict[str, Any]) -> None:
    assert here["canMakeClips"]
    assert here["device"] in ("cpu", "cuda")
    assert of(here, "torch")["data"]["version"] == importlib.metadata.version("torch")
    assert set(of(here, "ffmpeg")["data"]["formats"]) == {"mp4", "gif", "webm"}
    assert of(here, "memory")["data"]["totalBytes"] > 2**30
    assert of(here, "Jupyter")["data"]["versions"]["ipywidgets"] == importlib.metadata.version("ipywidgets")
    assert [finding["data"]["models"] for finding in here["findings"] if finding["topic"] == "models"] == [
        ["bundled:tiny-svd"],
        ["bundled:tiny-animatediff"],
    ]
    problems = [finding for finding in here["findings"] if finding["status"] == "problem"]
    assert not [finding for finding in problems if finding["stops"]]
    assert all(finding["remedies"] for finding in problems)


def test_every_topic_is_told(here: dict[str, Any]) -> None:
    told = {finding["topic"] for finding in here["findings"]}
    assert told >= {"system", "Python", "memory", "GPU", "torch", "attention", "xformers", "pipelines", "packages"}
    assert told >= {"compiling", "ffmpeg", "Jupyter", "data folder", "models folder", "temporary", "models", "settings"}


def test_nothing_is_left_behind(here: dict[str, Any], home: Path) -> None:
    assert sorted(path.name for path in home.rglob("*") if not path.is_dir()) == []


def test_a_torch_that_takes_its_process_with_it(tmp_path: Path) -> None:
    broken = with_module(tmp_path, "torch", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    done = run(command=DOCTOR, env=broken)
    assert done.code == 3
    lines = done.stdout.splitlines()
    assert "problem  torch " in done.stdout
    assert "SIGSEGV while torch was imported" in " ".join(done.stdout.split())
    assert "cannot make clips here, because of: torch" in lines[-1]
    assert max(map(len, lines)) <= WIDTH
    assert "ok       ffmpeg " in done.stdout  # all else is examined


def test_a_torch_that_cannot_be_imported_and_a_broken_settings_file(tmp_path: Path) -> None:
    config = tmp_path / "home" / "config.json"
    config.parent.mkdir()
    config.write_text("{broken")
    broken = with_module(tmp_path, "torch", "raise OSError('libcudart.so.13: cannot open shared object file')")
    done = run("--json", command=DOCTOR, env=broken)
    assert done.code == 3
    found = of(done.response, "torch")
    assert found["stops"]
    assert "libcudart.so.13" in found["what"]
    assert found["remedies"] == [f"{sys.executable} -m pip install --force-reinstall torch"]
    assert of(done.response, "settings")["stops"]
    assert config.read_text() == "{broken"
    assert "because of: torch, settings (" in done.response["summary"]
    assert not done.response["canMakeClips"]


def test_what_fails_is_a_finding_and_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one examination waits for, a later one does: they run at the same time."""
    met = threading.Event()

    def waits() -> list[Any]:
        assert met.wait(20)
        return [ok("first", "It met the last.")]

    def fails() -> list[Any]:
        met.set()
        raise OSError("the disk is on fire")

    monkeypatch.setattr(examination, "ALONE_FIRST", {"first": waits})
    monkeypatch.setattr(examination, "ALONE_LAST", {"disk": fails})
    monkeypatch.setattr(examination, "OF_BOTH", {})
    monkeypatch.setattr(examination, "probe", lambda: 1 / 0)
    report = examination.examine()
    assert [finding.topic for finding in report.findings] == ["first", "disk"]
    assert report.findings[1].status == "problem"
    assert "OSError: the disk is on fire" in report.findings[1].what
    assert report.can_make_clips


def test_the_table_is_for_terminals() -> None:
    long = "word " * 60
    lines = list(table([ok("GPU", "short"), note("a topic", long, "do this " * 20), problem("x", "/" + "y" * 150)]))
    assert max(map(len, lines)) <= WIDTH
    assert lines[0] == "ok       GPU      short"
    assert lines[1].startswith("note     a topic  word")
    assert any(line.startswith(" " * 18 + "-> do this") for line in lines)
    assert "".join(line[18:] for line in lines[-2:]) == "/" + "y" * 150


def test_the_command_loads_no_torch() -> None:
    code = "import sys, vidkit.cli, vidkit.doctor.examination; print('torch' in sys.modules)"
    done = run("-c", code, command=(sys.executable,), env=dict(os.environ))
    assert done.stdout.strip() == "False"
