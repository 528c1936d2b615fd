"""A plan in sentences: why each measure was taken, what it changes, and what would fit where nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from vidkit.device import GIB, Plan, device_label
from vidkit.errors import GenerationError, Remedy
from vidkit.memory.deviations import alone, least_changes
from vidkit.memory.fitting import Case, Changes, with_tolerance
from vidkit.memory.prediction import PHASES, Prediction
from vidkit.params import GenerationParams, wire_name
from vidkit.pipelines import FAMILIES

OFFLOADED: Final = {
    "model": "One part of the model is on the GPU at a time",
    "layers": "One layer of the UNet is on the GPU at a time",
}
MEASURES: Final = {
    "halves": "The halves of guidance are computed one after the other",
    "slices": "Layers work on slices of frames and of pixels",
    "host_skips": "Skip connections wait in the host's memory",
}


def in_gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / GIB:.2f} GiB"


def needed(prediction: Prediction, phase: str | None = None) -> str:
    """How much, and in which phase: that of the peak unless one is named."""
    phase = phase or prediction.phase
    return f"{in_gib(getattr(prediction, phase))} ({PHASES[phase]})"


def reasons_of(case: Case, plan: Plan) -> list[str]:
    """What is needed without any measure beside what is free, then each measure and what is needed with it."""
    step, taken = case.plain, list(measures_of(case.params, plan))
    plain, free = case.predicted(step), case.room.device
    whole = f"With all of the model on {device_label(step.device)}" if step.device == "cuda" else "Without any measure"
    told = f"{whole}, {needed(plain)} {'would be' if taken else 'are'} needed"
    if free is not None:
        told += f"; {in_gib(free)} are free"
        told += ", which is too close" if taken and plain.peak <= free else ""
    found = [f"{told}."]
    for words, measure in taken:
        step = replace(step, **measure)
        found.append(f"{words}: {needed(case.predicted(step))}.")
    return found


def next_reasons(case: Case, before: Plan, plan: Plan, phase: str | None) -> list[str]:
    """After a plan that ran out of memory all the same."""
    was = f"{needed(case.predicted(before), phase)} were predicted, but memory ran out."
    taken = [words for words, measure in measures_of(case.params, plan) if replace(before, **measure) != before]
    return [was, *(f"{words}." for words in taken)]


def measures_of(params: GenerationParams, plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a plan does, in words and as fields of the plan, one measure after the other."""
    if plan.offload != "none":
        yield OFFLOADED[plan.offload], {"offload": plan.offload}
    for name, words in MEASURES.items():
        if getattr(plan, name):
            yield words, {name: True}
    done: tuple[tuple[str, int], ...] = ()
    for words, changes in change_words(params, dict(plan.changes)):
        done += tuple(changes.items())
        yield words, {"changes": done}


def change_words(params: GenerationParams, changes: Changes) -> Iterator[tuple[str, Changes]]:
    """The changes one after the other, each in a sentence without its full stop."""
    for names in (("decode_chunk_size",), ("window_frames",), ("width", "height"), ("num_frames",)):
        these = {name: changes[name] for name in names if name in changes}
        if these:
            yield change_in_words(params, these), these


def change_in_words(params: GenerationParams, change: Changes) -> str:
    match dict(change):
        case {"decode_chunk_size": chunk}:
            return (
                f"{chunk} {'frame is' if chunk == 1 else 'frames are'} decoded at once, not {params.decode_chunk_size}"
            )
        case {"window_frames": window}:
            return f"The clip is made in windows of {window} frames"
        case {"num_frames": frames}:
            return f"The clip has {frames} frames, not {params.num_frames}"
        case {"width": width, "height": height}:
            return f"The clip has {width}x{height} pixels, not {params.width}x{params.height}"
        case _:
            raise ValueError(f"no change of a clip: {change}")


def change_notes(params: GenerationParams, plan: Plan) -> list[str]:
    """For the result: what the plan changes of the clip. A decode chunk counts where frames mix."""
    changes = dict(plan.changes)
    if not FAMILIES[params.pipeline].decoder_mixes_frames:
        changes.pop("decode_chunk_size", None)
    return [f"{words}: more does not fit into memory." for words, _ in change_words(params, changes)]


def speed_notes(plan: Plan) -> list[str]:
    """What of a speed a plan goes without, and why; and what else it does."""
    notes = []
    if plan.speed != "exact" and (plan.slices or plan.host_skips):
        why = "layers are computed in little memory, only what is in them is faster"
        notes.append(f"speed {plan.speed} does less here: {why}.")
    if plan.dtype == "bfloat16":
        notes.append(f"speed {plan.speed} computes in bfloat16 on this CPU.")
    return notes


def refusal(case: Case) -> GenerationError:
    """What is missing, and what would fit."""
    least, params, room, device = case.leanest(), case.params, case.room, case.plain.device
    what = f"{params.num_frames} frames of {params.width}x{params.height} pixels"
    missing = max(room.lacking(least, phase) for phase in PHASES)
    if missing > 0:
        where = f"{device_label(device)}'s memory" if device == "cuda" else "memory"
        message = f"{what} do not fit into {where}: {needed(least)} are needed even when everything is done to save it"
        message += f", {in_gib(room.device)} are free." if room.device is not None else "."
    else:
        message = (
            f"{what} fit into the GPU's memory only where {in_gib(least.host)} can wait in the host's, of which "
            f"{in_gib(room.host or 0)} are free."
        )
        missing = with_tolerance(least.host) - (room.host or 0)
    code = "out_of_memory" if device == "cuda" else "out_of_host_memory"
    advice = f"Free {in_gib(missing)} more: close other applications" + (
        " that use the GPU" if device == "cuda" else ""
    )
    return GenerationError(code, message, [*would_fit(case), advice], ["num_frames", "width", "height"])


def would_fit(case: Case) -> Iterator[Remedy]:
    """Requests like this one that would fit."""
    if not case.params.allow_changes and (changes := least_changes(case)):
        words = "; ".join(words for words, _ in change_words(case.params, changes))
        yield Remedy(f"Set allowChanges to true. Then: {words}", allow_changes=True)
    for changes in alone(case):
        values = " and ".join(f"{wire_name(name)} to {value}" for name, value in changes.items())
        yield Remedy(f"Set {values}", **changes)


def by_phase(prediction: Prediction) -> str:
    """All phases, and what waits in the host's memory."""
    phases = ", ".join(f"{in_gib(getattr(prediction, phase))} {words}" for phase, words in PHASES.items())
    return phases + (f"; {in_gib(prediction.host)} wait in the host's memory" if prediction.host else "")
