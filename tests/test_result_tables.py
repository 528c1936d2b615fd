"""The tables of speed and memory on the pages are what the benchmarks wrote down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import speed, turbo, vram_table
from benchmarks.tables import table

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("page", "results", "column", "cell"),
    [
        ("README.md", "speed_cpu", "model", speed.in_short),
        ("README.md", "speed_gpu", "model", speed.in_seconds),
        ("docs/speed.md", "turbo", "case", turbo.in_short),
    ],
)
def test_tables_are_those_of_the_results(
    page: str, results: str, column: str, cell: Callable[[Mapping[str, Any]], str]
) -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text())["rows"]
    assert table(rows, column, cell) in (ROOT / page).read_text()


def test_what_fits_is_that_of_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "vram_table.json").read_text())["rows"]
    assert table(vram_table.page_rows(rows), "cap", lambda row: str(row["text"])) in (ROOT / "README.md").read_text()
    assert [problem for row in vram_table.TABLE for problem in vram_table.problems_of(row, rows)] == []


def test_turbo_is_as_close_as_it_promises() -> None:
    """30 dB at its default share, with init at twice that; with many steps closer than fewer steps are."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "turbo.json").read_text())["rows"]
    found = {(row["case"], row["way"]): row for row in rows}
    for case in {row["case"] for row in rows}:
        default, fewer = found[case, f"turbo {turbo.DEFAULT:g}"], found[case, "fewer steps"]
        kept = found[case, "turbo 0.5"] if case.startswith("init") else default
        assert kept["median_psnr"] >= speed.LEAST_PSNR["turbo"], case
        assert default["median_psnr"] > fewer["median_psnr"] or not case.endswith("-25"), case
