"""The training step: mixed precision, CUDA graphs, and the optimiser."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import torch
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from torch import Tensor

from .state import Clock

EMA_DECAY = 0.999
SAVE_EVERY = 300  # steps: a run that is cut off keeps what it had
COMPILED = (BasicTransformerBlock, TemporalBasicTransformerBlock, ResnetBlock2D, TemporalResnetBlock)


def learning_rate(peak: float, now: float, step: int) -> float:
    """Warm-up, then constant, then linear to zero over the last half of the schedule."""
    return peak * min(1, (step + 1) / 100) * min(1, max(0.01, (1 - now) / 0.5))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with all singular values made about 1, by five Newton-Schulz iterations.

    Coefficients and iteration: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    x = matrices.to(torch.bfloat16) if matrices.is_cuda else matrices
    flip = x.shape[1] > x.shape[2]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        b = -4.7750 * a + 2.0315 * a @ a
        x = 3.4445 * x + b @ x
    return (x.mT if flip else x).to(matrices.dtype)


class Muon:
    """Momentum, orthogonalised, for weight matrices (convolutions as out x in*k); AdamW for everything else.

    The update is scaled to the size of AdamW's (0.2 * sqrt(longer side); Liu et al., "Muon is Scalable for LLM
    Training", 2025), so that one learning rate serves both. Matrices of a shape are treated together.
    """

    def __init__(self, named: dict[str, Tensor], weight_decay: float, momentum: float = 0.95) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        others = []
        for name, parameter in named.items():
            hidden = parameter.ndim >= 2 and not any(
                part in name for part in ("conv_in", "conv_out", "embed", "position", "quant")
            )
            if hidden:
                groups[parameter.shape].append(parameter)
            else:
                others.append(parameter)
        self.groups = [(parameters, [torch.zeros_like(p) for p in parameters]) for parameters in groups.values()]
        self.rate = torch.zeros((), device=others[0].device)
        cuda = others[0].is_cuda
        self.adam = torch.optim.AdamW(
            others,
            lr=self.rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=cuda,
            capturable=cuda,
            foreach=False if cuda else None,
        )

    def step(self) -> None:
        """One update at `self.rate`, which is a tensor: a recorded step reads it anew each time."""
        self.adam.step()
        for parameters, moments in self.groups:
            gradients = [p.grad for p in parameters]
            torch._foreach_lerp_(moments, gradients, 1 - self.momentum)
            ahead = torch._foreach_lerp(gradients, moments, self.momentum)  # Nesterov
            stacked = torch.stack([m.flatten(1) for m in ahead])
            longer = max(stacked.shape[1:])
            updates = orthogonalised(stacked) * (0.2 * longer**0.5 * self.rate)
            torch._foreach_mul_(parameters, 1 - self.rate * self.weight_decay)
            torch._foreach_sub_(parameters, [u.view_as(parameters[0]) for u in updates.unbind()])


class Trainer:
    """Full-precision weights over a half-precision working copy that computes (on CUDA; one copy on the CPU).

    Loss and gradients for each batch shape are recorded once as a CUDA graph: launching the kernels of so small a
    model one by one takes longer than running them.
    """

    def __init__(
        self, masters: dict[str, torch.nn.Module], peak_rate: float, weight_decay: float, compiled: bool = False
    ) -> None:
        self.masters = masters
        named = {f"{n}.{k}": p for n, m in masters.items() for k, p in m.train().named_parameters() if p.requires_grad}
        self.parameters = list(named.values())
        self.cuda = self.parameters[0].is_cuda
        dtype = torch.bfloat16 if self.cuda else torch.float32
        self.working = [copy.deepcopy(module).to(dtype) for module in masters.values()]
        if self.cuda and compiled:
            torch._dynamo.config.recompile_limit = 64
            for module in self.working:
                for part in module.modules():
                    if isinstance(part, COMPILED):
                        part.compile(dynamic=False)
        self.working_parameters = [p for module in self.working for p in module.parameters() if p.requires_grad]
        for parameter in self.parameters + self.working_parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradients = [p.grad for p in self.working_parameters]
        self.peak_rate = peak_rate
        self.optimiser = Muon(named, weight_decay)
        self.recorded: dict[object, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], dict[str, Tensor]]] = {}
        self.recorded_update: torch.cuda.CUDAGraph | None = None

    def gradient(self, loss: Callable[..., tuple[Tensor, ...]], inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Run loss(*modules, inputs) -> (batch,) losses and other results; fill the gradients of the losses' mean."""

        def run(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
            torch._foreach_zero_(self.gradients)
            results = loss(*self.working, given)
            results[0].mean().backward()
            return tuple(result.detach() for result in results)

        if not self.cuda:
            return run(inputs)
        key = tuple(value.shape for value in inputs.values())
        if key not in self.recorded:
            held = {name: value.clone() for name, value in inputs.items()}
            self.recorded[key] = *record(lambda: run(held)), held
        graph, results, held = self.recorded[key]
        for name, value in inputs.items():
            held[name].copy_(value)
        graph.replay()
        return tuple(result.clone() for result in results)

    def step(self, clock: Clock) -> None:
        rate = learning_rate(self.peak_rate, clock.now, clock.step)
        if not self.cuda:
            self.optimiser.rate.fill_(rate)
            self.update()
            return
        if self.recorded_update is None:  # at rate zero: recording runs the update a few times
            self.recorded_update, _ = record(self.update)
        self.optimiser.rate.fill_(rate)
        self.recorded_update.replay()

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_copy_([p.grad for p in self.parameters], self.gradients)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        torch._foreach_copy_(self.working_parameters, self.parameters)


Result = TypeVar("Result")


def record(work: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Work recorded as a CUDA graph, after three warm-up runs on a stream of their own; and where its results lie."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph, results


def frozen(vae: torch.nn.Module, compiled: bool) -> torch.nn.Module:
    """A copy of the autoencoder that makes the training's latents: half precision on CUDA, its encoder compiled."""
    copied = copy.deepcopy(vae).eval().requires_grad_(False)
    if next(copied.parameters()).is_cuda:
        copied = copied.to(torch.bfloat16)
        if compiled:
            copied.encoder.compile(dynamic=False)
    return copied


class Average:
    """Exponential moving average of modules' weights."""

    def __init__(self, modules: list[torch.nn.Module], copies: list[torch.nn.Module]) -> None:
        self.live = [p for m in modules for p in m.parameters()]
        self.kept = [p for m in copies for p in m.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.kept, [p.to(k.dtype) for p, k in zip(self.live, self.kept, strict=True)], 1 - decay)
