"""What the plan says: the request in words, the memory beside what is free, problems with their buttons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets
import pytest

from vidkit.errors import InputError, Remedy, SetupError
from vidkit.panel.outlook import Outlook, outlook_of
from vidkit.panel.plan_view import PlanView, plan_in_html
from vidkit.params import GenerationParams
from vidkit.settings import load_settings


def outlook(device: str | None = "cuda", **given: Any) -> Outlook:
    params = GenerationParams(**{"image_path": "example:photo", "prompt": "pan left", **given})
    return outlook_of(params, load_settings(), lambda params, model: None, device)


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
    shown = plan_in_html(outlook().planned)
    assert 'role="img"' in shown
    assert "11.2 GiB are free: fits with" in shown  # less what CUDA takes for itself
    assert "With all of the model" not in shown


def test_why_it_runs_as_it_does(gpu: Any) -> None:
    request: dict[str, Any] = {"width": 256, "height": 256, "max_guidance_scale": 3.0}
    gpu(12_000)
    needed = outlook(**request).planned.prediction  # type: ignore[union-attr]
    gpu(512 + int(needed.peak * 0.9) // 2**20)
    found = outlook(**request)
    assert found.planned is not None
    assert len(found.planned.reasons) > 1
    shown = plan_in_html(found.planned)
    for reason in found.planned.reasons:
        assert reason.replace("'", "&#x27;") in shown


def test_what_does_not_fit_has_buttons_for_what_would(gpu: Any) -> None:
    gpu(512 + 110)
    applied: list[Any] = []
    view = PlanView(applied.append)
    found = outlook(width=256, height=256)
    assert found.problems == []  # it can be run: until then there may be room
    view.show(found, None, [])
    words, problems = view.widget.children
    assert 'role="img"' not in words.value
    (shown,) = problems.children
    assert "do not fit into the GPU&#x27;s memory" in shown.children[0].value
    buttons = [child for child in shown.children if isinstance(child, ipywidgets.Button)]
    buttons[-1].click()
    (changes,) = applied
    assert outlook(**{"width": 256, "height": 256, **changes}).misfit is None


def test_no_bar_without_a_gpu_a_driver_or_a_good_request(gpu: Any) -> None:
    assert plan_in_html(outlook().planned) == ""  # no program that could say what is free
    gpu(12_000)
    assert plan_in_html(outlook("cpu").planned) == ""
    assert plan_in_html(outlook(None).planned) == ""
    assert plan_in_html(outlook(width=1000).planned) == ""


def test_a_problem_has_a_button_for_its_remedy() -> None:
    applied: list[Any] = []
    view = PlanView(applied.append)
    problem = InputError("out_of_range", "<too long>", [Remedy("Set numFrames to 8", num_frames=8), "Or wait"])

    view.show(outlook(None), SetupError("cuda_not_available", "no CUDA here"), [problem])

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
    view.show(outlook("cpu"), None, [])
    assert problems.children == ()
