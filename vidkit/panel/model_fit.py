"""What would make a request use a model."""

from __future__ import annotations

from typing import Any

from vidkit.lora_list import LORAS, LoraEntry, loras_text, parse_loras
from vidkit.panel.model_list import Found, why_not
from vidkit.params import GenerationParams
from vidkit.settings import Settings


def changes_to_use(found: Found, params: GenerationParams, settings: Settings) -> dict[str, Any]:
    """The parameters to change so that a request uses a model: its own, and the pipeline and conditioning it is for.

    Another model of the request that does not go with it is taken back: the default counts then.
    """
    if found.role is None or found.model is None:
        return {}
    pipeline = "svd" if found.model.kind == "StableVideoDiffusionPipeline" else "animatediff"
    changes: dict[str, Any] = {found.role: with_lora(params.loras, found.name) if found.role == LORAS else found.name}
    if pipeline != params.pipeline:
        changes["pipeline"] = pipeline
        if found.role != "base_model":
            changes["base_model"] = None
    modes = conditionings_of(found)
    if pipeline == "animatediff" and params.conditioning not in modes:
        changes["conditioning"] = modes[0]
    if found.role == "base_model" and params.motion_adapter is not None:
        changed = params.replace(**changes)
        default = changed.replace(motion_adapter=None)
        if why_not(found, changed, settings) is not None and why_not(found, default, settings) is None:
            changes["motion_adapter"] = None
    return changes


def with_lora(loras: str | None, name: str) -> str:
    """A list with one LoRA more, unless it is there already."""
    entries = parse_loras(loras or "")
    return loras_text(entries if name in [entry.name for entry in entries] else (*entries, LoraEntry(name)))


def conditionings_of(found: Found) -> list[str]:
    """The conditioning modes of animatediff that a model serves; the first is to be used where the present is none."""
    if found.role == "controlnet":
        return ["sparsectrl"]
    if found.role != "motion_adapter" or found.model is None:
        return ["init", "pia", "sparsectrl"]
    return list(found.model.card.get("conditionings", ["pia"] if found.is_pia else ["init", "sparsectrl"]))
