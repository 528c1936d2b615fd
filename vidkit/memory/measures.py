"""The measures that make a request fit without changing its clip, and what each costs in time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Final

from vidkit.device import Offload, Plan
from vidkit.memory.prediction import is_guided
from vidkit.params import GenerationParams

#: what a measure adds to the time of a clip, as a share of it. Measured on one H200 with SVD-XT, 1024x576, 25 frames
#: (model, halves), else estimated: a pass over the weights or the skip connections over PCIe beside a step's time.
COSTS: Final = {"model": 0.09, "slices": 0.05, "halves": 0.16, "host_skips": 0.1, "layers": 0.3}

OFFLOADS: Final[tuple[Offload, ...]] = ("none", "model", "layers")


def exact_plans(params: GenerationParams, plain: Plan) -> list[Plan]:
    """Every sensible combination of measures over `plain`, the plan without any, the quickest first."""
    on_gpu, guided = plain.device != "cpu", is_guided(params)
    plans = [
        replace(plain, offload=offload, halves=halves, slices=slices, host_skips=host_skips)
        for offload, halves, slices, host_skips in product(
            OFFLOADS if on_gpu else ("none",),
            (False, True) if guided else (False,),
            (False, True),
            (False, True) if on_gpu else (False,),
        )
    ]
    return sorted(plans, key=cost)


def leanest_plans(params: GenerationParams, plain: Plan) -> list[Plan]:
    """One of these needs least of the device: all measures, slices or not, since small layers gain nothing by them."""
    plans = [plan for plan in exact_plans(params, plain) if plan.halves == is_guided(params)]
    most = [plan for plan in plans if plain.device == "cpu" or (plan.offload == "layers" and plan.host_skips)]
    return sorted(most, key=lambda plan: not plan.slices)


def cost(plan: Plan) -> float:
    """Time of a clip, relative to that without measures."""
    time = 1.0
    for name in ("halves", "slices", "host_skips"):
        if getattr(plan, name):
            time *= 1 + COSTS[name]
    if plan.offload == "layers":  # the weights come once for each half
        time += COSTS["layers"] * (2 if plan.halves else 1)
    return time + (COSTS["model"] if plan.offload == "model" else 0)
