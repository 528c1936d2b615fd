"""A check's clips: made by a worker process, the same request at two settings, and one of them twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vidkit.device import GIB, Plan
from vidkit.errors import EXIT_CANCELLED, Cancelled
from vidkit.memory.fitting import Case, Room, with_tolerance
from vidkit.memory.planning import case_of
from vidkit.memory.prediction import Prediction, predict
from vidkit.params import canonical_name
from vidkit.record import show
from vidkit.resolving import Resolved
from vidkit.supervisor import OnEvent, Supervisor

if TYPE_CHECKING:
    import numpy.typing as npt

WORKER: Final = "vidkit.model_check.worker"

#: between the least memory that a clip can be made in, and what it took, where the low-memory setting's limit is: torch
#: reserves somewhat more than it hands out, and a limit at the very least would be passed by that
SPARE: Final = 0.25

#: bytes that it is at least on a GPU: torch reserves segments of up to 20 MiB, in two pools and for each stream, and
#: cuBLAS takes 32 MiB for itself
LEAST_SPARE: Final = 256 * 2**20

#: share of its memory that a clip has to save for the low-memory setting to be another one
WORTHWHILE: Final = 0.02


@dataclass(frozen=True)
class Clip:
    """setting: what it is called; frames: `(frames, height, width, 3)` uint8, before compression.

    metadata: of the response; plan: as it was executed; predicted: the memory for it; limit: bytes that it was allowed,
    None where as many as are free; steps: of denoising; host_peak: bytes that its process took of the host's memory.
    """

    setting: str
    file: Path
    frames: npt.NDArray[np.uint8]
    metadata: Mapping[str, Any]
    plan: Plan
    predicted: Prediction
    limit: int | None
    steps: int
    host_peak: int

    @property
    def device_peak(self) -> int | None:
        """Bytes of device memory that it took at most, to 0.01 GiB; None on the CPU, where nobody counts."""
        return None if self.plan.device == "cpu" else round(self.metadata["vramUsed"] * GIB)

    @property
    def seconds(self) -> Mapping[str, float]:
        """By phase: load, encode, denoise, decode, write, total."""
        return dict(self.metadata["timing"])


class Failed(Exception):  # noqa: N818  (an answer, not an error of ours)
    """A clip could not be made. response: the error's JSON; setting: which."""

    def __init__(self, setting: str, response: Mapping[str, Any], code: int) -> None:
        super().__init__(response["message"])
        self.setting, self.response, self.code = setting, response, code

    @property
    def is_typed(self) -> bool:
        """Whether it is the request's or this machine's fault, and not that of the model that is checked."""
        return str(self.response["category"]) != "generation"


class Maker:
    """Makes clips of one request in a folder; the models stay loaded from one to the next."""

    def __init__(self, found: Resolved, folder: Path, supervisor: Supervisor, on_event: OnEvent) -> None:
        self._found, self._folder, self._supervisor, self._on_event = found, folder, supervisor, on_event
        self._made = 0

    def clip(self, setting: str, limit: int | None = None) -> Clip:
        """Raises:
        Failed: it could not be made. Cancelled: the supervisor was told to stop.
        """
        self._made += 1
        self._on_event({"log": f"Clip {self._made}: {setting}"})
        file, frames = (self._folder / f"{self._made}.{suffix}" for suffix in ("mp4", "npy"))
        wanted = {"frames": str(frames), "memory": None if limit is None else limit / GIB}
        # resolved already: all that is in it was asked for, which would give notes on what this family ignores
        request = {**self._found.params.to_wire(), "outputPath": str(file), "outputFormat": "mp4", "check": wanted}
        response, code = self._supervisor.run(request, self._on_event)
        if code == EXIT_CANCELLED:
            raise Cancelled
        if code != 0:
            raise Failed(setting, response, code)
        plan = plan_of(show(file)["plan"])
        return Clip(
            setting=setting,
            file=file,
            frames=np.load(frames),
            metadata=response["metadata"],
            plan=plan,
            predicted=predict(self._found.params, self._found.models, plan),
            limit=limit,
            steps=response["check"]["steps"],
            host_peak=response["check"]["hostPeakBytes"],
        )

    def low_memory_limit(self, clip: Clip) -> int | None:
        """Bytes in which the same clip can only be made with low-memory measures; None: they would save too little."""
        case = self._case(clip)
        least, taken = case.leanest().peak, clip.predicted.peak
        spare = max((taken - least) * SPARE, LEAST_SPARE if clip.plan.device == "cuda" else 0)
        if least + spare > taken * (1 - WORTHWHILE):
            return None
        return with_tolerance(round(least + spare))

    def _case(self, clip: Clip) -> Case:
        return case_of(
            self._found.params, self._found.models, clip.plan.device, Room(None), vae_float32=clip.plan.vae_float32
        )


def plan_of(written: Mapping[str, Any]) -> Plan:
    """The plan of a clip's record."""
    fields: dict[str, Any] = {snake(name): value for name, value in written.items()}
    changes = tuple((canonical_name(name), value) for name, value in fields.pop("changes", {}).items())
    return Plan(**fields, changes=changes)


def snake(name: str) -> str:
    """ "hostSkips" as "host_skips"."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
