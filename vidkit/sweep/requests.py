"""The requests of a sweep, one for each point of its grid, checked with the models that they need. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidkit.errors import InputError
from vidkit.params import GenerationParams, empty_prompt
from vidkit.settings import Settings
from vidkit.sweep.axes import PROMPTS, is_replacement
from vidkit.sweep.check import (
    MODEL_CHOICE,
    PICTURES,
    PointCheck,
    Verdict,
    check_values,
    effect_of,
    placed,
    point_name,
)
from vidkit.sweep.grid import grid
from vidkit.sweep.problems import Problems
from vidkit.sweep.sweep_file import SweepFile


@dataclass(frozen=True)
class Request:
    """A point before its seed is drawn and its copies are made."""

    axes: Mapping[str, Any]
    params: GenerationParams
    verdict: Verdict


def checked_requests(sweep: SweepFile, settings: Settings, problems: Problems) -> tuple[list[Request], list[str]]:
    """The requests in the order of execution, and notes on them. All that is wrong is added to problems."""
    base, bad = checked_values(sweep, settings, problems)
    check_seeds(sweep, base, problems)
    combinations = grid(sweep, problems)
    if hopeless(sweep, base):
        return [], []
    check = PointCheck(settings)
    usable = (axes for axes in combinations if all(axes[name] not in values for name, values in bad.items()))
    requests = list(make_requests(sweep, base, usable, check, settings, problems))
    check.report(problems, len(combinations))
    check_duplicates(requests, problems)
    return requests, notes_on(requests, check)


def checked_values(
    sweep: SweepFile, settings: Settings, problems: Problems
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The base parameters that are good, and the values of axes that are not; both kinds of problems are added."""
    wrong_base = {
        name
        for name, value in sweep.base.items()
        if check_values("base", name, [value], sweep.folder, settings, problems)
    }
    base = {name: value for name, value in sweep.base.items() if name not in wrong_base}
    for name in ("image_path", "prompt"):
        if name not in (*sweep.base, *sweep.axes, *sweep.failed):
            advice = f"Give it under base:. {GenerationParams.model_fields[name].description}"
            problems.add(f"{name} is neither in base nor an axis.", advice, code="missing_parameter")
    bad: dict[str, list[Any]] = {}
    for name, values in sweep.axes.items():
        if numbers := check_values(f"axis {name}", name, values, sweep.folder, settings, problems):
            bad[name] = [values[number] for number in numbers]
        if name in PICTURES and all(isinstance(value, str) for value in values):
            bad.pop(name, None)  # a missing picture leaves the rest of its points to be judged
    return base, bad


def check_seeds(sweep: SweepFile, base: Mapping[str, Any], problems: Problems) -> None:
    where = "an axis" if "seed" in sweep.axes else f"{base['seed']} in base" if base.get("seed", -1) != -1 else ""
    if sweep.repeats > 1 and where:
        problems.add(
            f"repeats is {sweep.repeats}, but seed is {where}: the copies would be the same clip.",
            f"Leave repeats out and write the axis seed: random [{sweep.repeats}]",
            "Take seed out: each copy then draws its own",
            code="invalid_value",
        )


def hopeless(sweep: SweepFile, base: Mapping[str, Any]) -> bool:
    """Whether points would be judged by what they are not: a parameter that picks their models is wrong."""
    unknown = sweep.failed | (set(sweep.base) - set(base))
    return not unknown.isdisjoint(MODEL_CHOICE)


def make_requests(
    sweep: SweepFile,
    base: Mapping[str, Any],
    combinations: Iterator[dict[str, Any]],
    check: PointCheck,
    settings: Settings,
    problems: Problems,
) -> Iterator[Request]:
    """The requests that their models can make; what stands against the others is kept in check."""
    fixed = {name: placed(name, value, sweep.folder, settings) for name, value in base.items()}
    template = GenerationParams(**{"image_path": "any", "prompt": "any", **fixed})
    has_prompt = "prompt" in base or "prompt" in sweep.axes
    searches = {name: str(values[0]) for name, values in sweep.axes.items() if has_prompt and is_replacement(name)}
    paths: dict[tuple[str, Any], Any] = {}
    refused: set[str] = set()
    for axes in combinations:
        changes = {}
        for name in axes:
            if is_replacement(name) or axes[name] is None:
                continue
            changes[name] = axes[name]
            if name in MODEL_CHOICE or name in PICTURES:
                key = (name, axes[name])
                if key not in paths:
                    paths[key] = placed(name, axes[name], sweep.folder, settings)
                changes[name] = paths[key]
        # every value was checked on its own, and the whole is checked again with its models
        params = template.model_copy(update=changes)
        replacement = replaced(params, searches, axes, refused, problems) if searches else params
        verdict = check.ask(replacement, axes) if replacement else None
        if replacement and verdict:
            yield Request(axes, replacement, verdict)


def replaced(
    params: GenerationParams,
    searches: Mapping[str, str],
    axes: Mapping[str, Any],
    refused: set[str],
    problems: Problems,
) -> GenerationParams | None:
    """Prompt search and replace, in both prompts as the X/Y/Z plot does it; all axes at once, so that none undoes
    another. None, and a problem that refused has not had yet, where a text is not found or no prompt is left."""
    complaints = [
        InputError(
            "invalid_value",
            f"axis {name} looks for {text!r}, which is not in the prompt {params.prompt!r}.",
            ["Let its first value be a part of the prompt"],
        )
        for name, text in searches.items()
        if text not in params.prompt and text not in params.negative_prompt
    ]
    by_text = {text: str(axes[name]) for name, text in searches.items()}
    pattern = "|".join(re.escape(text) for text in sorted(by_text, key=len, reverse=True))
    changed = {
        name: re.sub(pattern, lambda found: by_text[found[0]], getattr(params, name))
        for name in PROMPTS
        if getattr(params, name)
    }
    if not changed["prompt"].strip():
        complaints.append(empty_prompt(params.pipeline))
    for complaint in complaints:
        if complaint.message not in refused:
            refused.add(complaint.message)
            problems.add_error("" if complaint.code == "invalid_value" else f"axis {', '.join(searches)}", complaint)
    return None if complaints else params.model_copy(update=changed)


def check_duplicates(requests: Sequence[Request], problems: Problems) -> None:
    """One value written in two ways: two spellings of a path, a default beside its value."""
    seen: dict[Any, Request] = {}
    pairs = []
    for request in requests:
        key = (request.params.seed, effect_of(request.params, request.verdict, used_only=False))
        twin = seen.setdefault(key, request)
        if twin.axes != request.axes:
            pairs.append((twin, request))
    if pairs:
        first = " and ".join(f"({point_name(one.axes)})" for one in pairs[0])
        more = f", and {len(pairs) - 1:,} more pairs" if len(pairs) > 1 else ""
        problems.add(
            f"Points that are the same request: {first}{more}.",
            "Take one of the two values out",
            code="invalid_value",
        )


def notes_on(requests: Sequence[Request], check: PointCheck) -> list[str]:
    """What the user should know before the sweep is run: what has no effect, and how many points are alike for it."""
    notes = [
        note if count == len(requests) else f"{note.removesuffix('.')} (at {count:,} of {len(requests):,} points)."
        for note, count in check.notes.items()
    ]
    notes += check.misfit_notes(len(requests))
    different = {(one.params.seed, effect_of(one.params, one.verdict, used_only=True)) for one in requests}
    if len(different) < len(requests):
        notes.append(
            f"{len(requests):,} points differ in ignored parameters, and make only {len(different):,} different clips "
            "(but for drawn seeds)."
        )
    return notes
