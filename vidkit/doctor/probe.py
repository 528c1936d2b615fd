"""torch tried out, in a process of its own, since a broken one may take its process with it or never come back.

`probe()` starts it and reads what it says, one JSON a line: {"stage": NAME, ...} for each stage, with "begins": true
before it, so that the last one tells where it ended. Anything else on its standard output is a library's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vidkit.doctor.asking import Answer, ask
from vidkit.libraries import uncollected
from vidkit.supervisor import OFFLINE

#: seconds: torch and diffusers are read in five from a quick disk, in a minute from a slow one that was never read
PATIENCE: Final = 90.0

#: as the supervisor starts its worker: with the modules that we see, and not those of the current folder
PROBE: Final = "import sys; sys.path[:] = sys.argv[1:]; from vidkit.doctor.probe import main; main()"


@dataclass(frozen=True)
class Probed:
    """stages: what each that was tried told, by its name; how it failed is its "error"."""

    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def was_tried(self, name: str) -> bool:
        """The process may have broken off before."""
        return name in self.stages

    def stage(self, name: str) -> Mapping[str, Any]:
        return self.stages.get(name, {"error": "it was not tried"})

    def error(self, name: str) -> str | None:
        found = self.stage(name).get("error")
        return None if found is None else str(found)


def probe(seconds: float = PATIENCE) -> Probed:
    return read(ask([sys.executable, "-P", "-c", PROBE, *sys.path], seconds, {**os.environ, **OFFLINE}), seconds)


def read(answer: Answer, seconds: float) -> Probed:
    """A stage that began and did not end is the one in which the process broke off."""
    stages: dict[str, Any] = {next(iter(STAGES)): {"begins": True}}
    for event in filter(None, map(stage_of, answer.output.splitlines())):
        stages[event["stage"]] = event
    for name, told in stages.items():
        if told.get("begins"):
            stages[name] = {"error": f"the process {how_it_ended(answer, seconds)} while {STAGES[name][1]}"}
    return Probed(stages)


def stage_of(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("stage") in STAGES else None


def how_it_ended(answer: Answer, seconds: float) -> str:
    if answer.status is None:
        return f"gave no answer within {seconds:g} s" if answer.is_late else f"could not be started ({answer.errors})"
    if answer.status < 0:
        return f"was ended by {signal_name(-answer.status)}"
    return f"ended with status {answer.status} ({answer.last_words})"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# --- in the process of its own --------------------------------------------------------------------------------------


def look_at_torch() -> dict[str, Any]:
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "file": torch.__file__,
    }


def compute_on_the_cpu() -> dict[str, Any]:
    """What the networks are made of, small: a processor that lacks an instruction ends here."""
    return {"right": attention_is_right("cpu", "float32")}


def look_at_cuda() -> dict[str, Any]:
    """Which GPUs torch sees; and one computation on the first, which creates a context for a moment."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return {"available": False}
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]  # says why
        except (RuntimeError, AssertionError) as error:
            return {"available": False, "why": str(error).splitlines()[0]}
        return {"available": False, "why": "torch does not say why"}
    names = [torch.cuda.get_device_properties(number).name for number in range(torch.cuda.device_count())]
    seen = {
        "available": True,
        "names": names,
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(0)),
        "architectures": torch.cuda.get_arch_list(),
    }
    try:
        return {**seen, "right": attention_is_right("cuda", "float16"), "freeBytes": torch.cuda.mem_get_info()[0]}
    except RuntimeError as error:  # no kernels for this GPU, no memory left, a driver that fails
        return {**seen, "failure": str(error).splitlines()[0]}


def attention_is_right(device: str, dtype: str) -> bool:
    """torch's attention behind a matrix product, against the same in double precision on the CPU."""
    import torch

    values = torch.arange(4 * 64 * 32, dtype=torch.float64).reshape(1, 4, 64, 32).sin()
    exact = (values @ values.transpose(-1, -2) / 32**0.5).softmax(-1) @ values
    given = values.to(device, getattr(torch, dtype))
    found = torch.nn.functional.scaled_dot_product_attention(given, given, given)
    return bool((found.double().cpu() - exact).abs().max() < 0.01)  # half precision is 0.001 off


def look_at_attention() -> dict[str, Any]:
    """The kernels that torch's attention may choose of, and which were found the quickest at speed fast, by shape."""
    import torch
    from torch.backends import cuda

    from vidkit.pipelines.fast.kernels import noted

    return {
        "quickest": noted(torch.cuda.get_device_name()) if torch.cuda.is_available() else {},
        "flash": cuda.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
        "memoryEfficient": cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
        "cudnn": cuda.cudnn_sdp_enabled(),  # type: ignore[no-untyped-call]
    }


def look_at_xformers() -> dict[str, Any]:
    """Whether its kernels load; what it warns of says why not."""
    import importlib.metadata
    import logging

    try:
        version = importlib.metadata.version("xformers")
    except importlib.metadata.PackageNotFoundError:
        return {"version": None}
    warnings: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(" ".join(record.getMessage().split()))

    logging.getLogger("xformers").addHandler(Keeping(logging.WARNING))
    importlib.import_module("xformers.ops")
    return {"version": version, "warnings": warnings}


def import_pipelines() -> dict[str, Any]:
    """The classes that vidkit calls: they import most of diffusers and transformers."""
    import importlib

    for module, name in PIPELINES:
        getattr(importlib.import_module(module), name)
    return {}


PIPELINES: Final = (
    ("diffusers", "StableVideoDiffusionPipeline"),
    ("diffusers", "AnimateDiffVideoToVideoPipeline"),
    ("diffusers", "AnimateDiffSparseControlNetPipeline"),
    ("diffusers", "PIAPipeline"),
    ("transformers", "CLIPTextModel"),
)

#: by name, in their order: what a stage does, and what happens meanwhile, in words
STAGES: Final[dict[str, tuple[Callable[[], dict[str, Any]], str]]] = {
    "torch": (look_at_torch, "torch was imported"),
    "cpu": (compute_on_the_cpu, "torch computed on the CPU"),
    "cuda": (look_at_cuda, "torch computed on the GPU"),
    "attention": (look_at_attention, "torch's attention was looked at"),
    "xformers": (look_at_xformers, "xformers was imported"),
    "pipelines": (import_pipelines, "diffusers' pipelines were imported"),
}


def main() -> None:
    with uncollected():
        try_out()


def try_out() -> None:
    for name, (look, _) in STAGES.items():
        tell({"stage": name, "begins": True})
        try:
            tell({"stage": name, **look()})
        except Exception as error:  # noqa: BLE001  (what is broken is what is asked for)
            tell({"stage": name, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]})
        if name == "torch" and "torch" not in sys.modules:
            return


def tell(event: dict[str, Any]) -> None:
    print("\n" + json.dumps(event), flush=True)  # a line of its own, whatever was printed before
