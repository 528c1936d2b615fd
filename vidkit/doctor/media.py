"""ffmpeg: a few frames go through each encoder that vidkit uses, and back."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from vidkit.errors import VidkitError
from vidkit.finding import Finding, note, ok, problem
from vidkit.params import OutputFormat
from vidkit.video import read_frames, write_video

TOPIC: Final = "ffmpeg"

#: levels of 255 by which a smooth frame may be off once it went through an encoder
CLOSE: Final = 12


def findings() -> Iterator[Finding]:
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
        version = imageio_ffmpeg.get_ffmpeg_version()
    # not installed; no program; one that is no ffmpeg
    except (ImportError, RuntimeError, OSError, IndexError, subprocess.SubprocessError) as error:
        yield problem(
            TOPIC,
            f"There is no ffmpeg that runs: {str(error).strip()}",
            "pip install --force-reinstall imageio-ffmpeg",
            "Or set IMAGEIO_FFMPEG_EXE to an ffmpeg",
            stops=True,
        )
        return
    broken = {name: why for name in get_args(OutputFormat) if (why := why_not(name)) is not None}
    data: dict[str, Any] = {
        "version": version,
        "file": program,
        "formats": [n for n in get_args(OutputFormat) if n not in broken],
    }
    what = f"ffmpeg {version}, {program}"
    if not broken:
        yield ok(TOPIC, f"{what}: H.264 (MP4), VP9 (WebM) and GIF encode and read back.", **data)
    remedy = "Unset IMAGEIO_FFMPEG_EXE, so that the ffmpeg is used which came with imageio-ffmpeg"
    for name, why in broken.items():
        told = f"{what}: no {name.upper()}: {why}"
        if name == "mp4":
            yield problem(TOPIC, told, remedy, stops=True, **data)
        else:
            yield note(TOPIC, told, remedy, **data)


def why_not(output_format: OutputFormat) -> str | None:
    """Why a format cannot be written or read back; None: it can."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (3, 64, 64, 3)).copy()
    try:
        with tempfile.TemporaryDirectory(prefix="vidkit-doctor-") as folder:
            clip = Path(folder, f"clip.{output_format}")
            write_video(frames, clip, fps=8, output_format=output_format, record={})
            found = read_frames(clip)
    except (VidkitError, OSError) as error:
        return str(error)
    if found.shape != frames.shape:
        return f"{frames.shape} came back as {found.shape}"
    off = np.abs(found.astype(int) - frames).mean()
    return None if off <= CLOSE else f"frames came back {off:.0f} levels off"
