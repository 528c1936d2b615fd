"""The specification's table of what fits into a 12 GB card, with full-size models under hard caps on the GPU's memory.

    python -m benchmarks.vram_table RESULTS.json [--seconds 480] [--caps 11 0 8 6 4] [--device cuda] [--few]

Each cap (GiB; 0: none) is a process of its own, with vidkit's limit of device memory: the planner is told of no more,
and torch's allocator gives no more. Requests go through vidkit's own planner, loader, sampling and decoding, SVD's with
all frames in one denoising pass. Few steps are made, since neither memory nor the time of a step depends on their
number; the time of a clip is reckoned for 25. Weights are zeros that take no room on the disk.

Results are written after each row. Exits with 1 when a row does not run under 11 GiB as it was asked, or takes more
than 1.5 times as long for each frame as without a cap. --few: a rehearsal with the bundled models.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import make_published_svd, make_sd15, save_part
from vidkit.computing import Computation, Stopwatch
from vidkit.device import GIB, Plan
from vidkit.errors import VidkitError
from vidkit.progress import Reporter
from vidkit.time_limit import Phase

#: GiB of a 12 GB card that its user can have: the specification's target
PROMISED_CAP = 11.0

#: how much longer a frame may take under that cap
MOST_TIME = 1.5

STEPS_OF_A_CLIP = 25

#: a row that takes longer is stopped
ROW_SECONDS = 100


@dataclass(frozen=True)
class Row:
    """A request. specification: GiB that its table says; None: it is not in the table."""

    pipeline: str
    width: int
    height: int
    frames: int
    specification: float | None = None

    @property
    def name(self) -> str:
        return f"{self.pipeline} {self.width}x{self.height}x{self.frames}"


TABLE = [
    Row("svd", 1024, 576, 25),
    Row("svd", 1024, 576, 60, 11.5),
    Row("svd", 768, 768, 80, 11),
    Row("svd", 512, 512, 250, 9),
    Row("animatediff", 512, 512, 64, 8),
    Row("animatediff", 768, 768, 32, 11),
]
FEW = [Row("svd", 64, 64, 6, 11), Row("animatediff", 64, 64, 20, 8), Row("animatediff", 64, 60, 4)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--seconds", type=float, default=480, help="no row is begun after that")
    parser.add_argument("--caps", type=float, nargs="+", default=[11, 0, 8, 6, 4], help="GiB, in this order; 0: none")
    parser.add_argument("--rows", nargs="+", default=[""], help="only rows whose names begin so")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--few", action="store_true", help="small rows, bundled models")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(json.loads(options.child))
    ends = time.monotonic() + options.seconds
    rows = [row for row in (FEW if options.few else TABLE) if row.name.startswith(tuple(options.rows))]
    content: dict[str, Any] = about_this_machine() | {"steps": options.steps, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {} if options.few else make_models(folder)
        Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")  # zeros make grey clips, broken for other pictures
        order = {"models": models, "folder": name, "steps": options.steps, "rows": [asdict(row) for row in rows]}
        for cap in options.caps:
            environment = environment_of(folder, options.device, cap)
            for row in children_rows(order, environment, ends):
                content["rows"].append({"cap": cap or None, **row})
                options.results.write_text(json.dumps(content, indent=1) + "\n")
                print(line_of(content["rows"][-1], content["rows"]), flush=True)
    print("\n".join(table(content["rows"])))
    missed = [problem for row in rows for problem in problems_of(row, content["rows"])]
    print(*missed, sep="\n")
    return int(bool(missed))


def make_models(folder: Path) -> dict[str, dict[str, str]]:
    """Full-size models, by family and parameter."""
    import diffusers as d

    make_published_svd(folder / "svd")
    make_sd15(folder / "sd15")
    save_part(folder / "adapter", d.MotionAdapter, {})
    animatediff = {"base_model": str(folder / "sd15"), "motion_adapter": str(folder / "adapter")}
    return {"svd": {"base_model": str(folder / "svd")}, "animatediff": animatediff}


def environment_of(folder: Path, device: str, cap: float) -> dict[str, str]:
    return os.environ | {
        "VIDKIT_HOME": str(folder / "home"),
        "VIDKIT_DEVICE": device,
        "VIDKIT_LIMIT_MEMORY": str(cap),
        "VIDKIT_LIMIT_TIME": str(ROW_SECONDS),
        "PYTHONUNBUFFERED": "1",
    }


# --- processes --------------------------------------------------------------------------------------------------------


def children_rows(order: Mapping[str, Any], environment: Mapping[str, str], ends: float) -> Iterator[dict[str, Any]]:
    """The rows of one process; of another for what is left where it died."""
    left = list(order["rows"])
    while left:
        seconds = ends - time.monotonic()
        if seconds <= 0:
            yield from ({**row, "left_out": "no time"} for row in left)
            return
        died = yield from one_childs_rows({**order, "rows": left, "seconds": seconds}, environment, left)
        if left:
            yield {**left.pop(0), "failed": f"the process ended with {died}"}


def one_childs_rows(
    order: Mapping[str, Any], environment: Mapping[str, str], left: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Rows as they come, each taken off `left`; returns the exit status."""
    command = [sys.executable, "-m", "benchmarks.vram_table", "-", "--child", json.dumps(order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        hung = threading.Timer(order["seconds"] + ROW_SECONDS + 30, process.kill)
        hung.start()
        try:
            for line in process.stdout or ():
                left.pop(0)
                yield json.loads(line)
            process.wait()
        finally:
            hung.cancel()
            process.kill()
    return process.returncode


def child(order: Mapping[str, Any]) -> int:
    """Measures rows in this process, and prints each as a line of JSON."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ends, warmed = time.monotonic() + order["seconds"], set[str]()
    for number, given in enumerate(order["rows"]):
        row = Row(**given)
        found: dict[str, Any] = {"left_out": "no time"}
        if time.monotonic() < ends:
            if row.pipeline not in warmed:  # the first call of each kernel loads it
                warmed.add(row.pipeline)
                attempted(Row(row.pipeline, 256, 256, 8) if order["models"] else row, order, number)
            found = attempted(row, order, number)
        out.write(json.dumps({**given, **found}) + "\n")
        out.flush()
    return 0


def attempted(row: Row, order: Mapping[str, Any], number: int) -> dict[str, Any]:
    began = time.monotonic()
    try:
        found = measured(row, order)
    except VidkitError as error:
        found = {"refused": error.to_json()}
    except Exception as error:  # noqa: BLE001 (the other rows still count)
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {error}"}
    return found | {"wall": round(time.monotonic() - began, 1)}


# --- one request ------------------------------------------------------------------------------------------------------


class Meter(Stopwatch):
    """Also the peaks of each phase, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, dict[str, int]] = {}

    def end(self, phase: str, plan: Plan | None = None) -> None:
        super().end(phase, plan)
        import torch

        if torch.cuda.is_initialized():
            before = self.peaks.get(phase, {"allocated": 0, "reserved": 0})
            now = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
            self.peaks[phase] = {name: max(now[name], before[name]) for name in now}
            torch.cuda.reset_peak_memory_stats()


class StepTimer(Reporter):
    """Notes when each step was done, the device waited for."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.times: dict[float, float] = {}

    def begin(self, phase: Phase) -> None:
        super().begin(phase)
        if phase == "encode":  # once more, after a failed attempt
            self.times.clear()

    def step(self, done: float, steps: int) -> None:
        super().step(done, steps)
        if done == int(done) and done not in self.times:  # not again for each window of a step
            import torch

            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.times[done] = time.monotonic()

    def seconds(self) -> list[float]:
        """Of each step."""
        return [self.times[done + 1] - self.times[done] for done in range(len(self.times) - 1)]


def measured(row: Row, order: Mapping[str, Any]) -> dict[str, Any]:
    """One request, from its plan to its frames. Raises as `vidkit.generate`."""
    from vidkit import generation
    from vidkit.params import GenerationParams
    from vidkit.settings import load_settings

    params = GenerationParams(
        pipeline=row.pipeline,
        image_path=str(Path(order["folder"]) / "grey.png"),
        output_path=str(Path(order["folder"]) / "clip.mp4"),  # none is written
        prompt="a storm over the sea",
        width=row.width,
        height=row.height,
        num_frames=row.frames,
        num_inference_steps=order["steps"],
        strength=1.0,
        seed=1,
        **order["models"].get(row.pipeline, {}),
    )
    timer, meter = StepTimer(), Meter()
    job = generation.prepare(params, load_settings(), timer)
    computation = Computation(job, timer, meter, None)
    (frames, notes), planned, attempts = generation.on_the_device(computation, computation.frames)
    if frames.shape != (row.frames, row.height, row.width, 3):
        raise RuntimeError(f"the clip is {frames.shape}")
    seconds = {phase: round(spent, 3) for phase, spent in meter.seconds.items()}
    steps = timer.seconds()
    step = statistics.median(steps)
    clip = seconds["encode"] + STEPS_OF_A_CLIP * step + seconds["decode"]
    return {
        "plan": planned.plan.to_json(),
        "reasons": list(planned.reasons),
        "notes": [*job.notes, *notes, *planned.notes],
        "attempts": attempts,
        "predicted": {phase: getattr(planned.prediction, phase) for phase in ("encode", "denoise", "decode")},
        "peaks": meter.peaks,
        "seconds": seconds,
        "steps": [round(spent, 3) for spent in steps],
        "step": round(step, 3),
        "frame_seconds": round(clip / row.frames, 4),
    }


# --- what it comes to -------------------------------------------------------------------------------------------------


def found_row(row: Row, rows: Sequence[Mapping[str, Any]], cap: float | None) -> Mapping[str, Any] | None:
    """What was measured of a row under a cap."""
    return next((r for r in rows if r["cap"] == cap and name_of(r) == row.name), None)


def name_of(row: Mapping[str, Any]) -> str:
    return Row(*(row[name] for name in ("pipeline", "width", "height", "frames"))).name


def slowdown(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Times as long for a frame as without a cap; None where that is not known."""
    free = next((r for r in rows if r["cap"] is None and name_of(r) == name_of(row)), {})
    if not row.get("frame_seconds") or not free.get("frame_seconds"):
        return None
    return float(row["frame_seconds"] / free["frame_seconds"])


def problems_of(row: Row, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is promised of a row under the cap, and not kept."""
    found = found_row(row, rows, PROMISED_CAP)
    if found is None or "plan" not in found:
        return [f"MISSED: {row.name} did not run under {PROMISED_CAP:g} GiB: {why_not(found or {})}"]
    problems, slower = [], slowdown(found, rows)
    # fewer frames decoded at once change nothing of an AnimateDiff clip
    changes = [name for name in found["plan"].get("changes", {}) if (row.pipeline, name) not in EXACT]
    if changes:
        problems.append(f"MISSED: {row.name} was changed: {', '.join(changes)}")
    if peak_of(found, "reserved") > PROMISED_CAP * GIB:
        problems.append(f"MISSED: {row.name} took {peak_of(found, 'reserved') / GIB:.2f} GiB, more than the cap")
    if slower is not None and slower > MOST_TIME:
        problems.append(f"MISSED: {row.name} takes {slower:.2f} times as long as without a cap")
    return problems


#: changes by the plan that leave a family's clips as they are
EXACT = {("animatediff", "decodeChunkSize")}


def peak_of(row: Mapping[str, Any], kind: str) -> int:
    return max((peaks[kind] for peaks in row["peaks"].values()), default=0)


def why_not(row: Mapping[str, Any]) -> str:
    refused = row.get("refused", {}).get("message")
    return str(refused or row.get("failed") or row.get("left_out") or "not tried")


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each row and cap."""
    head = f"{'':26}{'cap':>5}{'spec':>6}{'predicted':>10}{'allocated':>10}{'reserved':>9}{'s/step':>8}{'s/frame':>8}"
    ordered = sorted(rows, key=lambda row: (name_of(row), -(row["cap"] or 1e9)))
    return [f"{head}{'slower':>7}  plan", *(line_of(row, rows) for row in ordered)]


def line_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    cap, said = f"{row['cap']:g}" if row["cap"] else "none", row["specification"]
    begin = f"{name_of(row):26}{cap:>5}{said or '':>6}"
    if "plan" not in row:
        return f"{begin}  {why_not(row)[:160]}"
    predicted, slower = max(row["predicted"].values()) / GIB, slowdown(row, rows)
    peaks = [peak_of(row, kind) / GIB for kind in ("allocated", "reserved")]
    numbers = f"{predicted:10.2f}{peaks[0]:10.2f}{peaks[1]:9.2f}{row['step']:8.2f}{row['frame_seconds']:8.3f}"
    times = f"{slower:7.2f}" if slower else " " * 7
    tried = f" (attempt {len(row['attempts']) + 1})" if row["attempts"] else ""
    return f"{begin}{numbers}{times}  {plan_words(row['plan'])}{tried}"


PAGE_COLUMNS = ["no cap", "11 GiB", "8 GiB", "6 GiB", "4 GiB", "3 GiB"]


def page_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For a page's table: a line for each request, a column for each cap.

    Without a cap the prediction is shown, since models of other requests stay loaded beside.
    """
    found = []
    for row in rows:
        if "plan" not in row:
            text = "not measured"
        elif row["cap"] is None:
            text = f"{max(row['predicted'].values()) / GIB:.1f}, {row['step']:.2f} s"
        else:
            text = f"{peak_of(row, 'allocated') / GIB:.1f}, x{slowdown(row, rows):.2f}"
        name = name_of(row).replace("svd", "SVD").replace("animatediff", "AnimateDiff")
        found.append({"way": name, "cap": f"{row['cap']:g} GiB" if row["cap"] else "no cap", "text": text})
    return sorted(found, key=lambda row: PAGE_COLUMNS.index(row["cap"]))


def plan_words(plan: Mapping[str, Any]) -> str:
    """The measures of a plan."""
    left = {name: value for name, value in plan.items() if name not in ("device", "dtype", "speed")}
    words = [f"offload {left.pop('offload')}"] if left.get("offload", "none") != "none" else []
    words += [f"{name}={value}" for name, value in left.pop("changes", {}).items()]
    return ", ".join([*words, *(name for name, value in left.items() if value is True)]) or "no measure"


if __name__ == "__main__":
    raise SystemExit(main())
