"""Before anything is loaded: the memory that a request needs, and how it would run. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidkit.device import GIB
from vidkit.errors import GenerationError, Remedy
from vidkit.memory.fitting import Room
from vidkit.memory.free import expected_device
from vidkit.memory.plan_words import refusal
from vidkit.memory.planning import Planned, case_of, planned_case
from vidkit.memory.prediction import Prediction
from vidkit.params import GenerationParams, wire_name
from vidkit.resolving import resolve_request
from vidkit.settings import load_settings


@dataclass(frozen=True)
class PlannedRequest:
    """A request before it runs.

    params: with every default filled in; model: the base model's name; room: the memory that is free; without_measures:
    what it would need with all of the model on the device; planned: how it runs, None where nothing fits; needed: with
    that plan, else at the least; refusal: why nothing fits, and what would; notes: as those of a result.
    """

    params: GenerationParams
    model: str
    device: str
    room: Room
    without_measures: Prediction
    needed: Prediction
    planned: Planned | None
    refusal: GenerationError | None
    notes: Sequence[str]

    @property
    def fits(self) -> bool:
        return self.planned is not None

    @property
    def reasons(self) -> Sequence[str]:
        """Why it runs so, or not at all, in sentences."""
        return self.planned.reasons if self.planned is not None else [str(self.refusal)]

    @property
    def suggestions(self) -> Sequence[str]:
        """What would fit where this does not."""
        return self.refusal.suggestions if self.refusal is not None else []

    def to_json(self) -> dict[str, Any]:
        """JSON-able, camelCase keys, memory in bytes."""
        return {
            "fits": self.fits,
            "device": self.device,
            "freeBytes": self.room.device,
            "freeHostBytes": self.room.host,
            "plan": self.planned.plan.to_json() if self.planned is not None else None,
            "neededBytes": in_bytes(self.needed),
            "withoutMeasuresBytes": in_bytes(self.without_measures),
            "reasons": list(self.reasons),
            "suggestions": [suggestion_to_json(suggestion) for suggestion in self.suggestions],
            "notes": list(self.notes),
            "request": self.params.to_record(),
        }


def plan(params: GenerationParams | Mapping[str, Any], *, free: float | None = None) -> PlannedRequest:
    """How a request would run on this machine as it is now, or on a GPU with so much free memory. Milliseconds.

    Args:
        params: the request, or its keys as a mapping (snake_case or camelCase).
        free: GiB; not given: what is free here, within the limits of the settings.

    Raises:
        InputError, SetupError: as `vidkit.generate`. That it does not fit is no error, but said in what is returned.
    """
    request = params if isinstance(params, GenerationParams) else GenerationParams(**params)
    found = resolve_request(request, load_settings())
    device = expected_device() if free is None else "cuda"
    room = Room.now(device) if free is None else Room(round(free * GIB))
    case = case_of(found.params, found.models, device, room)
    planned = planned_case(case)
    return PlannedRequest(
        params=found.params.model_copy(update={"seed": request.seed}),
        model=found.models["base_model"].name,
        device=device,
        room=room,
        without_measures=case.predicted(case.plain),
        needed=planned.prediction if planned is not None else case.leanest(),
        planned=planned,
        refusal=None if planned is not None else refusal(case),
        notes=[*found.notes, *(planned.notes if planned is not None else ())],
    )


def in_bytes(prediction: Prediction) -> dict[str, int]:
    """By phase, the most of them, and what waits in the host's memory."""
    phases = {name: size for name, size in asdict(prediction).items() if name != "chunk"}
    return {**phases, "peak": prediction.peak}


def suggestion_to_json(suggestion: str) -> dict[str, Any]:
    """changes: parameters to set, where a program can do it."""
    changes = suggestion.changes if isinstance(suggestion, Remedy) else {}
    return {"text": str(suggestion), "changes": {wire_name(name): value for name, value in changes.items()}}
