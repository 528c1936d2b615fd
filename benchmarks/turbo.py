"""Speed turbo on the bundled models: what is left of the work, and how close the clips are to exact's.

    python -m benchmarks.turbo RESULTS.json [PICTURE ...] [--cases svd svd-25 ...] [--seeds 1 2]

Beside it what else gives less work: fewer steps (as many as turbo computes), and DeepCache's package where it is
installed, which keeps the deeper layers' features for some steps. All ways compute their layers as diffusers does, so
that only what they leave out tells them apart. The work of denoising is counted in operations of products of matrices,
convolutions and attention: no other load of the machine changes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.memory import about_this_machine
from benchmarks.speed import decode, operations, psnr
from benchmarks.tables import table
from vidkit.device import plain_plan
from vidkit.params import GenerationParams
from vidkit.pipelines.turbo import skipping

#: requests of the bundled models; 8 steps are what these are made for, 25 what published models take. With init a
#: strength below 1 leaves some of them out.
CASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "svd": {"pipeline": "svd"},
    "svd-25": {"pipeline": "svd", "num_inference_steps": 25, "motion_bucket_id": 180},
    "init-25": {"pipeline": "animatediff", "num_inference_steps": 25},
    "pia": {"pipeline": "animatediff", "conditioning": "pia"},
    "pia-25": {"pipeline": "animatediff", "conditioning": "pia", "num_inference_steps": 25},
}
SHARES: Final = (0.5, 0.35, 0.25, 0.15)
DEFAULT: Final = GenerationParams.model_fields["turbo_share"].default
#: steps of which DeepCache computes one in full
INTERVALS: Final = (2, 3, 5)

PROMPTS: Final = ("the camera pans left", "the camera zooms in", "the camera tilts up", "the camera rotates")
#: dB of frames that are the same, for medians
SAME: Final = 120.0


def rows_of(case: str, pictures: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One for each way: shares of exact's work, and dB between its frames and exact's, over pictures and seeds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number, picture in enumerate(pictures):
        for seed in seeds:
            request = {"image_path": picture, "prompt": PROMPTS[number % len(PROMPTS)], "seed": seed, **CASES[case]}
            for way, share, decibels in compared(request):
                found.setdefault(way, []).append((share, decibels))
    return [
        {"case": case, "way": way, "clips": len(clips)}
        | {"work": round(statistics.mean(share for share, _ in clips), 3)}
        | {"median_psnr": round(statistics.median(decibels for _, decibels in clips), 1)}
        | {"worst_psnr": round(min(decibels for _, decibels in clips), 1)}
        for way, clips in found.items()
    ]


def compared(request: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """A way, its share of exact's work, dB."""
    from vidkit import generation
    from vidkit.progress import Reporter
    from vidkit.settings import load_settings
    from vidkit.warm import fresh_pipeline

    job = generation.prepare(GenerationParams(**request), load_settings(), Reporter(None, None))
    pipe = fresh_pipeline(job, plain_plan("cpu"))
    exact, whole = made(job, pipe, job.params)
    for share in SHARES:
        params = job.params.replace(speed="turbo", turbo_share=share)
        frames, work = made(job, pipe, params)
        yield f"turbo {share:g}", work / whole, psnr(frames, exact) or SAME
        if share == DEFAULT:
            steps = max(1, round((job.params.num_inference_steps or 1) * work / whole))
    frames, work = made(job, pipe, job.params.replace(num_inference_steps=steps))
    yield "fewer steps", work / whole, psnr(frames, exact) or SAME
    for interval in INTERVALS:
        if (kept := deep_cache(pipe, interval)) is not None:
            with kept:
                frames, work = made(job, pipe, job.params)
            yield f"DeepCache {interval}", work / whole, psnr(frames, exact) or SAME


def made(job: Any, pipe: Any, params: GenerationParams) -> tuple[Any, int]:
    """Frames, and the operations of their denoising."""
    results: list[Any] = []

    def denoised() -> None:
        with skipping(pipe, params):
            results.append(job.family.denoise(pipe, params, job.models, job.pictures, lambda: None)[0])

    work = operations(denoised)
    return decode(job, pipe, results[0], plain_plan("cpu")), work


def deep_cache(pipe: Any, interval: int) -> Any:
    """A block in which a pipeline's UNet works with DeepCache; None where that is not installed."""
    try:
        from DeepCache import DeepCacheSDHelper
    except ImportError:
        return None
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=0)

    @contextmanager
    def enabled() -> Iterator[None]:
        helper.enable()
        try:
            yield
        finally:
            helper.disable()

    return enabled()


def in_short(row: Mapping[str, Any]) -> str:
    """The share of the work, and dB: the median and the worst clip's."""
    return f"{row['work']:.0%}: {row['median_psnr']:.0f} dB ({row['worst_psnr']:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("pictures", nargs="*", default=["example:photo"])
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    content = about_this_machine() | {"pictures": len(options.pictures), "seeds": options.seeds, "rows": []}
    for case in options.cases:
        rows = rows_of(case, options.pictures, options.seeds)
        content["rows"] += rows
        options.results.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{case} done", flush=True)
    print(table(content["rows"], "case", in_short))


if __name__ == "__main__":
    main()
