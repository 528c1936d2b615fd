"""What compiling networks ahead costs and saves, at full size with random weights: variants of each, beside eager ones.

    python -m benchmarks.compiling RESULTS.json PACKAGES [--device cuda] [--few] [--only svd_unet:layers ...]
                                   [--profile FILE]

A variant is which forwards the network has (plain: diffusers'; layers: fast blocks and layers), and a choice of torch's
compiler (tuned) or of attention (cudnn). All are compiled at once, each in a process of its own, before anything is
timed; packages that are in the folder PACKAGES already are taken from there, so that a run that was stopped goes on.
With eleven at once on 16 cores, SVD's UNet took 290 s. Also the attention of the networks' largest maps, by each of
torch's kernels. --few: a rehearsal on a CPU.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.compiled_network import compile_to, load, weights_of
from benchmarks.lean import Bench, error
from benchmarks.lean_networks import Setup, bundled, motion_unet_of
from benchmarks.memory import about_this_machine
from benchmarks.memory_models import PUBLISHED_UNET, PUBLISHED_VAE, on_meta

VARIANTS = ["svd_unet:layers", "svd_unet:layers:cudnn", "svd_decoder:layers", "motion_unet:layers:cudnn"]

#: after which a run that hangs says where, and ends
PATIENCE = 570

REPEATS = 5


def network_of(name: str, few: bool) -> Any:
    """Without weights."""
    import diffusers as d

    unet, vae = PUBLISHED_UNET, PUBLISHED_VAE
    if few:
        unet, vae = bundled("tiny-svd/unet"), bundled("tiny-svd/vae")
    makers: dict[str, Callable[[], Any]] = {
        "svd_unet": lambda: d.UNetSpatioTemporalConditionModel.from_config(unet),
        "svd_decoder": lambda: d.AutoencoderKLTemporalDecoder.from_config(vae).decoder,
        "motion_unet": lambda: motion_unet_of(Setup("cpu", few)),
    }
    return on_meta(makers[name]).eval().requires_grad_(False)


def arguments_of(
    name: str, network: Any, few: bool, make: Callable[..., Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As diffusers' pipelines call it. make: a tensor of a size."""
    channels = network.conv_in.in_channels
    height, width = (12, 20) if few else (72, 128)
    frames, side = (5, 12) if few else (16, 64)
    words = 64 if few else 768
    match name:
        case "svd_unet":
            count, width_of_picture = (5, 64) if few else (25, 1024)
            options = {"encoder_hidden_states": make(2, 1, width_of_picture), "added_time_ids": make(2, 3)}
            return (make(2, count, channels, height, width), make(1)[0].float()), options | {"return_dict": False}
        case "svd_decoder":
            return (make(4, channels, height, width),), {"num_frames": 4, "image_only_indicator": make(1, 4).zero_()}
    sample = make(2, frames, channels, side, side).transpose(1, 2)
    options = {"encoder_hidden_states": make(2 * frames, 77, words), "return_dict": False}
    return (sample, make(1)[0].float().abs() * 100), options


def prepared(network: Any, forwards: str) -> None:
    from vidkit.pipelines.fast import installing

    if forwards != "plain":
        installing.install_blocks(network, None)
    if forwards == "layers":
        installing.install_layers(network)


# --- compiling, each in a process of its own --------------------------------------------------------------------------


def child(variant: str, device: str, few: bool, file: str) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    name, forwards, *choices = variant.split(":")
    bench = Bench(device, few)
    network = network_of(name, few).to(bench.dtype)
    prepared(network, forwards)
    torch._inductor.config.coordinate_descent_tuning = "tuned" in choices
    kernels = [SDPBackend.CUDNN_ATTENTION] if "cudnn" in choices else []
    kernels += [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    began = time.perf_counter()
    with torch.device("meta"):
        arguments, options = arguments_of(name, network, few, lambda *size: torch.empty(size, dtype=bench.dtype))
    with sdpa_kernel(kernels, set_priority=True):
        compile_to(Path(file), network, list(arguments), options, device)
    print(json.dumps({"compile_seconds": round(time.perf_counter() - began, 1)}), flush=True)


def compiled(variants: list[str], options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """By variant, how long it took, and its file."""
    found: dict[str, dict[str, Any]] = {}
    running = {}
    for variant in variants:
        file = folder / f"{variant.replace(':', '-')}.pt2"
        if file.exists():
            found[variant] = {"file": file, "bytes": file.stat().st_size}
            continue
        command = [sys.executable, "-m", "benchmarks.compiling", "-", "--device", options.device, "--child", variant]
        command += ["--file", str(file), *(["--few"] if options.few else [])]
        # into files: nobody reads a pipe meanwhile
        log = file.with_suffix(".log").open("w+")
        running[variant] = (subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT), log, file)
    for variant, (process, log, file) in running.items():
        process.wait()
        log.seek(0)
        told = log.read().splitlines()
        if process.returncode:
            print(variant, *told[-12:], sep="\n", flush=True)
            found[variant] = {"failed": told[-1][:300] if told else str(process.returncode)}
        else:
            found[variant] = {"file": file, "bytes": file.stat().st_size, **json.loads(told[-1])}
        print(variant, {key: value for key, value in found[variant].items() if key != "file"}, flush=True)
    return found


# --- what is measured -------------------------------------------------------------------------------------------------


def timed(bench: Bench, call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """The result, the median of its seconds after the first call, and the first one's bytes beyond what there was."""
    bench.clear()
    before = bench.memory()["now"]
    result, seconds = call(), []
    activations = bench.memory()["peak"] - before
    for _ in range(REPEATS):
        bench.wait()
        began = time.perf_counter()
        call()
        bench.wait()
        seconds.append(time.perf_counter() - began)
    return result, {"seconds": round(statistics.median(seconds), 4), "activations": activations}


def rows_of(
    name: str, variants: Mapping[str, Mapping[str, Any]], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Eager plain, and each compiled variant of one network."""
    import torch

    bench, device = Bench(options.device, options.few), options.device
    network = network_of(name, options.few).to(bench.dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.normal_(std=0.02, generator=generator)

    def make(*size: int) -> Any:
        return torch.randn(size, generator=generator, device=device, dtype=bench.dtype)

    arguments, given = arguments_of(name, network, options.few, make)
    with torch.no_grad():
        plain, row = timed(bench, lambda: network(*arguments, **given))
        exact = network.float()(*(one.float() for one in arguments), **floats(given))
        network.to(bench.dtype)
        yield {"network": name, "variant": "eager plain", **row, "error": error(*map(outcome, (plain, exact)))}
        weights = weights_of(network)
        for variant, about in variants.items():
            if not variant.startswith(name + ":"):
                continue
            row = {"network": name, "variant": variant.partition(":")[2], **about}
            file = row.pop("file", None)
            if file is not None:
                began = time.perf_counter()
                run = load(file)
                row["load_seconds"] = round(time.perf_counter() - began, 2)
                try:
                    result, measured = timed(bench, lambda run=run: run(weights, list(arguments), given))
                    row |= measured | {"error": error(*map(outcome, (result, exact)))}
                    if options.profile and variant == options.profile_of:
                        profile(lambda run=run: run(weights, list(arguments), given), options.profile)
                except RuntimeError as failure:
                    row["failed"] = str(failure)[:300]
            yield row


def floats(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.float() if hasattr(value, "float") else value for name, value in options.items()}


def outcome(result: Any) -> Any:
    """The tensor that a network gives, alone or in a tuple."""
    return (result[0] if isinstance(result, tuple | list) else result).double()


def profile(call: Callable[[], Any], file: Path) -> None:
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        call()
        torch.cuda.synchronize()
    file.write_text(found.key_averages().table(sort_by="cuda_time_total", row_limit=60, max_name_column_width=90))


def attention_rows() -> list[dict[str, Any]]:
    """Milliseconds of the kernels that speed fast chooses of: over pixels, over frames, over a text."""
    import torch

    from vidkit.pipelines.fast.kernels import KERNELS, UNFIT, seconds

    shapes: dict[str, tuple[int, ...]] = {
        "svd pixels": (50, 5, 9216, 64),
        "svd pixels, level 2": (50, 10, 2304, 64),
        "svd frames": (9216, 5, 25, 64),
        "sd15 pixels": (32, 8, 4096, 40),
        "sd15 frames": (8192, 8, 16, 40),
        "sd15 text": (32, 8, 4096, 40, 77),
    }
    rows = []
    half: dict[str, Any] = {"device": "cuda", "dtype": torch.float16}
    for name, (count, heads, tokens, width, *words) in shapes.items():
        query = torch.randn(count, tokens, heads, width, **half).transpose(1, 2)
        keys = torch.randn(count, *(words or [tokens]), heads, width, **half).transpose(1, 2)
        row: dict[str, Any] = {"attention": name}
        for kernel, attend in KERNELS.items():
            try:
                row[kernel] = round(1e3 * seconds(attend, query, keys, keys), 3)
            except UNFIT as failure:
                row[kernel] = str(failure).splitlines()[0][:80]
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("packages", type=Path, nargs="?")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--only", nargs="+", default=VARIANTS, metavar="VARIANT")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--profile-of", default="svd_unet:layers")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.device, options.few, options.file)
        return 0
    content = about_this_machine() | {"rows": []}
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    options.packages.mkdir(parents=True, exist_ok=True)
    variants = compiled(options.only, options, options.packages)
    if options.device == "cuda":
        content["attention"] = attention_rows()
    for name in dict.fromkeys(variant.partition(":")[0] for variant in variants):
        for row in rows_of(name, variants, options):
            print(row, flush=True)
            content["rows"].append(row)
            options.results.write_text(json.dumps(content, indent=1) + "\n")
    return int(any("failed" in row for row in content["rows"]))


if __name__ == "__main__":
    raise SystemExit(main())
