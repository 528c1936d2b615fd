"""Operations on a GPU by Triton's kernels: each reads and writes its tensors once, with channels last throughout.

PyTorch's own group norm has no kernel for channels last, and on an H200 takes a third of SVD's decoding and 7 % of a
step of its UNet; the two halves of a GEGLU take another 15 % of a step (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

import functools
import logging
import math
import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import first_line

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("vidkit")

#: Elements that a program has in its registers at once: 32 for each thread of its one warp. With 4096 and four warps,
#: layer norms of 320 channels took a tenth longer on an H200, and no kernel less.
ELEMENTS: Final = 1024
WARPS: Final = 1

#: Channels and rows of them. Of half precision 64 are 128 bytes, what a GPU reads at once. Wider tiles were as fast on
#: an H200, and each is compiled for itself.
CHANNELS: Final = 64
ROWS: Final = ELEMENTS // CHANNELS

#: rows that one program of a norm sums up: few enough that small maps keep a card busy
ROWS_SUMMED: Final = 512

#: Rows, warps and loads underway of a program that sums up, which has more to wait for than others: on an H200 0.087 ms
#: for 0.118 of SVD's largest maps, 0.156 for 0.211 of its decoder's.
ROWS_AT_ONCE: Final = 2 * ROWS
WARPS_AT_ONCE: Final = 2 * WARPS
STAGES: Final = 3

#: Partial sums that are added at once, and channels of a group that there is room for with them, so that three serve
#: all layers of the published networks (4 to 80 channels). Most have few: room for 32 takes 7 microseconds on an H200
#: to add up 8, and room for 8 takes 4. Groups of many sums have few channels: 1,152 take 12 microseconds for 40.
FEW_SUMS: Final = (8, 128)
MANY_SUMS: Final = (32, 128)
MANY_NARROW_SUMS: Final = (256, 16)


def takes(tensor: torch.Tensor) -> bool:
    """Whether these kernels compute with a tensor: on a CUDA device where Triton works, or in Triton's interpreter."""
    return works() if tensor.device.type == "cuda" else is_interpreted() and tensor.device.type == "cpu"


def is_interpreted() -> bool:
    """Triton's own switch, with which kernels run on a CPU, one program after the other."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def works() -> bool:
    """Whether Triton can compile and start a kernel, for which it needs a C compiler and Python's headers."""
    import torch

    try:
        gated(torch.zeros(1, 2, dtype=torch.float16, device="cuda"))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001  a compiler may fail in any way, and nothing depends on it
        logger.warning("Triton compiles no kernels here, so speed fast is slower: %s", first_line(error))
        return False
    return True


def group_norm(
    norm: Any, rows: torch.Tensor, added: torch.Tensor | None, silu: bool, more: torch.Tensor | None = None
) -> torch.Tensor:
    """A `torch.nn.GroupNorm` of rows to which something is added first. rows: (pictures, pixels, channels), contiguous.

    added: (all, channels), each for as many pixels in turn; or (channels,), for all. more: (channels,), with which the
    rows themselves become rows + added + more.
    """
    import torch

    from vidkit.pipelines.fast import triton_kernels as kernels

    pictures, count, channels = rows.shape
    per_added = pictures * count if added is None else pictures * count * channels // added.numel()
    parts = max(1, count // per_added)
    summed = min(ROWS_SUMMED, math.ceil(count // parts / ROWS_AT_ONCE) * ROWS_AT_ONCE)
    shares = math.ceil(count // parts / summed)
    sums = rows.new_empty((pictures, parts * shares, 2, channels), dtype=torch.float32)
    factors = rows.new_empty((pictures, 2, channels), dtype=torch.float32)
    result = torch.empty_like(rows)
    is_added, column_tiles = added is not None, math.ceil(channels / CHANNELS)
    added = contiguous(added, rows)
    width = channels // norm.num_groups
    with device_of(rows):
        kernels.group_sums[(shares, column_tiles, pictures * parts)](
            rows, added, sums, count // parts, parts, channels, summed,
            ROWS_AT_ONCE, CHANNELS, STAGES, num_warps=WARPS_AT_ONCE,
        )  # fmt: skip
        kernels.group_factors[(norm.num_groups, pictures)](
            rows, added, sums, norm.weight, norm.bias, factors, count, channels, width, parts * shares,
            int(is_added), per_added, norm.eps, *tile_of_sums(parts * shares, width),
        )  # fmt: skip
        kernels.group_norm[(math.ceil(count / ROWS), column_tiles, pictures)](
            rows, added, factors, result, contiguous(more, rows), count, channels, per_added,
            is_added, more is not None, silu, ROWS, CHANNELS, num_warps=WARPS,
        )  # fmt: skip
    return result


def tile_of_sums(count: int, width: int) -> tuple[int, int]:
    """Sums and channels that `group_factors` adds up at once. count: of sums. width: channels of a group."""
    if count <= FEW_SUMS[0]:
        sums, channels = FEW_SUMS
    elif width > MANY_NARROW_SUMS[1] or count <= MANY_SUMS[0]:
        sums, channels = MANY_SUMS
    else:
        sums, channels = MANY_NARROW_SUMS
    return sums, max(channels, power_of_2(width))


def layer_norm(
    norm: Any,
    tokens: torch.Tensor,
    added: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    *,
    total: torch.Tensor | None = None,
    more: torch.Tensor | None = None,
    share: torch.Tensor | None = None,
) -> torch.Tensor:
    """A `torch.nn.LayerNorm` of tokens + added, over the last dimension, and shift.

    tokens: contiguous. added, shift: (some, channels), each for as many tokens in turn. total: gets tokens + added +
    more, and may be the tokens. more: (channels,). share: (1,), by which the total gets that, and keeps what it was.
    """
    import torch

    from vidkit.pipelines.fast import triton_kernels as kernels

    channels = tokens.shape[-1]
    rows, width = tokens.numel() // channels, power_of_2(channels)
    step = max(1, ELEMENTS // width)
    per_added, per_shift = (rows if some is None else rows * channels // some.numel() for some in (added, shift))
    result = torch.empty_like(tokens)
    with device_of(tokens):
        kernels.layer_norm[(math.ceil(rows / step),)](
            tokens, contiguous(added, tokens), norm.weight, norm.bias, contiguous(shift, tokens), result,
            contiguous(more, tokens), tokens if total is None else total, contiguous(share, tokens),
            rows, channels, per_added, per_shift, norm.eps, added is not None, shift is not None, total is not None,
            more is not None, share is not None, step, width, num_warps=max(WARPS, width // ELEMENTS),
        )  # fmt: skip
    return result


def contiguous(tensor: torch.Tensor | None, instead: torch.Tensor) -> torch.Tensor:
    """What a kernel is given of a tensor that may not be there: then another, which it does not read."""
    return instead if tensor is None else tensor.contiguous()


def gated(both: torch.Tensor) -> torch.Tensor:
    """A GEGLU's result of its projection: the first half of the channels times GELU of the second. both: contiguous."""

    from vidkit.pipelines.fast import triton_kernels as kernels

    channels = both.shape[-1] // 2
    rows = both.numel() // (2 * channels)
    result = both.new_empty((*both.shape[:-1], channels))
    with device_of(both):
        kernels.gated[(math.ceil(rows / ROWS), math.ceil(channels / CHANNELS))](
            both, result, rows, channels, ROWS, CHANNELS, num_warps=WARPS
        )
    return result


def weighted_sum(
    one: torch.Tensor,
    other: torch.Tensor | None,
    bias: torch.Tensor | None,
    shares: torch.Tensor | None,
    target: torch.Tensor,
) -> torch.Tensor:
    """target = one + shares x (other + bias).

    one, other, target: (outer, rows, channels), of any strides but the last, which is 1. bias: (channels,), or (outer,
    channels). shares: (outer,).
    """

    from vidkit.pipelines.fast import triton_kernels as kernels

    outer, rows, channels = target.shape
    given = one if other is None else other
    if bias is not None:
        bias = bias.contiguous()
    with device_of(target):
        kernels.weighted_sum[(math.ceil(rows / ROWS), math.ceil(channels / CHANNELS), outer)](
            one, given, one if bias is None else bias, one if shares is None else shares.contiguous(), target,
            rows, channels, *one.stride()[:2], *given.stride()[:2], *target.stride()[:2],
            channels if bias is not None and bias.dim() == 2 else 0,
            other is not None, bias is not None, shares is not None, ROWS, CHANNELS, num_warps=WARPS,
        )  # fmt: skip
    return target


def concatenated(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The channels of both. one, other: (all, rows, channels), contiguous, of as many channels as they like."""
    from vidkit.pipelines.fast import triton_kernels as kernels

    channels = one.shape[-1], other.shape[-1]
    result = one.new_empty((*one.shape[:-1], sum(channels)))
    rows = one.numel() // channels[0]
    with device_of(one):
        kernels.concatenated[(math.ceil(rows / ROWS), math.ceil(sum(channels) / CHANNELS))](
            one, other, result, rows, *channels, ROWS, CHANNELS, num_warps=WARPS
        )
    return result


def device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """While the block runs, kernels start on a tensor's device."""
    import torch

    found: AbstractContextManager[Any] = torch.cuda.device(tensor.device.index if tensor.is_cuda else -1)
    return found


def power_of_2(number: int) -> int:
    """The least that is as large."""
    return 1 << (number - 1).bit_length()
