"""Triton kernels over tensors whose channels lie together in memory: norms, gates and sums in one pass each.

Sums are taken in single precision whatever the tensors' type. `fused` has what calls them; imported where Triton is.

Rows are pixels of pictures or of videos, and fewer than 2^31: dividing larger numbers takes a large part of a kernel's
time. Numbers of elements may pass that. Channels beyond a tile's are masked.
"""

from __future__ import annotations

import triton  # type: ignore[import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,unused-ignore]

#: 1 / the square root of 2, of GELU by the error function
HALF_ROOT: tl.constexpr = tl.constexpr(0.7071067811865476)


@triton.jit(do_not_specialize=["rows", "parts", "rows_per_program"])  # type: ignore[untyped-decorator,unused-ignore]
def group_sums(  # type: ignore[no-untyped-def]
    source, added, sums, rows, parts, channels, rows_per_program,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """By channel, sums and sums of squares of a share of a norm's rows, less the value of the picture's first row.

    source: (pictures, parts, rows, channels). added: (pictures x parts, channels), to the rows of each part; not read
    of one part, for which it changes nothing here. sums: (pictures, parts x programs, 2, channels). Less a value that
    is near the mean, since squares of large numbers would lose what differs.
    """
    share, tile, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channel = tile * CHANNELS + tl.arange(0, CHANNELS)
    is_there = channel < channels
    first_part = part // parts * parts
    begin = tl.load(source + first_part.to(tl.int64) * rows * channels + channel, mask=is_there, other=0)
    begin = begin.to(tl.float32)
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    squares = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in tl.range(0, rows_per_program, ROWS, num_stages=STAGES):
        row = share * rows_per_program + start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & is_there[None, :]
        place = (part.to(tl.int64) * rows + row)[:, None] * channels + channel[None, :]
        value = tl.load(source + place, mask=mask, other=0).to(tl.float32)
        value = tl.where(mask, value - begin[None, :], 0.0)
        total += value
        squares += value * value
    of_rows, of_squares = tl.sum(total, 0), tl.sum(squares, 0)
    is_added = is_there & (parts > 1)  # as much to each of the rows, so that it can follow
    more = tl.load(added + part * channels + channel, mask=is_added, other=0).to(tl.float32)
    more -= tl.load(added + first_part * channels + channel, mask=is_added, other=0).to(tl.float32)
    count = tl.minimum(rows_per_program, rows - share * rows_per_program).to(tl.float32)
    of_squares += more * (2 * of_rows + count * more)
    of_rows += count * more
    target = sums + (part * tl.num_programs(0) + share).to(tl.int64) * 2 * channels + channel
    tl.store(target, of_rows, mask=is_there)
    tl.store(target + channels, of_squares, mask=is_there)


@triton.jit(do_not_specialize=["rows", "width", "shares", "has_added", "rows_per_added"])  # type: ignore[untyped-decorator,unused-ignore]
def group_factors(  # type: ignore[no-untyped-def]
    source, added, sums, weight, bias, factors, rows, channels, width, shares, has_added, rows_per_added, epsilon,
    SHARES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """What a group norm multiplies each channel by, and adds to it. factors: (pictures, 2, channels), single precision.

    source: (pictures, rows, channels). added: (all, channels), each for so many rows of the source in turn. sums:
    (pictures, shares, 2, channels), of `group_sums`. One group of one picture a program. width: channels of a group.
    """
    group, picture = tl.program_id(0), tl.program_id(1)
    within = tl.arange(0, WIDTH)
    is_there = within < width
    channel = group * width + within
    total = tl.zeros((SHARES, WIDTH), tl.float32)
    squares = tl.zeros((SHARES, WIDTH), tl.float32)
    for start in range(0, shares, SHARES):
        share = start + tl.arange(0, SHARES)
        mask = (share < shares)[:, None] & is_there[None, :]
        where = (picture * shares + share).to(tl.int64)[:, None] * 2 * channels + channel[None, :]
        total += tl.load(sums + where, mask=mask, other=0)
        squares += tl.load(sums + where + channels, mask=mask, other=0)
    first_row = picture.to(tl.int64) * rows
    begin = tl.load(source + first_row * channels + channel, mask=is_there, other=0).to(tl.float32)
    of_added = first_row // rows_per_added * channels + channel
    begin += tl.load(added + of_added, mask=is_there & (has_added != 0), other=0).to(tl.float32)
    distance = tl.sum(total, 0) / rows
    mean = begin + distance
    variance = tl.sum(squares, 0) / rows - distance * distance
    mean_of_all = tl.sum(tl.where(is_there, mean, 0.0), 0) / width
    apart = mean - mean_of_all
    variance_of_all = tl.sum(tl.where(is_there, variance + apart * apart, 0.0), 0) / width
    factor = 1.0 / tl.sqrt(variance_of_all + epsilon)
    factor = factor * tl.load(weight + channel, mask=is_there, other=0).to(tl.float32)
    target = factors + picture.to(tl.int64) * 2 * channels + channel
    tl.store(target, factor, mask=is_there)
    shift = tl.load(bias + channel, mask=is_there, other=0).to(tl.float32) - mean_of_all * factor
    tl.store(target + channels, shift, mask=is_there)


@triton.jit(do_not_specialize=["rows", "rows_per_added"])  # type: ignore[untyped-decorator,unused-ignore]
def group_norm(  # type: ignore[no-untyped-def]
    source, added, factors, target, more, rows, channels, rows_per_added,
    HAS_ADDED: tl.constexpr, HAS_MORE: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A group norm by its factors, and SiLU of it. source, added: as in `group_factors`. target: as the source. more:
    (channels,), added to the source."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    picture = tl.program_id(2)
    is_there = channel < channels
    mask = (row < rows)[:, None] & is_there[None, :]
    where = picture * rows + row
    place = where.to(tl.int64)[:, None] * channels + channel[None, :]
    value = tl.load(source + place, mask=mask, other=0).to(tl.float32)
    if HAS_ADDED:
        of_added = (where // rows_per_added)[:, None] * channels + channel[None, :]
        value += tl.load(added + of_added, mask=mask, other=0).to(tl.float32)
    factor = tl.load(factors + picture * 2 * channels + channel, mask=is_there, other=0)
    shift = tl.load(factors + picture * 2 * channels + channels + channel, mask=is_there, other=0)
    if HAS_MORE:
        own = value + tl.load(more + channel, mask=is_there, other=0).to(tl.float32)[None, :]
        tl.store(source + place, own.to(source.dtype.element_ty), mask=mask)
    value = value * factor[None, :] + shift[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    tl.store(target + place, value.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "rows_per_added", "rows_per_shift"])  # type: ignore[untyped-decorator,unused-ignore]
def layer_norm(  # type: ignore[no-untyped-def]
    source, added, weight, bias, shift, target, more, total, share, rows, channels, rows_per_added, rows_per_shift,
    epsilon, HAS_ADDED: tl.constexpr, HAS_SHIFT: tl.constexpr, HAS_TOTAL: tl.constexpr, HAS_MORE: tl.constexpr,
    HAS_SHARE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Of each row by itself: target = norm(source + added) + shift, total = source + added + more.

    source, target, total: (rows, channels); CHANNELS holds all of them. added, shift: (some, channels), each for so
    many rows of the source in turn. more: (channels,). total may be the source. share: (1,), by which the total takes
    the place of what was there.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    is_there = channel < channels
    mask = (row < rows)[:, None] & is_there[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    value = tl.load(source + place, mask=mask, other=0).to(tl.float32)
    if HAS_ADDED:
        of_added = (row // rows_per_added)[:, None] * channels + channel[None, :]
        value += tl.load(added + of_added, mask=mask, other=0).to(tl.float32)
    if HAS_TOTAL:
        sum_of_all = value
        if HAS_MORE:
            sum_of_all += tl.load(more + channel, mask=is_there, other=0).to(tl.float32)[None, :]
        if HAS_SHARE:
            before = tl.load(total + place, mask=mask, other=0).to(tl.float32)
            sum_of_all = before + tl.load(share).to(tl.float32) * (sum_of_all - before)
        tl.store(total + place, sum_of_all.to(total.dtype.element_ty), mask=mask)
    apart = tl.where(mask, value - (tl.sum(value, 1) / channels)[:, None], 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(apart * apart, 1) / channels + epsilon)
    result = apart * factor[:, None] * tl.load(weight + channel, mask=is_there, other=0).to(tl.float32)[None, :]
    result += tl.load(bias + channel, mask=is_there, other=0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        of_shift = (row // rows_per_shift)[:, None] * channels + channel[None, :]
        result += tl.load(shift + of_shift, mask=mask, other=0).to(tl.float32)
    tl.store(target + place, result.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator,unused-ignore]
def gated(  # type: ignore[no-untyped-def]
    both, target, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """The first half of each row's channels, times GELU (by the error function) of the second.

    both: (rows, 2 x channels). target: (rows, channels).
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row[:, None] * 2 * channels + channel[None, :]
    value = tl.load(both + place, mask=mask, other=0).to(tl.float32)
    gate = tl.load(both + place + channels, mask=mask, other=0).to(tl.float32)
    value = value * 0.5 * gate * (1.0 + tl.erf(gate * HALF_ROOT))
    tl.store(target + row[:, None] * channels + channel[None, :], value.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator,unused-ignore]
def weighted_sum(  # type: ignore[no-untyped-def]
    one, other, bias, shares, target, rows, channels,
    one_outer, one_row, other_outer, other_row, target_outer, target_row, bias_outer,
    HAS_OTHER: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SHARES: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """target = one + share x (other + bias).

    one, other, target: (outer, rows, channels), of any strides but the last, which is 1. bias: (outer, channels), or
    one for all. shares: (outer,).
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    outer = tl.program_id(2).to(tl.int64)
    is_there = channel < channels
    mask = (row < rows)[:, None] & is_there[None, :]
    value = tl.load(one + outer * one_outer + row[:, None] * one_row + channel[None, :], mask=mask, other=0)
    value = value.to(tl.float32)
    more = tl.zeros((ROWS, CHANNELS), tl.float32)
    if HAS_OTHER:
        place = outer * other_outer + row[:, None] * other_row + channel[None, :]
        more += tl.load(other + place, mask=mask, other=0).to(tl.float32)
    if HAS_BIAS:
        more += tl.load(bias + outer * bias_outer + channel, mask=is_there, other=0).to(tl.float32)[None, :]
    if HAS_SHARES:
        more *= tl.load(shares + outer).to(tl.float32)
    place = outer * target_outer + row[:, None] * target_row + channel[None, :]
    tl.store(target + place, (value + more).to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator,unused-ignore]
def concatenated(  # type: ignore[no-untyped-def]
    one, other, target, rows, channels, other_channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """In each row the channels of both. one: (rows, channels). other: (rows, other_channels)."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    both = channels + other_channels
    is_first, is_there = channel < channels, (row < rows) & (channel < both)
    first = tl.load(one + row * channels + channel, mask=is_there & is_first, other=0)
    second = tl.load(other + row * other_channels + channel - channels, mask=is_there & (channel >= channels), other=0)
    tl.store(target + row * both + channel, tl.where(is_first, first, second), mask=is_there)
