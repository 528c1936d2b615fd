"""A finished clip in words: what made it, what is special about it, how long it took, its metrics."""

from __future__ import annotations

import html
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from vidkit.errors import VidkitError
from vidkit.models.locate import BUNDLED_PREFIX
from vidkit.panel.history import Entry
from vidkit.params import GenerationParams, canonical_name, is_used
from vidkit.record import names_of_models
from vidkit.resolving import resolve_request
from vidkit.settings import load_settings
from vidkit.sweep.dry_run import in_words

#: said in other words, or nothing that tells clips apart
SAID_ELSEWHERE: Final = ("schema_version", "prompt", "seed", "pipeline", "image_path", "last_image_path", "bare")

PHASES: Final = {"load": "loading", "encode": "encoding", "denoise": "denoising", "decode": "decoding"}

METRICS: Final = {
    "motion": "motion {:.2f} % of the width a frame",
    "flicker": "flicker {:.2f} %",
    "sharpness": "sharpness {:.4f}",
    "firstFramePsnr": "first frame PSNR {:.1f} dB",
    "firstFrameSsim": "first frame SSIM {:.3f}",
}


def name_of(entry: Entry) -> str:
    """Prompt, seed and date: enough to tell it from its neighbours."""
    prompt = " ".join(str(entry.manifest.request.get("prompt", "")).split())
    prompt = prompt if len(prompt) <= 60 else prompt[:59] + "…"
    parts = [prompt or "no prompt", f"seed {entry.manifest.seed}", moment_in_words(entry.finished)]
    return ", ".join(part for part in parts if part)


def moment_in_words(finished: str | None) -> str:
    """The local time of an ISO moment; "" for none."""
    with suppress(ValueError):
        return datetime.fromisoformat(finished or "").astimezone().strftime("%Y-%m-%d %H:%M")
    return ""


def details_html(entry: Entry) -> str:
    manifest = entry.manifest
    rows = {
        "Prompt": str(manifest.request.get("prompt", "")),
        "Not": str(manifest.request.get("negativePrompt", "")),
        "Seed": str(manifest.seed),
        "Model": models_in_words(entry),
        "Picture": ", ".join(picture.get("name", "") for picture in manifest.pictures),
        "Made": made_in_words(entry),
        "Unlike the defaults": ", ".join(f"{name} {value}" for name, value in differences(entry).items()) or "nothing",
        "Sweep": sweep_in_words(entry),
        "Metrics": metrics_in_words(manifest.metrics),
        "Notes": " ".join(manifest.notes),
    }
    cells = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in rows.items() if text)
    return f'<dl class="vidkit-details">{cells}</dl>'


def models_in_words(entry: Entry) -> str:
    names = [
        model.get("name", "").removeprefix(BUNDLED_PREFIX) + (f":{model['weight']}" if "weight" in model else "")
        for model in entry.manifest.models.values()
    ]
    family = str(entry.manifest.request.get("pipeline", ""))
    if family == "animatediff":
        family += f", {entry.manifest.request.get('conditioning', '')}"
    return f"{', '.join(names)} ({family})" if names else family


def made_in_words(entry: Entry) -> str:
    timing = {phase: seconds for phase, seconds in entry.manifest.timing.items() if seconds is not None}
    made = [moment_in_words(entry.finished)] if entry.finished else []
    if "total" in timing:
        parts = [f"{word} {in_words(timing[phase])}" for phase, word in PHASES.items() if timing.get(phase, 0) >= 0.5]
        made.append(f"in {in_words(timing['total'])}" + (f" ({', '.join(parts)})" if parts else ""))
    if entry.manifest.plan.get("device"):
        made.append("on the GPU" if entry.manifest.plan["device"] == "cuda" else "on the CPU")
    return " ".join(made)


def sweep_in_words(entry: Entry) -> str:
    if entry.sweep is None:
        return ""
    axes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in entry.manifest.axes.items())
    return f"{entry.sweep}: {axes}" if axes else entry.sweep


def metrics_in_words(metrics: Mapping[str, float | None]) -> str:
    found = [(METRICS[name], value) for name, value in metrics.items() if name in METRICS and value is not None]
    return ", ".join(text.format(value) for text, value in found)


def differences(entry: Entry) -> dict[str, Any]:
    """The settings that are not what the model takes by itself, by their names in words."""
    request = {canonical_name(name): value for name, value in entry.manifest.request.items()}
    pipeline, conditioning = str(request.get("pipeline", "svd")), str(request.get("conditioning", "init"))
    usual = defaults_of(entry)
    return {
        name.replace("_", " "): value
        for name, value in request.items()
        if name in usual
        and name not in SAID_ELSEWHERE
        and value != usual[name]
        and is_used(name, pipeline, conditioning)
    }


def defaults_of(entry: Entry) -> dict[str, Any]:
    """What its models take where nothing is given; where they are gone, what any model takes. Snake_case names."""
    manifest = entry.manifest
    request: dict[str, Any] = {"imagePath": "any", "prompt": "any"}
    request |= {name: manifest.request[name] for name in ("pipeline", "conditioning") if name in manifest.request}
    try:
        models: dict[str, Any] = {**names_of_models(manifest.models)}
        return resolve_request(GenerationParams(**request, **models), load_settings()).params.model_dump()
    except VidkitError:
        return GenerationParams(**request).model_dump()
