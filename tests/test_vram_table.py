"""The benchmark of the specification's memory table: what counts as kept, and rows that outlive their process."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.vram_table import Row, children_rows, environment_of, problems_of, table
from vidkit.device import GIB

ROW = Row("animatediff", 512, 512, 64, 8)


def ran(cap: float | None, **more: Any) -> dict[str, Any]:
    """A row as it is written, of a clip that was made as asked."""
    peaks = {"denoise": {"allocated": 7 * GIB, "reserved": 8 * GIB}}
    found: dict[str, Any] = {"plan": {"offload": "model", "slices": True}, "attempts": [], "peaks": peaks}
    found |= {"predicted": {"denoise": 7 * GIB}, "step": 0.6, "frame_seconds": 0.3}
    return asdict(ROW) | {"cap": cap} | found | more


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([ran(11), ran(None)], None),
        ([ran(11)], None),  # without a cap it does not run on this card
        ([ran(11, plan={"changes": {"decodeChunkSize": 1}}), ran(None)], None),
        ([ran(None), ran(8)], "not tried"),
        ([asdict(ROW) | {"cap": 11, "refused": {"message": "2 GiB too few"}}], "2 GiB too few"),
        ([ran(11, plan={"changes": {"numFrames": 40}})], "numFrames"),
        ([ran(11, peaks={"load": {"allocated": 1, "reserved": 12 * GIB}})], "12.00 GiB"),
        ([ran(11, frame_seconds=0.46), ran(None)], "1.53 times"),
        ([ran(11, frame_seconds=0.44), ran(None), ran(8, frame_seconds=9.0)], None),
    ],
)
def test_what_is_promised_under_eleven_gib(rows: list[dict[str, Any]], problem: str | None) -> None:
    found = problems_of(ROW, rows)
    assert len(found) == (problem is not None)
    if problem is not None:
        assert problem in found[0]
    assert len(table(rows)) == 1 + len(rows)


def test_a_row_is_made_and_those_that_fail_do_not_take_others_along(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")
    rows = [{"no": "row"}, asdict(Row("svd", 64, 60, 3)), asdict(Row("svd", 64, 64, 3))]
    order = {"models": {}, "folder": str(tmp_path), "steps": 2, "rows": rows}
    found = list(children_rows(order, environment_of(tmp_path, "cpu", 0), time.monotonic() + 200))
    assert "ended with 1" in found[0]["failed"]
    assert "64x60" in found[1]["refused"]["message"]
    assert len(found[2]["steps"]) == 2
    assert {"load", "encode", "denoise", "decode"} <= set(found[2]["seconds"])
    late = list(children_rows(order, {}, time.monotonic() - 1))
    assert [row["left_out"] for row in late] == ["no time"] * 3
