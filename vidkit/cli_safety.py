"""The command line's verb `vidkit acknowledge`: the text, and whether a person accepts it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from vidkit.cli_output import Output
from vidkit.errors import Cancelled, InputError
from vidkit.safety.acknowledgement import TEXT, VERSION, acknowledge, is_acknowledged, withdraw
from vidkit.settings import load_settings

#: typed on a terminal, whatever its case
PHRASE: Final = "I accept"
FLAG: Final = "--i-have-read-and-accept"


def add_verbs(verbs: Any) -> None:
    """Add this file's verb to those of the command line."""
    parser = verbs.add_parser(
        "acknowledge",
        help="what models for adult pictures, and turning the safety checker off, need once",
        description="Show the text, and ask whether you accept it. Kept in config.json, with its date and version.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(FLAG, action="store_true", dest="accepted", help="accept without being asked, for scripts")
    choice.add_argument("--text", action="store_true", help="show the text, and whether it was accepted; don't ask")
    choice.add_argument("--withdraw", action="store_true", help="take the acknowledgement back")
    parser.add_argument("--json", action="store_true", help="the answer as one JSON document")
    parser.set_defaults(run=run_acknowledge)


def run_acknowledge(options: argparse.Namespace, output: Output) -> int:
    if options.withdraw:
        withdraw()
    elif not options.text:
        if not options.accepted:
            ask()
        acknowledge(accept=True)
    settings = load_settings()
    given, date = is_acknowledged(settings), settings.safety.acknowledged
    document = {"acknowledged": date if given else None, "version": VERSION, "text": TEXT}
    state = f"Acknowledged on {date}." if given else "Not acknowledged."
    shown = f"{TEXT}\n\n{state}" if options.text else state
    output.text(json.dumps(document, ensure_ascii=False) if options.json else shown)
    return 0


def ask() -> None:
    """Show the text on the terminal, and wait for the phrase.

    Raises:
        InputError: `invalid_request`: there is no terminal, so nobody to ask. Cancelled: the answer was another.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(
            "invalid_request",
            "vidkit acknowledge asks a person on a terminal, and there is none.",
            ["Read the text: vidkit acknowledge --text", f"If you accept it: vidkit acknowledge {FLAG}"],
        )
    print(f'{TEXT}\n\nType "{PHRASE}" to accept: ', end="", file=sys.stderr, flush=True)
    if " ".join(sys.stdin.readline().split()).strip('"').lower() != PHRASE.lower():
        raise Cancelled(message="Not accepted; nothing was changed.")
