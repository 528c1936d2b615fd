"""What the bundled models do with photographs they have not seen, against what they must do.

    python -m benchmarks.bundled_models PHOTOGRAPHS [--quick] [--json FILE] [--sheet FILE] [--only svd|animatediff]

PHOTOGRAPHS is a folder of pictures of any size, in any format that vidkit reads. The clips are made by
`vidkit.generate`, as a user makes them, and read back from their MP4. The table goes to stdout, progress to stderr.
Exit code: 0 when all holds, 1 when a number falls short, 2 when there are no photographs, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Threads that spin while they wait steal time from each other on cores that other work shares. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.criteria import CRITERIA, Criterion, Result, Scope
from benchmarks.making import Outcome, Strips, make_all
from benchmarks.measures import Clip
from vidkit import GenerationParams
from vidkit.errors import EXIT_CANCELLED, InputError, VidkitError
from vidkit.images import FORMATS, load_image
from vidkit.record import versions

QUICK_PHOTOGRAPHS = 8
QUICK_MINUTES = 8

Outcomes = Mapping[GenerationParams, Outcome]
Judged = Sequence[tuple[Criterion, Sequence[Result]]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    started = time.monotonic()
    try:
        scope = Scope(photographs(options.photographs, QUICK_PHOTOGRAPHS if options.quick else None), options.quick)
        criteria = [criterion for criterion in CRITERIA if options.only in (None, criterion.pipeline or options.only)]
        results, outcomes, strips = evaluate(criteria, scope)
    except InputError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted: no numbers.", file=sys.stderr)
        return EXIT_CANCELLED
    seconds = time.monotonic() - started
    print(table(results))
    print(f"\n{len(outcomes)} clips of {len(scope.photographs)} photographs in {seconds / 60:.1f} minutes.")
    if options.quick:
        print(f"--quick is meant to take at most {QUICK_MINUTES} minutes on two cores.")
    if options.json:
        text = json.dumps(report(results, outcomes, scope, seconds), indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.sheet:
        sheet(strips).save(options.sheet)
    return exit_code(results)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.bundled_models", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder of pictures that no model was trained on")
    parser.add_argument("--quick", action="store_true", help=f"a few clips of each kind, {QUICK_MINUTES} minutes")
    parser.add_argument("--only", choices=["svd", "animatediff"], help="one of the models")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--sheet", type=Path, help="write a picture of the clips here, a row for each kind of request")
    options = parser.parse_args(arguments)
    for file in (options.json, options.sheet):
        if file is not None and not file.absolute().parent.is_dir():  # to be told now, not after hours of work
            parser.error(f"the folder of {file} does not exist")
    return options


def photographs(folder: Path, most: int | None) -> list[str]:
    """The pictures in a folder, by name; at most `most` of them, evenly over the folder. Unreadable ones are left out.

    Raises:
        InputError: `image_not_found`, the folder does not exist or holds no picture that vidkit reads.
    """
    if not folder.is_dir():
        raise InputError("image_not_found", f"{folder} is not a folder; give a folder of photographs.")
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in suffixes)
    if most is not None and len(files) > most:
        files = [files[round(k * (len(files) - 1) / (most - 1))] for k in range(most)]
    readable = [str(file) for file in files if is_readable(file)]
    if not readable:
        formats = ", ".join(FORMATS)
        raise InputError("image_not_found", f"{folder} holds no picture that can be read; {formats} are read.")
    return readable


def is_readable(file: Path) -> bool:
    try:
        load_image(file)
    except InputError as error:
        print(f"left out: {error.message}", file=sys.stderr)
        return False
    return True


def evaluate(criteria: Sequence[Criterion], scope: Scope) -> tuple[Judged, Outcomes, Strips]:
    """Make every clip that a criterion wants, once, and judge each criterion by its clips."""
    wanted = [criterion.requests(scope) for criterion in criteria]
    outcomes, strips = make_all([request for requests in wanted for request in requests], told)
    results = [
        (criterion, judge(criterion, [outcomes[request] for request in requests]))
        for criterion, requests in zip(criteria, wanted, strict=True)
    ]
    return results, outcomes, strips


def judge(criterion: Criterion, outcomes: Sequence[Outcome]) -> list[Result]:
    """A criterion whose clips cannot all be made falls short, with the first reason."""
    errors = [outcome.message for outcome in outcomes if isinstance(outcome, VidkitError)]
    if errors:
        found = f"{len(errors)} of {len(outcomes)} failed: {textwrap.shorten(errors[0], 60)}"
        return [Result("every clip is made", found, "all", False, len(outcomes) - len(errors))]
    return criterion.judge([outcome for outcome in outcomes if isinstance(outcome, Clip)])


def asked(request: GenerationParams) -> str:
    if request.pipeline == "svd":
        what = f"bucket {request.motion_bucket_id}"
    else:
        what = f"{request.conditioning}, guidance {request.guidance_scale:g}, {request.prompt!r}"
    return f"{request.pipeline}, {what}" + (f", {request.num_frames} frames" if request.num_frames else "")


def told(request: GenerationParams, outcome: Outcome, number: int, total: int) -> None:
    """Progress, on stderr."""
    found = outcome.message if isinstance(outcome, VidkitError) else summary(outcome)
    name = f"{Path(request.image_path).name}, seed {request.seed}, {asked(request)}"
    print(f"[{number}/{total}] {name}: {found}", file=sys.stderr, flush=True)


def summary(clip: Clip) -> str:
    return (
        f"{clip.seconds:.1f} s, first frame {clip.first_frame:.1f} dB, coherence {clip.coherence:.1f} dB, "
        f"{clip.move} {100 * clip.displacement:.1f} %"
    )


def table(results: Judged) -> str:
    rows = [("model", "criterion", "", "measured", "target", "")]
    for criterion, found in results:
        rows += [
            (criterion.pipeline or "both", criterion.name, r.name, r.measured, r.target, verdict(r)) for r in found
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    return "\n".join(row.rstrip() for row in [lines[0], "-" * max(map(len, lines)), *lines[1:]])


def verdict(result: Result) -> str:
    return "" if result.passed is None else "PASS" if result.passed else "FAIL"


def exit_code(results: Judged) -> int:
    return int(any(result.passed is False for _, found in results for result in found))


def report(results: Judged, outcomes: Outcomes, scope: Scope, seconds: float) -> dict[str, Any]:
    """All of it, JSON-able; of the photographs only the names."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "quick": scope.quick,
        "photographs": [Path(path).name for path in scope.photographs],
        "seconds": round(seconds, 1),
        "passed": exit_code(results) == 0,
        "results": [
            {"model": criterion.pipeline or "both", "criterion": criterion.name, **asdict(result)}
            for criterion, found in results
            for result in found
        ],
        "clips": [numbers(request, outcome) for request, outcome in outcomes.items()],
    }


def numbers(request: GenerationParams, outcome: Outcome) -> dict[str, Any]:
    wire = {**request.to_wire(), "imagePath": Path(request.image_path).name}
    found = outcome.to_json() if isinstance(outcome, VidkitError) else asdict(outcome)
    return {**found, "request": wire}


def cpu() -> str:
    """The processor's name where the system tells it (Linux keeps it in /proc only)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((row.split(":", 1)[1].strip() for row in lines if row.startswith("model name")), platform.processor())


def sheet(strips: Strips) -> Image.Image:
    """A row of frames over time for each kind of request, with what was asked for above it."""
    caption = 14
    sizes = [(strip.shape[0] * strip.shape[2], strip.shape[1] + caption) for strip in strips.values()]
    picture = Image.new("RGB", (max((w for w, _ in sizes), default=1), sum(h for _, h in sizes) or 1), "white")
    draw, top = ImageDraw.Draw(picture), 0
    for (request, strip), (_, height) in zip(strips.items(), sizes, strict=True):
        draw.text((2, top + 1), asked(request), fill="black")
        picture.paste(Image.fromarray(np.concatenate(list(strip), 1)), (0, top + caption))
        top += height
    return picture


if __name__ == "__main__":
    sys.exit(main())
