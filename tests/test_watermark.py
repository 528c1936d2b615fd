"""The watermark benchmark: it tells a mark that survives a clip's way from one that does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.watermark import PAYLOAD, SURVIVES, Bits, Frame, Method, camera_move, measured, summary, survives
from vidkit.models.locate import picture_path


def in_lowest_bits(frame: Frame) -> Frame:
    marked = frame.copy()
    marked[0, : len(PAYLOAD), 0] = (frame[0, : len(PAYLOAD), 0] & 254) | PAYLOAD
    return marked


def from_lowest_bits(frame: Frame) -> Bits:
    return (frame[0, : len(PAYLOAD), 0] & 1).astype(bool)


def as_blocks(frame: Frame) -> Frame:
    """A mark that nobody would call invisible: 8x8 pixels a bit."""
    marked = frame.copy()
    for number, bit in enumerate(PAYLOAD):
        row, column = divmod(number, 8)
        marked[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255 if bit else 0
    return marked


def from_blocks(frame: Frame) -> Bits:
    return frame[:32, :64].reshape(4, 8, 8, 8, 3).mean(axis=(1, 3, 4)).reshape(-1) > 127


FRAGILE = Method("lowest bits", in_lowest_bits, from_lowest_bits)
COARSE = Method("blocks", as_blocks, from_blocks)


@pytest.fixture(scope="module")
def frames() -> Frame:
    return camera_move(picture_path("example:photo"), 128, 64, 3)


def test_a_fragile_mark_is_lost_and_a_coarse_one_seen(frames: Frame, tmp_path: Path) -> None:
    fragile, coarse = (measured(method, "photo", frames, tmp_path) for method in (FRAGILE, COARSE))
    assert fragile.accuracy["frames"] == coarse.accuracy["frames"] == (1, 1)
    assert fragile.accuracy["vidkit's H.264"][1] < SURVIVES
    assert all(majority == 1 for _, majority in coarse.accuracy.values())
    assert fragile.psnr[0] > 50 > coarse.psnr[0]
    assert coarse.wild > 0 and fragile.wild == 0
    assert coarse.unmarked < SURVIVES
    rows = [fragile, coarse]
    assert (survives(rows, "lowest bits"), survives(rows, "blocks")) == (False, True)
    assert not survives([*rows, replace(fragile, size="64x64")], "blocks")  # it has to survive at every size
    assert len(list(summary(rows))) == 2


def test_the_camera_moves_over_the_photograph(frames: Frame) -> None:
    assert frames.shape == (3, 64, 128, 3)
    assert np.abs(frames[2].astype(int) - frames[0]).mean() > 2
