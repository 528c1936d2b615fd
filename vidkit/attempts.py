"""A request is computed; and computed again where it ran out of memory or its frames were broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from shlex import quote
from typing import Final, TypeVar

from vidkit.errors import CriticalError, GenerationError, Remedy
from vidkit.failures import attempted, let_go
from vidkit.memory.fitting import Room
from vidkit.memory.plan_words import would_fit
from vidkit.memory.planning import Planned, next_case, next_plan
from vidkit.memory.prediction import predict
from vidkit.models.locate import BUNDLED_FOLDER
from vidkit.params import MAX_SEED
from vidkit.time_limit import Phase

Result = TypeVar("Result")

#: by what share of the prediction the next attempt needs less memory. The first is more than predictions are wrong by;
#: where it does not help something else takes memory, and small steps would take long to find out how much.
LESS: Final = (0.1, 0.25, 0.5, 0.5)

SAFER: Final = "The frames were unusable ({reason}); they were computed again with the autoencoder in single precision."


def until_done(
    planned: Planned, attempt: Callable[[Planned], Result], phase: Callable[[], Phase]
) -> tuple[Result, Planned, list[str]]:
    """What an attempt gives, the plan with which it did, and a note for each that failed.

    attempt: leaves everything as it found it when it fails; phase: in which the present attempt is.

    Raises:
        GenerationError, CriticalError: the last attempt's. Its traceback holds nothing of the attempt's.
    """
    notes: list[str] = []
    failures = 0
    while True:
        outcome = finished(planned, attempt)
        if not isinstance(outcome, GenerationError | CriticalError):
            return outcome, planned, notes
        let_go()
        following = after(planned, outcome, phase(), failures)
        if following is None:
            raise outcome
        planned, why = following
        notes += why
        failures += 1


def finished(planned: Planned, attempt: Callable[[Planned], Result]) -> Result | GenerationError | CriticalError:
    """One attempt. What another may mend is returned, without the frames in which it happened; the rest is raised."""
    try:
        return attempted(planned.plan.applied(planned.params), lambda: attempt(planned))
    except GenerationError as error:
        if error.code != "corrupted_output":
            raise
        return error.with_traceback(None)


def after(
    planned: Planned, failure: GenerationError | CriticalError, phase: Phase, failures: int
) -> tuple[Planned, list[str]] | None:
    """The next attempt's plan and why; None: another would end the same way. failures: of attempts before this one."""
    plan = planned.plan
    if failure.code == ("out_of_host_memory" if plan.device == "cpu" else "out_of_memory"):
        return leaner(planned, failure, None if phase == "load" else phase, failures)
    if failure.code == "corrupted_output" and plan.dtype != "float32" and not plan.vae_float32:
        safer = replace(plan, vae_float32=True)
        why = SAFER.format(reason=failure.message)
        return replace(planned, plan=safer, prediction=predict(planned.params, planned.models, safer)), [why]
    if failure.code == "corrupted_output":
        failure.suggestions = [*unlike(planned)]
    return None


def unlike(planned: Planned) -> Iterator[str]:
    """What may give other frames than broken ones, and where they may come from."""
    params = planned.params
    seed = (params.seed + 1) % (MAX_SEED + 1)
    yield Remedy(f"Set seed to {seed}", seed=seed)
    if params.loras:
        yield Remedy("Leave loras out: their weights may be too large together", loras=None)
    for model in planned.models.values():
        if BUNDLED_FOLDER not in model.path.parents:
            yield f"Check the files of {model.name}: vidkit models verify {quote(str(model.path))}"


def leaner(
    planned: Planned, failure: GenerationError | CriticalError, phase: str | None, failures: int
) -> tuple[Planned, list[str]] | None:
    """The next attempt with less memory; where there is none, the failure says what would fit."""
    known, less = in_memory_now(planned), LESS[min(failures, len(LESS) - 1)]
    following = next_plan(known, phase, less) if failures < len(LESS) else None
    if following is not None:
        return following, [*following.reasons[len(planned.reasons) :]]
    others = [advice for advice in failure.suggestions if not isinstance(advice, Remedy)]
    failure.suggestions = [*would_fit(next_case(known, phase, less)), *others]
    return None


def in_memory_now(planned: Planned) -> Planned:
    """With no more room than there is now: other programs may have taken some of the GPU's memory meanwhile."""
    if planned.plan.device == "cpu":
        return planned
    rooms = [room.device for room in (planned.room, Room.now(planned.plan.device)) if room.device is not None]
    return replace(planned, room=replace(planned.room, device=min(rooms, default=None)))
