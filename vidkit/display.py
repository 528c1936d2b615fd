"""A finished clip in a notebook: it plays at once, looped."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Final

from vidkit.video import probe

#: Pixels: what is smaller is shown enlarged by a whole factor, up to this width.
SHOWN_WIDTH: Final = 384

#: Bytes: notebooks keep what they show, so larger clips are linked.
INLINE_LIMIT: Final = 8 * 2**20


def clip_html(path: Path) -> str:
    """HTML that plays a clip (MP4, WebM or GIF) inside a notebook; a link when it is over 8 MiB."""
    if path.stat().st_size > INLINE_LIMIT:
        return f'<a href="{path.as_uri()}">{html.escape(path.name)}</a>'
    info, data = probe(path), path.read_bytes()
    factor = max(1, SHOWN_WIDTH // info.width)
    width, height = info.width * factor, info.height * factor
    if path.suffix.lower() == ".mp4":
        import mediapy

        return str(mediapy.html_from_compressed_video(data, width, height))
    source = base64.b64encode(data).decode("ascii")
    if path.suffix.lower() == ".webm":
        tag = f'<video controls loop autoplay muted width="{width}" height="{height}" src="data:video/webm;base64,'
        return f'{tag}{source}"></video>'
    return (
        f'<img width="{width}" height="{height}" alt="{html.escape(path.name)}" src="data:image/gif;base64,{source}">'
    )
