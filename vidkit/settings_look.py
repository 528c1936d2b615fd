"""From the environment and the content of config.json to settings: which come from where, and what is wrong in them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from vidkit.settings_schema import Entry, Part, entries, part_in

#: where a value comes from that is in the file
IN_FILE: Final = "config.json"

Whole = TypeVar("Whole", bound=Part)


@dataclass(frozen=True)
class Look(Generic[Whole]):
    """What environment and config.json say.

    given: the values as they stand there, by key. origins: by key, the variable or `IN_FILE`; what is at its default is
    not in it. problems: by key, in words. unknown: the file's keys that are no setting. settings: None where there are
    problems.
    """

    given: Mapping[str, Any]
    origins: Mapping[str, str]
    problems: Mapping[str, str]
    unknown: tuple[str, ...]
    settings: Whole | None


def look_at(whole: type[Whole], content: Mapping[str, Any], environment: Mapping[str, str]) -> Look[Whole]:
    """The settings of a class with this content of config.json; the environment comes first."""
    in_file, unknown, problems = sorted_out(content, whole, keys_in_file(whole))
    given, origins = {}, {}
    for entry in entries_of(whole):
        if entry.variable and (text := environment.get(entry.variable)):
            given[entry.key], origins[entry.key] = entry.from_text(text), entry.variable
        elif entry.key in in_file:
            given[entry.key], origins[entry.key] = in_file[entry.key], IN_FILE
    settings = None
    try:
        settings = whole.model_validate(nested(given))
    except ValidationError as error:
        problems |= dict(problems_in(error, entries_of(whole), origins))
    return Look(given, origins, problems, tuple(unknown), None if problems else settings)


@functools.cache
def entries_of(whole: type[Part]) -> tuple[Entry, ...]:
    return tuple(entries(whole))


@functools.cache
def keys_in_file(whole: type[Part]) -> frozenset[str]:
    """Those that may stand in config.json."""
    return frozenset(entry.key for entry in entries_of(whole) if entry.in_file)


def sorted_out(
    content: Mapping[str, Any], part: type[Part], may_be_there: frozenset[str], above: str = ""
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """The file's settings by key, its keys that are none, and problems by key."""
    known, unknown, problems = {}, [], {}
    fields = {field.alias or name: field for name, field in part.model_fields.items()}
    for name, value in content.items():
        key, inner = above + name, part_in(fields[name]) if name in fields else None
        if inner is None and key in may_be_there:
            known[key] = value
        elif inner is None and part.model_config.get("extra") == "forbid":
            problems[key] = f"{above.rstrip('.')} has {name!r}; there are {', '.join(fields)}"
        elif inner is None:
            unknown.append(key)
        elif not isinstance(value, dict):
            problems[key] = f"{key} is {value!r}, not a JSON object"
        else:
            below = sorted_out(value, inner, may_be_there, f"{key}.")
            known, unknown, problems = known | below[0], unknown + below[1], problems | below[2]
    return known, unknown, problems


def nested(by_key: Mapping[str, Any]) -> dict[str, Any]:
    """`{"limits.time": 3}` as `{"limits": {"time": 3}}`."""
    whole: dict[str, Any] = {}
    for key, value in by_key.items():
        *above, last = key.split(".")
        place = whole
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return whole


def problems_in(
    error: ValidationError, settings: tuple[Entry, ...], origins: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """By key, what is wrong, in words."""
    for one in error.errors():
        place = ".".join(map(str, one["loc"]))
        entry = next(entry for entry in settings if f"{place}.".startswith(f"{entry.key}."))
        origin, value, reason = origins[entry.key], repr(one["input"]), one["msg"].removeprefix("Input should be ")
        name = place if origin == IN_FILE else origin
        if one["loc"][-1] == "[key]":
            yield entry.key, f"{entry.key} has {value}, not {reason}"
        elif one["type"] == "value_error":
            yield entry.key, f"{name} is {value}: {reason.removeprefix('Value error, ')}"
        else:
            yield entry.key, f"{name} is {value}, not {entry.values if place == entry.key else reason}"
