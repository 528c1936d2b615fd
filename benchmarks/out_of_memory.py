"""Real failures for want of memory, under caps that the planner does not know: retried, told, and nothing left behind.

    python -m benchmarks.out_of_memory RESULTS.json [--failures 20] [--device cuda] [--few]

First each library is asked for its first piece of work on a GPU that is full but for some MiB, in a process of its own:
its words, and what vidkit takes them for. Then, in one process, requests run under caps on torch's allocator that are
drawn between far too little and nearly enough for the plan that is made, which knows of none: each ends as a clip by
another plan, or as a typed error. At the end the same request runs without a cap, and the memory that is allocated then
is compared with that after the first. Full-size SVD, whose weights are zeros that take no room on the disk.

Exits with 1 when an error is of another kind, when more than 1 % is left behind, or the last request fails. --few: a
rehearsal with the bundled model; on a CPU the cap is one on the process's address space.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import make_published_svd

MIB = 2**20

#: a library's first work, on half-precision tensors on the device
WORKS = {
    "matmul": "a @ a",
    "linear": "torch.nn.functional.linear(a, a)",
    "convolution": "torch.nn.functional.conv2d(b, w, padding=1)",
    "attention": "torch.nn.functional.scaled_dot_product_attention(q, q, q)",
}

#: MiB of the GPU that are left for it
LEFT = 8

#: of a process of its own: fills the GPU but for so many MiB, then does one work; one JSON line on stdout
FULL_GPU = """
import json, sys, torch
from vidkit.failures import typed_failure
from vidkit.params import GenerationParams
work, left = sys.argv[1], int(sys.argv[2]) * 2**20
half = dict(dtype=torch.float16, device="cuda")
a, b = torch.zeros(2048, 2048, **half), torch.zeros(1, 320, 64, 64, **half)
w, q = torch.zeros(320, 320, 3, 3, **half), torch.zeros(1, 8, 512, 64, **half)
full = [torch.empty(max(torch.cuda.mem_get_info()[0] - left, 0), dtype=torch.uint8, device="cuda")]
params = GenerationParams(image_path="a.png", prompt="x", width=512, height=512, num_frames=14)
try:
    eval(work)
    torch.cuda.synchronize()
    found = {"error": None}
except Exception as error:
    typed = typed_failure(error, params)
    said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    found = {"error": said, "code": typed and typed.code}
print(json.dumps(found))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--failures", type=int, default=20)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--few", action="store_true", help="a small clip of the bundled model")
    options = parser.parse_args()
    content: dict[str, Any] = about_this_machine() | {"ways": ways() if options.device == "cuda" else []}
    for way in content["ways"]:
        print(f"{way['work']}, {way['left']} MiB left: {way['error']} -> {way.get('code')}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        content |= requests(Path(name), options)
    options.results.write_text(json.dumps(content, indent=1) + "\n")
    missed = problems(content)
    print(*missed, sep="\n")
    return int(bool(missed))


def ways() -> list[dict[str, Any]]:
    """How each library says that there is no memory."""
    found = []
    for name, work in WORKS.items():
        command = [sys.executable, "-c", FULL_GPU, work, str(LEFT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        told = done.stdout.splitlines()[-1:] or [json.dumps({"error": done.stderr[-300:], "code": "died"})]
        found.append({"work": name, "left": LEFT, **json.loads(told[0])})
    return found


def requests(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One request over and over, with caps and without."""
    import os

    os.environ |= {"VIDKIT_HOME": str(folder / "home"), "VIDKIT_DEVICE": options.device}
    Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")  # zeros make grey clips, broken for other pictures
    request: dict[str, Any] = {"image_path": str(folder / "grey.png"), "prompt": "x", "seed": 1, "overwrite": True}
    request |= {"num_inference_steps": 2, "output_path": str(folder / "clip.gif")}  # which needs no ffmpeg
    if options.few:
        request |= {"num_frames": 8, "decode_chunk_size": 8}
    else:
        make_published_svd(folder / "svd")
        request |= {"base_model": str(folder / "svd"), "width": 768, "height": 448, "num_frames": 14}
        request["decode_chunk_size"] = 7

    first = attempt(request, options.device, None)
    print(f"first: {first}", flush=True)
    draw, rows = random.Random(0), []  # noqa: S311  (no secret)
    whole = first["peak"] or 256 * MIB
    for number in range(options.failures):
        share = draw.uniform(0.2, 0.98)
        row = attempt(request | {"allow_changes": number % 3 == 2}, options.device, round(whole * share))
        rows.append({"share": round(share, 3), **row})
        print(f"{number}: {share:.0%} of the peak: {row}", flush=True)
    last = attempt(request, options.device, None)
    print(f"last: {last}", flush=True)
    return {
        "request": {key: value for key, value in request.items() if key != "base_model" and "path" not in key},
        "first": first,
    } | {
        "rows": rows,
        "last": last,
    }


def attempt(request: dict[str, Any], device: str, cap: int | None) -> dict[str, Any]:
    """One request under a cap; bytes at its peak and allocated after it."""
    import torch

    import vidkit
    from vidkit.errors import VidkitError

    began = time.monotonic()
    row: dict[str, Any] = {"cap": cap}
    with capped(device, cap):
        try:
            result = vidkit.generate(request)
            row |= {"plan": result.record["plan"], "notes": [note for note in result.notes if "memory" in note]}
        except VidkitError as error:
            row |= {"error": error.code, "suggestions": [str(advice) for advice in error.suggestions]}
    gc.collect()
    on_gpu = device == "cuda"
    row["peak"] = torch.cuda.max_memory_allocated() if on_gpu else 0
    row["allocated"] = torch.cuda.memory_allocated() if on_gpu else live_bytes()
    row["seconds"] = round(time.monotonic() - began, 1)
    return row


@contextmanager
def capped(device: str, cap: int | None) -> Iterator[None]:
    """So many bytes for torch's tensors; on a CPU, beyond what the process's address space is now."""
    if cap is None:
        yield
    elif device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.mem_get_info()[1])
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    else:
        import resource

        import psutil

        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + cap, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def live_bytes() -> int:
    """Of all tensors in the host's memory: what the process holds of the system says less, it keeps what is freed."""
    import torch

    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def problems(content: dict[str, Any]) -> list[str]:
    found = [f"{way['work']}: {way['error']} is {way.get('code')}" for way in content["ways"] if is_missed(way)]
    for number, row in enumerate(content["rows"]):
        if row.get("error") not in (None, "out_of_memory", "out_of_host_memory"):
            found.append(f"request {number}: {row['error']}")
    if content["gpu"] != "none" and not any(row.get("notes") for row in content["rows"]):
        found.append("no request was saved by another plan")
    first, last = content["first"], content["last"]
    if "error" in last:
        found.append(f"the last request: {last['error']}")
    left = last["allocated"] / first["allocated"] - 1
    content["left"] = left
    if abs(left) > 0.01:
        found.append(f"{left:+.1%} of memory is allocated at the end")
    return found


def is_missed(way: dict[str, Any]) -> bool:
    return way["error"] is not None and way.get("code") != "out_of_memory"


if __name__ == "__main__":
    sys.exit(main())
