"""The command line's verb `vidkit config`: every setting, its value and where that comes from; and changing them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import to_jsonable_python

from vidkit.cli_output import Output
from vidkit.config_file import change_config, config_path, put, read_config, stands_in, take_out, value_at
from vidkit.errors import EXIT_CODES, InputError
from vidkit.files import typed_write_errors
from vidkit.settings import Settings, all_settings, look
from vidkit.settings_look import Look
from vidkit.settings_schema import Entry, nearest

PRECEDENCE: Final = (
    "What is set in the environment comes first, then what is in config.json, then the default. config.json lies in "
    "the data folder (VIDKIT_HOME); `vidkit config KEY VALUE` writes it, and keeps what it does not know. A file that "
    "cannot be read is reported and never overwritten. What a request says itself comes before the settings, but for "
    "limits, allowedFolders and safety, which hold for every request."
)

#: characters of a value in the list of all
SHORT: Final = 60


def add_verbs(verbs: Any) -> None:
    """Add this file's verb to those of the command line."""
    parser = verbs.add_parser("config", help="the settings: show them, change them", allow_abbrev=False)
    parser.description = f"Show every setting, one, or change one. {PRECEDENCE}"
    parser.usage = "vidkit config [KEY [VALUE]] [--unset] [--json] [--path]"
    parser.add_argument("words", nargs="*", metavar="KEY VALUE", help="a setting (limits.time), and its new value")
    parser.add_argument("--unset", action="store_true", help="take KEY out of config.json")
    parser.add_argument("--json", dest="as_json", action="store_true", help="as one JSON document")
    parser.add_argument("--path", action="store_true", help="print where config.json is")
    parser.set_defaults(run=run_config)


def run_config(options: argparse.Namespace, output: Output) -> int:
    if options.path:
        output.text(json.dumps({"path": str(config_path())}) if options.as_json else str(config_path()))
        return 0
    words = options.words[1:] if options.words[:1] in (["set"], ["get"]) else options.words
    if len(words) > 2 or (options.unset and len(words) != 1):
        raise InputError(
            "invalid_request",
            f"vidkit config takes {'--unset KEY' if options.unset else 'KEY and VALUE'}, not {' '.join(words)!r}.",
            ["Put a value with spaces into quotes", "See vidkit config --help"],
        )
    parts = {entry.key.rpartition(".")[0] for entry in all_settings()}
    if not words or (len(words) == 1 and words[0] in parts and not options.unset):
        return show_all(options, output, f"{words[0]}." if words else "")
    if options.unset:
        return unset(words[0], options, output)
    if len(words) == 2:
        change(words[0], words[1])
    return show_one(words[0], options, output, written=len(words) == 2)


# --- show


def show_all(options: argparse.Namespace, output: Output, above: str) -> int:
    """All whose keys begin so. The exit code says whether they are all right."""
    seen = look(read_config())
    rows = [described(entry, seen) for entry in all_settings() if entry.key.startswith(above)]
    if options.as_json:
        settings = {row.pop("key"): row for row in rows}
        document = {"path": str(config_path()), "settings": settings, "unknown": list(seen.unknown)}
        output.text(json.dumps({**document, "problems": dict(seen.problems)}, ensure_ascii=False))
    else:
        output.text("\n".join(lines(rows, seen)))
    return EXIT_CODES["system"] if seen.problems else 0


def lines(rows: list[dict[str, Any]], seen: Look[Settings]) -> Iterator[str]:
    """For a person."""
    wide = max(len(row["key"]) for row in rows)
    yield f"Settings: {config_path()}"
    for row in rows:
        origin = row["from"] if row["from"] != "default" or not row["variable"] else f"default; {row['variable']}"
        yield f"{row['key']:<{wide}}  {in_short(row['value'])}  ({origin})"
        yield f"{'':<{wide}}  {row['meaning']}"
    yield from (f"Problem:  {problem}" for problem in seen.problems.values())
    yield from (f"Unknown:  {key} in {config_path()} is no setting{maybe(key)}; it is kept." for key in seen.unknown)


def show_one(key: str, options: argparse.Namespace, output: Output, *, written: bool = False) -> int:
    """written: it was just written to the file."""
    entry, inside = found(key)
    seen = look(read_config())
    row = described(entry, seen, inside)
    problem = seen.problems.get(entry.key)
    if options.as_json:
        output.text(json.dumps(row, ensure_ascii=False))
    else:
        output.text(f"{row['key']} = {in_full(row['value'])}")
        output.text(f"{row['meaning']} It is {entry.values}.")
        before = f"; {entry.variable} comes before config.json" if entry.variable and entry.in_file else ""
        output.text(f"From: {row['from']}{before}")
    if written and row["from"] == entry.variable:
        output.event({"log": f"It is in config.json, but the environment's {entry.variable} comes first."})
    if problem is not None:
        output.event({"log": f"Problem: {problem}"})
    return EXIT_CODES["system"] if problem is not None else 0


def described(entry: Entry, seen: Look[Settings], inside: str = "") -> dict[str, Any]:
    """A setting as JSON. inside: the key in its value that is meant."""
    value = value_in(entry, seen)
    origin = seen.origins.get(entry.key, "default")
    if inside:
        value = value.get(inside) if isinstance(value, dict) else None
        origin = origin if value is not None else "default"
    return {
        "key": f"{entry.key}.{inside}" if inside else entry.key,
        "value": to_jsonable_python(value, fallback=str),
        "from": origin,
        "variable": entry.variable or None,
        "meaning": entry.meaning,
    }


def value_in(entry: Entry, seen: Look[Settings]) -> Any:
    """As it holds; where something is wrong, as it was given."""
    if seen.settings is None:
        return seen.given.get(entry.key, entry.default)
    value: Any = seen.settings
    for name in entry.path:
        value = getattr(value, name)
    return value


def in_short(value: Any) -> str:
    text = in_full(value)
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def in_full(value: Any) -> str:
    if value is None or value == "" or value in ([], {}):
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- find


def found(key: str) -> tuple[Entry, str]:
    """The setting of this key; and the key in its value, where it is one of a JSON object's: `defaultModels.svd`.

    Raises:
        InputError: `unknown_parameter`, with the nearest one.
    """
    by_key = {entry.key: entry for entry in all_settings()}
    if key in by_key:
        return by_key[key], ""
    for entry in by_key.values():
        if entry.has_keys and key.startswith(f"{entry.key}."):
            return entry, key.removeprefix(f"{entry.key}.")
    near = nearest(key, list(by_key))
    raise InputError(
        "unknown_parameter",
        f"There is no setting {key!r}.{f' Did you mean {near}?' if near else ''}",
        [f"vidkit config {near}"] if near else ["See vidkit config for all settings"],
    )


def maybe(key: str) -> str:
    near = nearest(key, [entry.key for entry in all_settings() if entry.in_file])
    return f" (did you mean {near}?)" if near else ""


# --- change


def change(key: str, text: str) -> None:
    """Write a setting to config.json, if the text is a value of it.

    Raises:
        InputError: `invalid_value`; `invalid_request` for what is not changed here.
        SetupError: `invalid_config`: the file is broken, and is left as it is. `output_not_writable`.
        CriticalError: `disk_full`.
    """
    entry, inside = found(key)
    check_changeable(entry)
    if entry.changed_by:
        raise InputError("invalid_request", f"{key} is changed by {entry.changed_by}.", [f"Use {entry.changed_by}"])

    def put_in(content: dict[str, Any]) -> None:
        value = {**keys_of(entry, content), inside: text} if inside else entry.from_text(text)
        put(content, entry.key, valid(entry, value, inside))

    with typed_write_errors(config_path()):
        change_config(put_in)


def keys_of(entry: Entry, content: dict[str, Any]) -> dict[str, Any]:
    """The JSON object that a setting is in the file; none is an empty one.

    Raises:
        InputError: `invalid_value`: it is something else there.
    """
    value = value_at(content, entry.key)
    if value is not None and not isinstance(value, dict):
        raise InputError(
            "invalid_value",
            f"{entry.key} is {value!r} in {config_path()}, not {entry.values}.",
            [f"vidkit config --unset {entry.key}"],
        )
    return value or {}


def valid(entry: Entry, value: Any, inside: str) -> Any:
    """The value as it is kept: a number as a number, whatever the text was.

    Raises:
        InputError: `invalid_value`.
    """
    alone: dict[str, Any] = {}
    put(alone, entry.key, value)
    seen = look(alone, environment={})
    if seen.settings is None:
        problem = seen.problems[entry.key]
        raise InputError(
            "invalid_value", f"{problem}.", [f"{entry.key} is {entry.values}", f"vidkit config {entry.key}"]
        )
    return to_jsonable_python(value_in(entry, seen))


def unset(key: str, options: argparse.Namespace, output: Output) -> int:
    """Take a key out of config.json, also one that is no setting; parts that are empty then go too.

    Raises:
        InputError: `unknown_parameter` for what neither is a setting nor stands in the file. And as `change`.
    """
    if not stands_in(read_config(), key):
        found(key)
    else:
        with typed_write_errors(config_path()):
            change_config(lambda content: take_out(content, key))
    if is_known(key):
        return show_one(key, options, output)
    output.text(
        json.dumps({"key": key, "value": None}) if options.as_json else f"{key} is not in config.json any more."
    )
    return 0


def is_known(key: str) -> bool:
    return any(key == entry.key or (entry.has_keys and key.startswith(f"{entry.key}.")) for entry in all_settings())


def check_changeable(entry: Entry) -> None:
    if not entry.in_file:
        raise InputError(
            "invalid_request",
            f"{entry.key} is set by the environment alone.",
            [f"Set the environment variable {entry.variable}"],
        )
