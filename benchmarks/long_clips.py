"""Clips of many windows of the bundled models: are seams seen, do colours drift, does the picture hold?

    python -m benchmarks.long_clips PHOTOGRAPHS [--frames 48 ...] [--only svd|pia|init] [--still] [--together]
                                    [--json FILE] [--sheet FILE]

PHOTOGRAPHS is a folder of pictures. Each mode makes a clip of each length of as many photographs as `--photographs`
says, of the longest length one. With --still they are to show no motion, so that what changes is drift alone and not
what comes into view. With --together windows are made together, which init knows not, and not chained. Measured is what
a viewer gets, read back from the MP4. The table goes to stdout, progress to
stderr. Exit code: 0 when all holds, 1 when a number falls short, 2 when there are no photographs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import vidkit
from benchmarks.bundled_models import cpu, photographs
from benchmarks.making import private_home
from benchmarks.measures import as_tensor
from benchmarks.motion import fit_motion, psnr
from vidkit import GenerationParams
from vidkit.container import Frames
from vidkit.errors import InputError
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.windows import Windows
from vidkit.record import versions
from vidkit.resolving import resolve_request
from vidkit.settings import load_settings
from vidkit.video import read_frames

MODES = ("svd", "pia", "init")
STILL = "static shot"
PROMPTS = ("slow zoom in", "pan left", "rotate clockwise", "tilt up", "zoom out", "pan right")

#: times the change from frame to frame inside windows
SEAM = 1.2
#: 8-bit levels by which a channel's mean and its deviation may depart from the first frame's. Without colours being
#: taken back, 250 frames of tiny-svd departed by 27 and 55.
DRIFT = 20.0
SPREAD = 30.0
#: frames between two that are compared for coherence
LEG = 16
COLUMNS = 12


@dataclass(frozen=True)
class LongClip:
    """One clip's numbers.

    change: mean absolute difference from frame to frame inside windows, 8-bit levels.
    seam: the same where two windows meet, over that. Of chained windows it counts from the last frame of the earlier
    window alone over those that both made to the first of the later window alone; of those made together, where all
    frames are of two, from the frame before one begins and from the last of one that ends.
    worst: of a single border's largest such change, over the largest elsewhere in its two windows.
    drift: the largest departure of a channel's mean from the first frame's, 8-bit levels; spread: of its deviation.
    coherence: mean, dB, of frames LEG apart, the first moved onto the second.
    likeness: PSNR of the frame that is least like the first, dB.
    """

    mode: str
    windowing: str
    photograph: str
    still: bool
    seed: int
    frames: int
    windows: int
    seconds: float
    change: float
    seam: float
    worst: float
    drift: float
    spread: float
    coherence: float
    likeness: float

    @property
    def holds(self) -> bool:
        return self.seam <= SEAM and self.drift <= DRIFT and self.spread <= SPREAD


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    try:
        pictures = photographs(options.folder, options.photographs)
    except InputError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    clips, rows = [], []
    with private_home() as folder:
        for request in requests(pictures, options):
            clip, frames = make(request, folder / "clip.mp4")
            clips.append(clip)
            rows.append((clip, frames[np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]))
            print(line(clip), file=sys.stderr, flush=True)
            if options.json:  # after each clip: a run that is stopped keeps what it has
                options.json.write_text(json.dumps(report(clips), indent=2) + "\n", encoding="utf-8")
            if options.sheet:
                sheet(rows).save(options.sheet)
    print("\n".join([HEADER, "-" * len(HEADER), *map(line, clips)]))
    print(f"\nTargets: seam <= {SEAM:g}, drift <= {DRIFT:g} levels, spread <= {SPREAD:g} levels.")
    return int(not all(clip.holds for clip in clips))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.long_clips", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="PHOTOGRAPHS")
    parser.add_argument("--photographs", type=int, default=3, help="how many of them (at least 2)")
    parser.add_argument("--frames", type=int, nargs="+", default=[48, 250])
    parser.add_argument("--only", choices=MODES)
    parser.add_argument("--still", action="store_true", help="static shots")
    parser.add_argument("--together", action="store_true", help="windows made together, not chained")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--sheet", type=Path, help="write a picture of the clips here, a row for each")
    return parser.parse_args(arguments)


def requests(pictures: Sequence[str], options: argparse.Namespace) -> Iterator[GenerationParams]:
    modes = [mode for mode in MODES if not (options.together and mode == "init")]
    for mode in modes if options.only is None else (options.only,):
        for frames in sorted(options.frames):
            most = 1 if frames == max(options.frames) and len(options.frames) > 1 else len(pictures)
            for number, picture in enumerate(pictures[:most]):
                yield GenerationParams(
                    image_path=picture,
                    prompt=STILL if options.still else PROMPTS[number % len(PROMPTS)],
                    motion_bucket_id=0 if options.still else 127,  # SVD's way to say it
                    seed=number + 1,
                    num_frames=frames,
                    pipeline="svd" if mode == "svd" else "animatediff",
                    conditioning="pia" if mode == "pia" else "init",
                    windowing="together" if options.together else "chained",
                )


def make(request: GenerationParams, target: Path) -> tuple[LongClip, Frames]:
    resolved = resolve_request(request, load_settings())
    windows = FAMILIES[request.pipeline].windows(resolved.params, resolved.models)
    began = time.monotonic()
    vidkit.generate(request.replace(output_path=str(target)))
    seconds = time.monotonic() - began
    frames = read_frames(target)
    target.unlink()
    change, seam, worst = seams(frames, windows)
    means, deviations = frames.mean((1, 2)), frames.std((1, 2))
    clip = LongClip(
        mode="svd" if request.pipeline == "svd" else request.conditioning,
        windowing=request.windowing,
        photograph=Path(request.image_path).name,
        still=request.prompt == STILL,
        seed=request.seed,
        frames=len(frames),
        windows=windows.count,
        seconds=round(seconds, 1),
        change=round(change, 2),
        seam=round(seam, 3),
        worst=round(worst, 3),
        drift=round(float(np.abs(means - means[0]).max()), 1),
        spread=round(float(np.abs(deviations - deviations[0]).max()), 1),
        coherence=round(coherence(frames), 1),
        likeness=round(float(psnr(as_tensor(frames[1:]), as_tensor(frames[:1])).min()), 1),
    )
    return clip, frames


def seams(frames: Frames, windows: Windows) -> tuple[float, float, float]:
    """`LongClip.change`, `LongClip.seam` and `LongClip.worst`."""
    changes = np.array([np.abs(after.astype(float) - before).mean() for before, after in pairwise(frames)])
    borders = [border(windows, number, len(changes)) for number in range(1, windows.count)]
    inside = np.setdiff1d(np.arange(len(changes)), np.concatenate(borders))
    worst = 0.0
    for earlier, where in enumerate(borders):
        first, last = windows.starts[earlier], windows.starts[earlier + 1] + windows.held
        around = inside[(inside >= first) & (inside < last)]
        worst = max(worst, float(changes[where].max() / changes[around].max()))
    usual = float(changes[inside].mean())
    return usual, float(changes[np.concatenate(borders)].mean()) / usual, worst


def border(windows: Windows, number: int, changes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which changes from frame to frame are at the border of window `number` (from 1) and the one before."""
    begins, ended = windows.starts[number] - 1, windows.starts[number - 1] + windows.held - 1
    where = np.array([begins, ended]) if windows.together else np.arange(begins, ended + 1)
    return where[where < changes]


def coherence(frames: Frames) -> float:
    clip = as_tensor(frames)
    stops = list(range(0, len(frames), LEG))
    return float(fit_motion(clip[stops[:-1]], clip[stops[1:]]).psnr.mean())


HEADER = f"{'mode':5} {'photograph':20} seed frames windows seconds change  seam worst drift spread coherence  likeness"


def line(clip: LongClip) -> str:
    return (
        f"{clip.mode:5} {clip.photograph[:20]:20} {clip.seed:4} {clip.frames:6} {clip.windows:7} {clip.seconds:7.1f} "
        f"{clip.change:6.2f} {clip.seam:5.2f} {clip.worst:5.2f} {clip.drift:5.1f} {clip.spread:6.1f} "
        f"{clip.coherence:6.1f} dB {clip.likeness:6.1f} dB {'PASS' if clip.holds else 'FAIL'}"
    )


def report(clips: Sequence[LongClip]) -> Mapping[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "cpu": cpu(),
        "targets": {"seam": SEAM, "drift": DRIFT, "spread": SPREAD},
        "passed": all(clip.holds for clip in clips),
        "clips": [asdict(clip) for clip in clips],
    }


def sheet(rows: Sequence[tuple[LongClip, Frames]]) -> Image.Image:
    caption = 14
    width = max(strip.shape[0] * strip.shape[2] for _, strip in rows)
    picture = Image.new("RGB", (width, sum(strip.shape[1] + caption for _, strip in rows)), "white")
    draw, top = ImageDraw.Draw(picture), 0
    for clip, strip in rows:
        draw.text((2, top + 1), line(clip), fill="black")
        picture.paste(Image.fromarray(np.concatenate(list(strip), 1)), (0, top + caption))
        top += caption + strip.shape[1]
    return picture


if __name__ == "__main__":
    sys.exit(main())
