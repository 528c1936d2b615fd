"""What the two bundled models must do: each criterion is the clips it needs, and how they are judged."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.measures import Clip
from benchmarks.motion import STATIC
from benchmarks.prompts import ASKED, SENTENCES, UNRELATED, asked_move
from vidkit import GenerationParams
from vidkit.models.locate import BUNDLED_FOLDER
from vidkit.params import Conditioning

MIB = 2**20
RELATIONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}

COHERENT_BUCKETS = (60, 127, 255)
RISING_BUCKETS = (0, 40, 80, 127, 180, 255)
LONG = 48


@dataclass(frozen=True)
class Scope:
    """Which pictures, and whether all combinations are made or a few of each kind. photographs: at least one path."""

    photographs: Sequence[str]
    quick: bool

    def some(self, seeds: int, quick: int, offset: int = 0) -> list[tuple[str, int]]:
        """(photograph, seed): every combination; or `quick` of them, each another photograph and another seed."""
        if not self.quick:
            return list(itertools.product(self.photographs, range(seeds)))
        return [(self.photographs[k % len(self.photographs)], k) for k in range(offset, offset + quick)]


@dataclass(frozen=True)
class Result:
    """One line of the table. passed: None where there is no target. value, details: for the JSON."""

    name: str
    measured: str
    target: str
    passed: bool | None
    value: float | str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Criterion:
    """requests: the clips it wants; judge: what they show. pipeline: None, when it is about the files."""

    name: str
    pipeline: str | None
    requests: Callable[[Scope], list[GenerationParams]]
    judge: Callable[[Sequence[Clip]], list[Result]]


def judged(name: str, value: float, relation: str, limit: float, unit: str = "", **details: Any) -> Result:
    """A number against its target. The verdict is on the number itself, not on what the table shows of it."""
    measured, target = f"{value:.4g} {unit}".strip(), f"{relation} {limit:g} {unit}".strip()
    return Result(name, measured, target, RELATIONS[relation](value, limit), value, details)


def reported(name: str, value: float, unit: str = "", **details: Any) -> Result:
    return Result(name, f"{value:.4g} {unit}".strip(), "", None, value, details)


# --- tiny-svd: the picture and a number decide -----------------------------------------------------------------------


def svd(photograph: str, seed: int, bucket: int, **more: Any) -> GenerationParams:
    return GenerationParams(
        pipeline="svd", image_path=photograph, prompt="a slow move", seed=seed, motion_bucket_id=bucket, **more
    )


def coherent_requests(scope: Scope) -> list[GenerationParams]:
    return [svd(*pair, bucket) for bucket in COHERENT_BUCKETS for pair in scope.some(seeds=4, quick=2)]


def rising_requests(scope: Scope) -> list[GenerationParams]:
    return [svd(*pair, bucket) for bucket in RISING_BUCKETS for pair in scope.some(seeds=4, quick=2)]


def moving_requests(scope: Scope) -> list[GenerationParams]:
    return [*coherent_requests(scope), *rising_requests(scope)]


def seed_requests(scope: Scope) -> list[GenerationParams]:
    return [svd(scope.photographs[0], seed, 180) for seed in range(12)]


def long_svd_requests(scope: Scope) -> list[GenerationParams]:
    return [svd(*pair, 127, num_frames=LONG) for pair in scope.some(seeds=1, quick=1)]


def first_frame_is_the_picture(clips: Sequence[Clip]) -> list[Result]:
    return [judged("first frame", mean(clip.first_frame for clip in clips), ">=", 26, "dB")]


def clips_are_coherent(clips: Sequence[Clip]) -> list[Result]:
    results = []
    for bucket in COHERENT_BUCKETS:
        found = [clip.coherence for clip in clips if clip.request.motion_bucket_id == bucket]
        results.append(judged(f"coherence at bucket {bucket}", mean(found), ">=", 21, "dB"))
    melted = 100 * mean(clip.coherence < 17 for clip in clips)
    return [*results, judged("clips under 17 dB", melted, "<=", 2, "%")]


def motion_rises(clips: Sequence[Clip]) -> list[Result]:
    def moved(bucket: int) -> float:
        return mean(clip.displacement for clip in clips if clip.request.motion_bucket_id == bucket)

    amounts = {bucket: 100 * moved(bucket) for bucket in RISING_BUCKETS}
    rises = all(low < high for low, high in itertools.pairwise(amounts.values()))
    shown = ", ".join(f"{amount:.1f}" for amount in amounts.values())
    return [
        Result(f"motion at buckets {RISING_BUCKETS}", f"{shown} %", "rises", rises, shown, {"percent": amounts}),
        judged("motion at bucket 0", moved(0) * clips[0].width, "<", 0.3, "px"),
        judged("motion at bucket 255", amounts[255], ">=", 8, "% of the width"),
    ]


def seeds_choose_moves(clips: Sequence[Clip]) -> list[Result]:
    moves = sorted({clip.move for clip in clips} - {STATIC})
    return [judged(f"different moves of {len(clips)} seeds", len(moves), ">=", 4, moves=moves)]


# --- tiny-animatediff: the prompt decides ----------------------------------------------------------------------------


def animatediff(photograph: str, seed: int, prompt: str, conditioning: Conditioning, **more: Any) -> GenerationParams:
    return GenerationParams(
        pipeline="animatediff",
        image_path=photograph,
        prompt=prompt,
        seed=seed,
        conditioning=conditioning,
        **more,
    )


def asking_requests(scope: Scope, conditioning: Conditioning) -> list[GenerationParams]:
    """Each move asked for alone, and within a sentence that has another subject for each photograph."""
    requests = []
    for number, move in enumerate(ASKED):
        for turn, pair in enumerate(scope.some(seeds=2, quick=1, offset=number)):
            sentence = SENTENCES[(number + turn) % len(SENTENCES)].format(move)
            requests += [animatediff(*pair, prompt, conditioning) for prompt in (move, sentence)]
    return requests


def pia_requests(scope: Scope) -> list[GenerationParams]:
    return asking_requests(scope, "pia")


def init_requests(scope: Scope) -> list[GenerationParams]:
    return asking_requests(scope, "init")[:: 8 if scope.quick else 1]


def unrelated_requests(scope: Scope) -> list[GenerationParams]:
    prompts = itertools.cycle(UNRELATED)
    return [animatediff(*pair, next(prompts), "pia") for pair in scope.some(seeds=1, quick=2)]


def guidance_requests(scope: Scope) -> list[GenerationParams]:
    moves = itertools.cycle(ASKED)
    plain = [animatediff(*pair, next(moves), "pia") for pair in scope.some(seeds=1, quick=1)]
    return [request.replace(guidance_scale=scale) for request in plain for scale in (1.0, 7.5)]


def long_requests(scope: Scope, conditioning: Conditioning) -> list[GenerationParams]:
    moves = itertools.cycle(ASKED)
    pairs = scope.some(seeds=1, quick=1)
    return [animatediff(*pair, next(moves), conditioning, num_frames=LONG) for pair in pairs]


def long_pia_requests(scope: Scope) -> list[GenerationParams]:
    return long_requests(scope, "pia")


def long_init_requests(scope: Scope) -> list[GenerationParams]:
    return long_requests(scope, "init")


def obeyed(clips: Sequence[Clip]) -> float:
    """Percent of the clips that do what their prompt asks."""
    return 100 * mean(clip.move == asked_move(clip.request.prompt) for clip in clips)


def prompt_decides(clips: Sequence[Clip]) -> list[Result]:
    by_move = {words: obeyed([c for c in clips if words in c.request.prompt]) for words in ASKED}
    alone = [clip for clip in clips if clip.request.prompt in ASKED]
    sentences = [clip for clip in clips if clip.request.prompt not in ASKED]
    return [
        judged("asked motion", obeyed(clips), ">=", 95, "%", percent=by_move),
        reported("- the move alone", obeyed(alone), "%"),
        reported("- within a sentence", obeyed(sentences), "%"),
        judged("first frame", mean(clip.first_frame for clip in clips), ">=", 24, "dB"),
    ]


def init_keeps_the_picture(clips: Sequence[Clip]) -> list[Result]:
    return [
        reported("asked motion", obeyed(clips), "%"),
        judged("first frame against the blurred picture", mean(clip.blurred for clip in clips), ">=", 14, "dB"),
    ]


def any_prompt_works(clips: Sequence[Clip]) -> list[Result]:
    return [
        judged("coherence, unrelated prompt", mean(clip.coherence for clip in clips), ">=", 17, "dB"),
        judged("first frame, unrelated prompt", mean(clip.first_frame for clip in clips), ">=", 24, "dB"),
    ]


def guidance_keeps_the_picture(clips: Sequence[Clip]) -> list[Result]:
    results = []
    for scale in (1.0, 7.5):
        found = [clip for clip in clips if clip.request.guidance_scale == scale]
        results += [
            judged(f"first frame, guidance {scale:g}", mean(clip.first_frame for clip in found), ">=", 24, "dB"),
            judged(f"coherence, guidance {scale:g}", mean(clip.coherence for clip in found), ">=", 19, "dB"),
            reported(
                f"motion, guidance {scale:g}", 100 * mean(clip.displacement for clip in found), "% of the width",
                moves=[clip.move for clip in found],
            ),
        ]  # fmt: skip
    return results


# --- both ------------------------------------------------------------------------------------------------------------


def long_clips_hold(clips: Sequence[Clip]) -> list[Result]:
    return [
        Result(
            f"{LONG} frames", f"{min(c.frames for c in clips)} to {max(c.frames for c in clips)}", f"{LONG}",
            all(clip.frames == LONG for clip in clips), min(c.frames for c in clips),
        ),
        judged(f"coherence of {LONG} frames, 16 apart", mean(clip.legs for clip in clips), ">=", 19, "dB"),
        judged(f"largest jump in {LONG} frames", max(clip.jump for clip in clips), "<=", 3, "x the median"),
    ]  # fmt: skip


def long_init_clips_come(clips: Sequence[Clip]) -> list[Result]:
    """init changes the repeated picture anew in each window: only the number of frames is asked for."""
    frames, *others = long_clips_hold(clips)
    return [frames, *(replace(result, target="", passed=None) for result in others)]


def clips_are_quick(clips: Sequence[Clip]) -> list[Result]:
    seconds = [clip.seconds for clip in clips if clip.warm]
    return [
        judged("default steps", max(clip.steps for clip in clips), "<=", 10),
        judged("a clip, model loaded", median(seconds), "<=", 15, "s", longest=max(seconds), shortest=min(seconds)),
    ]


def weights_are_small(folder: Path) -> list[Result]:
    """All model folders in `folder` together."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    weights = [file.stat().st_size / MIB for file in files if file.suffix == ".safetensors"]
    # configs, tokenizers and logs are text; anything else that is large enough to hold weights must be safetensors
    readable = {".safetensors", ".json", ".jsonl", ".txt", ".md"}
    others = [str(file.relative_to(folder)) for file in files if file.suffix not in readable]
    return [
        judged("weights of both models", sum(weights), "<=", 40, "MiB"),
        judged("largest file", max(file.stat().st_size / MIB for file in files), "<=", 16, "MiB"),
        judged("files that are neither safetensors nor text", len(others), "<=", 0, files=others),
    ]


CRITERIA = (
    Criterion("faithful", "svd", moving_requests, first_frame_is_the_picture),
    Criterion("coherent", "svd", coherent_requests, clips_are_coherent),
    Criterion("bucket", "svd", rising_requests, motion_rises),
    Criterion("seeds", "svd", seed_requests, seeds_choose_moves),
    Criterion("long", "svd", long_svd_requests, long_clips_hold),
    Criterion("speed", "svd", moving_requests, clips_are_quick),
    Criterion("prompt, pia", "animatediff", pia_requests, prompt_decides),
    Criterion("any prompt, pia", "animatediff", unrelated_requests, any_prompt_works),
    Criterion("guidance, pia", "animatediff", guidance_requests, guidance_keeps_the_picture),
    Criterion("long, pia", "animatediff", long_pia_requests, long_clips_hold),
    Criterion("speed, pia", "animatediff", pia_requests, clips_are_quick),
    Criterion("prompt, init", "animatediff", init_requests, init_keeps_the_picture),
    Criterion("long, init", "animatediff", long_init_requests, long_init_clips_come),
    Criterion("speed, init", "animatediff", init_requests, clips_are_quick),
    Criterion("size", None, lambda scope: [], lambda clips: weights_are_small(BUNDLED_FOLDER)),
)
