"""Changes of the clip for which nothing but the memory is a reason: the least of them with which a request fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from vidkit.errors import InputError
from vidkit.memory.fitting import Case, Changes, first_that, smaller_chunks
from vidkit.params import GenerationParams, Limits, resolve
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models

#: clips and windows are not made shorter than that: motion models are trained on 14 to 25 frames
FEWEST_FRAMES: Final = 8

#: pixels of the shorter side, below which full-size models make no picture; a model's card may say less
SMALLEST_SIDE: Final = 256


def least_changes(case: Case) -> Changes | None:
    """The changes with which the request fits: none of a worse kind while one that is better suffices, and each as
    small as possible, the worst first. None when it fits with none.
    """
    kinds = list(kinds_of_change(case.params, case.models).values())
    for worst in range(len(kinds)):
        if case.fits(together(kinds[: worst + 1])):
            return smallest(case, kinds[: worst + 1])
    return None


def smallest(case: Case, kinds: Sequence[Sequence[Changes]]) -> Changes:
    """Of kinds of change that suffice when all go as far as they can, each as small as possible."""
    chosen: Changes = {}
    for number in reversed(range(len(kinds))):
        others = {**together(kinds[:number]), **chosen}
        tries: list[Changes] = [{**others, **change} for change in ({}, *kinds[number])]
        found = first_that(tries, case.fits) or tries[-1]
        chosen = {**chosen, **{name: value for name, value in found.items() if name not in together(kinds[:number])}}
    return chosen


def alone(case: Case) -> list[Changes]:
    """Of each kind of change the smallest that suffices alone, where one does."""
    kinds = kinds_of_change(case.params, case.models).values()
    return [found for values in kinds if (found := first_that(values, case.fits)) is not None]


def together(kinds: Sequence[Sequence[Changes]]) -> Changes:
    """All of them as far as they go."""
    return {name: value for values in kinds if values for name, value in values[-1].items()}


def kinds_of_change(params: GenerationParams, models: Models) -> Mapping[str, Sequence[Changes]]:
    """From the least bad kind to the worst, of each the changes from small to large."""
    family = FAMILIES[params.pipeline]
    limits = family.limits(params, models)
    kinds: dict[str, list[Changes]] = {
        "chunk": [{"decode_chunk_size": chunk} for chunk in smaller_chunks(params) if family.decoder_mixes_frames],
        "window": windows(params, limits),
        "size": sizes(params, limits),
        "frames": [{"num_frames": frames} for frames in range((params.num_frames or 1) - 1, FEWEST_FRAMES - 1, -1)],
    }
    return {kind: changes if allowed(params, models, changes) else [] for kind, changes in kinds.items()}


def allowed(params: GenerationParams, models: Models, changes: Sequence[Changes]) -> bool:
    """Whether the models take it: no windows, for one, where the last frame is given too."""
    if not changes:
        return False
    changed = params.replace(**changes[-1])
    try:
        resolve(changed, FAMILIES[params.pipeline].limits(changed, models))
    except InputError:
        return False
    return True


def windows(params: GenerationParams, limits: Limits) -> list[Changes]:
    frames = params.num_frames or 1
    held = params.window_frames or limits.ranges.get("window_frames", (2, frames))[1]
    return [{"window_frames": window} for window in range(int(min(held, frames)) - 1, FEWEST_FRAMES - 1, -1)]


def sizes(params: GenerationParams, limits: Limits) -> list[Changes]:
    """Smaller sizes of nearly the same aspect, in the model's steps."""
    width, height, step = params.width or 0, params.height or 0, limits.size_multiple
    found = dict.fromkeys(
        (
            multiple_near(width * short / min(width, height), step),
            multiple_near(height * short / min(width, height), step),
        )
        for short in range((min(width, height) - 1) // step * step, 0, -step)
    )
    lowest = {name: limits.ranges.get(name, (SMALLEST_SIDE, 0))[0] for name in ("width", "height")}
    return [
        {"width": across, "height": down}
        for across, down in found
        if lowest["width"] <= across <= width and lowest["height"] <= down <= height
    ]


def multiple_near(side: float, step: int) -> int:
    return max(step, round(side / step) * step)
