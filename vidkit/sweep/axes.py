"""An axis of a sweep: from what is written in the YAML to a list of values.

A YAML list, or one of these short forms, alone or mixed in a list or between commas (most are those of AUTOMATIC1111's
X/Y/Z plot script):

    1..10  1-10           1, 2, ... 10 (also downwards)
    1..10 (+2)            steps; the end belongs to it where a step meets it
    0..1 [5]              five values at equal distances, both ends included; whole for a whole-number parameter
    1, 2, .., 10          a progression carried on; its end must be met
    random [5]            for seed: five seeds, drawn once when the sweep is planned; -1 is one of them
    a cat || a dog        for prompts and loras, whose commas are their own; other texts are split at commas, "in
                          quotes" not

Values are exact: 0..1 (+0.1) has 0.3, not 0.30000000000000004.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Final

from vidkit.errors import InputError
from vidkit.lora_list import LORAS
from vidkit.params import GenerationParams, plain_type

#: an axis cannot have more values than a sweep may have points
MAX_POINTS: Final = 100_000

#: prompt search and replace: the first text is looked for in the prompts, and replaced by each; several axes of this
#: kind are told apart by a suffix (prompt_sr_light)
REPLACEMENT: Final = "prompt_sr"

PROMPTS: Final = ("prompt", "negative_prompt")

_NUMBER: Final = r"[+-]?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?"
_ONE: Final = re.compile(rf"{_NUMBER}|[+-]?\.\d{{1,30}}")
_RANGE: Final = re.compile(
    rf"({_NUMBER})\s*(?:\.\.\.?|-|…)\s*({_NUMBER})(?:\s*\(\s*({_NUMBER})\s*\)|\s*\[\s*(\d{{1,9}})\s*\])?"
)
_RANDOM: Final = re.compile(r"random(?:\s*\[\s*(\d{1,9})\s*\])?", re.IGNORECASE)
_AND_SO_ON: Final = ("..", "...", "…")
_FORMS: Final = "1..10, 1..10 (+2), 0..1 [5] or 1, 2, .., 10"


class NotExpanded(Exception):  # noqa: N818  (turned into an InputError by `expand`)
    """Why a short form gives no values; the message is for the user."""


def is_replacement(name: str) -> bool:
    return name == REPLACEMENT or name.startswith(REPLACEMENT + "_")


def is_axis_name(name: str) -> bool:
    return is_replacement(name) or name in GenerationParams.model_fields


def expand(name: str, written: Any) -> list[Any]:
    """The values of an axis; of the right type where that can be told, unchecked otherwise.

    Args:
        name: snake_case parameter, or a `prompt_sr` name.
        written: what stands in the YAML: a list, a text, one value. Seeds to be drawn come back as -1.

    Raises:
        InputError: `invalid_value`, for a short form that makes no sense or makes over `MAX_POINTS` values.
    """
    kind = str if is_replacement(name) else plain_type(GenerationParams.model_fields[name])
    try:
        if isinstance(written, dict) or any(isinstance(item, list | dict) for item in as_list(written)):
            raise NotExpanded("an axis takes values or a list of values, not lists in lists or mappings")
        if kind in (int, float):
            return expand_numbers(name, split_numbers(as_list(written)))
        values = split_text(name, written) if isinstance(written, str) else as_list(written)
        return [BOOLEANS.get(value, value) for value in values] if kind is bool else values
    except NotExpanded as reason:
        raise InputError("invalid_value", f"{reason}.", [f"Write numbers as a list, or as {_FORMS}"]) from reason


BOOLEANS: Final[dict[Any, bool]] = {"true": True, "false": False}


def as_list(written: Any) -> list[Any]:
    return list(written) if isinstance(written, list) else [written]


def split_text(name: str, written: str) -> list[Any]:
    """One text of several values. Commas belong to prompts and to lists of LoRAs; `||` parts those."""
    if name in (*PROMPTS, LORAS):
        parts: Iterable[str] = written.split("||")
    else:
        parts = next(csv.reader([written.replace("\n", " ")], skipinitialspace=True), [])
    return [part.strip() for part in parts if part.strip()]


def split_numbers(items: Sequence[Any]) -> list[Any]:
    """Texts in a list of numbers split at their commas."""
    parts: list[Any] = []
    for item in items:
        parts += [part.strip() for part in item.split(",") if part.strip()] if isinstance(item, str) else [item]
    return parts


def expand_numbers(name: str, items: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    goes_on = False
    for item in items:
        if item in _AND_SO_ON:
            if goes_on or not values:
                raise NotExpanded(f"{item!r} stands between numbers: 1, 2, .., 10")
            goes_on = True
            continue
        found = expand_item(name, item)
        if goes_on:
            found, goes_on = carried_on(values, found), False
        values += found
        check_count(len(values), "it")
    if goes_on:
        raise NotExpanded("'..' has no number after it: 1, 2, .., 10")
    return [typed(name, value) for value in values]


def expand_item(name: str, item: Any) -> list[Any]:
    """A number, or the numbers of a range, as Fractions; what is neither text nor number comes back as it is."""
    if isinstance(item, bool) or item is None:
        return [item]
    if not isinstance(item, str):
        return [Fraction(repr(item))] if math.isfinite(item) else [item]
    if _ONE.fullmatch(item):
        return [Fraction(item)]
    drawn = _RANDOM.fullmatch(item) if name == "seed" else None
    if drawn:
        count = int(drawn[1] or 1)
        check_count(count, item)
        return [Fraction(-1)] * count
    match = _RANGE.fullmatch(item)
    if not match:
        raise NotExpanded(f"{item!r} is neither a number nor a range ({_FORMS})")
    start, end = Fraction(match[1]), Fraction(match[2])
    if match[4]:
        return spaced(name, item, start, end, int(match[4]))
    return stepped(item, start, end, Fraction(match[3]) if match[3] else Fraction(1 if end >= start else -1))


def stepped(written: str, start: Fraction, end: Fraction, step: Fraction) -> list[Fraction]:
    if step == 0 or (end - start) * step < 0:
        raise NotExpanded(f"{written!r} never gets there: the step leads nowhere or away from the end")
    count = (end - start) // step + 1
    check_count(count, written)
    return [start + step * number for number in range(count)]


def spaced(name: str, written: str, start: Fraction, end: Fraction, count: int) -> list[Fraction]:
    if count < 2:
        raise NotExpanded(f"{written!r} asks for {count} value; the two ends are two already")
    check_count(count, written)
    values = [start + (end - start) * number / (count - 1) for number in range(count)]
    if plain_type(GenerationParams.model_fields[name]) is int:
        values = [Fraction(math.trunc(value)) for value in values]  # as the X/Y/Z plot: 1-10 [5] is 1, 3, 5, 7, 10
    different = len(set(values))
    if different < count:
        raise NotExpanded(f"{written!r} has only {different} different values")
    return values


def carried_on(values: Sequence[Any], found: Sequence[Any]) -> list[Fraction]:
    """The rest of a progression: after `values`, up to the one number found behind the dots."""
    known = [value for value in values[-2:] if isinstance(value, Fraction)]
    if not known or len(found) != 1 or not isinstance(found[0], Fraction):
        raise NotExpanded("'..' stands between single numbers: 1, 2, .., 10")
    last, end = known[-1], found[0]
    step = last - known[0] if len(known) > 1 else Fraction(1 if end >= last else -1)
    written = f"{', '.join(short(value) for value in known)}, .., {short(end)}"
    rest = stepped(written, last, end, step)[1:]
    if not rest or rest[-1] != end:
        met = short(rest[-1] if rest else last)
        raise NotExpanded(f"{written!r} misses its end: in steps of {short(step)} it stops at {met}")
    return rest


def check_count(count: int, written: str) -> None:
    if count > MAX_POINTS:
        raise NotExpanded(f"{written!r} makes {count:,} values, more than {MAX_POINTS:,}")


def typed(name: str, value: Any) -> Any:
    """int or float as the parameter has it; a fraction for a whole-number parameter stays one, to be refused."""
    if not isinstance(value, Fraction):
        return value
    is_whole = plain_type(GenerationParams.model_fields[name]) is int and value.denominator == 1
    return int(value) if is_whole else float(value)


def short(value: Fraction) -> str:
    return f"{float(value):g}"
