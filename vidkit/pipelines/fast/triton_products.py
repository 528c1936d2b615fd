"""Triton kernels around products of matrices and convolutions: a feed-forward's gate, attention over frames, and
upsampling, each without the tensors that would lie between.

Products are summed up in single precision. `fused_products` has what calls them; imported where Triton is.
"""

from __future__ import annotations

import triton  # type: ignore[import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,unused-ignore]

#: exp(x) is 2 to the power of so much times x
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def normal_distribution(x):  # type: ignore[no-untyped-def]
    """The standard normal distribution's share below x, of which GELU is x times. Off by 1.6e-5 at most, and GELU by
    7e-5, where values of half precision near 1 are 4.9e-4 apart.

    1/2 and an odd polynomial of degree 17, fitted on [-4.2, 4.2] with the least largest error there (Lawson's
    algorithm), which ends at 0 and 1. It takes multiplications and additions alone: the error function by exponentials
    and divisions takes as long as the product of matrices before it where channels are few. With it GEGLU takes 5 to 18
    % longer on an H200, at seven of eight sizes.
    """
    inner = tl.minimum(tl.maximum(x, -4.2), 4.2)
    square = inner * inner
    series = 7.388215733650227e-11 * square - 6.705344723911821e-09
    series = series * square + 2.686027471554553e-07
    series = series * square - 6.345357178361155e-06
    series = series * square + 0.00010032061254605651
    series = series * square - 0.0011466937139630318
    series = series * square + 0.009930300526320934
    series = series * square - 0.06650475412607193
    series = series * square + 0.3989734649658203
    return series * inner + 0.5


@triton.jit(do_not_specialize=["rows", "channels", "inputs"])  # type: ignore[untyped-decorator,unused-ignore]
def geglu(  # type: ignore[no-untyped-def]
    tokens, weight, bias, target, rows, channels, inputs,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, INPUTS: tl.constexpr, TOGETHER: tl.constexpr,
    BAND: tl.constexpr,
):  # fmt: skip
    """target = value x GELU(gate), where both are products of the tokens.

    tokens: (rows, inputs), weight: (2 x channels, inputs), target: (rows, channels), as tensor descriptors in blocks of
    (ROWS, INPUTS), (2 x CHANNELS, INPUTS) and (ROWS, CHANNELS). bias: (2 x channels,), the value's first. Of the weight
    TOGETHER rows of the value and as many of the gate take turns, so that both are in one thread's registers. Each
    program takes one block after the other, BAND of them below each other in turn, whose weights are the same.
    """
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(channels, CHANNELS)
    for block in tl.range(tl.program_id(0), down * across, tl.num_programs(0), flatten=True):
        first = block // (BAND * across) * BAND
        height = tl.minimum(down - first, BAND)
        within = block % (BAND * across)
        row, channel = (first + within % height) * ROWS, within // height * CHANNELS
        both = tl.zeros((ROWS, 2 * CHANNELS), tl.float32)
        for start in range(0, inputs, INPUTS):
            both = tl.dot(tokens.load([row, start]), weight.load([2 * channel, start]).T, both)
        if HAS_BIAS:
            column = tl.arange(0, 2 * CHANNELS)
            turn, within_turn = column // (2 * TOGETHER), column % (2 * TOGETHER)
            its_channel = channel + turn * TOGETHER + within_turn % TOGETHER
            place = within_turn // TOGETHER * channels + its_channel
            both += tl.load(bias + place, mask=its_channel < channels, other=0).to(tl.float32)[None, :]
        turns = tl.reshape(both, (ROWS, CHANNELS // TOGETHER, 2, TOGETHER))
        value, gate = tl.split(tl.permute(turns, (0, 1, 3, 2)))
        value, gate = tl.reshape(value, (ROWS, CHANNELS)), tl.reshape(gate, (ROWS, CHANNELS))
        value = value * gate * normal_distribution(gate)
        target.store([row, channel], value.to(target.dtype))


@triton.jit(do_not_specialize=["pixels", "frames", "heads"])  # type: ignore[untyped-decorator,unused-ignore]
def over_frames(  # type: ignore[no-untyped-def]
    query, key, value, target, pixels, frames, heads, scale, query_row, key_row, value_row,
    TOKENS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Attention of each pixel's frames among themselves, by one head of some pixels a program.

    query, key, value: (videos x frames, pixels, heads x WIDTH), with so many values from a pixel to the next. target:
    the same, contiguous. scale: of the scores. TOKENS: at least the frames. PADDED: at least WIDTH.
    """
    block, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    at_once = TOKENS // frames
    token = tl.arange(0, TOKENS)
    pixel = block * at_once + token // frames
    row = (tl.program_id(1) * frames + token % frames).to(tl.int64) * pixels + pixel
    channel = head * WIDTH + tl.arange(0, PADDED)
    is_there = (token < at_once * frames) & (pixel < pixels)
    mask = is_there[:, None] & (tl.arange(0, PADDED) < WIDTH)[None, :]
    q = tl.load(query + row[:, None] * query_row + channel[None, :], mask=mask, other=0)
    k = tl.load(key + row[:, None] * key_row + channel[None, :], mask=mask, other=0)
    v = tl.load(value + row[:, None] * value_row + channel[None, :], mask=mask, other=0)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)
    scores = tl.where(pixel[:, None] == pixel[None, :], scores, float("-inf"))
    shares = tl.exp2(scores - tl.max(scores, 1)[:, None])
    result = tl.dot(shares.to(v.dtype), v, input_precision="ieee") / tl.sum(shares, 1)[:, None]
    place = row[:, None] * (heads * WIDTH) + channel[None, :]
    tl.store(target + place, result.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["outputs", "of_output", "of_row", "of_column"])  # type: ignore[untyped-decorator,unused-ignore]
def folded_weight(  # type: ignore[no-untyped-def]
    weight, target, outputs, inputs, of_output, of_input, of_row, of_column, INPUTS: tl.constexpr
):
    """Of a convolution over 3 x 3 pixels of a map that was made twice as large, the four over 2 x 2 of the small one.

    Pixels of the large map that come from the same small one have one weight, their sum. weight: (outputs, inputs, 3,
    3), of any strides. target: (2, 2, outputs, 2, 2, inputs), the first two the rows and columns of the large map in
    turn.
    """
    output = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    mask = channel < inputs
    for a in tl.static_range(2):
        for b in tl.static_range(2):
            for y in tl.static_range(2):
                for x in tl.static_range(2):
                    total = tl.zeros((INPUTS,), tl.float32)
                    # of three rows the first and the other two, in the large map's even rows; else the other way round
                    for row in tl.static_range(y * (1 + a), 1 + a + y * (2 - a)):
                        for column in tl.static_range(x * (1 + b), 1 + b + x * (2 - b)):
                            place = output * of_output + channel * of_input + row * of_row + column * of_column
                            total += tl.load(weight + place, mask=mask, other=0).to(tl.float32)
                    place = (((2 * a + b) * outputs + output) * 4 + 2 * y + x) * inputs + channel
                    tl.store(target + place, total.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator,unused-ignore]
def unfolded(  # type: ignore[no-untyped-def]
    source, bias, target, height, width, channels, HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """The large map of what the four convolutions gave, and a bias.

    source: (pictures, height + 1, width + 1, 2, 2, channels). target: (pictures, 2 x height, 2 x width, channels).
    """
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    picture = tl.program_id(2).to(tl.int64)
    y, x = pixel // (2 * width), pixel % (2 * width)
    mask = (y < 2 * height)[:, None] & (channel < channels)[None, :]
    small = (picture * (height + 1) + y // 2 + y % 2) * (width + 1) + x // 2 + x % 2
    place = (small * 4 + 2 * (y % 2) + x % 2)[:, None] * channels + channel[None, :]
    value = tl.load(source + place, mask=mask, other=0)
    if HAS_BIAS:
        more = tl.load(bias + channel, mask=channel < channels, other=0).to(tl.float32)
        value = value.to(tl.float32) + more[None, :]
    place = (picture * 4 * height * width + pixel)[:, None] * channels + channel[None, :]
    tl.store(target + place, value.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width", "rows", "columns"])  # type: ignore[untyped-decorator,unused-ignore]
def doubled(  # type: ignore[no-untyped-def]
    source, target, height, width, rows, columns, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Each pixel as four. source: (pictures, height, width, channels). target: (pictures, rows, columns, channels), of
    which the last row and column may be missing."""
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    picture = tl.program_id(2).to(tl.int64)
    y, x = pixel // columns, pixel % columns
    mask = (y < rows)[:, None] & (channel < channels)[None, :]
    place = ((picture * height + y // 2) * width + x // 2)[:, None] * channels + channel[None, :]
    value = tl.load(source + place, mask=mask, other=0)
    place = (picture * rows * columns + pixel)[:, None] * channels + channel[None, :]
    tl.store(target + place, value, mask=mask)
