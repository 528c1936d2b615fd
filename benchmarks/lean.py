"""Each exact measure of a plan beside plain diffusers, at full size with random weights: error, time, peak memory.

    python -m benchmarks.lean RESULTS.json [--seconds 120] [--slice-mib 8 128] [--device cuda] [--few]

One call of each network, in half precision. How far rounding may go is measured too: a measure is exact when the result
is as near to that of plain diffusers in single precision as plain diffusers' own is in half precision. Results are
written after each row. Exits with 1 when a measure is not exact, or does not go when it is removed. --few: a rehearsal
on any machine with small networks; on a CPU in single and double precision, where memory is not measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.lean_networks import Call, Setup, animatediff, sparsectrl, svd
from benchmarks.memory import about_this_machine
from vidkit.device import GIB, Plan

#: the error to plain diffusers in higher precision that a measure may have, as a multiple of plain diffusers' own
MOST_ERROR = 1.5

REPEATS = 3

MAKERS = {"svd": svd, "animatediff": animatediff, "sparsectrl": sparsectrl}


class Bench(Setup):
    """Calls of networks, and what they take."""

    def plan(self, **measures: Any) -> Plan:
        return Plan(self.device, str(self.dtype).removeprefix("torch."), **measures)

    def wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def clear(self) -> None:
        """Spare memory goes back, and peaks count anew."""
        import torch

        gc.collect()
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> dict[str, int]:
        """Bytes: allocated now, and the peaks since `clear`."""
        import torch

        if self.device != "cuda":
            return {"now": 0, "peak": 0, "reserved": 0}
        peaks = {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
        return {"now": torch.cuda.memory_allocated(), **peaks}

    def run(self, call: Call, dtype: Any) -> Any:
        """The result of a call, on the CPU."""
        import torch

        with torch.no_grad():
            return call.call(**cast(call.inputs, dtype)).cpu().double()

    def measured(self, call: Call) -> tuple[Any, dict[str, Any]]:
        """The result of a call, and its seconds and bytes. Bytes are those of the first call, which is not timed."""
        self.clear()
        before = self.memory()["now"]
        result = self.run(call, self.dtype)
        memory, seconds = self.memory(), []
        for _ in range(1 if self.few else REPEATS):
            self.wait()
            began = time.perf_counter()
            self.run(call, self.dtype)
            self.wait()
            seconds.append(time.perf_counter() - began)
        row = {"seconds": round(statistics.median(seconds), 4), "peak": memory["peak"], "reserved": memory["reserved"]}
        return result, row | {"activations": memory["peak"] - before}


def cast(inputs: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    return {name: value.to(dtype) for name, value in inputs.items()}


# --- what is measured -------------------------------------------------------------------------------------------------


@contextmanager
def taken(pipe: Any, plan: Plan, size: int | None = None) -> Iterator[None]:
    """The plan's measures. size: of slices in bytes, None for the usual one."""
    from vidkit.pipelines import lean
    from vidkit.placement import place, release

    try:
        if plan.offload == "none":
            lean.install(pipe, plan, size or lean.SLICE_BYTES)
        else:
            place(pipe, plan)
        yield
    finally:
        (lean.remove if plan.offload == "none" else release)(pipe)


def rows_of(bench: Bench, pipe: Any, call: Call, sizes: list[int], ends: float) -> Iterator[dict[str, Any]]:
    """Plain, then each measure, then plain again. sizes: of slices in bytes, beside the usual one."""
    networks = [part for part in pipe.components.values() if hasattr(part, "parameters")]
    for network in networks:
        network.to(bench.reference)
    exact = bench.run(call, bench.reference)
    for network in networks:
        network.to(bench.dtype)
    plain, row = bench.measured(call)
    rounding = error(plain, exact)
    usual = row | {"error": rounding}
    yield {"call": call.name, "measures": "plain", **usual, "exact": True}
    for name, measures, size in wanted(call, sizes):
        if time.monotonic() > ends:
            yield {"call": call.name, "measures": name, "left_out": "no time"}
            continue
        try:
            with taken(pipe, bench.plan(**measures), size):
                result, row = bench.measured(call)
        except Exception as failure:  # noqa: BLE001 (the other measures still count)
            traceback.print_exc()
            yield {"call": call.name, "measures": name, "failed": f"{type(failure).__name__}: {failure}"}
            continue
        found = error(result, exact)
        row |= {"error": found, "to_plain": error(result, plain), "exact": found <= MOST_ERROR * rounding}
        row |= {f"{what}_ratio": ratio(row[what], usual[what]) for what in ("seconds", "peak", "activations")}
        yield {"call": call.name, "measures": name, **row}
    for part in (pipe.unet, pipe.vae, getattr(pipe, "controlnet", None)):  # offloading leaves them on the host
        if part is not None:
            part.to(bench.device)
    again = bench.run(call, bench.dtype)
    yield {"call": call.name, "measures": "plain again", "exact": bool((again == plain).all())}


def wanted(call: Call, sizes: list[int]) -> Iterator[tuple[str, Mapping[str, Any], int | None]]:
    for name, measures in call.measures.items():
        yield name, measures, None
    for size in sizes:
        yield f"slices of {size / 2**20:g} MiB", {"slices": True}, size


def error(result: Any, exact: Any) -> float:
    """The root of the mean square of the difference, as a share of the exact result's."""
    return float((result - exact).norm() / exact.norm())


def ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 3) if whole else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="no measure is begun after that")
    parser.add_argument("--networks", choices=MAKERS, nargs="+", default=list(MAKERS))
    parser.add_argument("--slice-mib", type=float, nargs="*", default=[], help="slices of these sizes too")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--few", action="store_true", help="small networks")
    options = parser.parse_args()
    import torch

    torch.backends.cudnn.allow_tf32 = False  # what is compared with is single precision, all of it
    ends, bench = time.monotonic() + options.seconds, Bench(options.device, options.few)
    content = about_this_machine() | {"rows": []}
    for make in (MAKERS[name] for name in options.networks):
        for row in pipeline_rows(bench, make, [int(mib * 2**20) for mib in options.slice_mib], ends):
            content["rows"].append(row)
            options.results.write_text(json.dumps(content, indent=1) + "\n")
            print(in_words(row), flush=True)
        bench.clear()
    return int(not all(row.get("exact") for row in content["rows"]))


def pipeline_rows(
    bench: Bench, make: Callable[[Bench], Any], sizes: list[int], ends: float
) -> Iterator[dict[str, Any]]:
    if time.monotonic() > ends:
        yield {"call": make.__name__, "left_out": "no time"}
        return
    try:
        pipe, calls = make(bench)
        for call in calls:
            yield from rows_of(bench, pipe, call, sizes, ends)
    except Exception as failure:  # noqa: BLE001 (the other pipelines still count)
        traceback.print_exc()
        yield {"call": make.__name__, "failed": f"{type(failure).__name__}: {failure}"}


def in_words(row: Mapping[str, Any]) -> str:
    name = f"{row['call']:20} {row.get('measures', ''):28}"
    if "seconds" not in row:
        return f"{name} {row.get('failed') or row.get('left_out') or ('same bits' if row['exact'] else 'CHANGED')}"
    memory = f"{row['peak'] / GIB:6.2f} GiB, {row['activations'] / GIB:6.2f} of it activations"
    ratios = [f"{row.get(f'{what}_ratio') or 1:.2f}" for what in ("seconds", "peak", "activations")]
    verdict = "" if row["exact"] else "  NOT EXACT"
    return f"{name} {row['seconds']:8.3f} s {memory}; x{', x'.join(ratios)}; error {row['error']:.1e}{verdict}"


if __name__ == "__main__":
    raise SystemExit(main())
