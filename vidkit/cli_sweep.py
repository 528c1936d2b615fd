"""The command line's verbs for many clips: `vidkit sweep | status | runs | report`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkit.cli_output import Output
from vidkit.errors import EXIT_CANCELLED, EXIT_CODES, InputError
from vidkit.paths import local_path, path_to_write
from vidkit.settings import home

if TYPE_CHECKING:
    from vidkit.sweep.runner import Executor, Summary


def add_verbs(verbs: Any) -> None:
    """Add the parsers of this file's verbs to those of the command line."""
    add_sweep(verbs.add_parser("sweep", help="run a grid of requests from a YAML file; what is done is not run again"))
    status = verbs.add_parser("status", help="how far a sweep is")
    status.add_argument("folder", type=local_path, help="the sweep's --output folder")
    status.add_argument("--json", action="store_true", help="as one JSON document")
    status.set_defaults(run=run_status)
    runs = verbs.add_parser("runs", help="the runs in a folder as a table: parameters, timing, metrics, status")
    runs.add_argument("folder", type=local_path, help="the sweep's --output folder")
    runs.add_argument("--output", type=path_to_write, metavar="FILE", help="write it as .csv or .parquet instead")
    runs.add_argument("--sort", metavar="COLUMN", help="by this column, the smallest first")
    runs.add_argument("--descending", action="store_true", help="the largest first")
    runs.add_argument("--columns", metavar="NAMES", help="these columns alone, with commas between")
    runs.set_defaults(run=run_runs)
    report = verbs.add_parser("report", help="write the report of a sweep again, or pictures of it")
    report.add_argument("folder", type=local_path, help="the sweep's --output folder")
    report.add_argument("--embed", action="store_true", help="with the clips inside, for sending")
    report.add_argument("--contact-sheet", nargs=2, metavar=("ROWS", "COLUMNS"), help="a PNG over two axes")
    report.add_argument("--heat-map", nargs=3, metavar=("METRIC", "ROWS", "COLUMNS"), help="a PNG over two axes")
    report.set_defaults(run=run_report)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=local_path, help="the sweep's YAML file; examples: parameters/sweep_*.yaml")
    parser.add_argument(
        "--output", type=path_to_write, metavar="FOLDER", help="default: runs/NAME in vidkit's data folder"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the points and what they cost; run nothing")
    parser.add_argument("--full", action="store_true", help="with --dry-run: every point of a long grid")
    parser.add_argument("--retry-failed", action="store_true", help="run points again that failed before")
    parser.add_argument("--stop-on-failure", action="store_true", help="end at the first point that fails")
    parser.add_argument("--executor", choices=["local", "ray"], default="local", help="ray: one worker per GPU")
    parser.add_argument("--address", help="of a Ray cluster; without it one is started on this machine")
    parser.add_argument(
        "--workers", type=int, help="points at once; default: 1, with ray one per GPU, or per machine without"
    )
    parser.add_argument("--engine", default="vidkit-warm", help="papermill engine; nbclient: a new kernel each time")
    parser.add_argument("--no-report", dest="report", action="store_false", help="write no report.html")
    parser.set_defaults(run=run_sweep_command)


def run_sweep_command(options: argparse.Namespace, output: Output) -> int:
    from vidkit.sweep.interrupts import interrupt_on_signals
    from vidkit.sweep.plan import make_plan
    from vidkit.sweep.runner import run_sweep

    root = (options.output or home() / "runs" / options.file.stem).absolute()
    if options.dry_run:
        plan = make_plan(options.file, root if root.is_dir() else None)
        output.text(plan.table(seconds_per_point=seconds_per_point(root), full=options.full))
        return 0
    os.environ.setdefault("VIDKIT_LOG_EVERYWHERE", "1")  # the kernels that make its clips log as a command does
    interrupt_on_signals()  # what is running is stopped and cleared away
    try:
        summary = run_sweep(
            options.file,
            root,
            executor=executor_for(options),
            retry_failed=options.retry_failed,
            stop_on_failure=options.stop_on_failure,
            report=options.report,
            engine=options.engine,
        )
    except KeyboardInterrupt:
        print(f"Stopped. Finished points are kept; the same command goes on: {root}", file=sys.stderr)
        return EXIT_CANCELLED
    output.text(json.dumps(as_json(summary), ensure_ascii=False))
    return EXIT_CODES["generation"] if summary.failed else 0


def executor_for(options: argparse.Namespace) -> Executor:
    if options.executor == "ray":
        from vidkit.sweep.ray_executor import RayExecutor

        return RayExecutor(address=options.address, workers=options.workers)
    if options.address:
        raise InputError("invalid_request", "--address is for --executor ray.", ["Add --executor ray", "Leave it out"])
    from vidkit.sweep.local import Local

    return Local(1 if options.workers is None else options.workers)


def seconds_per_point(root: Path) -> float | None:
    """The median of what is done in the folder already."""
    from vidkit.runs import table

    runs = table(root) if root.is_dir() else None
    if runs is None or runs.empty or "timing_total" not in runs:
        return None
    median = runs["timing_total"].median()
    return None if median != median else float(median)


def as_json(summary: Summary) -> dict[str, Any]:
    return {
        "status": "success" if not summary.failed else "error",
        "output": str(summary.root),
        "report": str(summary.report) if summary.report else None,
        "points": summary.points,
        "done": summary.done,
        "failed": summary.failed,
        "before": summary.before,
        "seconds": round(summary.seconds, 3),
    }


def run_status(options: argparse.Namespace, output: Output) -> int:
    from vidkit.sweep.status import read_status

    status = read_status(options.folder)
    output.text(json.dumps(status.to_json(), ensure_ascii=False) if options.json else status.line())
    return 0


def run_runs(options: argparse.Namespace, output: Output) -> int:
    from vidkit.runs import table, write_table

    if options.output is not None:
        output.text(str(write_table(options.folder, options.output)))
        return 0
    runs = table(options.folder)
    for name in [*(options.columns or "").split(","), options.sort]:
        if name and name not in runs:
            raise InputError(
                "invalid_request", f"There is no column {name!r}.", [f"Columns: {', '.join(map(str, runs))}"]
            )
    if options.sort:
        runs = runs.sort_values(options.sort, ascending=not options.descending)
    if options.columns:
        runs = runs[options.columns.split(",")]
    output.text(runs.to_string(index=False))
    return 0


def run_report(options: argparse.Namespace, output: Output) -> int:
    from vidkit.sweep.pictures import contact_sheet, heat_map
    from vidkit.sweep.report import write_report

    if options.contact_sheet:
        output.text(str(contact_sheet(options.folder, *options.contact_sheet)))
    if options.heat_map:
        output.text(str(heat_map(options.folder, *options.heat_map)))
    if not options.contact_sheet and not options.heat_map:
        output.text(str(write_report(options.folder, embed=options.embed)))
    return 0
