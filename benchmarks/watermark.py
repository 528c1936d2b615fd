"""Does an invisible watermark survive a clip's way to its viewers? Bits read back, harm done, time taken.

    python -m benchmarks.watermark PHOTOGRAPHS [--photographs 4] [--frames 8] [--without rivaGan] [--json FILE]

PHOTOGRAPHS is a folder of pictures; each becomes a camera move at each size. Needs the libraries that are measured,
which vidkit does not: `pip install invisible-watermark blind-watermark onnxruntime`; one that is not there is left out,
and said so. One clip of a bundled model is measured too, at its 128x128. Exit code: 0 when any method survives at every
size, 1 when none does, 2 when there are no photographs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image

import vidkit
from benchmarks.bundled_models import photographs
from benchmarks.making import private_home
from vidkit.errors import InputError
from vidkit.images import fit_image, load_image
from vidkit.video import read_frames, write_video

Frame = npt.NDArray[np.uint8]
Frames = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]

#: what is written: 32 bits, half of them set, in no order that a picture has
PAYLOAD: Final[Bits] = np.unpackbits(np.frombuffer(b"\x5a\xc3\x96\x65", np.uint8)).astype(bool)
#: of the 32 bits, by majority over a clip: random bits reach this share once in 17,700 clips
SURVIVES: Final = 27 / 32
SIZES: Final = ((1024, 576), (512, 512), (256, 256))
FPS: Final = 8
#: share of the width by which the camera moves over a clip
MOVE: Final = 0.06


@dataclass(frozen=True)
class Method:
    """A library's way: frame -> frame that carries PAYLOAD; frame -> the bits it reads."""

    name: str
    embed: Callable[[Frame], Frame]
    read: Callable[[Frame], Bits]


@dataclass(frozen=True)
class Row:
    """One clip, marked one way. accuracy: share of right bits, mean over frames, and by majority over the clip, by the
    way the clip went; unmarked: by majority, in the same clip without a mark. psnr: dB, mean and of the worst frame;
    wild: pixels changed by over 64 of 255 levels, of a million. milliseconds: to mark a frame.
    """

    method: str
    clip: str
    size: str
    accuracy: Mapping[str, tuple[float, float]]
    unmarked: float
    psnr: tuple[float, float]
    wild: float
    milliseconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    try:
        pictures = photographs(options.folder, options.photographs)
    except InputError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    rows: list[Row] = []
    found = [method for method in methods() if method.name.split()[-1] not in options.without]
    with private_home() as folder:
        for name, frames in clips(pictures, options.frames, folder):
            for method in found:
                try:
                    rows.append(measured(method, name, frames, folder))
                except RuntimeError as error:  # invisible-watermark refuses what is under 256x256
                    print(f"{method.name}, {name}, {size_of(frames)}: {error}", file=sys.stderr)
                    continue
                print(line(rows[-1]), file=sys.stderr, flush=True)
                if options.json:  # after each clip: a run that is stopped keeps what it has
                    text = json.dumps([asdict(row) for row in rows], indent=1)
                    options.json.write_text(text + "\n", encoding="utf-8")
    print("\n".join([HEADER, *summary(rows)]))
    return int(not any(survives(rows, method.name) for method in found))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.watermark", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="PHOTOGRAPHS")
    parser.add_argument("--photographs", type=int, default=4, help="how many of them (at least 2)")
    parser.add_argument("--frames", type=int, default=8, help="of each clip")
    parser.add_argument("--without", nargs="*", default=(), metavar="METHOD", help="not measured, e.g. rivaGan")
    parser.add_argument("--json", type=Path, help="the rows, as JSON")
    return parser.parse_args(arguments)


# --- clips


def clips(pictures: Sequence[str], count: int, folder: Path) -> Iterator[tuple[str, Frames]]:
    for width, height in SIZES:
        for picture in pictures:
            yield Path(picture).name, camera_move(Path(picture), width, height, count)
    request = {"image_path": pictures[0], "prompt": "any", "motion_bucket_id": 60, "seed": 7, "num_inference_steps": 6}
    made = vidkit.generate({**request, "output_path": str(folder / "made.mp4")})
    yield "tiny-svd", read_frames(made.output)[:count]


def camera_move(picture: Path, width: int, height: int, count: int) -> Frames:
    """A pan over a photograph, `(count, height, width, 3)`."""
    wide = fit_image(load_image(picture), round(width * (1 + MOVE)), height, "crop")
    offsets = np.linspace(0, wide.width - width, count).round().astype(int)
    return np.stack([np.asarray(wide)[:, x : x + width] for x in offsets])


def ways(frames: Frames, folder: Path) -> Iterator[tuple[str, Frames]]:
    """A clip as its viewers get it: as it is, as vidkit's MP4, encoded again by a web site, and made half as large.

    What was made smaller is brought back to its size, which helps the reader: nobody would tell it.
    """
    stored = folder / "marked.mp4"
    yield "frames", frames
    write_video(frames, stored, fps=FPS, output_format="mp4", record=None, overwrite=True)
    yield "vidkit's H.264", read_frames(stored)
    yield "H.264 again, crf 28", encoded_again(stored, ["-crf", "28"])
    half = encoded_again(stored, ["-crf", "23", "-vf", "scale=iw/2:ih/2:flags=bicubic"])
    size = (frames.shape[2], frames.shape[1])
    restored = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in half]
    yield "half size", np.stack([np.asarray(frame) for frame in restored])


def encoded_again(clip: Path, options: Sequence[str]) -> Frames:
    target = clip.with_name("again.mp4")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-i", str(clip), "-c:v", "libx264"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", *options, str(target)], check=True)
    return read_frames(target)


# --- methods


def methods() -> list[Method]:
    found = []
    for make in (dwt_dct, dwt_dct_svd, riva_gan, blind):
        try:
            found.append(make())
        except ImportError as error:
            print(f"{make.__name__} is left out: {error}", file=sys.stderr)
    if not found:
        raise SystemExit("Nothing to measure: pip install invisible-watermark blind-watermark onnxruntime")
    return found


def dwt_dct() -> Method:
    return of_imwatermark("dwtDct")


def dwt_dct_svd() -> Method:
    return of_imwatermark("dwtDctSvd")


def riva_gan() -> Method:
    import onnxruntime  # noqa: F401

    return of_imwatermark("rivaGan")


def of_imwatermark(name: str) -> Method:
    from imwatermark import WatermarkDecoder, WatermarkEncoder

    if name == "rivaGan":
        WatermarkEncoder.loadModel()
    encoder, decoder = WatermarkEncoder(), WatermarkDecoder("bits", len(PAYLOAD))
    encoder.set_watermark("bits", PAYLOAD.astype(int).tolist())

    def embed(frame: Frame) -> Frame:
        marked = encoder.encode(np.ascontiguousarray(frame[..., ::-1]), name)
        return np.clip(marked, 0, 255).astype(np.uint8)[..., ::-1]

    def read(frame: Frame) -> Bits:
        return np.asarray(decoder.decode(np.ascontiguousarray(frame[..., ::-1]), name)).astype(float) > 0.5

    return Method(f"invisible-watermark {name}", embed, read)


def blind() -> Method:
    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        from blind_watermark import WaterMark

        WaterMark()

    def embed(frame: Frame) -> Frame:
        writer = WaterMark(password_img=1, password_wm=1)
        writer.read_img(img=np.ascontiguousarray(frame[..., ::-1]))
        writer.read_wm(PAYLOAD.tolist(), mode="bit")
        return np.clip(np.rint(writer.embed()), 0, 255).astype(np.uint8)[..., ::-1]

    def read(frame: Frame) -> Bits:
        reader = WaterMark(password_img=1, password_wm=1)
        image = np.ascontiguousarray(frame[..., ::-1])
        return np.asarray(reader.extract(embed_img=image, wm_shape=len(PAYLOAD), mode="bit")) > 0.5

    return Method("blind-watermark", embed, read)


# --- measures


def measured(method: Method, name: str, frames: Frames, folder: Path) -> Row:
    method.embed(frames[0])  # what is built at the first use is not a frame's time
    since = time.perf_counter()
    marked = np.stack([method.embed(frame) for frame in frames])
    spent = (time.perf_counter() - since) / len(frames)
    change = np.abs(marked.astype(int) - frames)
    squares = (change.astype(float) ** 2).mean(axis=(1, 2, 3))
    write_video(frames, folder / "plain.mp4", fps=FPS, output_format="mp4", record=None, overwrite=True)
    return Row(
        method.name,
        name,
        size_of(frames),
        {way: accuracy(method, got) for way, got in ways(marked, folder)},
        accuracy(method, read_frames(folder / "plain.mp4"))[1],
        (psnr(float(squares.mean())), psnr(float(squares.max()))),
        float((change.max(axis=-1) > 64).mean() * 1e6),
        spent * 1000,
    )


def accuracy(method: Method, frames: Frames) -> tuple[float, float]:
    """Share of right bits: mean of the frames', and of the majority of all frames."""
    bits = np.stack([method.read(frame) for frame in frames])
    return float((bits == PAYLOAD).mean()), float(((bits.mean(axis=0) > 0.5) == PAYLOAD).mean())


def psnr(square: float) -> float:
    return float(10 * np.log10(255**2 / max(square, 1e-9)))


def size_of(frames: Frames) -> str:
    return f"{frames.shape[2]}x{frames.shape[1]}"


def survives(rows: Sequence[Row], method: str) -> bool:
    """At every size that was measured, in every clip, on every way."""
    own = [row for row in rows if row.method == method]
    sizes = {row.size for row in rows}
    return {row.size for row in own} == sizes and all(
        majority >= SURVIVES for row in own for _, majority in row.accuracy.values()
    )


# --- words

HEADER: Final = (
    "| method | size | clips | ms a frame | PSNR mean, worst | wild pixels in a million "
    "| right bits by way: a frame, a clip (worst clip) | unmarked |\n|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    told = ", ".join(f"{way} {mean:.0%} {majority:.0%}" for way, (mean, majority) in row.accuracy.items())
    return f"{row.method}, {row.clip}, {row.size}: {row.milliseconds:.0f} ms, {row.psnr[0]:.1f} dB; {told}"


def summary(rows: Sequence[Row]) -> Iterator[str]:
    def kind(row: Row) -> tuple[str, str]:
        return row.method, row.size

    for (method, size), group in groupby(sorted(rows, key=kind), kind):
        some = list(group)
        ways_told = "; ".join(in_words(way, [row.accuracy[way] for row in some]) for way in some[0].accuracy)
        means: list[Any] = [
            np.mean([row.milliseconds for row in some]),
            np.mean([row.psnr[0] for row in some]),
            np.min([row.psnr[1] for row in some]),
            np.mean([row.wild for row in some]),
        ]
        yield (
            f"| {method} | {size} | {len(some)} | {means[0]:.0f} | {means[1]:.1f}, {means[2]:.1f} | {means[3]:.0f} "
            f"| {ways_told} | {np.mean([row.unmarked for row in some]):.0%} |"
        )


def in_words(way: str, shares: Sequence[tuple[float, float]]) -> str:
    frame, clip = np.mean(shares, axis=0)
    return f"{way}: {frame:.0%}, {clip:.0%} ({min(one for _, one in shares):.0%})"


if __name__ == "__main__":
    raise SystemExit(main())
