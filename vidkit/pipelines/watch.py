"""Progress and cancellation inside a step: a callback as each layer of a network begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def watched(blocks: list[nn.Module], on_block: Callable[[float], None]) -> Iterator[None]:
    """Call on_block with the share of the blocks that are done, 0 <= share < 1, before each runs; it may raise.

    blocks: in the order in which one call of the network runs them.
    """
    handles = []
    for number, block in enumerate(blocks):

        def before(module: nn.Module, arguments: Any, share: float = number / len(blocks)) -> None:
            on_block(share)

        handles.append(block.register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def denoisers(pipe: Any) -> list[Any]:
    """The networks of one denoising step, in their order: the ControlNet, where there is one, and the UNet."""
    found = (getattr(pipe, name, None) for name in ("controlnet", "unet"))
    return [network for network in found if network is not None]


def denoiser_layers(pipe: Any) -> list[nn.Module]:
    """The layers of one denoising step, and of the ControlNet before it: some forty in a full-size model."""
    return [layer for unet in denoisers(pipe) for block in blocks_of(unet) for layer in block_layers(block)]


def blocks_of(unet: Any) -> list[Any]:
    """Of a UNet or ControlNet, in the order in which they run."""
    return [*unet.down_blocks, unet.mid_block, *(getattr(unet, "up_blocks", None) or ())]


def block_layers(block: Any) -> list[nn.Module]:
    return [layer for together in layers_in_turn(block) for layer in together if layer is not None]


def layers_in_turn(block: Any) -> Iterator[tuple[Any, ...]]:
    """Of a UNet's block a resnet, an attention and a motion module at a time: None for those that it does not have."""
    kinds = [getattr(block, kind, None) or () for kind in ("resnets", "attentions", "motion_modules")]
    return zip_longest(*kinds)


def encoder_blocks(vae: Any) -> list[nn.Module]:
    return [*vae.encoder.down_blocks, vae.encoder.mid_block]


def decoder_blocks(vae: Any) -> list[nn.Module]:
    return [vae.decoder.mid_block, *vae.decoder.up_blocks]
