"""How a verb of the command line is given a request: as JSON, a file, a clip, options. Loads no torch."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from vidkit.errors import InputError
from vidkit.json_request import no_request, parse_json
from vidkit.near_paths import near_paths
from vidkit.params import GenerationParams, canonical_name, choices_of, how_to_set, plain_type
from vidkit.paths import local_path

SOURCES: Final = (
    "The request is JSON as the argument ('-': from standard input), --request FILE, --from CLIP and/or the options "
    "below; what comes later in this order wins: clip, file, standard input, argument, options."
)

#: reads, unless that is to end
Wait = Callable[[Callable[[], bytes]], bytes]


def add_request(parser: argparse.ArgumentParser) -> None:
    """The arguments that `merged_request` reads."""
    parser.add_argument("json", nargs="?", help="the request as one JSON object, or - for standard input")
    parser.add_argument("--request", type=local_path, metavar="FILE", help="a JSON or YAML file with the request")
    parser.add_argument(
        "--from", dest="clip", type=local_path, metavar="CLIP", help="make this clip again, or a variation"
    )
    add_parameters(parser)


def add_parameters(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """The options that `given_options` reads. without: parameters that get none."""
    group = parser.add_argument_group("parameters")
    for name, info in GenerationParams.model_fields.items():
        if name in without:
            continue
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
    values = {name: getattr(options, f"param_{name}", None) for name in GenerationParams.model_fields}
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
        sources.append(request_file(options.request))
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
    """As bytes, since JSON says itself how it is encoded; one that was closed (or of pythonw.exe) is empty."""
    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer


class Lines:
    """Standard input line by line, each as the bytes of UTF-8. A byte order mark says that it is UTF-16."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._as_text: io.TextIOWrapper | None = None
        self._begun = False

    def read(self) -> bytes:
        """The next line, with its end; nothing at the end of input."""
        if not self._begun:
            self._begun = True
            # the first byte of a mark suffices: in UTF-8 there is neither
            if isinstance(self._stream, io.BufferedReader) and self._stream.peek(1)[:1] in (b"\xff", b"\xfe"):
                self._as_text = io.TextIOWrapper(self._stream, "utf-16", errors="surrogatepass")
        if self._as_text is None:
            return self._stream.readline()
        return self._as_text.readline().encode("utf-8", "surrogatepass")


def request_file(path: Path) -> dict[str, Any]:
    """The request in a JSON file, or in a YAML file, as papermill takes them."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError("invalid_request", f"{path} cannot be read: {error}.", near_paths(path)) from error
    return parse_yaml(content, path) if path.suffix.lower() in (".yaml", ".yml") else parse_json(content, str(path))


def parse_yaml(content: bytes, path: Path) -> dict[str, Any]:
    """Names and values; what would be read in two ways is refused."""
    from vidkit.sweep.yaml_text import read_yaml

    try:
        found, complaints = read_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError("invalid_request", f"{path} is not UTF-8 ({error}).", ["Save it as UTF-8"]) from error
    except InputError as error:
        raise InputError(error.code, f"{path}: {error.message}", error.suggestions) from error
    if complaints:
        raise InputError("invalid_request", f"{path}: {'; '.join(complaints)}.", ["Mend the file"])
    if not isinstance(found, dict):
        raise InputError("invalid_request", f"{path} holds no names and values.", ["Write a line like prompt: the sea"])
    if "axes" in found:
        raise InputError("invalid_request", f"{path} is a sweep, not a request.", [f"Run it: vidkit sweep {path}"])
    return {str(name): value for name, value in found.items()}


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
            [how_to_set(name, option_name(name), value)],
            [name],
        ) from None
