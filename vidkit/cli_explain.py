"""The command line's verb `vidkit explain CODE`: what an error means, why it happens, what to do."""

from __future__ import annotations

import argparse
from typing import Any

from vidkit.cli_output import Output
from vidkit.troubleshooting import explained


def add_verbs(verbs: Any) -> None:
    """Add this file's verb to those of the command line."""
    parser = verbs.add_parser("explain", help="what an error's code means, why it happens and what to do")
    parser.add_argument("code", help="the `code` of an answer, for example out_of_memory")
    parser.set_defaults(run=run_explain)


def run_explain(options: argparse.Namespace, output: Output) -> int:
    output.text(explained(options.code))
    return 0
