"""Feed-forward layers' gates, attention over frames and upsampling by Triton's kernels, on a GPU.

Each is a product of matrices, or convolution, with what torch computes before or after it as an operation of its own.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import first_line
from vidkit.pipelines.fast.fused import CHANNELS, ROWS, WARPS, contiguous, device_of, power_of_2

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("vidkit")

#: rows of a GEGLU's value, and then of its gate, that lie together: 16 bytes of half precision
TOGETHER: Final = 8

#: blocks of a product below each other that are computed in turn, while their weights are in the cache
BAND: Final = 8

#: shared memory of a program of `geglu` with its larger block: three stages of (128 + 256) x 64 values
LARGE_BLOCK_BYTES: Final = 3 * (128 + 256) * 64 * 2

#: tokens of a program of attention over frames: of 32 to 128, fewer were quicker on an H200
LEAST_TOKENS: Final = 32

#: frames that such a program has at most
MOST_FRAMES: Final = 128

#: inputs of a convolution whose weights one program folds
INPUTS_FOLDED: Final = 256

#: Pixels of maps whose border is made by a copy before they are upsampled: for 32 maps of 16 x 16 and 1280 channels
#: cuDNN 9.19 takes 1.49 ms with a border of its own, and 0.70 so. Larger ones take up to 20 % longer so.
MOST_PIXELS_COPIED: Final = 256

#: of a product of matrices, on tensor cores
LEAST_WIDTH: Final = 16


@dataclass(frozen=True)
class Block:
    """What a program of `geglu` computes at once. programs: how many there are at most; 0: one for each block."""

    rows: int
    channels: int
    inputs: int
    warps: int
    stages: int
    programs: int = 0


#: takes 64 KiB of a multiprocessor's shared memory
SMALL_BLOCK: Final = Block(128, 64, 64, 4, 2)


@functools.cache
def block_of_product(device: torch.device) -> Block | None:
    """The quickest that Triton compiles here; None: none. On an H200 the large one takes 1.28 for 1.41 ms.

    It is compiled once for all sizes, and so tried with the least.
    """
    import torch

    if device.type != "cuda":
        return SMALL_BLOCK
    nothing_drawn = torch.nn.Linear(64, 128, dtype=torch.float16, device="meta")
    projection = nothing_drawn.to_empty(device=device)
    for block in blocks_of(torch.cuda.get_device_properties(device)):
        try:
            geglu(torch.zeros(16, 64, dtype=torch.float16, device=device), projection, block)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a compiler may fail in any way, and nothing depends on it
            logger.info("no GEGLU in one kernel by %s: %s", block, first_line(error))
        else:
            return block
    return None


def blocks_of(card: Any) -> Sequence[Block]:
    """Those that a card has the shared memory for, the quickest first. card: torch's properties of it."""
    large = Block(128, 128, 64, 8, 3, programs=card.multi_processor_count)
    return (large, SMALL_BLOCK) if card.shared_memory_per_block_optin >= LARGE_BLOCK_BYTES else (SMALL_BLOCK,)


def block_for(tokens: torch.Tensor, projection: Any) -> Block | None:
    """With which `geglu` computes these: of half precision, in rows of 16 bytes. None: it does not."""
    import torch

    fits = (
        type(projection) is torch.nn.Linear
        and tokens.dtype.itemsize == 2
        and tokens.dtype == projection.weight.dtype
        and projection.in_features % TOGETHER == 0
        and projection.out_features % (2 * TOGETHER) == 0
    )
    return block_of_product(tokens.device) if fits else None


def geglu(tokens: torch.Tensor, projection: Any, block: Block) -> torch.Tensor:
    """A GEGLU of (..., inputs), by its projection's two halves: (..., channels). The two halves are never in memory,
    which are twice as large as the result: 1.70 ms for 2.25 of SVD's largest maps on an H200."""
    from triton.tools.tensor_descriptor import TensorDescriptor  # type: ignore[import-untyped,unused-ignore]

    from vidkit.pipelines.fast import triton_products as kernels

    rows = tokens.reshape(-1, tokens.shape[-1])
    channels = projection.out_features // 2
    result = rows.new_empty((rows.shape[0], channels))
    count = math.ceil(rows.shape[0] / block.rows) * math.ceil(channels / block.channels)
    with device_of(tokens):
        kernels.geglu[(min(count, block.programs) if block.programs else count,)](
            TensorDescriptor.from_tensor(rows, [block.rows, block.inputs]),
            TensorDescriptor.from_tensor(in_turns(projection.weight), [2 * block.channels, block.inputs]),
            contiguous(projection.bias, result),
            TensorDescriptor.from_tensor(result, [block.rows, block.channels]),
            rows.shape[0], channels, rows.shape[1],
            projection.bias is not None, block.rows, block.channels, block.inputs, TOGETHER, BAND,
            num_warps=block.warps, num_stages=block.stages,
        )  # fmt: skip
    return result.view(*tokens.shape[:-1], channels)


def in_turns(weight: torch.Tensor) -> torch.Tensor:
    """Rows of the first half and of the second take turns, some at a time."""
    import torch

    value, gate = weight.reshape(2, -1, TOGETHER * weight.shape[1])
    return torch.stack((value, gate), 1).view(weight.shape)


def over_frames(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, frames: int, heads: int) -> torch.Tensor:
    """Attention of each pixel's frames among themselves. (videos x frames, pixels, channels) each, to the same.

    Their last dimension is contiguous, and from pixel to pixel and frame to frame they are evenly spaced.
    """
    from vidkit.pipelines.fast import triton_products as kernels

    pictures, pixels, channels = query.shape
    width, tokens = channels // heads, max(LEAST_TOKENS, power_of_2(frames))
    result = query.new_empty(query.shape)
    programs = math.ceil(pixels / (tokens // frames)) * heads
    with device_of(query):
        kernels.over_frames[(programs, pictures // frames)](
            query, key, value, result, pixels, frames, heads, width**-0.5,
            *(tensor.stride(1) for tensor in (query, key, value)), tokens, width, max(LEAST_WIDTH, power_of_2(width)),
            num_warps=tokens // 16,
        )  # fmt: skip
    return result


def upsampled(convolution: Any, maps: torch.Tensor) -> torch.Tensor:
    """A `Conv2d` over 3 x 3 pixels of maps made twice as large. (pictures, channels, height, width), channels last.

    Four convolutions over 2 x 2 pixels of the maps as they are: 4/9 of the work, and the large map is written once.
    """
    import torch

    from vidkit.pipelines.fast import triton_products as kernels

    pictures, inputs, height, width = maps.shape
    outputs = convolution.out_channels
    empty = functools.partial(torch.empty, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    weight = empty((4 * outputs, inputs, 2, 2))
    with device_of(maps):
        kernels.folded_weight[(outputs, math.ceil(inputs / INPUTS_FOLDED))](
            convolution.weight, weight, outputs, inputs, *convolution.weight.stride(), INPUTS_FOLDED
        )
    border = 1
    if height * width <= MOST_PIXELS_COPIED:
        maps, border = torch.nn.functional.pad(maps, (1, 1, 1, 1)), 0
    parts = torch.nn.functional.conv2d(maps, weight, padding=border).contiguous(memory_format=torch.channels_last)
    result: torch.Tensor = empty((pictures, outputs, 2 * height, 2 * width))
    with device_of(maps):
        kernels.unfolded[(math.ceil(4 * height * width / ROWS), math.ceil(outputs / CHANNELS), pictures)](
            parts, contiguous(convolution.bias, parts), result, height, width, outputs,
            convolution.bias is not None, ROWS, CHANNELS, num_warps=WARPS,
        )  # fmt: skip
    return result


def doubled(maps: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Maps made twice as large, or less by a row or column. (pictures, channels, height, width), channels last.

    torch's own copies 64 pictures and more into another layout before.
    """
    import torch

    from vidkit.pipelines.fast import triton_products as kernels

    pictures, channels, height, width = maps.shape
    result = torch.empty(
        (pictures, channels, rows, columns), dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last
    )
    with device_of(maps):
        kernels.doubled[(math.ceil(rows * columns / ROWS), math.ceil(channels / CHANNELS), pictures)](
            maps, result, height, width, rows, columns, channels, ROWS, CHANNELS, num_warps=WARPS
        )
    return result
