"""How `vidkit models` tells people what there is: lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from vidkit.models.entries import in_gigabytes

WIDTH: Final = 80
INDENT: Final = "    "
NAME_WIDTH: Final = 30


def list_lines(models: Sequence[Mapping[str, Any]], places: Mapping[str, str]) -> Iterator[str]:
    """places: a heading for each origin, in the order to be shown."""
    for origin, heading in places.items():
        those = [model for model in models if model["origin"] == origin]
        if not those:
            continue
        yield from ("", heading) if origin != next(iter(places)) else (heading,)
        for model in those:
            yield from model_lines(model)


def model_lines(model: Mapping[str, Any]) -> Iterator[str]:
    """A name and what it is, its size at the right; below it what it goes with, or what is wrong."""
    yield from row(model["name"], model["what"], model["sizeInWords"])
    if model["problem"]:
        yield from below(f"not usable: {model['problem']}")
    if model["goesWith"] is not None:
        yield from below("goes with " + (", ".join(model["goesWith"]) or "no base model that is here"))


def published_lines(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The catalogue's models: what each is, needs and asks for."""
    yield "To be had: vidkit models download NAME (sizes are approximate)"
    for model in models:
        yield from row(model["name"], model["title"], in_gigabytes(round(model["gigabytes"] * 1e9)))
        if model["use"]:
            yield from below(model["use"])
        yield from below(f"{model['licence']}{'; accept it on ' + model['page'] if model['gated'] else ''}")
        if model["needs"]:
            yield from below("needs " + "; ".join(need_in_words(need) for need in model["needs"]))
        if model["limits"]:
            yield from below("; ".join(f"{key} {value}" for key, value in model["limits"].items()))
        if model["nsfw"]:
            yield from below("able to make adult pictures")
        if model["before_use"]:
            yield from below(model["before_use"])


def need_in_words(need: Mapping[str, Any]) -> str:
    return f"{need['what']} ({', '.join(need['names'])})" if need["names"] else str(need["what"])


def row(name: str, what: str, size: str) -> Iterator[str]:
    """One line where it fits, else the name on a line of its own."""
    if len(name) <= NAME_WIDTH and len(what) + len(size) < WIDTH - NAME_WIDTH - 3:
        yield f"  {name:<{NAME_WIDTH}} {what:<{WIDTH - NAME_WIDTH - 4 - len(size)}} {size}".rstrip()
        return
    yield f"  {name}"
    yield f"{INDENT}{what:<{WIDTH - len(INDENT) - 1 - len(size)}} {size}".rstrip()


def below(text: str) -> list[str]:
    """Wrapped under a name."""
    return wrapped(text, INDENT, INDENT + "  ")


def table_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Two columns, the second wrapped."""
    width = max((len(key) for key in told), default=0)
    for key, value in told.items():
        head = f"{key:<{width}}  "
        yield from wrapped(str(value), head, " " * len(head)) or [head.rstrip()]


def wrapped(text: str, first: str, others: str) -> list[str]:
    """A path or an address is never broken: it is copied from here."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def verified_lines(results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for result in results:
        yield f"{'ok ' if result['ok'] else 'BAD'}  {result['name']}"
        yield from below(result["message"])
