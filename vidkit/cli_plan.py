"""The command line's verb `vidkit plan`: what a request needs and how it would run, before it does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vidkit.cli_output import Output
from vidkit.cli_request import SOURCES, add_request, merged_request
from vidkit.errors import EXIT_CODES, InputError

if TYPE_CHECKING:
    from vidkit.planned_request import PlannedRequest


def add_verbs(verbs: Any) -> None:
    """Add this file's verb to those of the command line."""
    parser = verbs.add_parser(
        "plan", help="the memory that a request needs, and how it would run; runs nothing", allow_abbrev=False
    )
    parser.description = (
        "Print the memory that a request needs in each phase, how it would run in what is free and why, and what would "
        f"fit where it does not; then the exit code is {EXIT_CODES['generation']}. {SOURCES}"
    )
    add_request(parser)
    parser.add_argument("--free", metavar="GIB", help="plan for a GPU with so much free memory, not for this machine")
    parser.add_argument("--json", dest="as_json", action="store_true", help="as one JSON document")
    parser.set_defaults(run=run_plan)


def run_plan(options: argparse.Namespace, output: Output) -> int:
    from vidkit.planned_request import plan

    planned = plan(merged_request(options, lambda read: read()), free=gib(options.free))
    output.text(json.dumps(planned.to_json()) if options.as_json else "\n".join(lines(planned)))
    return 0 if planned.fits else EXIT_CODES["generation"]


def gib(text: str | None) -> float | None:
    """The value of --free."""
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value < float("inf"):
        raise InputError("invalid_value", f"--free is {text!r}.", ["Give --free a number of GiB, for example 11"])
    return value


def lines(planned: PlannedRequest) -> Iterator[str]:
    """For a person."""
    from vidkit.memory.plan_words import by_phase, in_gib

    params, room = planned.params, planned.room
    yield f"Request:  {planned.model}, {params.num_frames} frames of {params.width}x{params.height} pixels"
    free = "not known" if room.device is None else in_gib(room.device)
    yield f"Free:     {free} on the {'GPU' if planned.device == 'cuda' else 'CPU'}"
    yield f"Needs:    {'' if planned.fits else 'at the least '}{by_phase(planned.needed)}"
    yield f"Fits:     {'yes' if planned.fits else 'no'}"
    for title, texts in (
        ("Why", planned.reasons),
        ("What would fit", planned.suggestions),
        ("Notes", planned.notes),
    ):
        if texts:
            yield f"{title}:"
        yield from (f"  - {text}" for text in texts)
