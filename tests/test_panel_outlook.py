"""What a request would come to, before it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import namedtuple
from typing import Any

import pytest

from vidkit.errors import Remedy, SetupError
from vidkit.panel.outlook import Outlook, device_in_words, outlook_of, request_in_words, time_in_words
from vidkit.params import GenerationParams
from vidkit.settings import load_settings


def outlook(**given: Any) -> Outlook:
    params = GenerationParams(**{"image_path": "example:photo", "prompt": "pan left", **given})
    return outlook_of(params, load_settings(), lambda params, model: 12.0)


def test_a_good_request() -> None:
    found = outlook()
    assert found.problems == []
    assert found.resolved is not None
    assert found.seconds == 12.0
    words = request_in_words(found.resolved.params, "tiny-svd")
    assert words == "tiny-svd: 14 frames of 128x128, 1.75 s at 8 frames/s; 8 steps; decoded 4 at once"


def test_all_problems_at_once_each_with_its_parameters_and_remedy() -> None:
    found = outlook(width=1024, height=100)
    assert found.resolved is None
    assert found.limits is not None
    assert [problem.concerns for problem in found.problems] == [("width",), ("height",)]
    for problem in found.problems:
        remedy = problem.suggestions[0]
        assert isinstance(remedy, Remedy)
    changes = [problem.suggestions[0].changes for problem in found.problems]  # type: ignore[attr-defined]
    assert changes == [{"width": 256}, {"width": 256, "height": 96}]


def test_a_missing_model_is_a_problem_of_its_control() -> None:
    found = outlook(base_model="no such model")
    assert found.models is None
    assert [problem.concerns for problem in found.problems] == [("base_model",)]


def test_limits_are_known_though_the_request_is_refused() -> None:
    found = outlook(pipeline="animatediff", conditioning="init", strength=0.05)
    assert [set(problem.concerns) for problem in found.problems] == [{"num_inference_steps", "strength"}]
    assert found.limits is None or found.limits.model == "tiny-animatediff"


def test_quick() -> None:
    outlook()
    began = time.perf_counter()
    for bucket in range(20):
        outlook(motion_bucket_id=bucket)
    assert (time.perf_counter() - began) / 20 < 0.05  # 3 ms measured


def test_little_disk_space(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**28))
    found = outlook()
    (problem,) = found.problems
    assert problem.code == "disk_full"
    assert "256 MiB are free" in problem.message
    assert found.resolved is not None


def test_words() -> None:
    assert time_in_words(None).startswith("How long it takes is known after")
    assert time_in_words(95.0) == "About 95 s, as earlier clips of this model took."
    assert "CPU" in device_in_words("cpu", None)
    assert "GPU" in device_in_words("cuda", None)
    assert device_in_words(None, SetupError("cuda_not_available", "no CUDA")) == "no CUDA"
    assert device_in_words(None, None) == "Looking for a GPU…"


def test_loads_no_torch() -> None:
    code = "import vidkit.panel.outlook, sys; print('torch' in sys.modules, 'ipywidgets' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]
