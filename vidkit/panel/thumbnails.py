"""A clip as a small moving picture."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from vidkit.files import written_whole
from vidkit.video import read_frames

FRAMES: Final = 12
SIDE: Final = 160  # pixels, the longer one at most
LIMIT: Final = 60_000  # bytes
#: tried one after the other until the limit holds: frames, WebP quality. A page has a dozen thumbnails.
SIZES: Final = ((12, 70), (12, 45), (8, 40), (6, 20), (1, 60))


def thumbnail_of(clip: Path, key: str, cache: Path, *, fps: int) -> bytes:
    """Animated WebP, looped at the clip's pace; read from the cache where it is there, else made and kept there.

    Raises:
        InputError: `clip_not_found`, `invalid_clip`.
    """
    kept = cache / f"{key}.webp"
    with suppress(OSError):
        return kept.read_bytes()
    data = animated(read_frames(clip), fps)
    with suppress(OSError):  # a full or read-only disk: it is made again the next time
        cache.mkdir(parents=True, exist_ok=True)
        with written_whole(kept) as temporary:
            temporary.write_bytes(data)
    return data


def animated(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], fps: int) -> bytes:
    """Frames `(frames, height, width, 3)` as an animated WebP within the limits; it lasts as long as the clip."""
    seconds = len(frames) / max(fps, 1)
    chosen = evenly(len(frames), FRAMES)
    pictures = [Image.fromarray(frames[number]) for number in chosen]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = b""
    for count, quality in SIZES:
        some = [pictures[number] for number in evenly(len(pictures), count)]
        data = encoded(some, round(1000 * seconds / len(some)), quality)
        if len(data) <= LIMIT:
            break
    return data


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `count`, evenly spaced, from 0 on."""
    return [number * count // min(count, wanted) for number in range(min(count, wanted))]


def encoded(pictures: list[Image.Image], milliseconds: int, quality: int) -> bytes:
    file = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:], "duration": milliseconds, "loop": 0}
    pictures[0].save(file, "WEBP", quality=quality, method=2, **(more if len(pictures) > 1 else {}))
    return file.getvalue()
