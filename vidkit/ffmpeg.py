"""ffmpeg as a subprocess: raw frames into MP4 and WebM, and back; tags and cover art.

The binary is imageio-ffmpeg's, which comes without ffprobe. What is read back is read from formats that ffmpeg
documents for programs (framecrc, ffmetadata, raw video); only the codec's name comes from its log.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from vidkit.errors import GenerationError, InputError, SetupError

OWN_FFMPEG: Final = "Unset IMAGEIO_FFMPEG_EXE, so that imageio-ffmpeg's own ffmpeg is used"

#: How the system words "the disk refuses more bytes" (full, over quota, over a file size limit), and ffmpeg repeats it.
NO_SPACE_MESSAGES: Final = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
}

# libswscale's default shortcuts (nearest chroma, truncated products) cost 3 dB against these flags: 40.6 -> 43.2 dB on
# a 1024x576 photograph at CRF 16. `bitexact` keeps the result the same on every CPU.
SCALER_FLAGS: Final = "lanczos+accurate_rnd+full_chroma_inp+full_chroma_int+bitexact"

# `scale` does the conversion with the BT.709 matrix (its default is BT.601), `setparams` tags what it leaves untagged.
TO_YUV: Final = (
    f"scale=out_color_matrix=bt709:out_range=tv:flags={SCALER_FLAGS},format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)

# CRF 15: the loss that remains is that of halved colour resolution (4:2:0), not of the codec. The first frame of a
# 1024x576 photograph reads back at 43-45 dB (CRF 12: +1.5 dB for 60 % more bytes); "slow" saves 5 % over "medium" and
# takes a second or two, where the frames took minutes.
H264: Final = ("libx264", "-preset", "slow", "-crf", "15", "-profile:v:0", "high", "-movflags", "+faststart")
# CRF 18 gives VP9 the first frame of H.264 at CRF 15. `-b:v 0` makes it constant quality.
VP9: Final = ("libvpx-vp9", "-crf", "18", "-b:v", "0", "-deadline", "good", "-cpu-used", "2", "-row-mt", "1")

# x264's output depends on its number of threads, by default that of the machine's cores.
THREADS: Final = "4"

#: First bytes -> ffmpeg's demuxer. Naming the demuxer keeps a playlist disguised as a clip from opening other files.
_MAGIC: Final = ((4, b"ftyp", "mov"), (0, b"\x1a\x45\xdf\xa3", "matroska"))

_STREAM: Final = re.compile(
    r"^\[info\]   Stream #0:(?P<index>\d+)\S*: Video: (?P<codec>\w+)(?P<rest>.*)$", re.MULTILINE
)
_ERROR: Final = re.compile(r"^(?:\[[^\]\n]* @ [^\]\n]*\] )?\[(?:error|fatal)\] (.*)", re.MULTILINE)
_PIXEL_FORMAT: Final = re.compile(r", (\w+)[(,]")
_COMMENT: Final = re.compile(r"^comment=((?:\\.|[^\\\n])*)", re.MULTILINE | re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class VideoInfo:
    """What a clip is: size in pixels, rate in frames per second, ffmpeg's names of codec and pixel format."""

    frames: int
    width: int
    height: int
    fps: float
    codec: str
    pixel_format: str


def encode(
    frames: npt.NDArray[np.uint8],
    target: Path,
    *,
    fps: int,
    container: Literal["mp4", "webm"],
    comment_file: Path | None,
    cover_files: Sequence[Path],
) -> None:
    """Encode RGB frames `(frames, height, width, 3)` into `target`, which is replaced.

    Args:
        comment_file: an ffmetadata file (see `ffmetadata`), whose tags become the container's.
        cover_files: PNG files, stored as they are as cover art (MP4 only).

    Raises:
        SetupError: `missing_dependency`, no ffmpeg or one without the encoder.
        OSError: ffmpeg met a full disk.
        GenerationError: `encoding_failed`, with the last lines of ffmpeg's log.
    """
    height, width = frames.shape[1:3]
    inputs = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
    inputs += ["-framerate", str(fps), "-i", "pipe:0"]
    maps = ["-map", "0:v", "-map_metadata", "-1"]
    if comment_file is not None:
        inputs += ["-f", "ffmetadata", "-i", f"file:{comment_file}"]
        maps[-1] = "1"
    first_cover = inputs.count("-i")
    for number, cover_file in enumerate(cover_files):
        inputs += ["-f", "png_pipe", "-i", f"file:{cover_file}"]
        maps += ["-map", f"{first_cover + number}:v", f"-c:v:{number + 1}", "copy"]
        maps += [f"-disposition:v:{number + 1}", "attached_pic"]
    codec = ["-filter:v:0", TO_YUV, "-threads", THREADS, "-c:v:0", *(H264 if container == "mp4" else VP9)]
    # bitexact: no version strings, no random identifiers, so that the same frames give the same file
    neutral = ["-fflags", "+bitexact", "-flags:v:0", "+bitexact"]
    arguments = ["-loglevel", "warning", *inputs, *maps, *codec, *neutral, "-f", container, "-y", f"file:{target}"]
    result = _run(arguments, stdin=frames.tobytes())
    if result.returncode != 0:
        raise _encoding_error(result, container)


def probe(path: Path) -> VideoInfo:
    """Decode every frame of an MP4 or WebM and say what it is.

    Raises:
        InputError: `invalid_clip`, it cannot be read from end to end.
    """
    result = _decode(path, ["-f", "framecrc", "pipe:1"])
    # Lines of framecrc: "#tb 0: 1/8", "#dimensions 0: 512x512", then one a frame: stream, dts, pts, duration, size, sum
    lines = result.stdout.decode().splitlines()
    header = dict(line[1:].split(": ", 1) for line in lines if line.startswith("#"))
    rows = [[int(field) for field in line.split(",")[:4]] for line in lines if not line.startswith("#")]
    if not rows:
        raise unreadable(path, "it has no frames")
    duration = (rows[-1][2] + rows[-1][3] - rows[0][2]) * Fraction(header["tb 0"])
    width, height = (int(side) for side in header["dimensions 0"].split("x"))
    codec, pixel_format = _codec(_log(result))
    return VideoInfo(len(rows), width, height, float(len(rows) / duration), codec, pixel_format)


def read_frames(path: Path) -> npt.NDArray[np.uint8]:
    """Decode an MP4 or WebM to RGB, `(frames, height, width, 3)`, by the matrix and range it is tagged with.

    Raises:
        InputError: `invalid_clip`.
    """
    to_rgb = ["-filter:v", f"scale=flags={SCALER_FLAGS}", "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"]
    result = _decode(path, to_rgb)
    size = re.search(r"Video: rawvideo .* (\d+)x(\d+)", _log(result))
    if size is None or not result.stdout:
        raise unreadable(path, "it has no frames")
    return np.frombuffer(result.stdout, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3).copy()


def read_comment(path: Path) -> str | None:
    """The container's `comment` tag, or None when it has none. Raises InputError `invalid_clip`."""
    result = _read(path, [], ["-f", "ffmetadata", "pipe:1"])
    tags_of_file = result.stdout.decode("utf-8", "replace").split("\n[", 1)[0]
    comment = _COMMENT.search(tags_of_file)
    return re.sub(r"\\(.)", r"\1", comment[1], flags=re.DOTALL) if comment else None


def read_cover_files(path: Path) -> list[bytes]:
    """The cover art pictures, as the files that were stored. Raises InputError `invalid_clip`."""
    streams = list(_STREAM.finditer(_log(_read(path, [], ["-f", "ffmetadata", "pipe:1"]))))
    if not streams:
        raise unreadable(path, "it has no frames")
    covers = [stream["index"] for stream in streams if stream["rest"].endswith("(attached pic)")]
    as_stored = ["-c", "copy", "-f", "image2pipe", "pipe:1"]
    return [_read(path, [], ["-map", f"0:{index}", *as_stored]).stdout for index in covers]


def ffmetadata(comment: str) -> str:
    """The text of an ffmetadata file with this `comment`. A file, since Windows limits an argument to 32,767 letters.

    Escapes as https://ffmpeg.org/ffmpeg-formats.html#Metadata-2 says.
    """
    return ";FFMETADATA1\ncomment=" + re.sub(r"([=;#\\\n])", r"\\\1", comment) + "\n"


def _decode(path: Path, output: list[str]) -> subprocess.CompletedProcess[bytes]:
    # V is a video stream that is no cover art. Without `passthrough` frames are dropped or doubled to a constant rate.
    # `explode` and `xerror` make damage an error, where a player would conceal it; a cut WebM is still only logged.
    options = ["-xerror", "-err_detect", "explode"]
    result = _read(path, options, ["-map", "0:V:0", "-fps_mode", "passthrough", *output])
    error = _ERROR.search(_log(result))
    if error is not None:
        raise unreadable(path, f"ffmpeg says: {error[1]}")
    return result


def _read(path: Path, options: list[str], output: list[str]) -> subprocess.CompletedProcess[bytes]:
    source = ["-protocol_whitelist", "file,pipe", "-f", _demuxer(path), "-i", f"file:{path}"]
    result = _run(["-nostats", "-loglevel", "level+info", *options, *source, *output])
    if result.returncode != 0:
        raise unreadable(path, f"ffmpeg says: {_last_lines(result, 2)}")
    return result


def _demuxer(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    for offset, magic, demuxer in _MAGIC:
        if start[offset:].startswith(magic):
            return demuxer
    raise unreadable(path, "it is no MP4, WebM or GIF")


def _run(arguments: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg to its end; stdout and stderr are captured. An ffmpeg that dies early is no deadlock, only a result.

    Raises:
        SetupError: `missing_dependency`.
    """
    import imageio_ffmpeg  # looks for its binary, which only a clip to write or to read needs

    try:
        process = subprocess.Popen(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Python ignores SIGXFSZ; ffmpeg shall too, so that a file size limit is an error message and not its death
            restore_signals=False,
            env={**os.environ, "LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1"},  # we read its messages
        )
    except (OSError, RuntimeError) as error:  # RuntimeError: imageio-ffmpeg found none
        raise SetupError(
            "missing_dependency",
            f"ffmpeg cannot be started: {error}. Videos are written and read with it.",
            [
                "Install it again: pip install --force-reinstall imageio-ffmpeg",
                "Or set IMAGEIO_FFMPEG_EXE to an ffmpeg",
            ],
        ) from error
    try:
        stdout, stderr = process.communicate(stdin)
    finally:  # on an interrupt, wait until it is gone: only then can its file be removed
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _encoding_error(
    result: subprocess.CompletedProcess[bytes], container: str
) -> OSError | SetupError | GenerationError:
    log = _log(result)
    reason = next((message for message in NO_SPACE_MESSAGES if message in log), None)
    if reason is not None:
        return OSError(NO_SPACE_MESSAGES[reason], reason)
    if "Unknown encoder" in log:
        return SetupError(
            "missing_dependency",
            f"This ffmpeg lacks an encoder: {_last_lines(result, 8)}",
            [OWN_FFMPEG],
        )
    other = f"Make a {'WebM' if container == 'mp4' else 'MP4'} or a GIF: let outputPath end so"
    return GenerationError(
        "encoding_failed",
        f"ffmpeg ended with status {result.returncode}: {_last_lines(result, 8)}",
        [OWN_FFMPEG, other] if os.environ.get("IMAGEIO_FFMPEG_EXE") else [other],
    )


def unreadable(path: Path, reason: str) -> InputError:
    """The error for a file that is damaged or no clip."""
    return InputError(
        "invalid_clip",
        f"{path} cannot be read as a clip: {reason}.",
        ["Give an MP4, WebM or GIF that vidkit wrote", "If it was copied or downloaded, copy it again: it is damaged"],
    )


def _codec(log: str) -> tuple[str, str]:
    for stream in _STREAM.finditer(log):
        pixel_format = _PIXEL_FORMAT.search(stream["rest"])
        if pixel_format is not None and not stream["rest"].endswith("(attached pic)"):
            return stream["codec"], pixel_format[1]
    return "unknown", "unknown"


def _log(result: subprocess.CompletedProcess[bytes]) -> str:
    return result.stderr.decode("utf-8", "replace").replace("\r\n", "\n")


def _last_lines(result: subprocess.CompletedProcess[bytes], count: int) -> str:
    return " | ".join(_log(result).strip().splitlines()[-count:])[-2000:] or "nothing"
