"""Frames -> MP4, WebM or GIF with their record and cover art, written whole or not at all; and all of it back.

A clip carries one JSON, the record, in its `comment` tag, which all three containers have (MP4 drops tags it does not
know).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from vidkit.container import (
    GIF_MAX_FPS,
    GIF_SMOOTH_FPS,
    Frames,
    probe,
    read_comment,
    read_cover,
    read_frames,
    write_container,
)
from vidkit.errors import GenerationError, InputError, Remedy
from vidkit.ffmpeg import VideoInfo
from vidkit.files import next_free_name, temporary_beside, write_error
from vidkit.params import OutputFormat

__all__ = [
    "GIF_SMOOTH_FPS",
    "MAX_COVERS",
    "OutputFormat",
    "VideoInfo",
    "check_frames",
    "contact_sheet",
    "poster",
    "probe",
    "read_cover",
    "read_frames",
    "read_record",
    "sidecar_path",
    "verify_video",
    "write_sidecar",
    "write_video",
]

MAX_COVERS: Final = 2

#: Standard deviations, in 8-bit levels. Below 1 no pixel pattern is left after rounding. A picture counts as having
#: content from 4 on: what is fainter, a model may well smooth away.
_FLAT: Final = 1.0
_HAS_CONTENT: Final = 4.0

#: a file that was written whole does not read back
_DAMAGED: Final = ("Run it again", "Check the disk that it was written to, if that happens again")


def write_video(
    frames: Frames,
    path: Path,
    *,
    fps: int,
    output_format: OutputFormat,
    record: Mapping[str, Any] | None,
    cover: Sequence[Image.Image] = (),
    overwrite: bool = False,
) -> None:
    """Write a clip; it is read back and compared before it appears under its name.

    The same frames, record and cover give the same bytes (with the same ffmpeg and Pillow), on any number of cores.

    Args:
        frames: RGB, uint8, `(frames, height, width, 3)`, at least one frame.
        path: the clip's file; its folder is made where missing.
        fps: frames per second, an integer of at least 1; every frame lasts equally long (GIF: to 1/100 s).
        record: what made the clip, JSON-able, without NaN; goes into the `comment` tag as one compact JSON.
        cover: up to two pictures (modes L, RGB, RGBA), kept bit for bit as the MP4's cover art. MP4 only.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: `output_exists`; `invalid_size`, odd sides for MP4; `out_of_range`, a GIF over 100 fps.
        SetupError: `output_not_writable`; `missing_dependency`, no ffmpeg.
        GenerationError: `encoding_failed`; `corrupted_output`, the file does not read back as written.
        CriticalError: `disk_full`.
        ValueError: the arguments break what is said above.
    """
    _check_arguments(frames, fps, output_format, cover)
    # ASCII: escapes keep any text (line ends, lone surrogates, emoji) whole in tags, and GIF's comment is 7-bit
    comment = None if record is None else json.dumps(record, separators=(",", ":"), allow_nan=False)
    with _published(path, overwrite=overwrite) as temporary:
        write_container(frames, temporary, fps=fps, output_format=output_format, comment=comment, cover=cover)
        verify_video(temporary, frames=len(frames), width=frames.shape[2], height=frames.shape[1], fps=fps)
        if read_comment(temporary) != comment:
            raise _corrupted(f"{path.name} does not give back the record that was written into it", *_DAMAGED)


def check_frames(frames: npt.NDArray[Any], picture: Image.Image | None) -> None:
    """Refuse frames that a broken computation made (overflow in half precision gives NaN, then black).

    A frame is flat when in no colour channel its pixels' standard deviation reaches 1 of 255 levels. A clip of flat
    frames only is refused, unless the picture it was made from is about as flat (standard deviation below 4).

    Args:
        frames: `(frames, height, width, channels)`; floats in [0, 1] or [-1, 1], or uint8.
        picture: the input picture, or None when there was none: then a flat clip is refused.

    Raises:
        GenerationError: `corrupted_output`.
    """
    for number, frame in enumerate(frames):
        if not np.isfinite(frame).all():
            what = f"frame {number} of {len(frames)} has values that are not numbers (NaN or infinity)"
            raise _corrupted(what, "Try another seed")
    if picture is not None and _deviation(np.asarray(picture.convert("RGB"))) < _HAS_CONTENT:
        return
    if all(_deviation(frame) < _FLAT for frame in frames):
        color = "black" if not frames.any() else "one flat colour"
        raise _corrupted(f"all {len(frames)} frames are {color}, and the input picture is not", "Try another seed")


def check_target(path: Path, *, overwrite: bool) -> None:
    """Know before the work whether `write_video` will be able to write there. Raises as `write_video`."""
    with _temporary(path, overwrite=overwrite):
        pass


def verify_video(path: Path, *, frames: int, width: int, height: int, fps: int) -> None:
    """Decode the whole file; raise GenerationError `corrupted_output` unless it is exactly this."""
    try:
        info = probe(path)
    except InputError as error:
        raise _corrupted(f"the file written does not read back: {error.message}", *_DAMAGED) from error
    tolerance = 0.0051 if info.codec == "gif" else 1e-6  # seconds in all; a GIF's duration is rounded to 1/100 s
    same_duration = abs(info.frames / info.fps - frames / fps) <= tolerance
    if (info.frames, info.width, info.height) != (frames, width, height) or not same_duration:
        found = f"{info.frames} frames of {info.width}x{info.height} at {info.fps:.3f} fps"
        what = f"the file written has {found} instead of {frames} of {width}x{height} at {fps} fps"
        raise _corrupted(what, *_DAMAGED)


def read_record(path: Path) -> dict[str, Any]:
    """The record in the clip, else the one in its sidecar (`sidecar_path`).

    Raises:
        InputError: `clip_not_found`; `invalid_clip`: damaged, or there is no record.
    """
    record = _parsed(read_comment(path))
    if record is None:
        with suppress(OSError, ValueError):
            record = _parsed(sidecar_path(path).read_text(encoding="utf-8"))
    if record is None:
        raise InputError(
            "invalid_clip",
            f"{path} carries no vidkit record, neither in its comment tag nor in {sidecar_path(path).name}.",
            ["Give a clip that vidkit wrote without --bare", "Chat and video services strip tags: use the original"],
        )
    return record


def sidecar_path(path: Path) -> Path:
    """Where a clip's record stands as a file of its own: `clip.mp4` -> `clip.mp4.json`."""
    return path.with_name(path.name + ".json")


def write_sidecar(path: Path, record: Mapping[str, Any]) -> None:
    """Write (or replace) the record beside the clip `path`. Raises SetupError, CriticalError as `write_video`."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with _published(sidecar_path(path), overwrite=True) as temporary:
        # a lone surrogate (a file name that is no Unicode) has no UTF-8; as \udcxx it is valid JSON
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def contact_sheet(frames: Frames, columns: int) -> Image.Image:
    """All frames at full size in rows of `columns`, left to right; the rest of the last row is black."""
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:count] = frames
    grid = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * height, columns * width, 3))


def poster(frames: Frames) -> Image.Image:
    """The picture that stands for the clip: its first frame, so that playing does not begin with a jump."""
    return Image.fromarray(frames[0])


def _check_arguments(frames: Frames, fps: int, output_format: OutputFormat, cover: Sequence[Image.Image]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(f"frames: uint8 (frames, height, width, 3) wanted, not {frames.dtype} {frames.shape}")
    if fps < 1:
        raise ValueError(f"fps: at least 1, not {fps}")
    if output_format not in ("mp4", "gif", "webm"):
        raise ValueError(f"output_format: mp4, gif or webm, not {output_format!r}")
    if len(cover) > (MAX_COVERS if output_format == "mp4" else 0):
        raise ValueError(f"cover: {len(cover)} pictures; an MP4 takes {MAX_COVERS}, a GIF or WebM none")
    if any(picture.mode not in ("L", "RGB", "RGBA") for picture in cover):
        raise ValueError(f"cover: modes L, RGB, RGBA wanted, not {[picture.mode for picture in cover]}")
    height, width = frames.shape[1:3]
    if output_format == "mp4" and (width % 2 or height % 2):
        nearest = f"{max(2, width - width % 2)}x{max(2, height - height % 2)}"
        raise InputError(
            "invalid_size",
            f"{width}x{height} cannot be an MP4: its colours are stored for 2x2 pixels, so both sides must be even.",
            [f"Use {nearest}", "Or write a WebM or GIF"],
        )
    if output_format == "gif" and fps > GIF_MAX_FPS:
        raise InputError(
            "out_of_range",
            f"{fps} fps is too fast for a GIF, which counts time in 1/100 s.",
            [f"Use up to {GIF_SMOOTH_FPS} fps, the most that browsers play", "Or write an MP4"],
        )


def _parsed(text: str | None) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):  # somebody else's comment, or deep nesting made to break us
        record = json.loads(text or "")
        return record if isinstance(record, dict) else None
    return None


@contextmanager
def _published(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary name to write; at the end it becomes `path` in one step, or nothing is left of it."""
    with _temporary(path, overwrite=overwrite) as temporary:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
        _move(temporary, path, overwrite=overwrite)


@contextmanager
def _temporary(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty file beside `path` (whose folder is made) that is gone at the end, unless it was moved."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite and path.exists():
            raise _exists(path)
        temporary.unlink(missing_ok=True)  # of an earlier process with our id
        temporary.touch(exist_ok=False)  # an unwritable folder is known before the encoding
        yield temporary
    except OSError as error:
        raise write_error(path, error, is_output=True) from error
    finally:
        with suppress(OSError):
            for part in [file for file in path.parent.iterdir() if file.name.startswith(temporary.stem + ".")]:
                part.unlink(missing_ok=True)


def _move(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, path)  # the one rename that fails where the target exists; the caller unlinks
            return
        except FileExistsError:
            raise _exists(path) from None
        except OSError:  # no hard links here (exFAT, some network drives): a small gap between check and rename
            if path.exists():
                raise _exists(path) from None
    temporary.replace(path)


def _exists(path: Path) -> InputError:
    free = next_free_name(path)
    return InputError(
        "output_exists",
        f"{path} exists and was left as it is.",
        [
            Remedy(f"Set outputPath to {free}", output_path=str(free)),
            Remedy("Set overwrite to true: the old one is then replaced", overwrite=True),
        ],
        ["output_path"],
    )


def _deviation(pixels: npt.NDArray[Any]) -> float:
    """The largest standard deviation over a picture of any channel, in 8-bit levels."""
    levels = 255.0 if pixels.dtype.kind == "f" else 1.0
    return float(pixels.astype(np.float32).std(axis=(0, 1)).max()) * levels


def _corrupted(what: str, *suggestions: str) -> GenerationError:
    return GenerationError("corrupted_output", f"The result is unusable: {what}.", suggestions)
