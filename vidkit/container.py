"""One clip file of any container: GIF through Pillow, MP4 and WebM through ffmpeg. What a file is, its bytes say.

Every function that reads raises InputError `clip_not_found` or `invalid_clip`.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from vidkit import ffmpeg
from vidkit.errors import InputError
from vidkit.ffmpeg import VideoInfo
from vidkit.near_paths import near_paths
from vidkit.params import OutputFormat

Frames = npt.NDArray[np.uint8]

#: GIF counts time in 1/100 s, so frames can't come faster. Browsers slow a frame of 1/100 s down to 1/10 s, so above
#: 50 fps a GIF is right on paper and slow on screen.
GIF_MAX_FPS: Final = 100
GIF_SMOOTH_FPS: Final = 50

_TRANSPARENT: Final = 255  # the palette entry kept free for `_marked_as_new`

_PALETTE_SAMPLE: Final = 200_000  # pixels; takes about a second

_READ_ERRORS: Final = (
    OSError,
    EOFError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    LookupError,
    struct.error,
    Image.DecompressionBombError,
)


def write_container(
    frames: Frames,
    target: Path,
    *,
    fps: int,
    output_format: OutputFormat,
    comment: str | None,
    cover: Sequence[Image.Image],
) -> None:
    """Encode RGB frames `(frames, height, width, 3)` into `target`; helper files stand beside it, `<stem>.*`.

    Raises:
        SetupError, CriticalError, GenerationError: as `ffmpeg.encode`.
        OSError: `target` or a helper file cannot be written.
    """
    if output_format == "gif":
        _write_gif(frames, target, fps, comment)
        return
    comment_file = None
    if comment is not None:
        comment_file = target.with_suffix(".tags.txt")
        comment_file.write_text(ffmpeg.ffmetadata(comment), encoding="utf-8", newline="\n")
    cover_files = [target.with_suffix(f".cover{number}.png") for number in range(len(cover))]
    for picture, cover_file in zip(cover, cover_files, strict=True):
        # pixels only: the picture's EXIF, colour profile and texts are not ours to publish
        Image.fromarray(np.asarray(picture)).save(cover_file, "PNG")
    ffmpeg.encode(frames, target, fps=fps, container=output_format, comment_file=comment_file, cover_files=cover_files)


def probe(path: Path) -> VideoInfo:
    """Decode the whole clip and say what it is."""
    with _reading(path):
        return _probe_gif(path) if _is_gif(path) else ffmpeg.probe(path)


def read_frames(path: Path) -> Frames:
    """The clip's frames, RGB uint8 `(frames, height, width, 3)`."""
    with _reading(path):
        return _read_gif_frames(path) if _is_gif(path) else ffmpeg.read_frames(path)


def read_comment(path: Path) -> str | None:
    """The text of the clip's `comment` tag, or None."""
    with _reading(path):
        return _read_gif_comment(path) if _is_gif(path) else ffmpeg.read_comment(path)


def read_cover(path: Path) -> list[Image.Image]:
    """The MP4's cover art in the order it was written; [] when there is none."""
    with _reading(path):
        if _is_gif(path):
            return []
        pictures = [Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) for data in ffmpeg.read_cover_files(path)]
        for picture in pictures:
            picture.load()
        return [*pictures]


def _write_gif(frames: Frames, target: Path, fps: int, comment: str | None) -> None:
    palette = _palette(frames)
    pictures: list[Image.Image] = []
    for frame in frames:
        picture = Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        colors = picture.getpalette() or []
        picture.putpalette(colors + [0] * (3 * 256 - len(colors)))  # make room for the transparent entry
        same = bool(pictures) and picture.tobytes() == pictures[-1].tobytes()
        pictures.append(_marked_as_new(picture) if same else picture)
    options: dict[str, Any] = {} if comment is None else {"comment": comment.encode("ascii")}
    pictures[0].save(
        target,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[10 * delay for delay in _gif_delays(len(frames), fps)],  # Pillow takes milliseconds
        loop=0,  # for ever
        disposal=1,  # each frame stays under the next
        transparency=_TRANSPARENT,
        optimize=False,  # would renumber the palette
        **options,
    )


def _palette(frames: Frames) -> Image.Image:
    """255 colours for the whole clip, chosen from an even sample of its pixels.

    One palette, since one per frame makes still areas flicker. Measured on zooms over three photographs and a sky:
    k-means on "maximum coverage", dithered, is among the closest of Pillow's methods after the blur of an eye, and on
    the sky 6 dB better than the octree.
    """
    step = math.ceil(math.sqrt(frames.size / 3 / _PALETTE_SAMPLE))
    sample = frames[:, ::step, ::step]
    sheet = Image.fromarray(np.ascontiguousarray(sample).reshape(-1, sample.shape[2], 3))
    return sheet.quantize(_TRANSPARENT, method=Image.Quantize.MAXCOVERAGE, kmeans=3)


def _marked_as_new(picture: Image.Image) -> Image.Image:
    """The same picture to the eye, but not to Pillow, which merges a frame into an equal one before it.

    The first pixel is made transparent: the frame below, which is equal, shows through.
    """
    marked = picture.copy()
    marked.putpixel((0, 0), _TRANSPARENT)
    return marked


def _gif_delays(count: int, fps: int) -> list[int]:
    """Each frame's duration in 1/100 s, as even as integers allow, the sum right: 8 fps -> 12, 13, 12, 13."""
    ends = [-((fps - 200 * number) // (2 * fps)) for number in range(count + 1)]  # 100 number / fps, halves down
    return [end - start for start, end in itertools.pairwise(ends)]


def _probe_gif(path: Path) -> VideoInfo:
    with Image.open(path, formats=["GIF"]) as image:
        milliseconds = []
        for frame in ImageSequence.Iterator(image):
            frame.load()
            milliseconds.append(int(frame.info.get("duration", 0)))
        seconds = sum(milliseconds) / 1000 or 0.1 * len(milliseconds)  # players show an untimed frame for 1/10 s
        return VideoInfo(len(milliseconds), *image.size, len(milliseconds) / seconds, "gif", "pal8")


def _read_gif_frames(path: Path) -> Frames:
    with Image.open(path, formats=["GIF"]) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


def _read_gif_comment(path: Path) -> str | None:
    with Image.open(path, formats=["GIF"]) as image:
        comment = image.info.get("comment")
        return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else None


def _is_gif(path: Path) -> bool:
    """Whether it is a GIF; a GIF without its last byte was cut off, which Pillow would not always notice."""
    with path.open("rb") as file:
        if file.read(4) != b"GIF8":
            return False
        file.seek(-1, io.SEEK_END)
        if file.read(1) != b";":
            raise ValueError("it is cut off")
        return True


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not os.path.isfile(path):  # noqa: PTH113  (raises for no name and no closed folder)
        raise InputError("clip_not_found", f"There is no clip {path}.", near_paths(path))
    try:
        yield
    except _READ_ERRORS as error:
        raise ffmpeg.unreadable(path, str(error)) from error
