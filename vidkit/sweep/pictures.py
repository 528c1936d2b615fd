"""A sweep as one picture: a contact sheet of its clips, and a heat map of a metric over two axes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vidkit.errors import InputError
from vidkit.files import written_whole
from vidkit.paths import local_path
from vidkit.sweep.report_data import MEASURE_LABELS, Point, Sweep, read_sweep
from vidkit.video import read_frames

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

_GAP: Final = 6
_LABEL_HEIGHT: Final = 34
_LABEL_WIDTH: Final = 150
_CELLS_ACROSS: Final = 4  # clips that share a cell stand side by side, so many in a row


def contact_sheet(
    root: str | Path, rows: str | None = None, columns: str | None = None, *, frames: int = 1, width: int = 192
) -> Path:
    """Write `contact_sheet.png` into a sweep's folder: a labelled grid of its clips; returns its path.

    Args:
        root: the sweep's folder.
        rows, columns: names of axes; None: all in one row, in one column.
        frames: of each clip: 1, its poster; 2 or more, evenly spaced from the first to the last (3: with the middle).
        width: of each picture, in pixels.

    Raises:
        InputError: `invalid_value`, an unknown axis; `clip_not_found`, no runs; `invalid_clip`, a damaged clip.
        ValueError: frames or width below 1.
    """
    if frames < 1 or width < 1:
        raise ValueError(f"frames and width: at least 1, not {frames} and {width}")
    folder = local_path(root)
    sweep = read_sweep(folder)
    grid = _Grid(sweep, rows, columns)
    cells = {place: _cell_picture(points, frames, width) for place, points in grid.cells.items()}
    sheet = _sheet(grid, cells)
    with written_whole(folder / "contact_sheet.png") as temporary:
        sheet.save(temporary, "PNG")
    return folder / "contact_sheet.png"


def heat_map(root: str | Path, metric: str, rows: str, columns: str) -> Path:
    """Write `heat_map-METRIC.png` into a sweep's folder: the metric's mean over all other axes; returns its path.

    Args:
        root: the sweep's folder.
        metric: a name of the manifests' `metrics`, or `seconds` or `peakMemoryGiB`.
        rows, columns: names of axes.

    Raises:
        InputError: `invalid_value`, an unknown axis, or a metric that no clip has; `clip_not_found`, no runs.
    """
    from matplotlib.figure import Figure

    folder = local_path(root)
    sweep = read_sweep(folder)
    grid = _Grid(sweep, rows, columns)
    values = _means(grid, metric)
    height, width = values.shape
    figure = Figure(figsize=(2.8 + 0.85 * width, 1.9 + 0.5 * height), layout="constrained")  # no pyplot: no backend
    axes = figure.add_subplot()
    image = axes.imshow(np.ma.masked_invalid(values), aspect="auto", cmap="viridis")
    turn = 30 if max(map(len, grid.column_labels)) > 7 else 0
    axes.set_xticks(
        range(width), [_cut(label, 22) for label in grid.column_labels], rotation=turn, ha="right" if turn else "center"
    )
    axes.set_yticks(range(height), [_cut(label, 34) for label in grid.row_labels])
    axes.set_xlabel(_words(columns))
    axes.set_ylabel(_words(rows))
    label = MEASURE_LABELS.get(metric, metric)
    others = [
        axis.name for axis in sweep.axes if len(axis.values) > 1 and axis.name not in (grid.row_axis, grid.column_axis)
    ]
    axes.set_title(label + (f"\nmean over {_words(', '.join(others))}" if others else ""), fontsize=11)
    _write_values(axes, values)
    figure.colorbar(image, ax=axes)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        text.set_parse_math(False)  # a dollar in a prompt is a dollar
    path = folder / f"heat_map-{re.sub(r'[^A-Za-z0-9_-]', '_', metric)}.png"
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    return path


class _Grid:
    """The points of a sweep in the cells of two of its axes. cells: by (row, column), those that have points."""

    def __init__(self, sweep: Sweep, rows: str | None, columns: str | None) -> None:
        row_axis, self.row_labels, row_of = _side(sweep, rows)
        column_axis, self.column_labels, column_of = _side(sweep, columns)
        if rows is not None and row_axis == column_axis:
            raise InputError(
                "invalid_value",
                f"Rows {rows!r} and columns {columns!r} are the same axis, or zipped.",
                ["Give two different axes"],
            )
        self.row_axis, self.column_axis = row_axis, column_axis
        self.cells: dict[tuple[int, int], list[Point]] = {}
        for point in sweep.points:
            row, column = row_of(point), column_of(point)
            if row is not None and column is not None:
                self.cells.setdefault((row, column), []).append(point)


def _side(sweep: Sweep, name: str | None) -> tuple[str | None, list[str], Callable[[Point], int | None]]:
    if name is None:
        return None, [""], lambda point: 0
    number = sweep.axis(name)
    axis = sweep.axes[number]
    return axis.name, axis.labels, lambda point: point.at[number]


def _means(grid: _Grid, metric: str) -> npt.NDArray[np.float64]:
    """`(rows, columns)`; NaN where no clip has the metric."""
    values = np.full((len(grid.row_labels), len(grid.column_labels)), np.nan)
    for place, points in grid.cells.items():
        measured = [point.measures[metric] for point in points if metric in point.measures]
        if measured:
            values[place] = np.mean(measured)
    if np.isnan(values).all():
        known = sorted({name for points in grid.cells.values() for point in points for name in point.measures})
        raise InputError(
            "invalid_value",
            f"No clip has the metric {metric!r}.",
            [f"Use one of: {', '.join(known)}"] if known else ["Run the sweep first"],
        )
    return values


def _write_values(axes: Any, values: npt.NDArray[np.float64]) -> None:
    """Each value in its cell, dark on bright cells; a dash where there is none."""
    low, high = np.nanmin(values), np.nanmax(values)
    for (row, column), value in np.ndenumerate(values):
        bright = high > low and (value - low) / (high - low) > 0.55
        text = "–" if np.isnan(value) else f"{value:.3g}"  # noqa: RUF001
        color = "0.5" if np.isnan(value) else "black" if bright else "white"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)


def _cell_picture(points: list[Point], frames: int, width: int) -> Image.Image:
    """The clips of one cell, side by side; what failed or was not run is a grey card that says so."""
    from PIL import Image

    strips = [_strip(point, frames, width) for point in points]
    rows = [strips[start : start + _CELLS_ACROSS] for start in range(0, len(strips), _CELLS_ACROSS)]
    heights = [max(strip.height for strip in row) for row in rows]
    full_width = max(sum(strip.width + _GAP for strip in row) - _GAP for row in rows)
    cell = Image.new("RGB", (full_width, sum(heights) + _GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for strip in row:
            cell.paste(strip, (left, top))
            left += strip.width + _GAP
        top += height + _GAP
    return cell


def _strip(point: Point, frames: int, width: int) -> Image.Image:
    from PIL import Image

    pictures = _pictures(point, frames)
    if not pictures:
        return _card(point, width * frames + frames - 1, round(width * 9 / 16))
    height = max(1, round(width * pictures[0].height / pictures[0].width))
    strip = Image.new("RGB", (width * frames + frames - 1, height), "white")
    for number, picture in enumerate(pictures):
        strip.paste(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (number * (width + 1), 0))
    return strip


def _pictures(point: Point, frames: int) -> list[Image.Image]:
    from PIL import Image

    poster, clip = point.file("poster"), point.file("clip")
    if frames == 1 and poster is not None:
        with Image.open(poster) as picture:
            return [picture.convert("RGB")]
    if clip is None:
        return []
    shown = read_frames(clip)
    return [Image.fromarray(shown[round(number)]) for number in np.linspace(0, len(shown) - 1, frames)]


def _card(point: Point, width: int, height: int) -> Image.Image:
    from PIL import Image, ImageDraw

    card = Image.new("RGB", (width, height), "#fdeceb" if point.status == "failed" else "#eceef1")
    error = point.manifest.get("error") or {}
    text = f"failed: {error.get('message', '')}" if point.status == "failed" else "not run yet"
    font = _font(11)
    lines = _wrapped(text, font, width - 12, height // 14)
    ImageDraw.Draw(card).multiline_text((6, 5), "\n".join(lines), font=font, fill="#5a2320")
    return card


def _sheet(grid: _Grid, cells: dict[tuple[int, int], Image.Image]) -> Image.Image:
    from PIL import Image, ImageDraw

    rows, columns = range(len(grid.row_labels)), range(len(grid.column_labels))
    widths = [
        max((cells[row, column].width for row in rows if (row, column) in cells), default=40) for column in columns
    ]
    heights = [
        max((cells[row, column].height for column in columns if (row, column) in cells), default=40) for row in rows
    ]
    left = _LABEL_WIDTH if any(grid.row_labels) else _GAP
    top = _LABEL_HEIGHT if any(grid.column_labels) else _GAP
    lefts = [left + sum(widths[:column]) + _GAP * column for column in columns]
    tops = [top + sum(heights[:row]) + _GAP * row for row in rows]
    sheet = Image.new("RGB", (lefts[-1] + widths[-1] + _GAP, tops[-1] + heights[-1] + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), _font(12)
    for column in columns:
        lines = _wrapped(f"{_words(grid.column_axis)} {grid.column_labels[column]}", font, widths[column], 2)
        draw.multiline_text((lefts[column], 3), "\n".join(lines), font=font, fill="black", spacing=1)
    for row in rows:
        lines = _wrapped(
            f"{_words(grid.row_axis)} {grid.row_labels[row]}", font, _LABEL_WIDTH - 2 * _GAP, max(1, heights[row] // 16)
        )
        draw.multiline_text((_GAP, tops[row]), "\n".join(lines), font=font, fill="black", spacing=1)
    for (row, column), picture in cells.items():
        sheet.paste(picture, (lefts[column], tops[row]))
    return sheet


def _font(size: int) -> FreeTypeFont:
    """DejaVu Sans as matplotlib brings it: more scripts than Pillow's own."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _wrapped(text: str, font: FreeTypeFont, width: float, lines: int) -> list[str]:
    """Broken between words, and within those that are too long; what does not fit ends in an ellipsis."""
    done, line = [], ""
    for word in re.findall(r"\S{1,18}|\s+", text):
        if font.getlength(line + word) > width and line:
            done.append(line.strip())
            line = ""
        line += " " if word.isspace() else word
    done.append(line.strip())
    return done if len(done) <= lines else [*done[: lines - 1], done[lines - 1][:-1] + "…"]


def _words(name: str | None) -> str:
    return (name or "").replace("_", " ")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
