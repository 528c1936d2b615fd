"""What a check's clips tell of speed, memory, determinism and low-memory measures."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from vidkit.finding import Finding, note, ok, problem
from vidkit.memory.plan_words import in_gib, measures_of
from vidkit.memory.prediction import TOLERANCE
from vidkit.model_check.making import Clip
from vidkit.params import GenerationParams

#: bytes that small models may be off the prediction, whatever their share: blocks of the allocator, cuBLAS's workspace
SLACK: Final = 64 * 2**20

#: share of the prediction below which a plan takes measures that it may not need
LOOSE: Final = 0.25

#: levels of 255 by which frames differ that are equal up to rounding. In single precision no more than one was found;
#: half precision rounds a thousand times coarser, and each step goes on from the last one's: seen as a PSNR in dB
ROUNDED: Final = 1
ROUNDED_IN_HALF: Final = 35.0


def speed(clip: Clip, made: GenerationParams, usual: GenerationParams) -> Finding:
    """Of the first clip, which loaded the models. made: as it was asked for; usual: as the model makes it by itself."""
    seconds, per_step = clip.seconds, clip.seconds["denoise"] / max(clip.steps, 1)
    what = (
        f"{per_step:.2f} s a step ({clip.steps} steps); {seconds.get('load', 0):.1f} s to load, "
        f"{seconds['decode']:.1f} s to decode, {seconds['total']:.1f} s in all on the {device_word(clip)}."
    )
    larger, more = pixels(usual) / pixels(made), (usual.num_inference_steps or 1) / (made.num_inference_steps or 1)
    data: dict[str, Any] = {"secondsPerStep": round(per_step, 4), "steps": clip.steps, "seconds": dict(seconds)}
    if larger * more > 1:
        whole = larger * (more * seconds["denoise"] + seconds["decode"])
        what += (
            f" As the model makes it by itself ({usual.num_frames} frames of {usual.width}x{usual.height}, "
            f"{usual.num_inference_steps} steps), some {whole:.0f} s, by its number of pixels and steps."
        )
        data["usualSeconds"] = round(whole, 1)
    return ok("speed", what, **data)


def pixels(params: GenerationParams) -> int:
    return max((params.num_frames or 1) * (params.width or 1) * (params.height or 1), 1)


def device_word(clip: Clip) -> str:
    return "GPU" if clip.plan.device == "cuda" else "CPU"


def memory(clip: Clip) -> Finding:
    """What a clip took of the device, against what was predicted for its plan."""
    topic, predicted, taken = "memory", clip.predicted.peak, clip.device_peak
    data: dict[str, Any] = {
        "setting": clip.setting,
        "predictedBytes": predicted,
        "measuredBytes": taken,
        "hostPeakBytes": clip.host_peak,
        "limitBytes": clip.limit,
    }
    host = f"the process took {in_gib(clip.host_peak)} of the host's memory at most, libraries included"
    allowed = "" if clip.limit is None else f" (allowed: {in_gib(clip.limit)})"
    if taken is None:
        what = f"{clip.setting}: {in_gib(predicted)} predicted{allowed}; not measured, as the CPU computes; {host}."
        return ok(topic, what, **data)
    off = taken / predicted - 1
    what = (
        f"{clip.setting}: {in_gib(taken)} of the GPU's memory measured, {in_gib(predicted)} predicted ({off:+.1%})"
        f"{allowed}; {host}."
    )
    if taken > predicted + max(TOLERANCE * predicted, SLACK):
        return problem(
            topic,
            f"{what} It took more than predicted, so that plans may run out of memory.",
            f"Leave room: VIDKIT_LIMIT_MEMORY, {off:.0%} below what is free",
            "Report it with this report: vidkit check ... --json",
            **data,
        )
    if taken < predicted - max(LOOSE * predicted, SLACK):
        less = "It took much less than predicted: clips may be planned with measures that they don't need."
        return note(topic, f"{what} {less}", "Report it with this report: vidkit check ... --json", **data)
    return ok(topic, what, **data)


def determinism(clip: Clip, again: Clip) -> Finding:
    topic = "determinism"
    if np.array_equal(clip.frames, again.frames):
        return ok(topic, "The same request twice gave the same frames, bit for bit.", same=True)
    most, share = difference(clip, again)
    return problem(
        topic,
        f"The same request twice gave other frames: {share:.2%} of all values differ, by up to {most} of 255 levels.",
        "Take back overclocking, and test the memory (host and GPU): a computer that errs is the usual cause",
        "Unset variables that change how the GPU computes (NVIDIA_TF32_OVERRIDE, CUBLAS_WORKSPACE_CONFIG)",
        same=False,
        mostLevels=most,
    )


def low_memory(clip: Clip, lean: Clip, params: GenerationParams) -> Finding:
    """The clip made in little memory, against the one made in as much as there was."""
    topic = "low memory"
    words = [words for words, _ in measures_of(params, lean.plan)]
    slower = lean.seconds["denoise"] + lean.seconds["decode"]
    slower = slower / max(clip.seconds["denoise"] + clip.seconds["decode"], 1e-6) - 1
    most, share = difference(clip, lean)
    decibels = psnr(clip, lean)
    what = f"{'; '.join(words)}. The frames are "
    data: dict[str, Any] = {
        "measures": lean.plan.to_json(),
        "mostLevels": most,
        "shareOfValues": round(share, 6),
        "psnr": None if decibels is None else round(decibels, 1),
        "slower": round(slower, 3),
    }
    time = f"{abs(slower):.0%} {'slower' if slower >= 0 else 'quicker'}"
    if decibels is None:
        return ok(topic, f"{what}the same, bit for bit; {time}.", **data)
    told = f"by at most {most} of 255 levels, {share:.3%} of all values ({decibels:.0f} dB)"
    enough = most <= ROUNDED if lean.plan.dtype == "float32" else decibels >= ROUNDED_IN_HALF
    if enough:
        return ok(topic, f"{what}equal up to rounding (off {told}); {time}.", **data)
    return problem(
        topic,
        f"{what}others: they are off {told}. These measures should change no clip.",
        "Report it with this report: vidkit check ... --json",
        **data,
    )


def difference(one: Clip, other: Clip) -> tuple[int, float]:
    """The largest difference of a value, in levels, and the share of values that differ; of clips of one request."""
    off = np.abs(one.frames.astype(np.int16) - other.frames)
    return int(off.max()), float((off > 0).mean())


def psnr(one: Clip, other: Clip) -> float | None:
    """dB, of all frames; None: they are the same."""
    error = float(((one.frames.astype(np.float32) - other.frames) ** 2).mean())
    return None if error == 0 else float(10 * np.log10(255**2 / error))
