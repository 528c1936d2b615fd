"""Downloads from the panel: real `vidkit models download` processes, and a server on 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from model_server import ModelServer, Served

from vidkit.models.locate import BUNDLED_FOLDER
from vidkit.models.registry import find_registered, register
from vidkit.panel.download_process import (
    DownloadProcess,
    known_downloads,
    notes_folder,
    start_download,
    without_secrets,
)
from vidkit.panel.download_view import DownloadView
from vidkit.panel.model_view import ModelView
from vidkit.params import GenerationParams
from vidkit.settings import Settings

ADAPTER = (BUNDLED_FOLDER / "tiny-motion-adapter" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer().running() as server:
        server.files["/move.safetensors"] = Served(ADAPTER, etag="v1")
        yield server


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    for process in known_downloads():
        process.stop()
        until(lambda process=process: process.look().is_over)


def until(met: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


class Page:
    def __init__(self, *, background: bool = True) -> None:
        self.came = threading.Event()
        self.view = DownloadView(
            lock=threading.RLock(), settings=Settings(), on_done=self.came.set, background=background
        )
        self.view.tell("animatediff")

    def text(self) -> str:
        return unescape(" ".join(one.value for one in walk(self.view.widget) if isinstance(one, ipywidgets.HTML)))

    def buttons(self) -> list[Any]:
        return [one for one in walk(self.view.widget) if isinstance(one, ipywidgets.Button)]

    def press(self, label: str) -> None:
        pressed = [one for one in self.buttons() if one.description == label]
        assert len(pressed) == 1, [one.description for one in self.buttons()]
        pressed[0].click()

    def download(self, wanted: str, name: str = "") -> None:
        self.view.source.value, self.view.name.value = wanted, name
        self.press("Download model")


def walk(root: Any) -> Iterator[Any]:
    yield root
    for child in getattr(root, "children", ()):
        yield from walk(child)


def test_a_model_comes_and_can_be_used(server: ModelServer) -> None:
    page = Page()
    page.download(f"{server.url}/move.safetensors", "my move")
    assert page.came.wait(30), page.text()
    until(lambda: "my move is here" in page.text())
    assert find_registered("my move", Settings()) is not None
    assert [one.value for one in walk(page.view.widget) if isinstance(one, ipywidgets.IntProgress)] == [100]
    assert not page.view.source.value
    page.press("Dismiss")
    assert not list(notes_folder().iterdir())
    assert [one.description for one in page.buttons()] == ["Download model"]


def test_progress_is_told_and_cancel_keeps_what_has_come(server: ModelServer) -> None:
    served = server.files["/move.safetensors"]
    served.slow = 0.05
    page = Page()
    page.download(f"{server.url}/move.safetensors")
    until(lambda: " of 4.7 MB" in page.text())
    assert "/s" in page.text()
    page.press("Cancel download")
    until(lambda: "what has arrived is kept" in page.text())
    assert not page.came.is_set()
    served.slow = 0
    page.download(f"{server.url}/move.safetensors")
    assert page.came.wait(30), page.text()
    assert server.asked[-1].headers["range"].startswith("bytes=")


def test_an_error_is_told_with_what_to_do(server: ModelServer) -> None:
    page = Page()
    page.download(f"{server.url}/nothing.safetensors")
    until(lambda: "has nothing at the address" in page.text())
    assert "Copy the address of the download button" in page.text()
    page.view.choice.value = ""
    page.press("Download model")
    assert "Choose a model" in page.text()


def test_a_download_goes_on_without_its_page_and_another_finds_it(server: ModelServer) -> None:
    server.files["/move.safetensors"].slow = 0.05
    first = Page()
    first.download(f"{server.url}/move.safetensors")
    first.view.close()
    second = Page()
    until(lambda: " of 4.7 MB" in second.text())
    server.files["/move.safetensors"].slow = 0
    assert second.came.wait(30), second.text()
    third = Page()
    assert "move is here" in third.text()


def test_another_page_can_cancel_it(server: ModelServer) -> None:
    server.files["/move.safetensors"].slow = 0.05
    start_download(f"{server.url}/move.safetensors")
    page = Page()
    until(lambda: " of 4.7 MB" in page.text())
    page.press("Cancel download")
    until(lambda: "what has arrived is kept" in page.text())


def test_one_that_was_killed_says_so(server: ModelServer) -> None:
    server.files["/move.safetensors"].slow = 0.05
    process = start_download(f"{server.url}/move.safetensors")
    until(lambda: bool(server.asked))
    os.kill(json.loads(next(notes_folder().glob("*.json")).read_text())["pid"], signal.SIGKILL)
    until(lambda: process.look().is_over)
    look = process.look()
    assert look.state == "failed"
    assert "goes on from there" in look.message


def test_a_process_that_only_has_the_same_number_is_none_of_ours(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    note.write_text(json.dumps({"what": "x", "pid": os.getpid(), "started": 1.0}))
    process = DownloadProcess(note)
    assert process.look().is_over
    process.stop()  # would end this very test


def test_what_is_secret_stands_in_no_file_and_on_no_command_line(server: ModelServer) -> None:
    server.files["/move.safetensors"].slow = 0.05
    start_download(f"http://me:pass-word@127.0.0.1:{server.port}/move.safetensors?token=query-secret")
    until(lambda: bool(server.asked))
    note = next(notes_folder().glob("*.json"))
    pid = json.loads(note.read_text())["pid"]
    texts = [file.read_text() for file in notes_folder().iterdir()]
    texts.append(Path(f"/proc/{pid}/cmdline").read_text())
    assert not [text for text in texts if "pass-word" in text or "query-secret" in text]
    assert without_secrets("https://me:word@host/a/b?token=x") == "https://host/a/b"
    assert without_secrets("svd-xt") == "svd-xt"


def test_what_is_offered_fits_the_pipeline_and_says_what_it_takes() -> None:
    page = Page()
    names = [name for _, name in page.view.choice.options]
    assert "animatediff-v1-5-3" in names and "svd-xt" not in names
    page.view.choice.value = "animatediff-v1-5-3"
    assert "Apache-2.0" in page.text() and "Needs an SD 1.5 base model" in page.text()
    page.view.tell("svd")
    page.view.choice.value = "svd-xt"
    assert "hf auth login" in page.text()
    assert "here already" not in str(page.view.choice.options)
    register(Settings(), BUNDLED_FOLDER / "tiny-svd", "svd-xt", "svd", catalogue="svd-xt")
    page.view.tell("svd")
    assert "here already" in str(page.view.choice.options)
    assert page.view.choice.value == "svd-xt"


def test_every_control_has_a_name() -> None:
    for one in walk(Page().view.widget):
        if isinstance(one, (ipywidgets.Button, ipywidgets.Text, ipywidgets.Dropdown)):
            assert one.description


def test_the_models_section_lists_what_has_come(server: ModelServer) -> None:
    view = ModelView(lock=threading.RLock(), settings=Settings(), on_choose=lambda: None)
    view.tell(GenerationParams(image_path="example:photo", prompt="waves", pipeline="animatediff"), None)
    widgets = list(walk(view.widget))
    source = next(one for one in widgets if getattr(one, "description", "") == "Or from")
    source.value = f"{server.url}/move.safetensors"
    next(one for one in widgets if getattr(one, "description", "") == "Download model").click()
    until(lambda: any(name == "move" for _, name in view.list.options))
    view.close()
