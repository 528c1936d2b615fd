"""How a verb of the command line is given a request: as JSON, a file, a clip, options. Loads no torch."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from vidkit.errors import InputError
from vidkit.params import GenerationParams, canonical_name, choices_of, describe_values, plain_type

SOURCES: Final = (
    "The request is JSON as the argument ('-': from standard input), --request FILE, --from CLIP and/or the options "
    "below; what comes later in this order wins: clip, file, standard input, argument, options."
)

#: reads, unless that is to end
Wait = Callable[[Callable[[], bytes]], bytes]


def add_request(parser: argparse.ArgumentParser) -> None:
    """The arguments that `merged_request` reads."""
    parser.add_argument("json", nargs="?", help="the request as one JSON object, or - for standard input")
    parser.add_argument("--request", type=Path, metavar="FILE", help="a JSON file with the request")
    parser.add_argument("--from", dest="clip", type=Path, metavar="CLIP", help="make this clip again, or a variation")
    group = parser.add_argument_group("parameters")
    for name, info in GenerationParams.model_fields.items():
        flag = option_name(name)
        text = (info.description or "").replace("%", "%%")
        if plain_type(info) is bool:
            group.add_argument(flag, dest=f"param_{name}", action=argparse.BooleanOptionalAction, help=text)
        else:
            values = choices_of(info)
            metavar = "{" + ",".join(values) + "}" if values else plain_type(info).__name__.upper()
            group.add_argument(flag, dest=f"param_{name}", metavar=metavar, help=text)


def option_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters given as options, by name; None is one that was not."""
    values = {name: getattr(options, f"param_{name}") for name in GenerationParams.model_fields}
    return {name: parsed_option(name, value) for name, value in values.items() if value is not None}


def merged_request(options: argparse.Namespace, wait: Wait) -> dict[str, Any]:
    """The request from all its sources; a later source wins.

    wait: reads standard input, and may raise `Cancelled` instead.
    """
    sources: list[Mapping[str, Any]] = []
    if options.clip is not None:
        from vidkit.record import request_from_clip

        sources.append(request_from_clip(options.clip))
    if options.request is not None:
        sources.append(parse_json(read_request_file(options.request), str(options.request)))
    given = given_options(options)
    if options.json == "-" or (options.json is None and not sources and not given):
        lines = standard_input()
        if options.json is None and lines.isatty():
            raise no_request()
        sources.append(parse_json(wait(lines.read), "standard input"))
    elif options.json is not None:
        sources.append(parse_json(options.json, "the argument"))
    merged: dict[str, Any] = {}
    for source in [*sources, given]:
        new = {key: value for key, value in source.items() if value is not None}
        replaced = {canonical_name(key) for key in new}
        if "output_path" in replaced:  # its ending says the format, whatever an earlier source (a clip) was
            replaced.add("output_format")
        merged = {key: value for key, value in merged.items() if canonical_name(key) not in replaced} | new
    return merged


def standard_input() -> BinaryIO:
    """As bytes, since JSON says itself how it is encoded; one that was closed is empty."""
    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer


def read_request_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("invalid_request", f"{path} cannot be read: {error}.", ["Check the file's path"]) from error


def parse_json(text: str | bytes, source: str) -> dict[str, Any]:
    """A JSON object; bytes may be UTF-8 or UTF-16, with a byte order mark or without."""
    if not text.strip():
        raise no_request(f" {source.capitalize()} is empty.")
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    try:
        content = json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:
        raise InputError("invalid_json", f"{source} is not valid JSON: {error}.", json_hints(shown)) from error
    if not isinstance(content, dict):
        raise InputError(
            "invalid_json", f"{source} is not a JSON object: {shown[:80]!r}.", ['Send an object: {"imagePath": ...}']
        )
    return content


def json_hints(text: str) -> list[str]:
    hints = ["Check the quotes and backslashes", "Send the request on standard input: vidkit generate -"]
    if re.search(r'\\"\s*[,}]', text):  # what Windows makes of the quoting in the specification's C# client
        hints.insert(0, "A path that ends in a single backslash swallows the quote behind it: double it, or leave it")
    elif "\\" in text:
        hints.insert(0, r"Write each backslash of a path twice: D:\\Images\\photo.jpg")
    return hints


def no_request(reason: str = "") -> InputError:
    return InputError(
        "invalid_request",
        f"No request was given.{reason}",
        [
            """Give it as JSON: vidkit generate '{"imagePath": "photo.jpg", "prompt": "slow zoom in"}'""",
            "Or as options: vidkit generate --image-path photo.jpg --prompt 'slow zoom in'",
        ],
    )


def parsed_option(name: str, value: Any) -> Any:
    """An option's text as the parameter's type."""
    kind = plain_type(GenerationParams.model_fields[name])
    if isinstance(value, bool) or kind is str:
        return value
    try:
        return kind(value)
    except ValueError:
        raise InputError(
            "invalid_value",
            f"{option_name(name)} is {value!r}.",
            [f"Set {option_name(name)} to {describe_values(name)}"],
        ) from None
