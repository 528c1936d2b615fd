"""`ComparePlayer`: one clip enlarged, or two in step: side by side, wiped over one another, or their difference.

It is an anywidget, since stock ipywidgets can't hold two videos to one clock. What is relied on:

- JupyterLab and Notebook 7 load anywidget's own front end, which its wheel installs with itself. VS Code looks for it
  in the kernel's environment first, and Colab fetches anywidget's front end from its own widget CDN; that is their way
  for every custom widget, and nothing that vidkit asks for.
- This module's script and style travel with the widget's state as text (some 25 kB); the script loads nothing more.
- The clips travel in custom messages with binary buffers, asked for by each view that opens. As a trait they would be
  part of the widget's state, which Colab always, and JupyterLab on request, saves into the notebook, in base64.
"""

from __future__ import annotations

import importlib.resources
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anywidget

from vidkit.container import probe
from vidkit.errors import InputError
from vidkit.near_paths import near_paths
from vidkit.panel.subshells import answer_while_busy
from vidkit.params import GenerationParams, group_of

#: what a file begins with, at which offset, and its media type
_MAGIC: Final = ((4, b"ftyp", "video/mp4"), (0, b"\x1a\x45\xdf\xa3", "video/webm"), (0, b"GIF8", "image/gif"))

#: groups of parameters that change nothing in the frames
_NOT_SEEN: Final = frozenset({"output", "hidden"})

Difference = tuple[str, str, str]


def _script() -> str:
    """The module that the page runs: the report's clock, what keeps keys from JupyterLab, and the player."""
    vidkit = importlib.resources.files("vidkit")
    parts = ("sweep/report/master_clock.js", "panel/keys.js", "panel/compare.js")
    return "\n".join(vidkit.joinpath(part).read_text(encoding="utf-8") for part in parts)


class ComparePlayer(anywidget.AnyWidget):
    """A looped, muted player for one clip or two. Empty until `show` is called.

    In two clips the shorter waits on its last frame until the longer has ended, then both begin again. With different
    frame rates, one step is a frame of the faster one. GIFs are shown, but play by themselves.
    """

    _esm = _script()
    _css = Path(__file__).with_name("compare.css")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._versions = itertools.count(1)
        self._message: dict[str, Any] = {"kind": "clips", "version": 0, "clips": [], "differences": None}
        self._buffers: list[bytes] = []
        self.on_msg(self._answer)
        answer_while_busy(self)

    def show(
        self,
        left: bytes | Path,
        right: bytes | Path | None = None,
        left_label: str = "",
        right_label: str = "",
        *,
        differences: Sequence[Difference] | None = None,
        left_fps: float | None = None,
        right_fps: float | None = None,
    ) -> None:
        """Show one clip or two, in place of what is shown.

        Args:
            left, right: MP4, WebM or GIF: its bytes, or its file, which is read now.
            left_label, right_label: what the clips are called; "A" and "B" are put before where there are two.
            differences: rows of what differs between the two requests, as `request_differences` gives them; None: no
                table.
            left_fps, right_fps: frames per second. Not given: the clip is decoded once to know them, some 40 ms for a
                small one.

        Raises:
            InputError: `clip_not_found`, `invalid_clip`.
        """
        sides = [(left, left_label, left_fps)] + ([] if right is None else [(right, right_label, right_fps)])
        sources = [(_bytes_of(source), label, fps) for source, label, fps in sides]
        clips = [_clip(data, label, fps) for data, label, fps in sources]
        self._put(clips, [data for data, _, _ in sources], differences)

    def clear(self) -> None:
        """Show nothing."""
        self._put([], [], None)

    def _put(self, clips: list[dict[str, Any]], buffers: list[bytes], differences: Sequence[Difference] | None) -> None:
        self._message = {
            "kind": "clips",
            "version": next(self._versions),
            "clips": clips,
            "differences": None if differences is None else [list(row) for row in differences],
        }
        self._buffers = buffers
        self._send_clips()

    def _answer(self, _widget: object, content: object, _buffers: object) -> None:
        if content == {"kind": "wanted"}:
            self._send_clips()

    def _send_clips(self) -> None:
        self.send(self._message, self._buffers)


def request_differences(left: GenerationParams, right: GenerationParams) -> list[Difference]:
    """Rows `(parameter in words, left value, right value)` for all that differs and can be seen, in schema order."""
    return [
        (name.replace("_", " "), _said(getattr(left, name)), _said(getattr(right, name)))
        for name in GenerationParams.model_fields
        if group_of(name) not in _NOT_SEEN and getattr(left, name) != getattr(right, name)
    ]


def _said(value: object) -> str:
    return "the model's default" if value is None else str(value)


def _bytes_of(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputError(
            "clip_not_found", f"The clip {source} cannot be read: {error.strerror}.", near_paths(source)
        ) from error


def _clip(data: bytes, label: str, fps: float | None) -> dict[str, Any]:
    """What the page must know of a clip besides its bytes."""
    for offset, magic, media_type in _MAGIC:
        if data[offset:].startswith(magic):
            return {"type": media_type, "label": label, "fps": fps or _rate(data)}
    raise InputError(
        "invalid_clip", f"{label or 'The clip'} is neither MP4, WebM nor GIF.", ["Choose a clip that vidkit has made"]
    )


def _rate(data: bytes) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        path.write_bytes(data)
        return probe(path).fps
