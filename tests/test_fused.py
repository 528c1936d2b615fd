"""Triton's kernels and layers of them: right in Triton's interpreter and on a GPU, and not missed without either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fused_cases
import pytest
import torch

from vidkit.device import Plan
from vidkit.pipelines import fast
from vidkit.pipelines.fast import fused

pytest.importorskip("triton", reason="Triton has no wheels for this system")

#: what the errors to double precision may be: some of the last digits
MOST_ERROR = {"float32": 4e-6, "float16": 3e-4}

#: the same of upsampling, whose weights are sums that are rounded before the product is
MOST_ERROR_UPSAMPLED = {"float32": 4e-6, "float16": 4e-4}

#: as a multiple of the error of what diffusers computes
MOST_SHARE = 2.0


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(Path(fused_cases.__file__))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def too_large(errors: Mapping[str, float], dtype: str) -> dict[str, float]:
    def bound(name: str) -> float:
        return (MOST_ERROR_UPSAMPLED if name.startswith("upsampled") else MOST_ERROR)[dtype]

    return {name: error for name, error in errors.items() if not error < bound(name)}


@pytest.mark.parametrize("dtype", MOST_ERROR)
def test_kernels_are_right_to_the_last_digits(interpreted: dict[str, dict[str, float]], dtype: str) -> None:
    errors = interpreted[dtype]
    products = 8 + 4 * (dtype == "float16")  # a GEGLU is computed in half precision alone
    assert len(errors) == 13 * len(fused_cases.SHAPES) + products
    assert too_large(errors, dtype) == {}


def test_the_normal_distribution_is_right_beyond_half_precision(interpreted: dict[str, dict[str, float]]) -> None:
    errors = interpreted["distribution"]
    assert errors["near"] < 1.7e-5
    assert errors["far"] < 1e-6, "far from 0 there is none but rounding"


def test_layers_are_as_right_as_diffusers(interpreted: dict[str, dict[str, float]]) -> None:
    assert len(interpreted["layers"]) == 14
    assert {name: share for name, share in interpreted["layers"].items() if not share < MOST_SHARE} == {}


def test_without_triton_blocks_alone_are_fast_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nand more")

    monkeypatch.setattr(fused, "gated", fails)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)  # there is no device either
    fused.works.cache_clear()
    try:
        (note,) = fast.notes(Plan("cuda", "float16", speed="fast"))
    finally:
        fused.works.cache_clear()
    assert "only transformer blocks are faster" in note
    assert "vidkit doctor" in note
    assert "Failed to find C compiler. Please specify via CC environment variable." in caplog.text
    assert "and more" not in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_kernels_and_layers_are_right_in_half_precision() -> None:
    assert fused.works()
    with torch.no_grad():
        errors = dict(fused_cases.kernel_errors("cuda", torch.float16))
        products = dict(fused_cases.product_errors("cuda", torch.float16))
        shares = dict(fused_cases.layer_errors("cuda", torch.float16))
    assert len(products) == 12, "Triton compiles no GEGLU"
    errors |= products
    assert too_large(errors, "float16") == {}
    assert {name: share for name, share in shares.items() if not share < MOST_SHARE} == {}
