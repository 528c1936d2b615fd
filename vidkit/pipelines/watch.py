"""Progress and cancellation inside a step: a callback as each block of a network begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def unet_blocks(unet: Any) -> list[nn.Module]:
    return [*unet.down_blocks, unet.mid_block, *unet.up_blocks]


def decoder_blocks(vae: Any) -> list[nn.Module]:
    return [vae.decoder.mid_block, *vae.decoder.up_blocks]
