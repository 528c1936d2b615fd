"""The command line: `vidkit generate | show | demo`. Loads no torch itself; a worker process does the work."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import vidkit
from vidkit.errors import InputError, VidkitError
from vidkit.params import (
    GenerationParams,
    canonical_name,
    choices_of,
    describe_values,
    plain_type,
    unknown_key,
    wire_name,
)
from vidkit.supervisor import Supervisor

#: the demonstration's request; a gentle motion shows a small model at its best
DEMO: dict[str, Any] = {"imagePath": "example:photo", "prompt": "slow camera move", "motionBucketId": 60, "seed": 7}


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is an InputError like any other wrong input."""

    def error(self, message: str) -> NoReturn:
        raise InputError("invalid_request", f"The command line is wrong: {message}.", [f"See {self.prog} --help"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options, rest = make_parser().parse_known_args(given)
        if rest:
            raise unknown_argument(rest)
        return int(options.run(options))
    except VidkitError as error:
        print_json(error.to_json())
        return error.exit_code


def make_parser() -> Parser:
    parser = Parser(prog="vidkit", description="Turn a still picture into a short video on your own machine.")
    parser.add_argument("--version", action="version", version=f"vidkit {vidkit.__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    add_generate(verbs.add_parser("generate", help="make one clip; JSON in, JSON out", allow_abbrev=False))
    show = verbs.add_parser("show", help="print what a clip knows of itself: settings, seed, models, versions")
    show.add_argument("clip", type=Path)
    show.set_defaults(run=run_show)
    demo = verbs.add_parser("demo", help="make a clip from a photograph and a model that ship with vidkit")
    demo.add_argument("--output", help="where to write it")
    demo.set_defaults(run=run_demo)
    return parser


def add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make one clip. The request is JSON as the argument ('-': from standard input), --request FILE, --from CLIP "
        "and/or the options below; what comes later in this order wins: clip, file, standard input, argument, options."
    )
    parser.add_argument("json", nargs="?", help="the request as one JSON object, or - for standard input")
    parser.add_argument("--request", type=Path, metavar="FILE", help="a JSON file with the request")
    parser.add_argument("--from", dest="clip", type=Path, metavar="CLIP", help="make this clip again, or a variation")
    parser.add_argument("--jsonl", action="store_true", help="one request a line on standard input; models stay warm")
    group = parser.add_argument_group("parameters")
    for name, info in GenerationParams.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = (info.description or "").replace("%", "%%")
        if plain_type(info) is bool:
            group.add_argument(flag, dest=f"param_{name}", action=argparse.BooleanOptionalAction, help=text)
        else:
            values = choices_of(info)
            metavar = "{" + ",".join(values) + "}" if values else plain_type(info).__name__.upper()
            group.add_argument(flag, dest=f"param_{name}", metavar=metavar, help=text)
    parser.set_defaults(run=run_generate)


def unknown_argument(rest: list[str]) -> InputError:
    flags = [argument for argument in rest if argument.startswith("--")]
    if not flags:
        return InputError(
            "invalid_request",
            f"{rest[0]!r} is one argument too many.",
            ["Give the request as one quoted JSON argument", "Or send it on standard input: vidkit generate -"],
        )
    key = flags[0].split("=")[0].lstrip("-").replace("-", "_")
    error = unknown_key(key, [wire_name(name) for name in GenerationParams.model_fields])
    options = [f"--{canonical_name(text.split(chr(39))[1]).replace('_', '-')}" for text in error.suggestions[:1]
               if chr(39) in text]  # fmt: skip
    hint = f" Did you mean {options[0]}?" if options else ""
    return InputError(error.code, f"Unknown option {flags[0]!r}.{hint}", options or ["See vidkit generate --help"])


def run_generate(options: argparse.Namespace) -> int:
    supervisor, output = Supervisor(), Output()
    stop_on_signals(supervisor)
    try:
        if options.jsonl:
            return run_lines(supervisor, output)
        request = merged_request(options)
        response, code = supervisor.run(GenerationParams(**request).to_wire(), output.event)
        output.response(response)
        return code
    finally:
        supervisor.close()


def run_lines(supervisor: Supervisor, output: Output) -> int:
    """`--jsonl`: a request a line in, a response a line out; the exit code is 0 unless cancelled."""
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            request = GenerationParams(**parse_json(line, "a line of standard input")).to_wire()
        except VidkitError as error:
            output.response(error.to_json())
            continue
        response, code = supervisor.run(request, output.event)
        output.response(response)
        if supervisor.cancelled:
            return code
    return 0


def merged_request(options: argparse.Namespace) -> dict[str, Any]:
    """The request from all its sources, snake_case; a later source wins."""
    sources: list[Mapping[str, Any]] = []
    if options.clip is not None:
        from vidkit.record import request_from_clip

        sources.append(request_from_clip(options.clip))
    if options.request is not None:
        sources.append(parse_json(read_request_file(options.request), str(options.request)))
    given = {
        name: parsed_option(name, value)
        for name in GenerationParams.model_fields
        if (value := getattr(options, f"param_{name}")) is not None
    }
    if options.json == "-" or (options.json is None and not sources and not given and not sys.stdin.isatty()):
        sources.append(parse_json(sys.stdin.read(), "standard input"))
    elif options.json is not None:
        sources.append(parse_json(options.json, "the argument"))
    merged: dict[str, Any] = {}
    for source in [*sources, given]:
        merged.update({canonical_name(key): value for key, value in source.items() if value is not None})
    return merged


def read_request_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("invalid_request", f"{path} cannot be read: {error}.", ["Check the file's path"]) from error


def parse_json(text: str, source: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        hints = ["Check the quotes and backslashes", "Send the request on standard input: vidkit generate -"]
        if '\\"' in text or "\\" in text:
            hints.insert(0, "A path that ends in a single backslash swallows the quote behind it: double it")
        raise InputError("invalid_json", f"{source} is not valid JSON: {error}.", hints) from error
    if not isinstance(content, dict):
        raise InputError(
            "invalid_json", f"{source} is not a JSON object: {text[:80]!r}.", ['Send an object: {"imagePath": ...}']
        )
    return content


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
            f"--{name.replace('_', '-')} is {value!r}.",
            [f"Set --{name.replace('_', '-')} to {describe_values(name)}"],
        ) from None


class Output:
    """stdout: the response alone. stderr: whole lines, progress as JSON, the rest log text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def event(self, event: dict[str, Any]) -> None:
        self._write(sys.stderr, str(event["log"]) if "log" in event else json.dumps(event))

    def response(self, response: dict[str, Any]) -> None:
        self._write(sys.stdout, json.dumps(response))

    def _write(self, stream: TextIO, line: str) -> None:
        with self._lock:
            try:
                print(line, file=stream, flush=True)
            except BrokenPipeError:  # nobody listens any more; the clip still gets made
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_json(content: Mapping[str, Any]) -> None:
    Output().response(dict(content))


def stop_on_signals(supervisor: Supervisor) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: supervisor.cancel())


def run_show(options: argparse.Namespace) -> int:
    from vidkit.record import show

    print(json.dumps(show(options.clip), indent=2, ensure_ascii=False))
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Tell a person, not a program, where the clip is and what made it."""
    request = GenerationParams(**DEMO, **({"outputPath": options.output} if options.output else {}))
    supervisor = Supervisor()
    stop_on_signals(supervisor)
    try:
        response, code = supervisor.run(request.to_wire(), show_progress)
    finally:
        supervisor.close()
    print(*(success_lines(response) if code == 0 else failure_lines(response)), sep="\n")
    return code


def show_progress(event: dict[str, Any]) -> None:
    if "log" in event:
        print(event["log"], file=sys.stderr, flush=True)
    else:
        print(f"{event['progress']:3d} %  {event['message']}", file=sys.stderr, flush=True)


def success_lines(response: Mapping[str, Any]) -> Iterable[str]:
    made = response["metadata"]
    yield f"Clip:  {response['output']}"
    yield (
        f"Made:  {made['numFrames']} frames of {made['resolution']} at {made['fps']} frames/s, "
        f"in {made['generationTime']:.1f} s"
    )
    yield f"By:    {made['model']} (sha256 {made['modelHash'][:16]}), pipeline {made['pipeline']}, seed {made['seed']}"
    yield from (f"Note:  {note}" for note in made["notes"])
    yield f"More:  vidkit show {response['output']}"


def failure_lines(response: Mapping[str, Any]) -> Iterable[str]:
    yield f"{response['error']}: {response['message']}"
    yield from (f"  - {suggestion}" for suggestion in response["suggestions"])
