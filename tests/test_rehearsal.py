"""What is compiled while models load is what networks of the published sizes start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import ref

import diffusers
import psutil
import pytest
import torch

from benchmarks.memory_models import PUBLISHED_UNET, PUBLISHED_VAE, SD15, on_meta
from vidkit.device import Plan
from vidkit.pipelines.fast import installing, rehearsal
from vidkit.pipelines.fast.attention import Texts

pytest.importorskip("triton", reason="Triton has no wheels for this system")
from started_kernels import started

FAST = Plan("cuda", "float16", speed="fast")
H200 = {"major": 9, "minor": 0, "multi_processor_count": 132, "shared_memory_per_block_optin": 232448}

empty = partial(torch.empty, dtype=torch.float16, device="meta")


def kernels_of_rehearsal() -> set[str]:
    with started() as found:
        for start in rehearsal.PARTS.values():
            start(empty)
    return found


def network(kind: Any, config: Mapping[str, Any]) -> Any:
    return on_meta(lambda: kind.from_config(config)).half()


def sd15(part: str, kind: Any) -> Any:
    return network(kind, json.loads((SD15 / part / "config.json").read_text()))


def make_fast(unet: Any, vae: Any, texts: Texts) -> None:
    installing.install_blocks(unet, texts)
    for part in (unet, vae.decoder):
        installing.install_layers(part)
        installing.lay_out_weights(part)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "stays_on_a_gpu", lambda weight: True)


def test_all_kernels_of_svd_are_rehearsed() -> None:
    unet = network(diffusers.UNetSpatioTemporalConditionModel, PUBLISHED_UNET)
    vae = network(diffusers.AutoencoderKLTemporalDecoder, PUBLISHED_VAE)
    make_fast(unet, vae, Texts())
    with torch.no_grad(), started() as found:
        for height, width, frames in ((72, 128, 25), (40, 64, 14)):
            unet(empty(2, frames, 8, height, width), empty(()), empty(2, 1, 1024), empty(2, 3))
            vae.decode(empty(8, 4, height, width), num_frames=8)
    assert len(found) > 15
    assert found - kernels_of_rehearsal() == set()


def test_all_kernels_of_animatediff_are_rehearsed() -> None:
    base = sd15("unet", diffusers.UNet2DConditionModel)
    adapter = diffusers.MotionAdapter()
    unet = on_meta(lambda: diffusers.UNetMotionModel.from_unet2d(base, adapter, load_weights=False)).half()
    vae = sd15("vae", diffusers.AutoencoderKL)
    texts = Texts()
    make_fast(unet, vae, texts)
    with torch.no_grad(), started() as found:
        for height, width, frames in ((64, 64, 16), (40, 64, 24)):
            context = empty(2 * frames, 77, 768)
            texts._context, texts._starts = ref(context), [0, frames]  # which it would read off the numbers
            unet(empty(2, 4, frames, height, width), empty(()), context)
            vae.decode(empty(4, 4, height, width))
    assert len(found) > 15
    assert found - kernels_of_rehearsal() == set()


@pytest.fixture
def as_with_an_h200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are compiled to."""
    monkeypatch.setattr(rehearsal, "may_compile", lambda measures: True)
    monkeypatch.setattr(rehearsal, "the_card", lambda: H200)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    return tmp_path / "triton"


def test_processes_beside_compile_everything_once_and_without_a_gpu(
    as_with_an_h200: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "PATIENCE", 100.0)
    with rehearsal.rehearsed(FAST):
        pass
    assert len(list(as_with_an_h200.rglob("*.cubin"))) == len(kernels_of_rehearsal())
    monkeypatch.setattr(rehearsal, "start", lambda *_: pytest.fail("compiled again"))
    with rehearsal.rehearsed(FAST):
        pass


@pytest.mark.parametrize("error", [OSError("no such model"), subprocess.TimeoutExpired("nvidia-smi", 1), None])
def test_loading_waits_for_nobody_long_and_leaves_no_process(
    error: Exception | None, as_with_an_h200: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    start = rehearsal.start

    def note(processes: list[Any], dtype: str, folder: str) -> None:
        start(processes, dtype, folder)
        folders.append(Path(folder))

    monkeypatch.setattr(rehearsal, "start", note)
    monkeypatch.setattr(rehearsal, "PATIENCE", 0.1)
    others, began = set(psutil.Process().children(recursive=True)), time.monotonic()
    with pytest.raises(type(error)) if error else nullcontext(), rehearsal.rehearsed(FAST):
        assert set(psutil.Process().children()) - others
        while error is None and not any(entry.is_dir() for entry in as_with_an_h200.iterdir()):  # amid a kernel
            time.sleep(0.05)
        if error:
            raise error
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert set(psutil.Process().children(recursive=True)) - others == set()
    assert [folder.exists() for folder in folders] == [False]


def test_a_process_that_does_not_start_is_done_without(as_with_an_h200: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal.sys, "executable", "/no/such/python")
    with rehearsal.rehearsed(FAST):
        pass


def test_it_is_left_where_nothing_is_started_or_triton_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert rehearsal.may_compile(FAST)
    for measures in (Plan("cpu", "float32", speed="fast"), replace(FAST, speed="exact"), replace(FAST, slices=True)):
        assert not rehearsal.may_compile(measures)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not rehearsal.may_compile(FAST)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not rehearsal.may_compile(FAST)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_processes_beside_have_compiled_is_found(tmp_path: Path) -> None:
    script = """
from functools import partial
from pathlib import Path
import os, torch
from vidkit.device import Plan
from vidkit.pipelines.fast import rehearsal

def compiled():
    return {file for kind in ("*.cubin", "*.so") for file in Path(os.environ["TRITON_CACHE_DIR"]).rglob(kind)}

rehearsal.PATIENCE = 100
with rehearsal.rehearsed(Plan("cuda", "float16", speed="fast")):
    pass
before = compiled()
with torch.no_grad():
    for start in rehearsal.PARTS.values():
        start(partial(torch.zeros, dtype=torch.float16, device="cuda"))
torch.cuda.synchronize()
print(len(before), len(compiled() - before))
"""
    surroundings = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    beside, after = map(int, done.stdout.split())
    assert beside > 20
    assert after == 0
