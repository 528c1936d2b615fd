"""The command line: `vidkit generate | show | demo`, and the verbs of `cli_sweep` and `cli_models`. Loads no torch."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import vidkit
from vidkit import cli_config, cli_doctor, cli_explain, cli_lab, cli_models, cli_plan, cli_safety, cli_sweep
from vidkit.cli_output import Output, show_progress, unhurried_stderr
from vidkit.cli_request import (
    SOURCES,
    Lines,
    add_request,
    given_options,
    merged_request,
    option_name,
    standard_input,
)
from vidkit.ending_signals import ENDING_SIGNALS
from vidkit.errors import EXIT_CANCELLED, EXIT_CODES, Cancelled, InputError, VidkitError, internal_error
from vidkit.json_request import parse_json, refuse_pieces
from vidkit.libraries import tell_nobody
from vidkit.logs import log_failure, log_to
from vidkit.params import (
    GenerationParams,
    nearest_name,
)
from vidkit.paths import local_path
from vidkit.supervisor import Supervisor

#: the demonstration's request
DEMO: dict[str, Any] = {"imagePath": "example:photo", "prompt": "slow camera move", "motionBucketId": 127, "seed": 7}


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is an InputError like any other wrong input."""

    def error(self, message: str) -> NoReturn:
        raise InputError("invalid_request", f"The command line is wrong: {message}.", [f"See {self.prog} --help"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # OpenMP's threads spin while they wait; on cores shared with other work that makes small models 50 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    tell_nobody()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8; a lone surrogate in a file name becomes its escape
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    if sys.stderr is None:  # closed, or pythonw's: print would take stdout instead, which is the answer's alone
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (for the whole process)
    with unhurried_stderr():
        return run_command(given)


def run_command(given: list[str]) -> int:
    """One command, whatever it comes to."""
    output = Output()
    failure: VidkitError
    try:
        options, rest = make_parser().parse_known_args(given)
        log_to()
        if rest and "unknown_options" not in options:  # `vidkit lab` hands them on
            raise unknown_argument(getattr(options, "json", None), rest)
        options.unknown_options = rest
        code = int(options.run(options, output))
        return EXIT_CODES["critical"] if output.is_lost else code
    except VidkitError as error:
        log_failure("command", error, with_message=False)  # which may quote the request, prompt and all
        failure = error
    except KeyboardInterrupt:  # where nothing was begun that would have to be stopped
        failure = Cancelled()
    except Exception as error:  # noqa: BLE001  (the boundary of the process: any defect becomes a typed response)
        log_failure("command", error)
        output.event({"log": traceback.format_exc().rstrip()})
        failure = internal_error(error)
    output.response(failure.to_json())
    return failure.exit_code


def make_parser() -> Parser:
    parser = Parser(prog="vidkit", description="Turn a still picture into a short video on your own machine.")
    parser.add_argument("--version", action="version", version=f"vidkit {vidkit.__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    add_generate(verbs.add_parser("generate", help="make one clip; JSON in, JSON out", allow_abbrev=False))
    show = verbs.add_parser("show", help="print what a clip knows of itself: settings, seed, models, versions")
    show.add_argument("clip", type=local_path)
    show.set_defaults(run=run_show)
    demo = verbs.add_parser("demo", help="make a clip from a photograph and a model that ship with vidkit")
    demo.add_argument("--output", help="where to write it")
    demo.set_defaults(run=run_demo)
    cli_plan.add_verbs(verbs)
    cli_config.add_verbs(verbs)
    cli_sweep.add_verbs(verbs)
    cli_models.add_verbs(verbs)
    cli_lab.add_verbs(verbs)
    cli_explain.add_verbs(verbs)
    cli_safety.add_verbs(verbs)
    cli_doctor.add_verbs(verbs)
    return parser


def add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = f"Make one clip. {SOURCES}"
    add_request(parser)
    parser.add_argument("--jsonl", action="store_true", help="one request a line on standard input; models stay warm")
    parser.set_defaults(run=run_generate)


def unknown_argument(first: str | None, rest: list[str]) -> InputError:
    """first: the request's JSON, of which the rest may be pieces."""
    if first is not None:
        refuse_pieces([first, *rest])
    flags = [argument for argument in rest if argument.startswith("--")]
    if not flags:
        return InputError(
            "invalid_request",
            f"{rest[0]!r} is one argument too many.",
            ["Give the request as one quoted JSON argument", "Or send it on standard input: vidkit generate -"],
        )
    nearest = nearest_name(flags[0].split("=")[0])
    option = nearest and option_name(nearest)
    return InputError(
        "unknown_parameter",
        f"Unknown option {flags[0]!r}." + (f" Did you mean {option}?" if option else ""),
        [option or "See vidkit generate --help"],
    )


def run_generate(options: argparse.Namespace, output: Output) -> int:
    supervisor = Supervisor()
    signals = Signals(supervisor)
    try:
        if options.jsonl:
            refuse_other_sources(options)
            return run_lines(supervisor, output, signals)
        request = merged_request(options, signals.wait)
        response, code = supervisor.run(GenerationParams(**request).to_wire(), output.event)
        output.response(response)
        return code
    finally:
        supervisor.close()


def run_lines(supervisor: Supervisor, output: Output, signals: Signals) -> int:
    """`--jsonl`: a request a line in, a response a line out; the exit code is 0 unless cancelled."""
    lines = Lines(standard_input())
    while True:
        try:
            line = signals.wait(lines.read)
        except Cancelled as stopped:  # between two requests: there is none to answer
            return stopped.exit_code
        if not line:
            return 0
        if not line.strip():
            continue
        try:
            request = GenerationParams(**parse_json(line, "a line of standard input")).to_wire()
        except VidkitError as error:
            response, code = error.to_json(), EXIT_CANCELLED
        else:
            response, code = supervisor.run(request, output.event)
        if not output.response(response):  # nobody can read the answers
            return EXIT_CODES["critical"]
        if supervisor.cancelled:
            return code


def refuse_other_sources(options: argparse.Namespace) -> None:
    given = [option_name(name) for name in given_options(options)]
    others = {"a JSON argument": options.json, "--request": options.request, "--from": options.clip}
    given += [name for name, value in others.items() if value is not None]
    if given:
        raise InputError(
            "invalid_request",
            f"--jsonl takes whole requests from standard input; {', '.join(given)} would be without effect.",
            ["Put the parameters into the requests"],
        )


class Signals:
    """SIGINT and SIGTERM cancel the present request; where only input is awaited, they end the waiting."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._waiting = False
        for number in ENDING_SIGNALS:
            signal.signal(number, self._on_signal)

    def wait(self, read: Callable[[], bytes]) -> bytes:
        """Raises:
        Cancelled: a signal came while reading, or before.
        """
        self._waiting = True
        try:
            if self._supervisor.cancelled:
                raise Cancelled()
            return read()
        finally:
            self._waiting = False

    def _on_signal(self, *_: object) -> None:
        self._supervisor.cancel()
        if self._waiting:  # Python would go on reading after the handler
            raise Cancelled()


def run_show(options: argparse.Namespace, output: Output) -> int:
    from vidkit.record import show

    output.text(json.dumps(show(options.clip), indent=2, ensure_ascii=False))
    return 0


def run_demo(options: argparse.Namespace, output: Output) -> int:
    """Tell a person, not a program, where the clip is and what made it."""
    request = GenerationParams(**DEMO, **({"outputPath": options.output} if options.output else {}))
    supervisor = Supervisor()
    Signals(supervisor)
    try:
        response, code = supervisor.run(request.to_wire(), show_progress)
    finally:
        supervisor.close()
    output.text("\n".join(success_lines(response) if code == 0 else failure_lines(response)))
    return code


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
    yield f"More:  vidkit explain {response['code']}"
