"""A loaded model from place to place, at full size: how long that takes, and what is where.

    python -m benchmarks.placement RESULTS.json [--device cuda] [--few]

SVD-XT as published, with weights of zeros, through vidkit's own cache of loaded models: read once, then placed with
each kind of offloading in turns. "call" is one of the UNet, as in a denoising step of 14 frames of 1024x576, when the
order of its layers is known. Exits with 1 when something is read again, when a plan leaves on the device what it should
not, or when layers one by one take more than MOST_SLOWER of the resident UNet's time. --few: a rehearsal on any machine
with the bundled model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.loading import Bench, read_bytes
from benchmarks.memory import about_this_machine, write
from benchmarks.memory_models import make_published_svd
from vidkit.device import GIB, Offload, Plan

PLANS: list[Offload] = ["none", "model", "layers", "model", "layers", "none"]
MOST_SLOWER = 1.2
CALLS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--few", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.device)
        if not options.few:
            make_published_svd(Path(folder))
        job = bench.job(pipeline="svd", base_model="bundled:tiny-svd" if options.few else folder)
        rows = measured(bench, job, options.few)
    write(options.results, about_this_machine() | {"settings": rows})
    for row in rows:
        print(row)
    return judged(rows, options.few)


def measured(bench: Bench, job: Any, few: bool) -> list[dict[str, Any]]:
    from vidkit.models.loading.tensors import tensors_of
    from vidkit.placement import restore
    from vidkit.warm import WarmModels

    warm, rows = WarmModels(), []
    for offload in PLANS:
        plan = Plan(bench.plan.device, bench.plan.dtype, offload)
        before = read_bytes()
        pipe, placing = timed(bench, lambda plan=plan: warm.pipeline(job, plan))
        read = read_bytes() - before
        call = unet_call(bench, pipe, few)
        first = timed(bench, call)[1]
        clear_peak(bench)
        seconds = [timed(bench, call)[1] for _ in range(CALLS)]
        peak = peak_bytes(bench)
        restoring = timed(bench, lambda pipe=pipe: restore(pipe))[1]
        locked = sum(tensor.nbytes for tensor in tensors_of(pipe.unet) if bench.device == "cuda" and tensor.is_pinned())
        rows.append(
            {
                "offload": offload,
                "read GiB": round(read / GIB, 2),
                "place s": round(placing, 2),
                "first call s": round(first, 3),
                "call s": round(statistics.median(seconds), 3),
                "peak GiB": round(peak / GIB, 2),
                "restore s": round(restoring, 3),
                "at rest GiB": round(bench.memory() / GIB, 2),
                "page-locked GiB": round(locked / GIB, 2),
            }
        )
    warm.unload()
    rows.append({"offload": "unloaded", "at rest GiB": round(bench.memory() / GIB, 2)})
    return rows


def timed(bench: Bench, work: Callable[[], Any]) -> tuple[Any, float]:
    bench.wait()
    began = time.perf_counter()
    result = work()
    bench.wait()
    return result, time.perf_counter() - began


def clear_peak(bench: Bench) -> None:
    bench.clear()
    if bench.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_bytes(bench: Bench) -> int:
    import torch

    return int(torch.cuda.max_memory_allocated()) if bench.device == "cuda" else 0


def unet_call(bench: Bench, pipe: Any, few: bool) -> Callable[[], Any]:
    import torch

    frames, height, width = (4, 8, 8) if few else (14, 72, 128)
    config = pipe.unet.config
    shapes = [(2, frames, config.in_channels, height, width), (2, 1, config.cross_attention_dim), (2, 3)]
    inputs = [torch.zeros(shape, dtype=pipe.unet.dtype, device=bench.device) for shape in shapes]

    def call() -> None:
        with torch.no_grad():
            pipe.unet(inputs[0], 1.0, encoder_hidden_states=inputs[1], added_time_ids=inputs[2])

    return call


def judged(rows: list[dict[str, Any]], few: bool) -> int:
    """1 when a target is missed."""
    placed = rows[:-1]
    resident = placed[0]["call s"]
    checks = {
        "nothing is read twice": all(row["read GiB"] < 0.01 for row in placed[1:]),
        "offloaded, nothing rests on the device": all(
            row["at rest GiB"] < 0.05 for row in rows if row["offload"] != "none"
        ),
        "layers one by one are hardly slower": few
        or all(row["call s"] <= MOST_SLOWER * resident for row in placed if row["offload"] == "layers"),
    }
    for name, holds in checks.items():
        print(f"{'ok  ' if holds else 'MISS'} {name}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
