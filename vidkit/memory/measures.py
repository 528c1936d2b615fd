"""The measures that make a request fit without changing its clip, and what each costs in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Final

from vidkit.device import Offload, Plan
from vidkit.memory.prediction import is_guided
from vidkit.params import GenerationParams

#: What a measure adds to the time of a clip, as a share of it, by family: rounded from what it took on one H200, where
#: two rows of a table differ by it (`benchmarks/results/vram_table.json`, and `benchmarks/NOTES.md` for runs whose rows
#: are not kept). They vary with the clip, by half of their value and more. Offloading by models is SVD-XT's.
COSTS: Final[Mapping[str, Mapping[str, float]]] = {
    "svd": {"model": 0.09, "slices": 0.15, "halves": 0.16, "host_skips": 0.03, "layers": 0.2},
    "animatediff": {"model": 0.09, "slices": 0.2, "halves": 0.1, "host_skips": 0.4, "layers": 0.5},
}
#: of a family that was not measured
USUAL: Final = COSTS["svd"]

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
    return sorted(plans, key=lambda plan: cost(params.pipeline, plan))


def leanest_plans(params: GenerationParams, plain: Plan) -> list[Plan]:
    """One of these needs least of the device: all measures, slices or not, since small layers gain nothing by them."""
    plans = [plan for plan in exact_plans(params, plain) if plan.halves == is_guided(params)]
    most = [plan for plan in plans if plain.device == "cpu" or (plan.offload == "layers" and plan.host_skips)]
    return sorted(most, key=lambda plan: not plan.slices)


def cost(family: str, plan: Plan) -> float:
    """Time of a clip, relative to that without measures."""
    costs, time = COSTS.get(family, USUAL), 1.0
    for name in ("halves", "slices", "host_skips"):
        if getattr(plan, name):
            time *= 1 + costs[name]
    if plan.offload == "layers":  # the weights come once for each half
        time += costs["layers"] * (2 if plan.halves else 1)
    return time + (costs["model"] if plan.offload == "model" else 0)
