"""Room for a request on a device that several processes share: who holds models while idle may have to unload them."""

from __future__ import annotations

from typing import Final

from vidkit.device import GIB, RESIDENT_FROM, Plan, device_label, make_plan
from vidkit.device_lock import DeviceLock, OnWait
from vidkit.errors import GenerationError, SetupError
from vidkit.lock_folder import Peer
from vidkit.memory.free import free_device_memory
from vidkit.memory.prediction import TOLERANCE, predict
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models

#: bytes of a GPU below which nothing is gained: of a model that is offloaded, only a workspace stays there
WORTHWHILE: Final = 256 * 2**20

#: seconds of idleness after which models are unloaded already where that makes another process faster
LONG_IDLE: Final = 60.0


def plan_with_room(
    params: GenerationParams, models: Models, device: DeviceLock, on_wait: OnWait, *, ahead: bool = False
) -> Plan:
    """The plan of a resolved request, within a turn on the device.

    Others keep what they hold as long as the request fits beside it. Where it does not, or nobody knows, those that are
    idle unload. Who has been idle for long does so also for a plan without offloading.

    Args:
        on_wait: as in `DeviceLock.turn`.
        ahead: the models are only to be loaded ahead, for which nobody else gives up theirs.

    Raises:
        GenerationError: `out_of_memory`: they are to be loaded ahead, and may not fit.
    """
    plan = make_plan()
    holders = worth_asking(device, plan)
    if not holders or (ahead and fits(params, models, plan)):
        return plan
    if ahead:
        raise GenerationError(
            "out_of_memory",
            f"The models of {holders[0].in_words} are on {device_label(plan.device)}, and there may be no room for "
            "these beside them.",
            ["Run the request: then the others are unloaded"],
        )
    idle = [peer for peer in holders if peer.quiet_for() > LONG_IDLE]
    if plan.offload != "none" and (free_device_memory() or 0) + sum(peer.bytes for peer in idle) >= RESIDENT_FROM * GIB:
        device.make_room(idle, lambda: make_plan().offload == "none", on_wait)
        plan = make_plan()
    device.make_room(worth_asking(device, plan), lambda: fits(params, models, plan), on_wait)
    return make_plan()


def worth_asking(device: DeviceLock, plan: Plan) -> list[Peer]:
    """Other processes that could make room."""
    return [peer for peer in device.holders() if plan.device == "cpu" or peer.bytes > WORTHWHILE]


def fits(params: GenerationParams, models: Models, plan: Plan) -> bool:
    """Whether a request is known to fit into the memory that is free."""
    try:
        prediction = predict(params, models, plan)
    except SetupError:  # loading says it better
        return False
    free = free_device_memory()
    return prediction is not None and free is not None and prediction.peak * (1 + TOLERANCE) <= free
