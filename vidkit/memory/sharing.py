"""Room for a request on a device that several processes share: who holds models while idle may have to unload them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vidkit.device import chosen_device
from vidkit.device_lock import DeviceLock, OnWait
from vidkit.errors import GenerationError
from vidkit.memory.fitting import Room
from vidkit.memory.measures import cost
from vidkit.memory.planning import Planned, plan_request
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models

#: seconds of idleness after which models are unloaded already where that makes another process faster
LONG_IDLE: Final = 60.0

#: how much longer a clip may take because others keep their models, which take seconds to be read again
MUCH_SLOWER: Final = 1.1

#: plans a request for the memory that is free now and so many bytes more; raises as `plan_request`
PlanNow = Callable[[int], Planned]


def plan_with_room(
    params: GenerationParams,
    models: Models,
    device: DeviceLock,
    on_wait: OnWait,
    *,
    kept_on_host: int = 0,
    ahead: bool = False,
) -> Planned:
    """The plan of a resolved request, within a turn on the device.

    Others keep what they hold as long as the request fits beside it and is not much slower for it. Else those that are
    idle unload, if that helps. Who has been idle for long does so for any gain.

    Args:
        on_wait: as in `DeviceLock.turn`.
        kept_on_host: bytes of the host's memory that this process's loaded models take.
        ahead: the models are only to be loaded ahead, for which nobody else gives up theirs.

    Raises:
        GenerationError: it does not fit (as `plan_request`); or it is to be loaded ahead, and does not fit beside
            others (`out_of_memory`).
        SetupError: as `plan_request`.
    """
    name = chosen_device()
    if name == "cuda":
        import torch

        torch.cuda.init()  # type: ignore[no-untyped-call]  # so that CUDA itself says what is free

    def plan_now(more: int = 0) -> Planned:
        room = Room.now(name, kept_on_host=kept_on_host, more=more)
        return plan_request(params, models, name, room.device, host=room.host)

    holders = device.holders()
    if not holders:
        return plan_now()
    if ahead:
        try:
            return plan_now()
        except GenerationError as error:
            raise GenerationError(
                "out_of_memory",
                f"There is no room for these models beside those of {holders[0].in_words}: {error.message}",
                ["Run the request: then the others are unloaded"],
            ) from None
    alone = plan_now(sum(peer.bytes for peer in holders))
    idle = [peer for peer in holders if peer.quiet_for() > LONG_IDLE]
    device.make_room(idle, lambda: is_as_good(plan_now, alone), on_wait)
    device.make_room(holders, lambda: is_as_good(plan_now, alone, MUCH_SLOWER), on_wait)
    return plan_now()


def is_as_good(plan_now: PlanNow, alone: Planned, slower: float = 1.0) -> bool:
    """Whether the request can be planned now as it would be without others: the same clip, at most so much slower."""
    try:
        now = plan_now(0)
    except GenerationError:
        return False
    family = now.params.pipeline
    return now.notes == alone.notes and cost(family, now.plan) <= slower * cost(family, alone.plan)
