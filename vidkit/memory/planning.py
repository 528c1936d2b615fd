"""How a request runs in the memory that is free: the quickest measures with which it fits, predicted beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vidkit.device import Plan, plain_plan
from vidkit.memory.deviations import least_changes
from vidkit.memory.fitting import Case, Room
from vidkit.memory.plan_words import change_notes, next_reasons, reasons_of, refusal, speed_notes
from vidkit.memory.prediction import PHASES, Prediction
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models

#: after a plan that ran out of memory all the same, the next needs at least this share less
LESS: Final = 0.1


@dataclass(frozen=True)
class Planned:
    """A resolved request (`params`, as it was asked) and how it runs.

    reasons: why, in sentences; room: the memory that it was planned for.
    """

    params: GenerationParams
    models: Models
    plan: Plan
    prediction: Prediction
    room: Room
    reasons: Sequence[str]

    @property
    def notes(self) -> list[str]:
        """For the result: what is changed of the clip, and what is left out of its speed."""
        return [*change_notes(self.params, self.plan), *speed_notes(self.plan)]


def plan_request(
    params: GenerationParams,
    models: Models,
    device: str,
    free: int | None,
    *,
    host: int | None = None,
    vae_float32: bool = False,
) -> Planned:
    """The quickest plan that fits; where none does and the request allows it, the least change of the clip.

    Some milliseconds, no torch.

    Args:
        params: resolved.
        device: "cuda" or "cpu".
        free: bytes of its memory that the request may take; None: not known, and no measure is taken.
        host: bytes of the host's memory, for what waits there; None: not known.
        vae_float32: the autoencoder is to compute in single precision.

    Raises:
        GenerationError: `out_of_memory` (`out_of_host_memory` on the CPU): nothing fits; what would is a `Remedy` each.
        SetupError: `invalid_model`, when a model's weights or configs cannot be read.
    """
    case = case_of(params, models, device, Room(free, host), vae_float32=vae_float32)
    planned = planned_case(case)
    if planned is None:
        raise refusal(case)
    return planned


def case_of(params: GenerationParams, models: Models, device: str, room: Room, *, vae_float32: bool = False) -> Case:
    return Case(params, models, plain_plan(device, speed=params.speed, vae_float32=vae_float32), room)


def planned_case(case: Case) -> Planned | None:
    """None where nothing fits."""
    plan = fitting_plan(case)
    if plan is None:
        return None
    return Planned(case.params, case.models, plan, case.predicted(plan), case.room, reasons_of(case, plan))


def next_plan(planned: Planned, phase: str | None = None, less: float = LESS) -> Planned | None:
    """The next plan after one that ran out of memory all the same, in that phase if it is known; None: there is none.

    It is predicted to need less there, or at its peak, by this share of what was predicted.
    """
    case = next_case(planned, phase, less)
    following = planned_case(case)
    if following is None:
        return None
    reasons = [*planned.reasons, *next_reasons(case, planned.plan, following.plan, phase)]
    return replace(following, reasons=reasons)


def next_case(planned: Planned, phase: str | None, less: float = LESS) -> Case:
    """The request with so much less room than the plan was predicted to need."""
    before = planned.prediction
    limits = {phase: getattr(before, phase)} if phase else dict.fromkeys(PHASES, before.peak)
    was = planned.plan
    plain = Plan(was.device, was.dtype, speed=was.speed, vae_float32=was.vae_float32)
    return Case(planned.params, planned.models, plain, planned.room.tighter(limits, 1 - less))


def fitting_plan(case: Case) -> Plan | None:
    plan = case.quickest()
    if plan is not None or not case.params.allow_changes:
        return plan
    changes = least_changes(case)
    return None if changes is None else case.quickest(changes)
