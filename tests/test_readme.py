"""README and docs: every command in them runs, every answer shown is the one given, every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from model_server import ModelServer, Repository
from tiny_models import TinyAnimateDiff, save_single_file
from tiny_single_files import as_pickle, save_motion_module

from vidkit.models.locate import picture_path
from vidkit.params import GenerationParams

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: what is not run here, and what runs it
ELSEWHERE: Final = {
    "make demo": "tests/test_wheel.py runs the demonstration",
    "source .venv/bin/activate": "these run in an environment",
    "vidkit lab": "tests/test_cli_lab.py starts it",
    "vidkit check": "tests/test_check.py",
    "vidkit acknowledge": "asks a person: tests/test_safety.py",
}

BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK: Final = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path) -> Iterator[tuple[str, str | None]]:
    """A page's commands in their order, each with the answer that is shown of it."""
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "bash":
            for line in text.splitlines():
                command = re.split(r"(?:^|\s{2,})# ", line)[0].strip().removeprefix(".venv/bin/")
                if command:
                    yield command, None
        if kind == "console":
            first, _, answer = text.partition("\n")
            yield first.removeprefix("$ "), answer


@pytest.fixture
def world(
    tmp_path: Path, vidkit_home: Path, tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, full_size_models: Path
) -> Path:
    """A folder with everything that the commands name. Where they name no SVD model a small one is used.

    A sweep has two seeds in place of four.
    """
    folder, models = tmp_path / "here", vidkit_home / "models"
    folder.mkdir()
    shutil.copy(picture_path("example:photo"), folder / "photo.jpg")
    small = shutil.copytree(tiny_svd_folder, models / "small")
    defaults = {"width": 64, "height": 64, "numFrames": 4, "numInferenceSteps": 2}
    (small / "vidkit.json").write_text(json.dumps({"defaults": defaults}))
    (folder / "parameters").symlink_to(ROOT / "parameters")
    (vidkit_home / "config.json").write_text(json.dumps({"defaultModels": {"svd": "small"}}))
    for page in PAGES:
        for text in blocks(page, "yaml"):
            if text.startswith("base:"):
                smaller = text.replace("bundled:tiny-svd", "small").replace("random [4]", "random [2]")
                (folder / "sweep.yaml").write_text(smaller)
    save_motion_module(tiny_animatediff.motion_adapter, folder / "some.safetensors")
    save_single_file(tiny_animatediff.base, folder / "realistic.safetensors")
    as_pickle(folder / "some.safetensors", folder / "old.ckpt")
    (unet,) = (tiny_svd_folder / "unet").glob("*.safetensors")
    shutil.copy(unet, folder / "tuned-unet.safetensors")
    return folder


@pytest.fixture
def hub(tiny_svd_folder: Path) -> Iterator[str]:
    """A hub that has the model which the pages download, made small."""
    server = ModelServer()
    files = {
        path.relative_to(tiny_svd_folder).as_posix().replace(".safetensors", ".fp16.safetensors"): path.read_bytes()
        for path in tiny_svd_folder.rglob("*")
        if path.is_file()
    }
    server.repositories["stabilityai/stable-video-diffusion-img2vid-xt"] = Repository(files)
    with server.running():
        yield server.url


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    first, *arguments = shlex.split(command)
    assert first in ("vidkit", "python"), f"{command!r} is neither run nor named in ELSEWHERE"
    start = [sys.executable, "-m", "vidkit"] if first == "vidkit" else [sys.executable]
    return subprocess.run(
        [*start, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_runs_and_answers_as_shown(
    page: Path, world: Path, hub: str, full_size_models: Path, vidkit_home: Path
) -> None:
    if page.name == "memory.md":  # what is planned there is never loaded
        (vidkit_home / "models" / "svd-xt").symlink_to(full_size_models / "svd")
    for command, answer in commands(page):
        if command in ELSEWHERE:
            continue
        online = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"} if "download" in command else {}
        done = run(command, world, **online)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if answer is not None:
            shown = ".*".join(map(re.escape, answer.rstrip("\n").split("…")))
            assert re.fullmatch(shown, done.stdout.rstrip("\n"), re.DOTALL), (command, done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_the_pages_runs(page: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    names: dict[str, object] = {}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), names)  # noqa: S102


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    local = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not link.startswith("http")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_what_is_run_elsewhere_is_on_a_page() -> None:
    told = {command for page in PAGES for command, _ in commands(page)}
    assert ELSEWHERE.keys() <= told


def test_every_parameter_is_told_of_in_the_help() -> None:
    """The pages send their readers there for parameters."""
    told = run("vidkit generate --help", ROOT).stdout
    wanted: Callable[[str], str] = lambda name: "--" + name.replace("_", "-")  # noqa: E731
    assert [name for name in GenerationParams.model_fields if wanted(name) not in told] == []
