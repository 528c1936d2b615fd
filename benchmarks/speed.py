"""vidkit at its speeds beside plain diffusers and the specification's recipe, in one run on one machine.

    python -m benchmarks.speed RESULTS.json [--device cpu] [--models svd init pia] [--repeats 3] [--steps 8]

A clip from picture and text to its frames, model loaded. On a CPU with the bundled models, on a GPU with the published
sizes and random weights (so times are those of the real ones, and pictures are not). The pipeline is diffusers' own
each time, and called with the same arguments; what vidkit does to it is put on and taken off. The ways take turns of
two clips, of which the second is measured: so it is where one was made before. Of each way the shortest time counts,
since other work may share the machine; its load is noted. The floor is what plain diffusers' products of matrices,
convolutions and attention would take at the rate of large products of matrices, which is measured first; on a CPU in
seconds of its cores' time. Exits with 1 when a way is not equal to plain diffusers up to rounding, or turbo, with
weights that are not random, not close enough.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import make_published_svd, make_sd15, save_part
from benchmarks.tables import table
from vidkit.device import GIB, Plan, plain_plan
from vidkit.params import GenerationParams
from vidkit.pipelines.arrivals import arriving
from vidkit.pipelines.turbo import skipping
from vidkit.placement import recording

#: decibels between the frames of a way and of plain diffusers: 45 are called equal up to rounding
LEAST_PSNR = {"turbo": 30}
EQUAL_PSNR = 45

#: what the specification's recipe decodes at once
RECIPE_CHUNK = 4

#: sides of the matrices whose product tells how fast the machine can be
PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}

BUNDLED: Mapping[str, Mapping[str, Any]] = {
    "svd": {"pipeline": "svd"},
    "init": {"pipeline": "animatediff"},
    "pia": {"pipeline": "animatediff", "conditioning": "pia"},
}


# --- ways to make a clip ----------------------------------------------------------------------------------------------


@contextmanager
def plain(pipe: Any, plan: Plan) -> Iterator[None]:
    """diffusers as it is, all of the model on the device."""
    pipe.to(plan.device)
    yield


@contextmanager
def recipe(pipe: Any, plan: Plan) -> Iterator[None]:
    """As the specification has it: one part of the model at a time on the GPU."""
    pipe.enable_model_cpu_offload()
    try:
        yield
    finally:
        pipe.remove_all_hooks()
        pipe.to(plan.device)


@contextmanager
def vidkit(pipe: Any, plan: Plan) -> Iterator[None]:
    from vidkit.placement import place, release

    place(pipe, plan)
    try:
        yield
    finally:
        release(pipe)


def ways(plan: Plan) -> dict[str, tuple[Callable[..., Any], Plan]]:
    found: dict[str, tuple[Callable[..., Any], Plan]] = {"plain": (plain, plan)}
    if plan.device == "cuda":  # a CPU has nothing to offload from
        found["recipe"] = (recipe, plan)
    return found | {speed: (vidkit, plain_plan(plan.device, speed=speed)) for speed in ("exact", "fast", "turbo")}


# --- what is measured -------------------------------------------------------------------------------------------------


def rows_of(name: str, request: Mapping[str, Any], plan: Plan, repeats: int, rate: float) -> list[dict[str, Any]]:
    """One for each way. rate: operations a second that the machine can do."""
    import torch

    from vidkit import generation
    from vidkit.placement import release
    from vidkit.progress import Reporter
    from vidkit.settings import load_settings
    from vidkit.warm import fresh_pipeline

    job = generation.prepare(GenerationParams(**request), load_settings(), Reporter(None, None))
    plans = {its_plan.dtype: its_plan for _, its_plan in ways(plan).values()}
    pipes = {dtype: fresh_pipeline(job, its_plan) for dtype, its_plan in plans.items()}
    for pipe in pipes.values():
        release(pipe)
        if plan.device == "cuda":
            randomise(pipe)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways(plan)}
    made: dict[str, tuple[Any, Any]] = {}
    for _ in range(repeats):
        for way, (use, its_plan) in ways(plan).items():
            pipe = pipes[its_plan.dtype]
            with torch.no_grad(), use(pipe, its_plan):
                one_clip(job, pipe, its_plan, way)
                latents, frames, measured = one_clip(job, pipe, its_plan, way)
            runs[way].append(measured)
            made[way] = (latents, frames)
    pipe = pipes[plan.dtype]
    work = operations(lambda: denoise(job, pipe)) + operations(lambda: decode(job, pipe, made["plain"][0], plan))
    best = {way: {key: min(run[key] for run in found) for key in found[0]} for way, found in runs.items()}
    return [
        {"model": name, "way": way, **{key: round(value, 3) for key, value in found.items()}}
        | ratios(found, best["plain"])
        | {"share_of_floor": round(work / rate / found["cpu_seconds" if plan.device == "cpu" else "seconds"], 3)}
        | {"error": error(made[way][0], made["plain"][0]), "psnr": psnr(made[way][1], made["plain"][1])}
        for way, found in best.items()
    ]


def one_clip(job: Any, pipe: Any, plan: Plan, way: str) -> tuple[Any, Any, dict[str, float]]:
    """Latents, frames and what they took. cpu_seconds: of all cores, which other work does not lengthen as much."""
    import torch

    if plan.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    chunk = RECIPE_CHUNK if way == "recipe" else job.params.decode_chunk_size
    begun, used = time.perf_counter(), time.process_time()
    latents = denoise(job, pipe, plan.speed)
    waited(plan)
    denoised = time.perf_counter()
    denoised_used = time.process_time()
    frames = decode(job, pipe, latents, plan, chunk, at_once if way in ("plain", "recipe") else arriving)
    ended = time.perf_counter()
    measured = {"seconds": ended - begun, "denoise_seconds": denoised - begun, "decode_seconds": ended - denoised}
    measured |= {"cpu_seconds": time.process_time() - used, "denoise_cpu_seconds": denoised_used - used}
    if plan.device == "cuda":
        measured["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    return latents, frames, measured


def denoise(job: Any, pipe: Any, speed: str = "exact") -> Any:
    params = job.params.replace(speed=speed)
    with recording(pipe), skipping(pipe, params):
        return job.family.denoise(pipe, params, job.models, job.pictures, lambda: None)[0]


@contextmanager
def at_once() -> Iterator[Callable[[Any, Any], None]]:
    """How plain diffusers copies frames to the host."""
    yield lambda source, target: target.copy_(source)


def decode(
    job: Any, pipe: Any, latents: Any, plan: Plan, chunk: int | None = None, copied: Callable[[], Any] = at_once
) -> Any:
    """Pixels in [-1, 1] on the CPU."""
    import torch

    chunk, frames = chunk or job.params.decode_chunk_size, latents.shape[1]
    pixels = torch.empty(frames, 3, job.params.height, job.params.width)
    with torch.no_grad(), copied() as copy:
        for start in range(0, frames, chunk):
            some = latents[:, start : start + chunk].to(plan.device, pipe.vae.dtype)
            copy(job.family.decode(pipe, some), pixels[start : start + chunk])
    return pixels


def waited(plan: Plan) -> None:
    import torch

    if plan.device == "cuda":
        torch.cuda.synchronize()


def operations(call: Callable[[], Any]) -> int:
    """Multiplications and additions of a call's convolutions, products of matrices and attention."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        call()
    return int(counter.get_total_flops())


def highest_rate(plan: Plan) -> float:
    """Operations a second of a large product of matrices; the best of ten."""
    import torch

    side = PRODUCT_SIDE[plan.device]
    one, other = (torch.randn(side, side, device=plan.device).to(getattr(torch, plan.dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        waited(plan)
        begun = clock(plan)
        one @ other
        waited(plan)
        best = min(best, clock(plan) - begun)
    return 2 * side**3 / best


def clock(plan: Plan) -> float:
    """Seconds: of a CPU those in which its cores worked for this process, as others may use them too."""
    return time.process_time() if plan.device == "cpu" else time.perf_counter()


def randomise(pipe: Any) -> None:
    """Weights that are not holes in a file: numbers that are all zero take a GPU less power, and so less time."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            for parameter in part.to("cuda").parameters():
                parameter.data.normal_(std=0.02, generator=generator)


def ratios(found: Mapping[str, float], plain: Mapping[str, float]) -> dict[str, float]:
    keys = ("seconds", "denoise_seconds", "decode_seconds", "cpu_seconds", "denoise_cpu_seconds")
    return {f"times_faster_{key}": round(plain[key] / found[key], 2) for key in keys}


def error(result: Any, exact: Any) -> float:
    """The root of the mean square of the difference, as a share of the exact result's."""
    return float((result.double() - exact.double()).norm() / exact.double().norm())


def psnr(result: Any, exact: Any) -> float | None:
    """dB, of pixels in [-1, 1]; None where they are the same."""
    difference = float((result - exact).square().mean())
    return round(10 * math.log10(4 / difference), 1) if difference else None


# --- the command ------------------------------------------------------------------------------------------------------


def requests(device: str, folder: Path, steps: int | None) -> dict[str, dict[str, Any]]:
    common: dict[str, Any] = {"image_path": "example:photo", "prompt": "the camera pans left", "seed": 7}
    common |= {"num_inference_steps": steps} if steps else {}
    if device == "cpu":
        return {name: common | dict(request) for name, request in BUNDLED.items()}
    import diffusers

    make_published_svd(folder / "svd")
    make_sd15(folder / "sd15")
    save_part(folder / "adapter", diffusers.MotionAdapter, {})
    animatediff = {"base_model": str(folder / "sd15"), "motion_adapter": str(folder / "adapter")}
    return {
        "svd": common | {"pipeline": "svd", "base_model": str(folder / "svd")},
        "init": common | {"pipeline": "animatediff", "strength": 1.0} | animatediff,
    }


def is_close(row: Mapping[str, Any]) -> bool:
    return row["psnr"] is None or row["psnr"] >= LEAST_PSNR.get(row["way"], EQUAL_PSNR)


def in_words(row: Mapping[str, Any]) -> str:
    memory = f", peak {row['peak_gib']:.2f} GiB" if "peak_gib" in row else ""
    same = "same frames" if row["psnr"] is None else f"{row['psnr']} dB"
    return (
        f"{row['model']:5} {row['way']:7} {row['seconds']:8.2f} s (denoise {row['denoise_seconds']:.2f}, decode "
        f"{row['decode_seconds']:.2f}), x{row['times_faster_seconds']:.2f} (denoise "
        f"x{row['times_faster_denoise_seconds']:.2f}; of CPU time x{row['times_faster_cpu_seconds']:.2f}), "
        f"{row['share_of_floor']:.0%} of it the floor{memory}; error {row['error']:.1e}, {same}"
    )


def in_short(row: Mapping[str, Any]) -> str:
    """Seconds, how many times faster than plain diffusers, and dB where frames are not the same."""
    fidelity = "" if row["psnr"] is None else f", {row['psnr']:.0f} dB"
    return in_seconds(row) + fidelity


def in_seconds(row: Mapping[str, Any]) -> str:
    """Of random weights, whose frames say nothing of how close those of a model would be."""
    return f"{row['seconds']:.1f} s, x{row['times_faster_seconds']:.2f}"


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", choices=BUNDLED, nargs="+", help="by default all of the device's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of denoising; by default what the models take")
    options = parser.parse_args()
    plan = plain_plan(options.device)
    content = about_this_machine() | {"threads": torch.get_num_threads(), "rows": []}
    content["highest_rate"] = rate = highest_rate(plan)
    with tempfile.TemporaryDirectory() as folder:
        known = requests(options.device, Path(folder), options.steps)
        if unknown := set(options.models or ()) - known.keys():
            parser.error(f"not on {options.device}: {', '.join(sorted(unknown))}")
        for name in options.models or known:
            request = known[name]
            content["rows"] += rows_of(name, request, plan, options.repeats, rate)
            content["load"] = os.getloadavg() if hasattr(os, "getloadavg") else None
            options.results.write_text(json.dumps(content, indent=1) + "\n")
            for row in content["rows"][-len(ways(plan)) :]:
                print(in_words(row), flush=True)
    print(table(content["rows"], "model", in_short if options.device == "cpu" else in_seconds))
    judged = [row for row in content["rows"] if row["way"] != "turbo" or options.device == "cpu"]
    return int(not all(map(is_close, judged)))


if __name__ == "__main__":
    raise SystemExit(main())
