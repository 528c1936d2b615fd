"""What is compiled while models load is what networks of the published sizes start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import diffusers
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

#: as a network on no GPU has its blocks of GEGLU: the small one
CARD = SimpleNamespace(multi_processor_count=1, shared_memory_per_block_optin=0)

empty = partial(torch.empty, dtype=torch.float16, device="meta")


def kernels_of_rehearsal() -> set[str]:
    with started() as found:
        for start in rehearsal.PARTS.values():
            start(empty, CARD)
    return found


def network(kind: Any, config: Mapping[str, Any]) -> Any:
    return on_meta(lambda: kind.from_config(config)).half()


def sd15(part: str, kind: Any) -> Any:
    return network(kind, json.loads((SD15 / part / "config.json").read_text()))


def make_fast(unet: Any, vae: Any, texts: Texts) -> None:
    installing.install_blocks(unet, texts)
    for part in (unet, vae.decoder):
        installing.install_layers(part)
        installing.lay_out_convolutions(part)


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
    monkeypatch.setenv("VIDKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    return tmp_path / "triton"


def test_processes_beside_compile_everything_once_and_without_a_gpu(
    as_with_an_h200: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rehearsal.rehearsed(FAST):
        pass
    assert len(list(as_with_an_h200.rglob("*.cubin"))) == len(kernels_of_rehearsal())
    assert rehearsal.note_file(FAST.dtype).exists()
    monkeypatch.setattr(rehearsal, "started", lambda *_: pytest.fail("compiled again"))
    with rehearsal.rehearsed(FAST):
        pass


def test_a_loading_that_fails_leaves_no_process(as_with_an_h200: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []
    start = rehearsal.started
    monkeypatch.setattr(rehearsal, "started", lambda *given: processes.append(start(*given)) or processes[-1])
    with pytest.raises(OSError, match="no such model"), rehearsal.rehearsed(FAST):
        raise OSError("no such model")
    assert processes
    assert all(process.returncode == -signal.SIGKILL for process in processes)
    assert not rehearsal.note_file(FAST.dtype).exists()


def test_nothing_is_compiled_where_no_kernel_is_started() -> None:
    for measures in (Plan("cpu", "float32", speed="fast"), replace(FAST, speed="exact"), replace(FAST, slices=True)):
        assert not rehearsal.may_compile(measures)


@pytest.mark.gpu
def test_what_processes_beside_have_compiled_is_found(tmp_path: Path) -> None:
    script = """
from functools import partial
from pathlib import Path
from pathlib import Path
import os, torch
from vidkit.device import Plan
from vidkit.pipelines.fast import rehearsal

def compiled():
    return set(Path(os.environ["TRITON_CACHE_DIR"]).rglob("*.cubin"))

with rehearsal.rehearsed(Plan("cuda", "float16", speed="fast")):
    pass
assert rehearsal.note_file("float16").exists()
before = compiled()
with torch.no_grad():
    for start in rehearsal.PARTS.values():
        start(partial(torch.zeros, dtype=torch.float16, device="cuda"), torch.cuda.get_device_properties())
torch.cuda.synchronize()
print(len(before), len(compiled() - before))
"""
    surroundings = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "VIDKIT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | surroundings, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    beside, after = map(int, done.stdout.split())
    assert beside > 20
    assert after == 0
