"""Which layer of which network gets which fast forward, and how it loses it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from vidkit.pipelines.fast import blocks, fused, layers
from vidkit.pipelines.fast.attention import Texts
from vidkit.pipelines.fast.guidance import ask_again, ask_once
from vidkit.pipelines.forwards import Forward
from vidkit.pipelines.watch import denoisers

#: fast forwards of the layers around transformer blocks, by class
LAYERS: Final[dict[str, Callable[..., Any]]] = {
    "ResnetBlock2D": layers.resnet,
    "SpatioTemporalResBlock": layers.spatio_temporal_resnet,
    "TransformerSpatioTemporalModel": layers.spatio_temporal_transformer,
    "Transformer2DModel": layers.transformer,
    "AnimateDiffTransformer3D": layers.motion_module,
}


class Measures(Protocol):
    """Of a plan, what decides which forwards are fast."""

    @property
    def device(self) -> str: ...
    @property
    def speed(self) -> str: ...
    @property
    def offload(self) -> str: ...
    @property
    def halves(self) -> bool: ...
    @property
    def slices(self) -> bool: ...
    @property
    def host_skips(self) -> bool: ...


def has_layers(measures: Measures) -> bool:
    """Whether the layers around transformer blocks are fast too. On a GPU that takes kernels of our own."""
    return not is_lean(measures) and (measures.device == "cpu" or fused.works())


def notes(measures: Measures) -> list[str]:
    """For the result: what of a speed a GPU goes without, and why.

    Known once the GPU was asked, so not when a clip is planned, which loads no torch.
    """
    if measures.speed == "exact" or is_lean(measures) or has_layers(measures):
        return []
    lacking = "Triton's kernels do not run on this GPU (vidkit doctor says what they need)"
    return [f"speed {measures.speed} does less here: {lacking}, only transformer blocks are faster."]


class FastForward(Forward):
    """One that is installed here."""


def install(pipe: Any, measures: Measures) -> None:
    """Let a pipeline's networks compute at the plan's speed. What they had of it before is taken back first.

    To be called before `lean.install`, which replaces forwards of layers that it needs.
    """
    remove(pipe)
    if measures.speed == "exact":
        return
    if type(pipe).__name__ == "StableVideoDiffusionPipeline":
        ask_once(pipe)
    # what is shared between steps has no slices, and one half's text is a new tensor each time
    texts = None if is_lean(measures) or measures.halves else Texts()
    for network in denoisers(pipe):
        install_blocks(network, texts)
    if has_layers(measures):
        for network in (*denoisers(pipe), pipe.vae.decoder):
            install_layers(network)


def install_blocks(network: Any, texts: Texts | None) -> None:
    for module in network.modules():
        match type(module).__name__:
            case "BasicTransformerBlock":
                replace(module, blocks.transformer_block, texts)
            case "TemporalBasicTransformerBlock":
                replace(module, blocks.temporal_block)


def install_layers(network: Any) -> None:
    replace(network.conv_in, layers.first_convolution)
    if hasattr(network, "conv_out"):  # a ControlNet has none
        replace(network.conv_out, layers.last_convolution)
    for module in network.modules():
        if forward := LAYERS.get(type(module).__name__):
            replace(module, forward)


def remove(pipe: Any) -> None:
    """Take back what `install` did: the networks compute as diffusers' again."""
    ask_again(pipe)
    for network in (*denoisers(pipe), pipe.vae):
        for module in network.modules():
            if isinstance(vars(module).get("forward"), FastForward):
                del module.forward


def is_lean(measures: Measures) -> bool:
    """Whether layers are `pipelines.lean`'s."""
    return measures.slices or measures.host_skips


def replace(module: Any, forward: Callable[..., Any], *first: Any) -> None:
    module.forward = FastForward(forward, (module, *first))
