"""How much memory a request leaves to loaded components that it does not use."""

from __future__ import annotations

from collections.abc import Callable

import psutil  # type: ignore[import-untyped]

from vidkit.device import Plan
from vidkit.memory.free import free_device_memory
from vidkit.memory.prediction import TOLERANCE, Request
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models


def room_beside(params: GenerationParams, models: Models, plan: Plan, kept: Callable[[str], int]) -> dict[str, int]:
    """Bytes by place ("cuda", "cpu") that may stay taken by what a resolved request does not use; below 0, none.

    kept: bytes that components take in a place, the request's own or others'.

    Raises:
        SetupError: `invalid_model`, when a model's weights or configs cannot be read.
    """
    request = Request(params, models, plan)
    needed = round(request.prediction().peak * (1 + TOLERANCE))
    if plan.device == "cpu":  # tensors are the same as on a GPU
        return {"cpu": available() + kept("cpu") - needed}
    free = free_device_memory()
    rooms = {} if free is None else {"cuda": free - needed}
    if plan.offload == "model":  # what does not run waits in the host's memory
        rooms["cpu"] = available() + kept("cpu") - request.weights.all
    return rooms


def available() -> int:
    """Bytes of the host's memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)
