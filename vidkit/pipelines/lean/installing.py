"""Which layer of which network gets which lean forward, and how it loses it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, Final, Protocol

from vidkit.pipelines.forwards import Forward
from vidkit.pipelines.lean import layers, temporal
from vidkit.pipelines.lean.halves import by_halves
from vidkit.pipelines.lean.slicing import SLICE_BYTES, Slicing
from vidkit.pipelines.lean.statistics import group_norm

#: lean forwards of the layers of diffusers' blocks, by class
FORWARDS: Final[dict[str, Callable[..., Any]]] = {
    "ResnetBlock2D": layers.resnet,
    "Transformer2DModel": layers.transformer,
    "Attention": layers.attention,
    "Downsample2D": layers.downsampler,
    "Upsample2D": layers.upsampler,
    "SpatioTemporalResBlock": temporal.spatio_temporal_resnet,
    "TransformerSpatioTemporalModel": temporal.spatio_temporal_transformer,
    "AnimateDiffTransformer3D": temporal.motion_module,
}

#: a block's layers, in the order in which each of its steps takes them
KINDS: Final = ("resnets", "attentions", "motion_modules")


class Measures(Protocol):
    """Those of a plan that are taken here; what they do is said there."""

    @property
    def halves(self) -> bool: ...
    @property
    def slices(self) -> bool: ...
    @property
    def host_skips(self) -> bool: ...


class LeanForward(Forward):
    """One that is installed here."""


def install(pipe: Any, measures: Measures, slice_bytes: int = SLICE_BYTES) -> None:
    """Let a pipeline's networks compute as the measures say. Any that it had before are taken back first.

    To be called before other hooks (offload) wrap forwards; `remove` after these were taken off.
    """
    remove(pipe)
    parts = parts_of(pipe)
    networks = [part for name, part in parts.items() if name != "vae"]
    if measures.slices or measures.host_skips:
        how = Slicing(slice_bytes if measures.slices else None, measures.host_skips)
        for network in networks:
            install_network(network, how)
    if measures.slices and "vae" in parts:
        install_autoencoder(parts["vae"], how)
    if measures.halves:
        for network in networks:
            network.forward = LeanForward(by_halves, (network,))


def remove(pipe: Any) -> None:
    """Take back what `install` did: the networks compute as diffusers' again."""
    for part in parts_of(pipe).values():
        for module in part.modules():
            if isinstance(vars(module).get("forward"), LeanForward):
                del module.forward
        if type(part).__name__ == "AutoencoderKL":
            part.disable_slicing()


def parts_of(pipe: Any) -> dict[str, Any]:
    """Of a pipeline, what can compute leanly."""
    found = {name: getattr(pipe, name, None) for name in ("controlnet", "unet", "vae")}
    return {name: part for name, part in found.items() if part is not None}


def install_network(network: Any, how: Slicing) -> None:
    """A UNet, or the half of one that a ControlNet is."""
    is_unet = hasattr(network, "up_blocks")
    for block in network.down_blocks:
        skips = set(skip_layers(block))
        for layer in block_layers(block):
            give(layer, how, layer in skips)
    for layer in block_layers(network.mid_block):
        give(layer, how)
    if is_unet:
        replace(network.conv_in, layers.convolution, how, is_skip=True)
        for block in network.up_blocks:
            for layer in block_layers(block):
                give(layer, how)
        install_output(network, how)
    else:  # a ControlNet reshapes what its first convolution makes: that stays a tensor
        for convolution in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            replace(convolution, layers.residual_convolution, how)


def install_autoencoder(vae: Any, how: Slicing) -> None:
    """The temporal decoder; the plain autoencoder decodes frame by frame."""
    if type(vae).__name__ == "AutoencoderKL":
        vae.enable_slicing()
        return
    decoder = vae.decoder
    replace(decoder.conv_in, layers.convolution, how)
    for block in (decoder.mid_block, *decoder.up_blocks):
        for layer in block_layers(block):
            give(layer, how)
    install_output(decoder, how)


def install_output(network: Any, how: Slicing) -> None:
    replace(network.conv_norm_out, layers.when_read, how)
    replace(network.conv_act, layers.when_read, how)
    replace(network.conv_out, layers.last_convolution, how)


def skip_layers(block: Any) -> Iterator[Any]:
    """The layers of a down block whose results are skip connections: the last of each of its steps, and what makes the
    map smaller."""
    for step in zip_longest(*(getattr(block, kind, None) or () for kind in KINDS)):
        yield next(layer for layer in reversed(step) if layer is not None)
    yield from getattr(block, "downsamplers", None) or ()


def block_layers(block: Any) -> Iterator[Any]:
    for kind in (*KINDS, "downsamplers", "upsamplers"):
        yield from getattr(block, kind, None) or ()


def give(layer: Any, how: Slicing, is_skip: bool = False) -> None:
    replace(layer, FORWARDS[type(layer).__name__], how, is_skip)
    norms = {
        "SpatioTemporalResBlock": ("temporal_res_block.norm1", "temporal_res_block.norm2"),
        "AnimateDiffTransformer3D": ("norm",),
    }
    for name in norms.get(type(layer).__name__, ()):
        norm = layer.get_submodule(name)
        norm.forward = LeanForward(group_norm, (norm,))


def replace(module: Any, forward: Callable[..., Any], how: Slicing, is_skip: bool = False) -> None:
    module.forward = LeanForward(forward, (module, how, is_skip))
