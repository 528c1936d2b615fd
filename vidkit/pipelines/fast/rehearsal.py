"""Kernels compiled while the first models of a machine load, by processes beside: not in a clip's first step.

One thread imports libraries then, for seconds, and other cores are idle. Compiling is Python's work as much, so that a
thread beside would slow the imports down by as long (`benchmarks/NOTES.md`). The processes do not touch the GPU, whose
memory the models need: they compile for its kind.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from vidkit.files import remember
from vidkit.pipelines.fast import fused, fused_products
from vidkit.pipelines.fast.installing import Measures, is_lean
from vidkit.pipelines.fast.operations import channels_last
from vidkit.settings import settings_or_defaults

if TYPE_CHECKING:
    import torch

    #: makes a tensor of a shape
    Make = Callable[..., torch.Tensor]

logger = logging.getLogger("vidkit")

#: channels of transformer blocks, of both families' published UNets
BLOCKS: Final = (320, 640, 1280)

#: channels of an attention head over frames: of SVD's, and of motion modules'
HEADS: Final = (64, 40, 80, 160)

#: for which `fused_products.over_frames` is compiled: up to 32 are one
FRAMES: Final = 16

#: threads of a warp, of all of NVIDIA's cards
WARP: Final = 32

#: seconds until processes that compile are given up: they take ten where Python is slow
PATIENCE: Final = 60.0

#: as the supervisor starts its worker: with the modules that we see, and not those of the current folder
COMMAND: Final = "import sys; sys.path[:] = sys.argv[4:]; from vidkit.pipelines.fast.rehearsal import main; main()"


@contextmanager
def rehearsed(measures: Measures) -> Iterator[None]:
    """While the block runs, what clips with these measures start is compiled; at its end that is done.

    Once for a machine and its libraries, which is noted in the data folder, however it went: what is missing is
    compiled when it is first used.
    """
    note = note_file(measures.dtype) if may_compile(measures) else None
    if note is None or note.exists():
        yield
        return
    began, processes = time.monotonic(), list[subprocess.Popen[bytes]]()
    try:
        processes += [started(parts, measures.dtype, the_card()) for parts in shared_out()]
    except OSError as error:
        logger.info("no process that compiles kernels: %s", error)
    try:
        yield
        ended = [process.wait(PATIENCE) for process in processes]
        logger.info("kernels compiled in %.1f s, exit codes %s", time.monotonic() - began, ended)
        remember(note, {"exit codes": str(ended)})
    except subprocess.TimeoutExpired:
        logger.info("compiling kernels took more than %g s", PATIENCE)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def may_compile(measures: Measures) -> bool:
    """Whether layers will be fast (which `has_layers` tries out later), and Triton compiles for NVIDIA's cards."""
    import torch

    is_wanted = measures.device == "cuda" and measures.speed != "exact" and not is_lean(measures)
    return is_wanted and torch.version.cuda is not None and importlib.util.find_spec("triton") is not None


def shared_out() -> list[list[str]]:
    """Which parts each process compiles. Half of the cores may do so, as each process loads torch first."""
    count = max(1, min(len(PARTS), (os.cpu_count() or 1) // 2))
    return [list(PARTS)[first::count] for first in range(count)]


def started(parts: Sequence[str], dtype: str, card: Mapping[str, int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-c", COMMAND, json.dumps(parts), dtype, json.dumps(card), *sys.path]
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)


def the_card() -> dict[str, int]:
    """Of the current one, what decides what is compiled."""
    import torch

    card: Any = torch.cuda.get_device_properties()
    names = ("major", "minor", "multi_processor_count", "shared_memory_per_block_optin")
    return {name: getattr(card, name) for name in names}


def note_file(dtype: str) -> Path:
    import torch
    import triton  # type: ignore[import-untyped,unused-ignore]

    depends_on = [torch.__version__, triton.__version__, dtype, the_card(), own_source()]
    name = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:16]
    return settings_or_defaults().cache / "kernels" / f"{name}.json"


@cache
def own_source() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


# --- in a process of its own ------------------------------------------------------------------------------------------


def main() -> None:
    """Compile some parts. Arguments: their names, the dtype, the card."""
    import torch
    from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped,unused-ignore]
    from triton.backends.nvidia import driver as nvidia  # type: ignore[import-untyped,unused-ignore]
    from triton.runtime import driver  # type: ignore[import-untyped,unused-ignore]
    from triton.runtime.jit import JITFunction  # type: ignore[import-untyped,unused-ignore]

    parts, dtype, card = json.loads(sys.argv[1]), sys.argv[2], SimpleNamespace(**json.loads(sys.argv[3]))
    target, run = GPUTarget("cuda", 10 * card.major + card.minor, WARP), JITFunction.run
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
        )
    )

    def compiled(kernel: Any, *arguments: Any, warmup: bool, **options: Any) -> None:
        found = run(kernel, *arguments, warmup=True, **options)
        if hasattr(nvidia, "make_launcher"):  # until Triton 3.6 the C compiler makes what starts a kernel
            nvidia.CudaLauncher(found.src, found.metadata)

    JITFunction.run = compiled
    for part in parts:
        PARTS[part](partial(torch.empty, dtype=getattr(torch, dtype), device="meta"), card)
    if "first" in parts:
        nvidia.CudaUtils()  # and what loads them, in every version


def start_first(make: Make, card: Any) -> None:
    """What is tried first (`fused.works`), and what has few variants."""
    import torch

    fused.gated(make(1, 2))
    maps = channels_last(make(1, 64, 2, 2))
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1, device=maps.device, dtype=maps.dtype)
    convolution.weight.data = channels_last(convolution.weight.data)
    fused_products.upsampled(convolution, maps)
    fused_products.doubled(maps, 4, 4)


def start_group_norms_and_sums(make: Make, card: Any) -> None:
    """As `operations` calls them."""
    import torch

    tokens, rows, shares = make(1, 16, 64), make(1, 64), make(1)
    norm = torch.nn.GroupNorm(32, 64, device=tokens.device, dtype=tokens.dtype)
    fused.group_norm(norm, tokens, None, silu=True)
    fused.group_norm(norm, tokens, rows, silu=True)
    fused.group_norm(norm, tokens, None, silu=False, more=rows[0])
    fused.weighted_sum(tokens, None, None, None, tokens)
    fused.weighted_sum(tokens, tokens, rows, None, tokens)
    fused.weighted_sum(tokens, tokens, rows, shares, tokens)
    fused.weighted_sum(tokens, tokens, None, shares, tokens, towards=True)


def start_layer_norms(make: Make, card: Any) -> None:
    import torch

    for channels in BLOCKS:
        tokens, row = make(1, 16, channels), make(1, channels)
        norm = torch.nn.LayerNorm(channels, device=tokens.device, dtype=tokens.dtype)
        for added, shift in ((None, None), (row, None), (None, row)):
            fused.layer_norm(norm, tokens, added, shift, total=tokens, more=row[0])


def start_gates(make: Make, card: Any) -> None:
    import torch

    tokens = make(16, 64)
    projection = torch.nn.Linear(64, 128, device=tokens.device, dtype=tokens.dtype)
    fused_products.geglu(tokens, projection, fused_products.blocks_of(card)[0])


def start_frames(make: Make, card: Any) -> None:
    for width in HEADS:
        tokens = make(FRAMES, 1, 2 * width)
        fused_products.over_frames(tokens, tokens, tokens, FRAMES, heads=2)


#: about as long each
PARTS: Final[Mapping[str, Callable[[Any, Any], None]]] = {
    "first": start_first,
    "group norms, sums": start_group_norms_and_sums,
    "layer norms": start_layer_norms,
    "gates": start_gates,
    "frames": start_frames,
}
