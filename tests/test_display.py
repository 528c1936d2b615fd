"""What a clip looks like in a notebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vidkit.display
from vidkit.display import clip_html
from vidkit.video import OutputFormat, write_video


@pytest.mark.parametrize(
    ("output_format", "tag", "kind"),
    [("mp4", "<video", "video/mp4"), ("webm", "<video", "video/webm"), ("gif", "<img", "image/gif")],
)
def test_a_small_clip_plays_inside_the_notebook_enlarged(
    tmp_path: Path, output_format: OutputFormat, tag: str, kind: str
) -> None:
    path = tmp_path / f"clip.{output_format}"
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), np.uint8)
    write_video(frames, path, fps=4, output_format=output_format, record=None)
    html = clip_html(path)
    assert tag in html
    assert f"data:{kind};base64," in html
    assert 'width="384" height="256"' in html


def test_a_large_clip_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    write_video(np.zeros((2, 64, 64, 3), np.uint8), path, fps=4, output_format="mp4", record=None)
    monkeypatch.setattr(vidkit.display, "INLINE_LIMIT", 10)
    assert clip_html(path) == f'<a href="{path.as_uri()}">clip.mp4</a>'
