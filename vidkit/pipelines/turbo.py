"""Speed turbo: only some of the denoising steps are computed, in the others the scheduler is told what it would be.

Each step comes to a guess at the end result (the "predicted original sample"). The first steps are computed until it
has settled, and then some of the others, spread evenly. Between them it is taken to go on as it went between the last
two: in a straight line, but only so much of that as would have foreseen the last one best. Where lines foresee nothing,
that is holding it, as a scheduler with fewer steps does; where they do, it is the second order that such a scheduler
lacks.

Caching all of a network's answer is what TeaCache does (arXiv 2411.19108), extrapolating instead of holding it what
TaylorSeer does (arXiv 2503.06923). They work on networks' features and outputs; end results have guidance in them, and
change the least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from vidkit.params import GenerationParams
from vidkit.pipelines.forwards import replaced
from vidkit.pipelines.watch import denoisers

if TYPE_CHECKING:
    import torch

#: whose steps are a function of that guess, which is known of no other scheduler
SCHEDULER: Final = "EulerDiscreteScheduler"

#: steps that are computed at least after the first, where there are as many
LEAST: Final = 5

#: By how much of itself an end result may have changed in a step from which on steps are skipped. With guidance the
#: first steps change it by several times that, and decide what the clip shows.
SETTLED: Final = 0.25


@contextmanager
def skipping(pipe: Any, params: GenerationParams) -> Iterator[list[str]]:
    """While the block runs, a pipeline's calls compute as few steps as the request allows: all, but at speed turbo.

    Gives a list that has notes for the clip after the block.
    """
    notes: list[str] = []
    name = type(pipe.scheduler).__name__
    if params.speed != "turbo":
        yield notes
    elif name != SCHEDULER:
        notes.append(f"speed turbo skips no steps of {name}: all were computed.")
        yield notes
    else:
        steps = Steps(pipe.scheduler, params.turbo_share)
        with ExitStack() as stack:
            stack.enter_context(replaced(pipe.scheduler, "step", steps.step))
            for network in denoisers(pipe):
                stack.enter_context(replaced(network, "forward", steps.answer))
            yield notes
        notes.append(f"speed turbo: {steps.computed} of {steps.all} denoising steps were computed.")


class Steps:
    """Of a pipeline's calls, one after the other, which of their steps are computed. share: of them, in ]0, 1]."""

    def __init__(self, scheduler: Any, share: float) -> None:
        self._scheduler, self._share = scheduler, share
        self.computed = self.all = 0
        self._begin_call()

    def _begin_call(self) -> None:
        self._due: frozenset[int] | None = None  # the numbers of the steps that are computed; None: not settled yet
        self._answers: dict[Any, Any] = {}  # of the networks, by their forwards
        self._known: list[tuple[int, torch.Tensor]] = []  # of the last two computed steps, number and end result
        self._straight: torch.Tensor | float = 0.0  # how much of a straight line is gone along

    def answer(self, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """A network's: the last one, where the step is skipped. Nobody looks at it, but the pipeline takes one."""
        if self._is_due():
            self._answers[forward] = forward(*arguments, **options)
        return self._answers[forward]

    def step(
        self,
        own: Callable[..., Any],
        output: torch.Tensor,
        time: Any,
        sample: torch.Tensor,
        *rest: Any,
        **more: Any,
    ) -> Any:
        """The scheduler's: from a network's (guided) output and the latents to the next latents."""
        number = self._number()
        self.all += 1
        if self._is_due():
            self.computed += 1
            result = own(output, time, sample, *rest, **more)
            self._learn(number, result[1])
        else:
            told = self._output_for(self._foreseen(number), sample.float()).to(output.dtype)
            result = own(told, time, sample, *rest, **more)
        if number == self._last():
            self._begin_call()
        return result

    def _is_due(self) -> bool:
        return self._due is None or self._number() in self._due

    def _number(self) -> int:
        """Of the step that runs."""
        return int(self._scheduler.step_index)

    def _last(self) -> int:
        return len(self._scheduler.timesteps) - 1

    def _learn(self, number: int, result: torch.Tensor) -> None:
        if self._known:
            change = result - self._known[-1][1]
            if len(self._known) == 2:
                line = self._change(number)
                # the part that would have been nearest; a tensor, so that the host need not wait for it
                self._straight = ((line * change).sum() / line.square().sum().clamp_min(1e-12)).clamp(0, 1)
            if self._due is None and bool(change.norm() <= SETTLED * result.norm()):
                self._due = spread(number, self._last(), self._share)
        self._known = [*self._known, (number, result)][-2:]

    def _foreseen(self, number: int) -> torch.Tensor:
        """The end result of a step after the last that was computed."""
        latest = self._known[-1][1]
        return latest if len(self._known) < 2 else latest + self._straight * self._change(number)

    def _change(self, number: int) -> torch.Tensor:
        """From the last computed step to this one, on a straight line through the last two."""
        (before, first), (last, second) = self._known
        return (second - first) * ((number - last) / (last - before))

    def _output_for(self, result: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """What a network would have said to make it that end result: `EulerDiscreteScheduler.step` turned round."""
        sigma = float(self._scheduler.sigmas[self._number()])  # it is on the CPU
        given: torch.Tensor
        match self._scheduler.config.prediction_type:
            case "epsilon":
                given = (sample - result) / sigma
            case "v_prediction":
                given = (sample / (sigma**2 + 1) - result) * ((sigma**2 + 1) ** 0.5 / sigma)
            case _:  # "sample"
                given = result
        return given


def spread(first: int, last: int, share: float) -> frozenset[int]:
    """The steps that are computed: as many as the share says, evenly from the first of those left to the last."""
    steps = last - first + 1
    count = min(steps, max(LEAST, math.ceil(share * steps - 1e-9)))  # 0.28 of 25 are 7
    return frozenset(first + round(number * (last - first) / max(count - 1, 1)) for number in range(count))
