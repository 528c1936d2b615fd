"""Training on the states that sampling meets: the model's own answers, step after step, as a sampler would use them.

Each batch is used once as it is drawn, near the start of sampling, where the state is all but noise. Some of its clips
then go on for AGES steps of Euler's method, each from the model's own answer (with guidance: from its two answers,
mixed), so the model learns to mend what it will meet (Ross, Gordon & Bagnell, "A Reduction of Imitation Learning to
No-Regret Online Learning", AISTATS 2011). The clips of all ages are one second batch, of as many clips as the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .refine import per_clip

AGES = 4
MAX_GUIDANCE = 9.0
#: the next noise level as a share of this one; 8 steps of Karras' schedule take 0.54 first and 0.27 last
NEXT_LEVEL = (0.3, 0.7)


@dataclass(frozen=True)
class Group:
    """Which clips of a fresh batch go on; and for each, the places in the group of the same clip with words, without.

    A clip that is there only once is both.
    """

    members: list[int]
    worded: list[int]
    wordless: list[int]

    @classmethod
    def paired(cls, size: int, batch: int, pairs: int) -> Group:
        """`size` clips, as many as can be in pairs, of a batch whose first `pairs` clips come again after `batch`."""
        chosen = min(pairs, size // 2)
        places = list(range(chosen))
        alone = list(range(2 * chosen, size))
        members = places + [batch + i for i in places] + [pairs + i for i in range(len(alone))]
        return cls(members, places + places + alone, [chosen + i for i in places] * 2 + alone)


class Rollout:
    """The clips that go on, by age: the youngest first, AGES groups."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.clips: dict[str, Tensor] = {}

    def enter(self, inputs: dict[str, Tensor], answer: Tensor) -> dict[str, Tensor]:
        """The group's clips after their first step, and those of before: what the model is to be trained on next.

        inputs: all (batch, ...), among them `state`, `sigma`, and `guidance`; answer: the clean estimates for them.
        """
        young = {name: value[self.group.members] for name, value in inputs.items()}
        young = self.step(young, answer[self.group.members])
        size = len(self.group.members)
        kept = {name: self.clips[name][:-size] if self.clips else value.repeat(AGES - 1, *[1] * (value.ndim - 1))
                for name, value in young.items()}  # fmt: skip
        self.clips = {name: torch.cat([value, kept[name]]) for name, value in young.items()}
        return self.clips

    def go_on(self, answer: Tensor) -> None:
        """A step further, with the answers to what `enter` gave."""
        self.clips = self.step(self.clips, answer)

    def step(self, clips: dict[str, Tensor], answer: Tensor) -> dict[str, Tensor]:
        """One step of Euler's method to a lower noise level, the same for a clip with and without words."""
        state, sigma = clips["state"], clips["sigma"]
        groups = answer.unflatten(0, (-1, len(self.group.members)))
        with_words, without = groups[:, self.group.worded].flatten(0, 1), groups[:, self.group.wordless].flatten(0, 1)
        clean = without + per_clip(clips["guidance"]) * (with_words - without)
        low, high = NEXT_LEVEL
        share = (low + (high - low) * torch.rand_like(sigma)).unflatten(0, (-1, len(self.group.members)))
        share = share[:, self.group.worded].flatten()
        return clips | {"state": clean + per_clip(share) * (state - clean), "sigma": share * sigma}
