"""The command line's verbs `vidkit doctor` and `vidkit check`: whether this machine, and a model on it, are well."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from vidkit.cli_output import Output, show_progress
from vidkit.cli_request import add_parameters, given_options
from vidkit.ending_signals import ENDING_SIGNALS
from vidkit.errors import EXIT_CODES
from vidkit.settings import load_settings

if TYPE_CHECKING:
    from vidkit.finding import Finding

#: parameters that are no options of `vidkit check`: the model is its argument, the rest it decides itself
NOT_TAKEN: Final = (
    "schema_version",
    "base_model",
    "output_path",
    "output_format",
    "overwrite",
    "bare",
    "allow_changes",
)


def add_verbs(verbs: Any) -> None:
    """Add this file's verbs to those of the command line."""
    doctor = verbs.add_parser("doctor", help="look this machine over: what works, what does not, what to do")
    doctor.description = (
        "Look over the GPU, its driver, torch, memory, ffmpeg, Jupyter, disk, models and settings, for some seconds; "
        f"nothing is sent. Exit code: {EXIT_CODES['system']} when something keeps vidkit from making clips, else 0."
    )
    doctor.add_argument("--json", dest="as_json", action="store_true", help="as one JSON document")
    doctor.set_defaults(run=run_doctor)
    check = verbs.add_parser("check", help="whether a model works here: speed, memory, determinism", allow_abbrev=False)
    check.description = (
        "Make a short clip with a model three times, at two settings (as it fits best, twice; and in little memory), "
        "and tell its speed, its memory against the prediction, whether frames come out the same, and whether the clip "
        "looks like one. Nothing is kept. Shorter than usual unless you say how many frames and steps, and what size. "
        f"Exit code: 0 when all is well, {EXIT_CODES['generation']} when not."
    )
    check.add_argument(
        "model", nargs="?", metavar="MODEL", help="all that --base-model takes; default: the bundled one"
    )
    check.add_argument("--json", dest="as_json", action="store_true", help="as one JSON document")
    add_parameters(check, without=NOT_TAKEN)
    check.set_defaults(run=run_check)


def run_doctor(options: argparse.Namespace, output: Output) -> int:
    from vidkit.doctor.examination import examine

    report = examine()
    say(output, options.as_json, report.to_json(), report.findings)
    return 0 if report.can_make_clips else EXIT_CODES["system"]


def run_check(options: argparse.Namespace, output: Output) -> int:
    from vidkit.model_check.checking import Checking
    from vidkit.model_check.making import Failed
    from vidkit.model_check.request import check_request

    wanted = check_request(options.model, given_options(options), load_settings())
    checking = Checking(wanted, output.event if options.as_json else show_progress)
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: checking.cancel())
    try:
        report = checking.run()
    except Failed as failed:
        output.response(failed.response)
        return failed.code
    say(output, options.as_json, report.to_json(), report.findings)
    return 0 if report.is_well else EXIT_CODES["generation"]


def say(output: Output, as_json: bool, document: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    """The document, or for a person the table of its findings and its summary."""
    from vidkit.finding import table

    lines = [*table(findings), "", document["summary"]]
    output.text(json.dumps(document, ensure_ascii=False) if as_json else "\n".join(lines))
