"""What the schema, the models and the pictures say of a sweep's values and points. Loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image

from vidkit.confinement import check_allowed
from vidkit.errors import InputError, VidkitError
from vidkit.images import FORMATS, MAX_PIXELS
from vidkit.models.locate import BUNDLED_PREFIX, picture_path
from vidkit.models.loras import weights_of_loras
from vidkit.params import GenerationParams, is_used, resolve, wire_name, with_places
from vidkit.paths import local_path
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.record import is_clip, load_picture
from vidkit.safety.screening import screening_of
from vidkit.settings import Settings
from vidkit.sweep.axes import is_replacement
from vidkit.sweep.memory_check import MemoryCheck
from vidkit.sweep.problems import Problems, some

PICTURES: Final = ("image_path", "last_image_path")
MODELS: Final = ("base_model", "motion_adapter", "controlnet", "loras")

#: what decides which models a point needs
MODEL_CHOICE: Final = (*MODELS, "pipeline", "conditioning")

#: What no model's limits depend on, so that points which differ in these alone are checked once. Anything else, a new
#: parameter too, is checked in every combination.
FREE: Final = frozenset({"seed", "prompt", "image_path"})


def value_problem(name: str, value: Any) -> InputError | None:
    """What the schema says against a value. null stands for a model's own default where there is one."""
    if value is None and GenerationParams.model_fields[name].default is not None:
        return InputError("invalid_value", f"{wire_name(name)} has no value.", [f"Write a value for {wire_name(name)}"])
    try:
        GenerationParams(**{"image_path": "any", "prompt": "any", name: value})
    except InputError as error:
        return error
    return None


def wrong_values(name: str, values: Sequence[Any]) -> dict[int, InputError]:
    """By position, what is wrong. Numbers of one type are all in order if the least and the greatest are."""
    kinds = {type(value) for value in values}
    if kinds in ({int}, {float}) and not any(value_problem(name, extreme(values)) for extreme in (min, max)):
        return {}
    found = {number: value_problem(name, value) for number, value in enumerate(values)}
    return {number: problem for number, problem in found.items() if problem}


def check_values(
    where: str, name: str, values: Sequence[Any], folder: Path, settings: Settings, problems: Problems
) -> set[int]:
    """Positions of values that cannot be used; each kind of problem is added once."""
    if is_replacement(name):
        wrong = {
            number: InputError("invalid_value", f"{value!r} is no text.", ["Put it in quotes"])
            for number, value in enumerate(values)
            if not isinstance(value, str) or (number == 0 and not value)
        }
    else:
        wrong = wrong_values(name, values)
        for number, value in enumerate(values):
            if number not in wrong and value is not None and (problem := path_problem(name, value, folder, settings)):
                wrong[number] = problem
    for number in list(wrong)[:3]:
        problems.add_error(where, wrong[number])
    if len(wrong) > 3:
        problems.add(f"{where}: {some([values[number] for number in list(wrong)[3:]])} likewise.")
    return set(wrong)


def placed(name: str, value: Any, folder: Path, settings: Settings) -> Any:
    """A path relative to the sweep file made absolute, each in a list; names of examples and of models stay."""

    def place(value: str) -> str:
        if value.startswith(("example:", BUNDLED_PREFIX)):
            return value
        path = folder / local_path(value, [name])
        if name in MODELS and not path.exists() and (settings.models / value).exists():
            return value
        return str(path)

    return with_places(name, value, place) if isinstance(value, str) and name in (*PICTURES, *MODELS) else value


def path_problem(name: str, value: Any, folder: Path, settings: Settings) -> InputError | None:
    """Of a picture, that it is not there or none; of a model, that it can be no path, as of a drive that is not here:
    whether it is there is asked for each point. None for other parameters.
    """
    try:
        if name in PICTURES:
            check_picture(name, folder / picture_path(value, name), value, settings)
        elif name in MODELS:
            placed(name, value, folder, settings)
    except InputError as error:
        return error
    return None


def check_picture(name: str, path: Path, written: str, settings: Settings) -> None:
    check_allowed(path, settings, name, written)
    if is_clip(path) or not header_opens(path):
        load_picture(path, PICTURES.index(name))  # which says what is wrong


def header_opens(path: Path) -> bool:
    """Whether it is a picture by its first bytes: hundreds are not decoded to plan a sweep."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height <= MAX_PIXELS
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


@dataclass(frozen=True)
class Verdict:
    """What the models make of a request: every default filled in, the models used, what is ignored, whether it fits
    into the memory that is free on this machine.
    """

    resolved: GenerationParams
    models: Models
    notes: list[str]
    fits: bool


@dataclass
class PointCheck:
    """Asks the families about points, each combination once, and gathers what they say."""

    settings: Settings
    failures: dict[str, tuple[VidkitError, list[Mapping[str, Any]]]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    misfits: list[tuple[Verdict, Mapping[str, Any]]] = field(default_factory=list)
    _memory: MemoryCheck = field(default_factory=MemoryCheck)
    _models: dict[Any, Models] = field(default_factory=dict)
    _verdicts: dict[Any, Verdict | VidkitError] = field(default_factory=dict)

    def ask(self, params: GenerationParams, axes: Mapping[str, Any]) -> Verdict | None:
        """None for a point that cannot be made; the reason is kept for `report`."""
        values = vars(params)
        key = tuple(value for name, value in values.items() if name not in FREE)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self._judge(params)
        if isinstance(verdict, VidkitError):
            self.failures.setdefault(verdict.message, (verdict, []))[1].append(axes)
            return None
        self.notes.update(verdict.notes)
        if not verdict.fits:
            self.misfits.append((verdict, axes))
        return verdict

    def _judge(self, params: GenerationParams) -> Verdict | VidkitError:
        family = FAMILIES[params.pipeline]
        choice = tuple(getattr(params, name) for name in MODEL_CHOICE)
        try:
            models = self._models.get(choice)
            if models is None:
                models = self._models[choice] = family.models(params, self.settings)
            screening = screening_of(models, self.settings)
            resolved, notes = resolve(params, family.limits(params, models))
        except VidkitError as error:
            return error
        return Verdict(resolved, models, [*notes, *screening.notes], self._memory.fits(resolved, models))

    def misfit_notes(self, points: int) -> list[str]:
        """Which points would run out of memory here. No problem of the sweep: it may run elsewhere, or later."""
        if not self.misfits:
            return []
        (first, axes), count = self.misfits[0], len(self.misfits)
        error = self._memory.refusal(first.resolved, first.models)
        where = f" at {point_name(axes)}" if axes else ""
        return [
            f"{count:,} of {points:,} points would not fit into the memory that is free here. The first{where}: "
            f"{error.message} {error.suggestions[0]}."
        ]

    def report(self, problems: Problems, points: int) -> None:
        for error, where in self.failures.values():
            first = point_name(where[0])
            places = (
                f" (at {first})" if len(where) == 1 else f" (at {len(where):,} of {points:,} points, first {first})"
            )
            problems.add_error(
                "", type(error)(error.code, error.message + (places if first else ""), error.suggestions)
            )


def point_name(axes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in axes.items())


@cache
def used_parameters(pipeline: str, conditioning: str) -> tuple[str, ...]:
    return tuple(name for name in GenerationParams.model_fields if is_used(name, pipeline, conditioning))


def effect_of(params: GenerationParams, verdict: Verdict, *, used_only: bool) -> tuple[Any, ...]:
    """What decides a clip but its seed. used_only: without the parameters that its family ignores."""
    models = (*(str(model.path) for model in verdict.models.values()), *weights_of_loras(params).values())
    names = used_parameters(params.pipeline, params.conditioning) if used_only else tuple(GenerationParams.model_fields)
    own = {name: getattr(params, name) for name in FREE}
    resolved = vars(verdict.resolved)
    return models, *(own.get(name, resolved[name]) for name in names if name not in (*MODELS, "seed"))
