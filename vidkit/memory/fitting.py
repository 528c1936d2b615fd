"""Whether a request fits into the memory that is free, and by which measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vidkit.device import Plan
from vidkit.errors import SetupError
from vidkit.memory.free import free_device_memory, free_host_memory
from vidkit.memory.measures import exact_plans, leanest_plans
from vidkit.memory.prediction import PHASES, TOLERANCE, Prediction, predict
from vidkit.models.files.file_format import examine
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.settings import settings_or_defaults

#: changes of a request, by snake_case name
Changes = Mapping[str, int]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Room:
    """Bytes that a request may take; None: not known, so that it is no limit.

    device: of the memory of the device that computes; host: of the host's, for what waits there; phases: in some phases
    less than `device`, by their name.
    """

    device: int | None
    host: int | None = None
    phases: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def now(cls, device: str, *, kept_on_host: int = 0, more: int = 0) -> Room:
        """What is free at this moment, within the limit of the settings.

        kept_on_host: bytes of the host's memory that loaded models take, which are used again or dropped first; more:
        bytes of the device's memory that count as free, too.
        """
        limits, host = settings_or_defaults().limits, free_host_memory() + kept_on_host
        if device == "cpu":
            return cls(limits.of_memory(host + more))
        free = free_device_memory()
        return cls(limits.of_memory(None if free is None else free + more), host)

    def holds(self, prediction: Prediction) -> bool:
        host = self.host is None or with_tolerance(prediction.host) <= self.host
        return host and not self.overflowing(prediction)

    def overflowing(self, prediction: Prediction) -> list[str]:
        """The phases that need more of the device than there is."""
        return [phase for phase in PHASES if self.lacking(prediction, phase) > 0]

    def lacking(self, prediction: Prediction, phase: str) -> int:
        """Bytes that a phase needs beyond what there is; 0 or less: it fits."""
        given = [limit for limit in (self.device, self.phases.get(phase)) if limit is not None]
        needed = with_tolerance(getattr(prediction, phase))
        return needed - min(given) if given else 0

    def tighter(self, phases: Mapping[str, int], share: float) -> Room:
        """With less for these phases: a share of what was predicted for them."""
        limits = {phase: round(with_tolerance(size) * share) for phase, size in phases.items()}
        kept = {phase: min(limit, limits.get(phase, limit)) for phase, limit in self.phases.items()}
        return replace(self, phases=limits | kept)


def with_tolerance(predicted: int) -> int:
    return round(predicted * (1 + TOLERANCE))


@dataclass(frozen=True)
class Case:
    """A resolved request with its models, the plan without any measure, and the room."""

    params: GenerationParams
    models: Models
    plain: Plan
    room: Room

    def predicted(self, plan: Plan) -> Prediction:
        """Raises:
        SetupError: `invalid_model`: a model's weights or configs cannot be read, or say what no such model's do.
        """
        try:
            return predict(self.params, self.models, plan)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            names = ", ".join(model.name for model in self.models.values())
            raise SetupError(
                "invalid_model",
                f"The memory for {names} cannot be told from the models' configurations: {error!r}.",
                [examine(*(model.path for model in self.models.values())), "Check that its parts belong together"],
            ) from error

    def quickest(self, changes: Changes | None = None) -> Plan | None:
        """The quickest plan with these changes that fits; None when none does."""
        for plan in exact_plans(self.params, self.changed(changes or {})):
            prediction = self.predicted(plan)
            if self.room.holds(prediction):
                return plan
            if self.room.overflowing(prediction) == ["decode"] and (fewer := self._with_smaller_chunk(plan)):
                return fewer
        return None

    def fits(self, changes: Changes) -> bool:
        """Whether any plan with these changes fits."""
        plain = self.changed(self.exact_changes() | dict(changes))
        least = [self.predicted(plan) for plan in leanest_plans(self.params, plain)]
        if all(self.room.overflowing(prediction) for prediction in least):  # then all others do so too
            return False
        plans = exact_plans(self.params, plain)  # with the host's memory short, others than the leanest
        return any(map(self.room.holds, least)) or any(self.room.holds(self.predicted(plan)) for plan in plans)

    def leanest(self) -> Prediction:
        """What is needed at the least, without changing the clip."""
        plans = leanest_plans(self.params, self.changed(self.exact_changes()))
        return min((self.predicted(plan) for plan in plans), key=lambda prediction: prediction.peak)

    def changed(self, changes: Changes) -> Plan:
        return replace(self.plain, changes=tuple(changes.items()))

    def exact_changes(self) -> dict[str, int]:
        """What saves memory and leaves the clip as it is: decoding frame by frame, where frames don't mix."""
        return {} if FAMILIES[self.params.pipeline].decoder_mixes_frames else {"decode_chunk_size": 1}

    def _with_smaller_chunk(self, plan: Plan) -> Plan | None:
        if not self.exact_changes():
            return None
        chunks = smaller_chunks(self.params)
        plans = [replace(plan, changes=(*plan.changes, ("decode_chunk_size", chunk))) for chunk in chunks]
        return first_that(plans, lambda plan: self.room.holds(self.predicted(plan)))


def smaller_chunks(params: GenerationParams) -> range:
    """Of frames decoded at once, the largest first."""
    return range(min(params.decode_chunk_size, params.num_frames or 1) - 1, 0, -1)


def first_that(values: Sequence[Value], holds: Callable[[Value], bool]) -> Value | None:
    """The first for which it holds, by halving: it then holds for all that follow. None when it does for none."""
    if not values or not holds(values[-1]):
        return None
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(values[middle]) else (middle + 1, high)
    return values[low]
