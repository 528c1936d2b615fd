"""Loading on a GPU, beside plain diffusers: seconds, bytes read, device memory; what a second request and swaps cost.

    python -m benchmarks.loading RESULTS.json [--rounds 3] [--device cuda] [--small]

The models have the published configs, and weights of zeros that take no room on the disk: a hole reads as a file does
that is in the page cache. Hashing is left out; it is done once for a model. "read" are the bytes that read calls gave
(rchar of /proc/self/io), which leaves out what plain diffusers maps; "opened" are the models' files that Python opened.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import SD15, make_published_svd, make_sd15, save_part
from vidkit.device import GIB, Plan
from vidkit.params import GenerationParams

_opened: list[str] = []


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _opened.append(str(arguments[0]))


class Bench:
    """Models in a folder, and requests for them on a device."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.plan = Plan("cuda", "float16", "none") if device == "cuda" else Plan("cpu", "float32", "none")

    def measured(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Seconds, bytes read, the models' files opened, and bytes of device memory more than before."""
        self.wait()
        _opened.clear()
        before, memory, began = read_bytes(), self.memory(), time.perf_counter()
        kept = work()
        self.wait()
        seconds = time.perf_counter() - began
        files = {path for path in _opened if path.startswith(str(self.folder)) or "/bundled/" in path}
        row = {"seconds": round(seconds, 3), "read": read_bytes() - before, "opened": len(files)}
        row["memory"] = self.memory() - memory
        del kept
        return row

    def wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def memory(self) -> int:
        import torch

        return torch.cuda.memory_allocated() if self.device == "cuda" else 0

    def free(self) -> int:
        """Bytes of the device that nobody has."""
        import torch

        return torch.cuda.mem_get_info()[0] if self.device == "cuda" else 0

    def clear(self) -> None:
        import torch

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def job(self, **request: Any) -> Any:
        """A resolved request, its models' hashes stood for by their paths."""
        from vidkit.resolving import resolve_request
        from vidkit.settings import load_settings

        size = {"width": 64, "height": 64, "num_frames": 8, "num_inference_steps": 2}
        params = GenerationParams(image_path="example:photo", prompt="the sea", **{**size, "seed": 1, **request})
        found = resolve_request(params, load_settings())
        hashes = {name: str(model.path) for name, model in found.models.items()}
        return SimpleNamespace(params=found.params, family=found.family, models=found.models, hashes=hashes)


def read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def plain_svd(bench: Bench, base: Path) -> Any:
    """As diffusers' documentation loads it."""
    from diffusers import StableVideoDiffusionPipeline

    pipe = StableVideoDiffusionPipeline.from_pretrained(base, dtype=dtype(bench), local_files_only=True)
    return pipe.to(bench.device)


def plain_animatediff(bench: Bench, base: Path, adapter: Path) -> Any:
    from diffusers import AnimateDiffVideoToVideoPipeline, MotionAdapter

    # the bundled adapter has input channels of its own, which this pipeline does not feed
    options = {"dtype": dtype(bench), "local_files_only": True}
    motion = MotionAdapter.from_pretrained(adapter, conv_in_channels=None, **options)
    return AnimateDiffVideoToVideoPipeline.from_pretrained(base, motion_adapter=motion, **options).to(bench.device)


def dtype(bench: Bench) -> Any:
    import torch

    return getattr(torch, bench.plan.dtype)


# --- what is measured -------------------------------------------------------------------------------------------------


def side_by_side(bench: Bench, plain: Callable[[], Any], request: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Fresh loads of both, one after the other, after one of each that is not counted."""
    from vidkit.warm import WarmModels

    rows: dict[str, list[dict[str, Any]]] = {"plain": [], "vidkit": []}
    for number in range(rounds + 1):
        for name, work in (
            ("plain", plain),
            ("vidkit", lambda: WarmModels().pipeline(bench.job(**request), bench.plan)),
        ):
            row = bench.measured(work)
            bench.clear()
            if number:
                rows[name].append(row)
    found: dict[str, Any] = {
        name: {"seconds": statistics.median(row["seconds"] for row in several), "all": several}
        for name, several in rows.items()
    }
    found["times_faster"] = round(found["plain"]["seconds"] / found["vidkit"]["seconds"], 2)
    return found


def in_turn(bench: Bench, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Requests of one process, one after the other, and the memory before, with, and after all of them."""
    from vidkit.warm import WarmModels

    bench.clear()
    warm, rows = WarmModels(), {}
    memory = {"allocated": [bench.memory()], "free": [bench.free()]}
    for name, request in requests.items():
        job = bench.job(**request)
        rows[name] = bench.measured(lambda job=job: warm.pipeline(job, bench.plan))
    memory["allocated"].append(bench.memory())
    memory["free"].append(bench.free())
    rows["unload"] = bench.measured(warm.unload)
    memory["allocated"].append(bench.memory())
    memory["free"].append(bench.free())
    return {"requests": rows, "before, loaded, unloaded": memory, "loaded": round(memory["allocated"][1] / GIB, 2)}


def measure(bench: Bench, paths: Mapping[str, Path], rounds: int) -> Iterator[dict[str, Any]]:
    """The results, part by part."""
    svd = {"pipeline": "svd", "base_model": str(paths["svd"])}
    init = {"pipeline": "animatediff", "base_model": str(paths["base"]), "motion_adapter": str(paths["adapter"])}
    other_mode = {"conditioning": "pia"}  # the bundled adapter serves both
    if "sparsectrl" in paths:
        other_mode = {"conditioning": "sparsectrl", "controlnet": str(paths["sparsectrl"])}
    other_base, other_adapter = (
        {"base_model": str(paths["other_base"])},
        {"motion_adapter": str(paths["other_adapter"])},
    )
    swaps = {
        "first": init,
        "the same again": init | {"width": 72},
        "another base": init | other_base,
        "and back": init,
        "another adapter": init | other_adapter,
        "and back from it": init,
        "another conditioning": init | other_mode,
    }
    yield {"svd": side_by_side(bench, lambda: plain_svd(bench, paths["svd"]), svd, rounds)}
    plain = partial(plain_animatediff, bench, paths["base"], paths["adapter"])
    yield {"animatediff": side_by_side(bench, plain, init, rounds)}
    yield {"svd in turn": in_turn(bench, {"first": svd, "the same again": svd | {"num_frames": 10}})}
    yield {"animatediff in turn": in_turn(bench, swaps)}
    yield {"checks": checks(bench)}


def checks(bench: Bench) -> dict[str, bool]:
    """With the bundled models, which have weights of their own: what must hold whatever it costs."""
    import torch

    import vidkit
    from vidkit.computing import Job, decode, denoise
    from vidkit.images import fit_image
    from vidkit.limits import ResourceLimits
    from vidkit.progress import Reporter
    from vidkit.record import load_picture
    from vidkit.warm import WarmModels

    bundled = SD15.parents[1] / "bundled"
    base, adapter = bundled / "tiny-animatediff", bundled / "tiny-motion-adapter"
    found: dict[str, bool] = {}
    latents = []
    for offload in ("none", "model") if bench.device == "cuda" else ("none",):
        plan = Plan(bench.plan.device, bench.plan.dtype, offload)
        for frames in (8, 40):
            request = {"base_model": str(base), "motion_adapter": str(adapter), "num_frames": frames, "strength": 1.0}
            needs = bench.job(pipeline="animatediff", **request)
            picture = fit_image(load_picture(Path(vidkit.__file__).parent / "examples" / "photo.jpg", 0), 64, 64)
            job = Job(
                needs.params,
                needs.family,
                needs.models,
                needs.hashes,
                [picture],
                [],
                Path(),
                "mp4",
                ResourceLimits(),
                [],
            )
            warm = WarmModels()
            pipe = warm.pipeline(job, plan)
            latents.append(denoise(job, pipe, Reporter(None, None), lambda: None)[0].cpu())
            decode(job, pipe, plan, latents[-1], Reporter(None, None))
            modules = dict(pipe.motion_adapter.named_parameters())
            shared = all(weight is modules.get(key, weight) for key, weight in pipe.unet.named_parameters())
            found[f"{frames} frames, offload {offload}: weights are there once"] = shared
            found[f"{frames} frames, offload {offload}: finite"] = bool(latents[-1].isfinite().all())
            if offload == "none":
                plain = plain_animatediff(bench, base, adapter).unet.state_dict()
                mine = pipe.unet.state_dict()
                found[f"{frames} frames: weights are plain diffusers'"] = plain.keys() == mine.keys() and all(
                    torch.equal(mine[key], weight) for key, weight in plain.items()
                )
            warm.unload()
    if len(latents) == 4:
        found["offloaded latents are the resident ones"] = all(map(torch.equal, latents[:2], latents[2:]))
    return found


# --- models -----------------------------------------------------------------------------------------------------------


def full_size(folder: Path) -> dict[str, Path]:
    import diffusers

    make_published_svd(folder / "svd")
    make_sd15(folder / "sd15")
    save_part(folder / "motion_adapter", diffusers.MotionAdapter, {})
    save_part(folder / "sparse_controlnet", diffusers.SparseControlNetModel, {})
    make_sd15(folder / "other_sd15")
    save_part(folder / "other_motion_adapter", diffusers.MotionAdapter, {})
    names = {"svd": "svd", "base": "sd15", "adapter": "motion_adapter", "sparsectrl": "sparse_controlnet"}
    names |= {"other_base": "other_sd15", "other_adapter": "other_motion_adapter"}
    return {name: folder / path for name, path in names.items()}


def small(folder: Path) -> dict[str, Path]:
    """The bundled models, for a rehearsal; copies of them as the others."""
    import shutil

    bundled = SD15.parents[1] / "bundled"
    for name in ("tiny-svd", "tiny-animatediff", "tiny-motion-adapter"):
        shutil.copytree(bundled / name, folder / name)
        shutil.copytree(bundled / name, folder / f"other-{name}")
    return {
        "svd": folder / "tiny-svd",
        "base": folder / "tiny-animatediff",
        "other_base": folder / "other-tiny-animatediff",
        "adapter": folder / "tiny-motion-adapter",
        "other_adapter": folder / "other-tiny-motion-adapter",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a rehearsal with the bundled models")
    options = parser.parse_args()
    sys.addaudithook(note)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        bench = Bench(folder, options.device)
        content = about_this_machine()
        for part in measure(bench, (small if options.small else full_size)(folder), options.rounds):
            content |= part
            options.results.write_text(json.dumps(content, indent=1) + "\n")
            print(json.dumps(part), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
