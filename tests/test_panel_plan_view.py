"""What the plan says: the request in words, the memory beside what is free, problems with their buttons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets
import pytest

from vidkit.device import Plan
from vidkit.errors import InputError, Remedy, SetupError
from vidkit.panel.outlook import Outlook, outlook_of
from vidkit.panel.plan_view import PlanView, memory_bar
from vidkit.params import GenerationParams
from vidkit.settings import load_settings

GPU = Plan("cuda", "float16", "none")


def outlook(**given: Any) -> Outlook:
    params = GenerationParams(**{"image_path": "example:photo", "prompt": "pan left", **given})
    return outlook_of(params, load_settings(), lambda params, model: None)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver's program that says how much is free, in MiB."""

    def free(mib: int) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho {mib}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    monkeypatch.setattr("vidkit.memory.free.FRESH", 0.0)  # asked anew each time
    return free


def test_memory_as_a_bar_and_in_words(gpu: Any) -> None:
    gpu(12_000)
    bar = memory_bar(outlook(), GPU)
    assert 'role="img"' in bar
    assert "11.7 GiB are free: fits with" in bar
    assert "vidkit-bar-full" not in bar
    gpu(20)
    bar = memory_bar(outlook(), GPU)
    assert "does not fit" in bar
    assert "vidkit-bar-full" in bar


def test_no_bar_without_a_gpu_a_driver_or_a_good_request(gpu: Any) -> None:
    assert memory_bar(outlook(), GPU) == ""  # no program that could say what is free
    gpu(12_000)
    assert memory_bar(outlook(), Plan("cpu", "float32", "none")) == ""
    assert memory_bar(outlook(), None) == ""
    assert memory_bar(outlook(width=1000), GPU) == ""


def test_a_problem_has_a_button_for_its_remedy() -> None:
    applied: list[Any] = []
    view = PlanView(applied.append)
    problem = InputError("out_of_range", "<too long>", [Remedy("Set numFrames to 8", num_frames=8), "Or wait"])

    view.show(outlook(), None, SetupError("cuda_not_available", "no CUDA here"), [problem])

    words, problems = view.widget.children
    assert "14 frames of 128x128" in words.value
    assert "no CUDA here" in words.value
    (shown,) = problems.children
    text, button = shown.children
    assert "&lt;too long&gt;" in text.value
    assert "Or wait" in text.value
    assert isinstance(button, ipywidgets.Button)
    button.click()
    assert applied == [{"num_frames": 8}]
    view.show(outlook(), GPU, None, [])
    assert problems.children == ()
