"""Kernels compiled while the first models of a machine load, by processes beside: not in a clip's first step.

One thread imports libraries then, for seconds, and other cores are idle. Compiling is Python's work as much, so that a
thread beside would slow the imports down by as long (`benchmarks/NOTES.md`). The processes do not touch the GPU, whose
memory the models need: they compile for its kind.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from vidkit.pipelines.fast import fused, fused_products
from vidkit.pipelines.fast.installing import Measures, is_lean
from vidkit.pipelines.fast.operations import channels_last
from vidkit.processes import cores_here, end_children

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

#: Seconds that loading waits for processes that are not done. Less than a cancelled worker is given to answer
#: (`supervisor.GRACE`), and for old cards, for which one kernel compiles for a minute, too few.
PATIENCE: Final = 3.0

#: as the supervisor starts its worker: with the modules that we see, and not those of the current folder
COMMAND: Final = "import sys; sys.path[:] = sys.argv[4:]; from vidkit.pipelines.fast.rehearsal import main; main()"


@contextmanager
def rehearsed(measures: Measures) -> Iterator[None]:
    """While the block runs, processes compile what clips with these measures start; at its end none is left.

    Once for a machine and its libraries, by whoever comes first and however it goes: what is missing is compiled as it
    is first used.
    """
    if not (may_compile(measures) and claimed(note_file(measures.dtype))):
        yield
        return
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="vidkit-", ignore_cleanup_errors=True) as folder:
        try:
            start(processes, measures.dtype, folder)
            yield
            wait(processes)
        finally:
            for process in processes:
                end(process)


def may_compile(measures: Measures) -> bool:
    """Whether layers will be fast (which `has_layers` tries out later), and Triton compiles for NVIDIA's cards."""
    import torch

    if measures.device != "cuda" or measures.speed == "exact" or is_lean(measures) or torch.version.cuda is None:
        return False
    try:
        import triton  # type: ignore[import-untyped,unused-ignore]  # noqa: F401  (whether it can be imported)
        from triton import knobs  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except Exception as error:  # noqa: BLE001  a broken one may fail in any way, and nothing depends on it
        logger.info("no kernels are compiled: %s", error)
        return False
    return True


def note_file(dtype: str) -> Path:
    """There when what this card and these libraries start was compiled, or is being compiled. With Triton's kernels,
    so that it goes where they go."""
    import torch
    import triton

    versions = torch.__version__, triton.__version__, sysconfig.get_config_var("EXT_SUFFIX")
    depends_on = json.dumps([*versions, dtype, the_card(), own_source()])
    name = hashlib.sha256(depends_on.encode()).hexdigest()[:16]
    return Path(triton.knobs.cache.dir) / f"vidkit-{name}"


def the_card() -> dict[str, int]:
    """Of the current one, what decides what is compiled."""
    import torch

    card: Any = torch.cuda.get_device_properties()
    names = ("major", "minor", "multi_processor_count", "shared_memory_per_block_optin")
    return {name: getattr(card, name) for name in names}


@cache
def own_source() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def claimed(note: Path) -> bool:
    """Whether nobody was here before. Without room for a note there is none for kernels either."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch(exist_ok=False)
    except OSError:
        return False
    return True


def start(processes: list[subprocess.Popen[bytes]], dtype: str, folder: str) -> None:
    """One for every two cores, as each loads torch first. folder: for the compilers' temporary files."""
    count = max(1, min(len(PARTS), cores_here() // 2))
    card, surroundings = json.dumps(the_card()), os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)
    silent = subprocess.DEVNULL
    for first in range(count):
        parts = json.dumps(list(PARTS)[first::count])
        command = [sys.executable, "-P", "-c", COMMAND, parts, dtype, card, *sys.path]
        try:
            processes.append(subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent, env=surroundings))
        except OSError as error:
            logger.info("no process that compiles %s: %s", parts, error)


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    began = time.monotonic()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, began + PATIENCE - time.monotonic()))
    codes = [process.returncode for process in processes]
    logger.info("kernels: processes that compile ended with %s, waited for %.1f s", codes, time.monotonic() - began)


def end(process: subprocess.Popen[bytes]) -> None:
    """With the compilers that it started."""
    end_children(process.pid)
    process.kill()
    process.wait()


# --- in a process of its own ------------------------------------------------------------------------------------------


def main() -> None:
    """Compile some parts. Arguments: their names, the dtype, the card. Exits with 1 where something failed."""
    import torch
    from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped,unused-ignore]
    from triton.backends.nvidia import driver as nvidia  # type: ignore[import-untyped,unused-ignore]
    from triton.runtime import driver  # type: ignore[import-untyped,unused-ignore]
    from triton.runtime.jit import JITFunction  # type: ignore[import-untyped,unused-ignore]

    parts, dtype, card = json.loads(sys.argv[1]), sys.argv[2], SimpleNamespace(**json.loads(sys.argv[3]))
    target, run, compiled = GPUTarget("cuda", 10 * card.major + card.minor, WARP), JITFunction.run, []

    def compile_only(kernel: Any, *arguments: Any, warmup: bool, **options: Any) -> None:
        compiled.append(run(kernel, *arguments, warmup=True, **options))

    def make_launchers() -> None:
        """The C compiler's part: what loads kernels, and until Triton 3.6 what starts each of them."""
        if "first" in parts:
            nvidia.CudaUtils()
        for kernel in compiled if hasattr(nvidia, "make_launcher") else ():
            nvidia.CudaLauncher(kernel.src, kernel.metadata)

    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
        )
    )
    JITFunction.run = compile_only
    block = fused_products.blocks_of(card)[0]
    fused_products.block_of_product = lambda device: block  # type: ignore[assignment]
    make = partial(torch.empty, dtype=getattr(torch, dtype), device="meta")
    steps: list[Callable[[], None]] = [*(partial(PARTS[part], make) for part in parts), make_launchers]
    failed = [step for step in steps if fails(step)]
    sys.exit(1 if failed else 0)


def fails(step: Callable[[], None]) -> bool:
    try:
        step()
    except Exception:  # noqa: BLE001  of a compiler; what follows may go well, and the clip finds out itself
        return True
    return False


def start_first(make: Make) -> None:
    """What is tried first (`fused.works`), and what has few variants."""
    import torch

    fused.gated(make(1, 2))
    maps = channels_last(make(1, 64, 2, 2))
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1, device=maps.device, dtype=maps.dtype)
    convolution.weight.data = channels_last(convolution.weight.data)
    fused_products.upsampled(convolution, maps)
    fused_products.doubled(maps, 4, 4)


def start_group_norms_and_sums(make: Make) -> None:
    """As `operations` calls them."""
    import torch

    tokens, rows, shares = make(1, 16, 64), make(1, 64), make(1)
    norm = torch.nn.GroupNorm(32, 64, device=tokens.device, dtype=tokens.dtype)
    for sums in (0, fused.FEW_SUMS[0], fused.MANY_SUMS[0]):  # of a picture to a whole video
        fused.group_norm(norm, make(1, fused.ROWS_SUMMED * sums + 1, 64), None, silu=True)
    fused.group_norm(norm, tokens, rows, silu=True)
    fused.group_norm(norm, tokens, None, silu=False, more=rows[0])
    fused.concatenated(tokens, tokens)
    fused.weighted_sum(tokens, tokens, rows, None, tokens)
    fused.weighted_sum(tokens, tokens, rows, shares, tokens)


def start_layer_norms(channels: int, make: Make) -> None:
    import torch

    tokens, row = make(1, 16, channels), make(1, channels)
    norm = torch.nn.LayerNorm(channels, device=tokens.device, dtype=tokens.dtype)
    for added, shift in itertools.product((None, row), (None, row)):
        fused.layer_norm(norm, tokens, added, shift)
    fused.layer_norm(norm, tokens, row, total=tokens, more=row[0])
    fused.layer_norm(norm, tokens, row, total=tokens, more=row[0], share=make(1))


def start_gates(make: Make) -> None:
    import torch

    tokens = make(16, 64)
    projection = torch.nn.Linear(64, 128, device=tokens.device, dtype=tokens.dtype)
    if block := fused_products.block_for(tokens, projection):
        fused_products.geglu(tokens, projection, block)


def start_frames(make: Make) -> None:
    for width in HEADS:
        tokens = make(FRAMES, 1, 2 * width)
        fused_products.over_frames(tokens, tokens, tokens, FRAMES, heads=2)


#: about as long each
PARTS: Final[Mapping[str, Callable[[Make], None]]] = {
    "first": start_first,
    "group norms, sums": start_group_norms_and_sums,
    **{f"layer norms of {channels}": partial(start_layer_norms, channels) for channels in BLOCKS},
    "gates": start_gates,
    "frames": start_frames,
}
