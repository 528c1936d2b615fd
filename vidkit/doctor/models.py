"""The models that are here: whether the registry can be read, its files are there, and which families can run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vidkit.errors import SetupError
from vidkit.finding import Finding, note, ok, plural, problem
from vidkit.models.compatibility import why_not_together
from vidkit.models.inspection import Inspection
from vidkit.models.listing import Listed, listed_models, look_at
from vidkit.settings import settings_or_defaults

TOPIC: Final = "models"

#: how many of the same kind are told by name
SHOWN: Final = 4


def findings() -> Iterator[Finding]:
    try:
        listed = listed_models(settings_or_defaults())
    except SetupError as error:  # the registry
        yield problem(TOPIC, error.message, *error.suggestions)
        return
    looks = [(one, *look_at(one)) for one in listed]
    yield from broken([(one, why) for one, _, why in looks if why is not None])
    found = [(one, inspection) for one, inspection, _ in looks if inspection is not None]
    yield svd(found)
    yield animatediff(found)


def broken(models: Sequence[tuple[Listed, str]]) -> Iterator[Finding]:
    for one, why in models[:SHOWN]:
        remedy = {
            "registered": f"vidkit models add PATH --name {one.name}, or vidkit models remove {one.name}",
            "default of the settings": "Change defaultModels in config.json",
        }.get(one.origin, f"Fetch it again, or take it away: {one.path}")
        yield problem(TOPIC, f"{one.name}: {why}", remedy, path=str(one.path))
    if len(models) > SHOWN:
        yield problem(TOPIC, f"{plural(len(models) - SHOWN, 'more model')} cannot be used.", "See vidkit models list")


def svd(found: Sequence[tuple[Listed, Inspection]]) -> Finding:
    own = [one for one, inspection in found if inspection.kind == "Stable Video Diffusion"]
    return family("svd", own, "vidkit models download svd-xt")


def animatediff(found: Sequence[tuple[Listed, Inspection]]) -> Finding:
    """It takes a base model and a motion adapter that go together."""
    bases = [(one, inspection) for one, inspection in found if inspection.kind == "base model"]
    adapters = [inspection for _, inspection in found if inspection.kind == "motion adapter"]
    able = [one for one, base in bases if any(why_not_together(adapter, base) is None for adapter in adapters)]
    alone = [one.name for one, _ in bases if one not in able]
    told = family("animatediff", able, "vidkit models list --available")
    if not alone:
        return told
    return note(
        TOPIC,
        f"{told.what} No motion adapter here goes with {', '.join(alone[:SHOWN])}.",
        "See vidkit models list --available for motion adapters",
        **told.data,
    )


def family(name: str, models: Sequence[Listed], how_to_get: str) -> Finding:
    names = [one.name for one in models]
    if not names:
        return problem(TOPIC, f"{name}: no model.", how_to_get, family=name, models=names)
    told = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    if all(one.origin == "ships with vidkit" for one in models):
        return ok(
            TOPIC, f"{name} can run: {told} (for demonstration; full-size: {how_to_get}).", family=name, models=names
        )
    return ok(TOPIC, f"{name} can run: {told}.", family=name, models=names)
