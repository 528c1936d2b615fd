"""`vidkit.compare`: two clips side by side in a cell of a notebook, and what differs between their requests."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkit.display import clip_html
from vidkit.errors import InputError
from vidkit.generation import GenerationResult
from vidkit.panel.compare import ComparePlayer, Difference, request_differences
from vidkit.panel.surroundings import Mode, find_mode
from vidkit.params import GenerationParams
from vidkit.record import remade, show, stored_pictures

Clip = GenerationResult | Path | str


@dataclass(frozen=True)
class Comparison:
    """What `compare` gives; shown as a cell's last expression.

    differences: rows `(parameter in words, left value, right value)` of all that can be seen; None where a clip holds
    no settings.
    """

    left: Path
    right: Path
    labels: tuple[str, str]
    differences: Sequence[Difference] | None
    mode: Mode = field(repr=False)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if self.mode == "static":
            return {"text/plain": repr(self), "text/html": self._html()}
        player = ComparePlayer()
        player.show(self.left, self.right, *self.labels, differences=self.differences)
        return player._repr_mimebundle_(include=include, exclude=exclude)

    def _html(self) -> str:
        """For where no widget lives: both clips, each playing by itself, and the table."""
        clips = "".join(
            f"<figure style='margin:0'>{clip_html(path)}<figcaption>{html.escape(label)}</figcaption></figure>"
            for path, label in zip((self.left, self.right), self.labels, strict=True)
        )
        rows = [("Setting", *self.labels), *self.differences] if self.differences else []
        table = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        return f"<div style='display:flex;flex-wrap:wrap;gap:16px'>{clips}</div><table>{table}</table>"


def compare(left: Clip, right: Clip, *, labels: tuple[str, str] | None = None, mode: Mode | None = None) -> Comparison:
    """Two clips in step: side by side, wiped over one another, or their difference; and what makes them differ.

    Args:
        left, right: results of `vidkit.generate`, or files (MP4, WebM, GIF), of other makers too.
        labels: what the clips are called; by default their files' names.
        mode: as of `ControlPanel`: in "static" (papermill) both clips play by themselves, without a player.

    Raises:
        InputError: `clip_not_found`, `invalid_clip`: a file that is not there, or no clip; `invalid_value` for a mode.
    """
    first, second = (Path(one.output if isinstance(one, GenerationResult) else one) for one in (left, right))
    return Comparison(first, second, labels or (first.name, second.name), differences(first, second), find_mode(mode))


def differences(left: Path, right: Path) -> Sequence[Difference] | None:
    """What differs between two clips' requests; None where one holds none. A clip's picture may have been a file once
    and another clip's the next time: the pictures themselves are compared.

    Raises:
        InputError: `clip_not_found`.
    """
    one, other = request_in(left), request_in(right)
    if one is None or other is None:
        return None
    if stored_pictures(left) == stored_pictures(right):
        other = other.replace(image_path=one.image_path, last_image_path=one.last_image_path)
    return request_differences(one, other)


def request_in(clip: Path) -> GenerationParams | None:
    """The request that a clip was made from, with its pictures by their names; None where it holds none.

    Raises:
        InputError: `clip_not_found`.
    """
    try:
        record = show(clip)
        pictures = dict(zip(("imagePath", "lastImagePath"), (one["name"] for one in record["pictures"]), strict=False))
        return GenerationParams(**remade(record, clip) | pictures)
    except InputError as error:
        if error.code == "clip_not_found":
            raise
        return None
    except KeyError:  # made with `bare`
        return None
