"""Device memory of full-size models, phase by phase, measured beside what `vidkit.memory` predicts.

    python -m benchmarks.memory RESULTS.json [--seconds 500] [--convolutions CONVOLUTIONS.json] [--device cuda] [--few]
    python -m benchmarks.memory RESULTS.json --predict    # on any machine: predict what was measured again

The models have the published configs, and weights of zeros that take no room on the disk: memory depends on shapes
alone. They are loaded and called as vidkit does it. Results are written after each setting. What is alive when, and the
coefficients of `vidkit.memory`, were worked out on the settings marked "calibration"; those marked "judged" were drawn
and measured afterwards. Exits with 1 when a judged prediction misses its target.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.memory_models import make_models
from benchmarks.memory_settings import Setting, settings
from vidkit.device import GIB

#: targets: of the measured peak, how much a prediction may be off, and how much too low
MOST_OFF, MOST_UNDER = 0.10, 0.05


class Meter:
    """Peaks between marks, in bytes: allocated, and reserved by the allocator."""

    def __init__(self, device: str) -> None:
        self.peaks: dict[str, dict[str, int]] = {}
        self._on_gpu = device == "cuda"
        self.mark(None)

    def mark(self, phase: str | None) -> None:
        """A phase ends here (None: nothing does)."""
        import torch

        if phase is not None and phase not in self.peaks:
            self.peaks[phase] = {
                "allocated": torch.cuda.max_memory_allocated() if self._on_gpu else 0,
                "reserved": torch.cuda.max_memory_reserved() if self._on_gpu else 0,
            }
        if self._on_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measure(setting: Setting, models: Path, device: str, pipes: dict[Any, Any]) -> dict[str, Any]:
    """One request through vidkit's own loading, denoising and decoding."""

    from vidkit.computing import Job, decode, denoise
    from vidkit.images import fit_image
    from vidkit.limits import ResourceLimits
    from vidkit.placement import place, restore
    from vidkit.progress import Reporter
    from vidkit.record import load_picture
    from vidkit.resolving import resolve_request
    from vidkit.settings import load_settings
    from vidkit.warm import fresh_pipeline

    found = resolve_request(setting.params(models), load_settings())
    plan = setting.plan(device)
    params = plan.applied(found.params)
    pictures = [fit_image(load_picture(path, 0), params.width, params.height, params.fit) for path in found.pictures]
    limits = ResourceLimits()
    job = Job(params, found.family, found.models, {}, pictures, [], Path(), "mp4", limits, found.notes)
    key = (setting.model, setting.conditioning)
    if key not in pipes:
        pipes.clear()
        gc.collect()
        pipes[key] = fresh_pipeline(job, plan)
    pipe = pipes[key]
    place(pipe, plan)
    began = time.monotonic()
    meter = Meter(device)
    first = pipe.unet if getattr(pipe, "controlnet", None) is None else pipe.controlnet
    with before_first_call(first, lambda: meter.mark("encode")):
        latents, _ = denoise(job, pipe, Reporter(None, None), lambda: None)
    meter.mark("denoise")
    decode(job, pipe, plan, latents.cpu(), Reporter(None, None))
    meter.mark("decode")
    restore(pipe)
    return {"peaks": meter.peaks, "seconds": round(time.monotonic() - began, 2)}


@contextmanager
def before_first_call(module: Any, then: Callable[[], None]) -> Iterator[None]:
    """Before the offloading hooks, which move weights in the module's own forward."""
    handle = module.register_forward_pre_hook(lambda *_: (handle.remove(), then())[1], prepend=True)
    try:
        yield
    finally:
        handle.remove()


def predicted(setting: Setting, models: Path) -> dict[str, int]:
    """Bytes by phase, on any machine."""
    from vidkit.memory import predict
    from vidkit.resolving import resolve_request
    from vidkit.settings import load_settings

    found = resolve_request(setting.params(models), load_settings())
    prediction = predict(found.params, found.models, setting.plan("cuda"))
    return {phase: getattr(prediction, phase) for phase in ("encode", "denoise", "decode")}


# --- convolutions ---------------------------------------------------------------------------------------------------


def convolutions() -> list[dict[str, Any]]:
    """What cuDNN takes as workspace, in the shapes that the models have."""
    import torch

    rows = []
    for dtype in ("float16", "float32"):
        for cin, cout, side, frames, kernel in shapes(dtype):
            x_shape = (frames, cin, *side) if len(kernel) == 2 else (1, cin, frames, *side)
            torch.cuda.empty_cache()
            options = {"device": "cuda", "dtype": getattr(torch, dtype)}
            x, weight = torch.randn(x_shape, **options), torch.randn((cout, cin, *kernel), **options)
            bias = torch.randn(cout, **options)
            conv = torch.conv2d if len(kernel) == 2 else torch.conv3d
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            with torch.no_grad():
                y = conv(x, weight, bias, padding=tuple(k // 2 for k in kernel))
            torch.cuda.synchronize()
            size = y.numel() * y.element_size()
            peak = torch.cuda.max_memory_allocated() - before
            shape = {"in": cin, "out": cout, "side": side, "frames": frames, "kernel": kernel, "dtype": dtype}
            rows.append(shape | {"input": x.numel() * x.element_size(), "output": size, "workspace": peak - size})
            del x, y, weight, bias
    return rows


def shapes(dtype: str) -> Iterator[tuple[Any, ...]]:
    planes = [((64, 64), (1, 2, 8, 32)), ((72, 128), (2, 50)), ((256, 256), (1, 4, 16)), ((512, 512), (1, 4, 8)),
              ((576, 1024), (1, 2, 4, 8, 25))]  # fmt: skip
    for side, counts in planes:
        for frames in counts:
            unet = side[0] <= 72
            pairs = [(320, 320), (640, 320), (1280, 1280)] if unet else [(128, 128), (256, 128), (256, 256), (512, 512)]
            for cin, cout in pairs:
                if cin * side[0] * side[1] * frames * (2 if dtype == "float16" else 4) > 6 * GIB:
                    continue
                yield cin, cout, side, frames, (3, 3)
                if dtype == "float16":
                    yield cin, cin, side, frames, (3, 1, 1)
                if cin != cout:
                    yield cin, cout, side, frames, (1, 1)


# --- all together ---------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="settings that are in it already are not measured again")
    parser.add_argument("--seconds", type=float, default=500, help="no setting is begun after that")
    parser.add_argument("--convolutions", type=Path, help="measure what cuDNN takes, too, and write it here")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal, nothing measured")
    parser.add_argument("--few", action="store_true", help="one small setting of each kind")
    parser.add_argument("--predict", action="store_true", help="measure nothing")
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    if options.convolutions:
        write(options.convolutions, about_this_machine() | {"convolutions": convolutions()})
    content = json.loads(options.results.read_text()) if options.results.exists() else {"settings": []}
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        make_models(models)
        if not options.predict:
            content |= about_this_machine()
            for row in measured(
                few() if options.few else settings(), content["settings"], models, options.device, ends
            ):
                content["settings"].append(row)
                write(options.results, content)
        for row in content["settings"]:
            row["predicted"] = predicted(setting_of(row), models)
    write(options.results, content)
    return judge(content["settings"])


def measured(
    wanted: list[Setting], rows: list[dict[str, Any]], models: Path, device: str, ends: float
) -> Iterator[dict[str, Any]]:
    known, pipes = [setting_of(row) for row in rows], {}
    for setting in wanted:
        if setting in known or time.monotonic() > ends:
            continue
        try:
            row = measure(setting, models, device, pipes)
        except RuntimeError as error:  # out of memory above all: the other settings still count
            print(setting, error)
            pipes.clear()
            continue
        print(*asdict(setting).values(), in_gib(row))
        yield asdict(setting) | row | {"gpu": gpu()}


def setting_of(row: Mapping[str, Any]) -> Setting:
    return Setting(**{field.name: row[field.name] for field in fields(Setting) if field.name in row})


def judge(rows: list[dict[str, Any]]) -> int:
    """Print the worst errors of the peak, as shares of the measured one, and compare them with the targets."""
    missed = 0
    for split in ("calibration", "judged"):
        errors = [error_of(row) for row in rows if row["split"] == split and row["peaks"]["decode"]["allocated"]]
        if errors:
            print(f"{split}: {len(errors)} settings, {min(errors):+.1%} to {max(errors):+.1%}")
            missed += split == "judged" and not (min(errors) >= -MOST_UNDER and max(errors) <= MOST_OFF)
    return int(missed)


def error_of(row: Mapping[str, Any]) -> float:
    return max(row["predicted"].values()) / max(allocated(row).values()) - 1


def allocated(row: Mapping[str, Any]) -> dict[str, int]:
    """Measured peaks by phase."""
    return {phase: peak["allocated"] for phase, peak in row["peaks"].items()}


def few() -> list[Setting]:
    full = [Setting("sd15", 64, 64, 4, 2, conditioning=mode) for mode in ("init", "pia", "sparsectrl")]
    return [
        *full,
        Setting("sd15", 64, 64, 36, 2),
        Setting("narrow_svd", 64, 64, 4, 2),
        Setting("bundled:tiny-svd", 64, 64, 4, 2),
        Setting("bundled:tiny-animatediff", 64, 64, 4, 2),
        Setting("bundled:tiny-animatediff", 64, 64, 4, 2, conditioning="pia"),
        Setting("bundled:tiny-svd", 64, 64, 8, 2, halves=True, slices=True, vae_float32=True, window_frames=5),
        Setting("bundled:tiny-animatediff", 64, 64, 4, 2, slices=True, host_skips=True),
    ]


def in_gib(row: Mapping[str, Any]) -> str:
    peaks = row["peaks"].items()
    texts = [f"{phase} {peak['allocated'] / GIB:.2f}/{peak['reserved'] / GIB:.2f}" for phase, peak in peaks]
    return f"{' '.join(texts)} GiB, {row['seconds']} s"


def about_this_machine() -> dict[str, Any]:
    import diffusers
    import torch
    import transformers

    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers)}
    versions |= {"python": platform.python_version(), "cudnn": torch.backends.cudnn.version()}
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "gpu": gpu(), "versions": versions}


def gpu() -> str:
    """Its name, or "none"."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """JSON with a line for each measurement."""
    name = "convolutions" if "convolutions" in content else "settings"
    about = json.dumps({key: value for key, value in content.items() if key != name}, indent=1)
    lines = ",\n  ".join(json.dumps(row) for row in content[name])
    path.write_text(f'{about[:-2]},\n "{name}": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    raise SystemExit(main())
