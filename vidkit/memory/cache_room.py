"""How much memory a request leaves to loaded components that it does not use."""

from __future__ import annotations

from collections.abc import Callable

from vidkit.device import Plan
from vidkit.memory.fitting import Room, with_tolerance
from vidkit.memory.prediction import predict
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models


def room_beside(params: GenerationParams, models: Models, plan: Plan, kept: Callable[[str], int]) -> dict[str, int]:
    """Bytes by place ("cuda", "cpu") that may stay taken by what a resolved request does not use; below 0, none.

    kept: bytes that components take in a place, the request's own or others'.

    Raises:
        SetupError: `invalid_model`, when a model's weights or configs cannot be read.
    """
    prediction = predict(params, models, plan)
    room = Room.now(plan.device, kept_on_host=kept("cpu"))
    rooms = {} if room.device is None else {plan.device: room.device - with_tolerance(prediction.peak)}
    # where the request's own waits that does not compute, and others go that have no room on the device
    return rooms if room.host is None else rooms | {"cpu": room.host - prediction.host}
