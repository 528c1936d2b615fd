"""Real clips by the real ffmpeg: what is written is what is read back, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from vidkit import files, video
from vidkit.errors import CriticalError, GenerationError, InputError, SetupError

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FORMATS: tuple[video.OutputFormat, ...] = ("mp4", "webm", "gif")
FRAMES_AND_RATES = [(1, 1), (1, 60), (2, 8), (2, 60), (14, 8), (14, 24), (14, 30), (48, 30), (48, 60)]
NASTY = {
    "prompt": "a;b=c#d\\e\\\\ \"quoted\" 'single'\nline\r\nline\ttab\0nul",
    "unicode": "é 漢字 🎬 \u2028 \ud83c",
    "[STREAM]": "comment=;FFMETADATA1\n[CHAPTER]\n  Stream #0:0: Video: fake, gray, 1x1",
    "long": "x\\=;#\n" * 20_000,
    "numbers": [1, 2.5, -1e-9, True, None, {"deep": {"er": []}}],
}


def moving_picture(frames: int = 14, height: int = 128, width: int = 192) -> video.Frames:
    """A smooth texture that drifts: sums of waves of falling strength, as in a photograph."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width]
    clip = np.zeros((frames, height, width, 3))
    for wave in range(1, 25):
        angle, phase = random.uniform(0, 2 * np.pi, 2)
        tint = random.uniform(0.4, 1.0, 3)
        for number in range(frames):
            along = (x + 2 * number) * np.cos(angle) + y * np.sin(angle)
            clip[number] += (np.sin(along * wave / 30 + phase) / wave**0.7)[..., None] * tint
    clip = (clip - clip.min()) / (clip.max() - clip.min())
    return (20 + clip * 215).round().astype(np.uint8)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8))


def write(path: Path, frames: video.Frames | None = None, **options: Any) -> Path:
    defaults: dict[str, Any] = {"fps": 8, "output_format": path.suffix[1:], "record": {"seed": 1}}
    video.write_video(moving_picture(3, 32, 48) if frames is None else frames, path, **(defaults | options))
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def ffmpeg_log(path: Path) -> str:
    command = [FFMPEG, "-hide_banner", "-i", path]
    return subprocess.run(command, capture_output=True, check=False).stderr.decode()


# --- what is written is what is read back ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("count", "fps"), FRAMES_AND_RATES)
def test_count_size_and_rate_are_exact(tmp_path: Path, suffix: str, count: int, fps: int) -> None:
    frames = moving_picture(count, 48, 80)
    path = write(tmp_path / f"clip.{suffix}", frames, fps=fps)
    info = video.probe(path)
    assert (info.frames, info.width, info.height) == (count, 80, 48)
    assert video.read_frames(path).shape == frames.shape
    if suffix == "gif":
        assert count / info.fps == pytest.approx(count / fps, abs=0.00501)
    else:
        assert info.fps == pytest.approx(fps, abs=1e-9)
        assert (info.codec, info.pixel_format) == ({"mp4": "h264", "webm": "vp9"}[suffix], "yuv420p")
    assert names(tmp_path) == [f"clip.{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_that_stand_still_are_all_there_and_in_order(tmp_path: Path, suffix: str) -> None:
    levels = [0, 0, 0, 255, 255, 255, 255, 128, 0, 0]
    frames = np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])
    back = video.read_frames(write(tmp_path / f"clip.{suffix}", frames))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).max() <= 3


@pytest.mark.parametrize("suffix", FORMATS)
def test_textured_frames_that_repeat_read_back_alike(tmp_path: Path, suffix: str) -> None:
    frames = moving_picture(4, 64, 64)[[0, 0, 0, 0, 1, 1, 2, 3, 3, 3]]
    back = video.read_frames(write(tmp_path / f"clip.{suffix}", frames))
    assert len(back) == 10
    # a GIF's pixel that lets the frame below shine through must not be seen
    assert np.abs(np.diff(back.astype(int), axis=0))[[0, 1, 2, 4, 7, 8]].max() <= (0 if suffix == "gif" else 20)


def test_mp4_plays_in_browsers(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", moving_picture(5, 576, 1024), cover=[noise(20, 30)])
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "faststart"
    profile = data[data.index(b"avcC") + 5]
    level = data[data.index(b"avcC") + 7]
    assert profile == 100, "High"
    assert level <= 32, "automatic: 1024x576 at 8 fps needs no more than 3.2"
    first, *others = re.findall(r"Stream #0:.*", ffmpeg_log(path))
    assert "yuv420p(tv, bt709, progressive)" in first
    assert "(default)" in first
    assert "8 fps" in first
    assert all("attached pic" in other for other in others)
    assert "Audio" not in ffmpeg_log(path)
    assert b"nclx" in data


def test_webm_is_tagged_bt709(tmp_path: Path) -> None:
    assert "yuv420p(tv, bt709, progressive)" in ffmpeg_log(write(tmp_path / "clip.webm"))


@pytest.mark.parametrize(("suffix", "least"), [("mp4", 40), ("webm", 38), ("gif", 30)])
def test_quality(tmp_path: Path, suffix: str, least: float) -> None:
    frames = moving_picture(14, 256, 384)
    back = video.read_frames(write(tmp_path / f"clip.{suffix}", frames))
    assert psnr(frames, back) >= least
    assert psnr(frames[0], back[0]) >= least


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)])
def test_colors_are_not_shifted(tmp_path: Path, suffix: str, color: tuple[int, int, int]) -> None:
    frames = np.full((2, 32, 32, 3), color, np.uint8)
    back = video.read_frames(write(tmp_path / f"clip.{suffix}", frames))
    assert np.abs(back.astype(int) - frames).max() <= 6


def test_a_decoder_told_bt709_sees_the_same_colors(tmp_path: Path) -> None:
    """Independent of our reading: the stored Y'CbCr of pure green, computed by hand from ITU-R BT.709."""
    path = write(tmp_path / "clip.mp4", np.full((1, 32, 32, 3), (0, 255, 0), np.uint8))
    command = [FFMPEG, "-i", path, "-map", "0:v:0", "-f", "rawvideo", "-"]
    planes = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    luma, blue, red = planes[:1024].mean(), planes[1024:1280].mean(), planes[1280:1536].mean()
    assert (luma, blue, red) == pytest.approx((16 + 219 * 0.7152, 128 - 224 * 0.3854, 128 - 224 * 0.4542), abs=1.5)


def test_gif_has_no_bands_in_a_sky(tmp_path: Path) -> None:
    y, x = np.mgrid[0:128, 0:192]
    sky = np.stack([60 + x / 2, 110 + y / 2 + x / 8, 180 + y / 3], -1).round().astype(np.uint8)[None]
    error = video.read_frames(write(tmp_path / "clip.gif", sky)).astype(float) - sky
    as_seen = error.reshape(16, 8, 24, 8, 3).mean(axis=(1, 3))  # the eye blurs the dither over 8x8 pixels
    assert np.abs(as_seen).mean() < 0.5


def test_gif_delays_are_even_and_loop_for_ever(tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "clip.gif", moving_picture(4, 16, 16), fps=8)) as image:
        assert image.info["loop"] == 0
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(image)] == [120, 130, 120, 130]


@pytest.mark.parametrize("suffix", FORMATS)
def test_same_input_same_bytes(tmp_path: Path, suffix: str) -> None:
    frames = moving_picture(6, 64, 96)
    options: dict[str, Any] = {"record": NASTY, "cover": [noise(9, 9)] if suffix == "mp4" else []}
    first = write(tmp_path / f"first.{suffix}", frames, **options).read_bytes()
    time.sleep(1.1)  # a time stamp in seconds would differ
    assert write(tmp_path / f"second.{suffix}", frames, **options).read_bytes() == first


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a test choose its cores")
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_same_bytes_on_one_core_as_on_all(tmp_path: Path, suffix: str) -> None:
    frames = moving_picture(6, 128, 192)
    on_all = write(tmp_path / f"all.{suffix}", frames).read_bytes()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert write(tmp_path / f"one.{suffix}", frames).read_bytes() == on_all
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("suffix", ["webm", "gif"])
def test_odd_sizes_where_the_format_has_them(tmp_path: Path, suffix: str) -> None:
    frames = moving_picture(3, 33, 47)
    assert video.read_frames(write(tmp_path / f"clip.{suffix}", frames)).shape == frames.shape


def test_frames_need_not_be_contiguous(tmp_path: Path) -> None:
    frames = moving_picture(4, 64, 64)[:, ::2, ::-2]
    assert psnr(frames, video.read_frames(write(tmp_path / "clip.mp4", frames))) > 35


# --- record and cover -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_record_survives(tmp_path: Path, suffix: str) -> None:
    assert len(NASTY["long"]) > 100_000
    assert video.read_record(write(tmp_path / f"clip.{suffix}", record=NASTY)) == NASTY


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("length", [0, 1, 243, 244, 245, 255, 256, 65_536, 600_000])
def test_record_of_any_length(tmp_path: Path, suffix: str, length: int) -> None:
    record = {"text": "y" * length}
    assert video.read_record(write(tmp_path / f"clip.{suffix}", record=record)) == record


def test_two_covers_are_bit_exact_and_in_order(tmp_path: Path) -> None:
    covers = [noise(576, 1024, seed=1), noise(77, 33, 4, seed=2)]
    path = write(tmp_path / "clip.mp4", cover=covers, record=NASTY)
    back = video.read_cover(path)
    assert [picture.mode for picture in back] == ["RGB", "RGBA"]
    for cover, picture in zip(covers, back, strict=True):
        assert np.array_equal(np.asarray(cover), np.asarray(picture))
    assert video.read_record(path) == NASTY
    assert video.read_frames(path).shape == (3, 32, 48, 3)
    assert names(tmp_path) == ["clip.mp4"]


def test_cover_carries_nothing_but_pixels(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    noise(16, 16).save(photo, exif=exif, icc_profile=b"secret profile", comment=b"secret")
    with Image.open(photo) as picture:
        data = write(tmp_path / "clip.mp4", cover=[picture]).read_bytes()
    assert b"taken at home" not in data
    assert b"eXIf" not in data
    assert b"iCCP" not in data
    assert b"secret" not in data


@pytest.mark.parametrize("suffix", FORMATS)
def test_bare_clip_has_no_record_and_no_cover(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", record=None)
    assert video.read_cover(path) == []
    with pytest.raises(InputError, match="no vidkit record") as caught:
        video.read_record(path)
    assert caught.value.code == "invalid_clip"
    assert not re.search(rb"Lav[fc]\d|\d{4}-\d\d-\d\d", path.read_bytes()), "no versions, no dates"


@pytest.mark.parametrize("suffix", FORMATS)
def test_sidecar_speaks_for_a_clip_that_lost_its_record(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", record=None)
    video.write_sidecar(path, {"old": 1})
    video.write_sidecar(path, NASTY)
    assert video.sidecar_path(path).name == f"clip.{suffix}.json"
    assert "漢字 🎬" in video.sidecar_path(path).read_text(encoding="utf-8")
    assert video.read_record(path) == NASTY
    assert names(tmp_path) == [f"clip.{suffix}", f"clip.{suffix}.json"]


def test_record_in_the_clip_goes_before_the_sidecar(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", record={"from": "clip"})
    video.write_sidecar(path, {"from": "sidecar"})
    assert video.read_record(path) == {"from": "clip"}


@pytest.mark.parametrize("comment", ["my holiday", '["a", "list"]', "12", "{broken", "[" * 100_000])
def test_somebody_elses_comment_is_no_record(tmp_path: Path, comment: str) -> None:
    noise(8, 8).save(tmp_path / "alien.gif", comment=comment)
    with pytest.raises(InputError) as caught:
        video.read_record(tmp_path / "alien.gif")
    assert caught.value.code == "invalid_clip"


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "nearest"), [(33, 48, "48x32"), (32, 47, "46x32"), (1, 1, "2x2")])
def test_odd_sizes_are_no_mp4(tmp_path: Path, height: int, width: int, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        write(tmp_path / "clip.mp4", np.zeros((1, height, width, 3), np.uint8))
    assert caught.value.code == "invalid_size"
    assert nearest in caught.value.suggestions[0]
    assert names(tmp_path) == []


def test_gif_faster_than_its_clock(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write(tmp_path / "clip.gif", fps=120)
    assert caught.value.code == "out_of_range"


@pytest.mark.parametrize("suffix", FORMATS)
def test_existing_file_is_kept_unless_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(InputError) as caught:
        write(path)
    assert caught.value.code == "output_exists"
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == [path.name]
    write(path, overwrite=True)
    assert video.probe(path).frames == 3
    assert names(tmp_path) == [path.name]


def test_target_that_appears_while_encoding_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    slow_start(tmp_path / "bin", monkeypatch, f"printf precious > '{path}'")
    with pytest.raises(InputError) as caught:
        write(path)
    assert caught.value.code == "output_exists"
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == ["bin", "clip.mp4"]


def test_no_hard_links_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # what exFAT answers

    def refuse_late(_: Path, target: Path) -> None:
        target.write_bytes(b"precious")
        refuse()

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "clip.gif")
    monkeypatch.setattr(os, "link", refuse_late)
    with pytest.raises(InputError) as caught:
        write(tmp_path / "other.gif")
    assert caught.value.code == "output_exists"
    assert (tmp_path / "other.gif").read_bytes() == b"precious"
    assert names(tmp_path) == ["clip.gif", "other.gif"]


def test_folder_is_made(tmp_path: Path) -> None:
    assert write(tmp_path / "new" / "deep" / "clip.gif").is_file()


@pytest.mark.parametrize("suffix", FORMATS)
def test_folder_that_cannot_be(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetupError) as caught:
        write(tmp_path / "file" / f"clip.{suffix}")
    assert caught.value.code == "output_not_writable"
    with pytest.raises(SetupError):
        video.write_sidecar(tmp_path / "file" / f"clip.{suffix}", {})
    assert names(tmp_path) == ["file"]


def test_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()
    with pytest.raises(SetupError) as caught:
        write(tmp_path / "clip.mp4", overwrite=True)
    assert caught.value.code == "output_not_writable"
    assert names(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), {}),
        (np.zeros((8, 8, 3), np.uint8), {}),
        (np.zeros((0, 8, 8, 3), np.uint8), {}),
        (np.zeros((1, 8, 8, 4), np.uint8), {}),
        (None, {"fps": 0}),
        (None, {"output_format": "avi"}),
        (None, {"record": {"x": float("nan")}}),
        (None, {"cover": [noise(8, 8)] * 3}),
        (None, {"cover": [noise(8, 8)], "output_format": "webm"}),
        (None, {"cover": [Image.new("CMYK", (8, 8))]}),
    ],
)
def test_arguments_that_break_the_contract(tmp_path: Path, frames: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"frames|fps|output_format|JSON|cover"):
        write(tmp_path / "clip.mp4", frames, **options)
    assert names(tmp_path) == []


# --- failures leave nothing behind ----------------------------------------------------------------------------------


def slow_start(folder: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str = 'exec "$REAL" "$@"') -> None:
    """Put a shell script in ffmpeg's place that does something `before` it runs the real one."""
    folder.mkdir(exist_ok=True)
    script = folder / "ffmpeg"
    script.write_text(f"#!/bin/bash\nREAL='{FFMPEG}'\n{before}\n{after}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_disk_full_in_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """The real ffmpeg writes to /dev/full, where every write fails as on a full disk."""
    slow_start(tmp_path / "bin", monkeypatch, "", 'exec "$REAL" "${@:1:$#-1}" /dev/full')
    with pytest.raises(CriticalError) as caught:
        write(tmp_path / f"clip.{suffix}", moving_picture(14, 256, 384), cover=[noise(8, 8)] if suffix == "mp4" else [])
    assert caught.value.code == "disk_full"
    assert names(tmp_path) == ["bin"]


WRITE_LARGE = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from PIL import Image
    from vidkit import files, video
    from vidkit.errors import VidkitError

    folder, suffix, part, limit = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    frames = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), dtype=np.uint8)
    large = "x" * 3_000_000
    cover = [Image.fromarray(np.tile(frames[0], (4, 4, 1)))] if part == "cover" else []
    try:
        if part == "sidecar":
            video.write_sidecar(folder / f"clip.{suffix}", {"text": large})
        else:
            record = {"text": large if part == "record" else ""}
            small = frames if part == "frames" else frames[:, :32, :32]
            video.write_video(small, folder / f"clip.{suffix}", fps=8, output_format=suffix, record=record, cover=cover)
    except VidkitError as error:
        print(error.code, error.message)
"""
LARGE_PARTS = [
    *[(suffix, part) for suffix in FORMATS for part in ("frames", "record", "sidecar")],
    ("mp4", "cover"),
]


@pytest.mark.parametrize(("suffix", "part"), LARGE_PARTS)
def test_disk_refuses_more_bytes(tmp_path: Path, suffix: str, part: str) -> None:
    """A file size limit: it needs no privileges, and reaches us and ffmpeg as a full disk does, by a failing write."""
    arguments = [str(tmp_path), suffix, part, "50000"]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITE_LARGE), *arguments], capture_output=True, text=True, check=False
    )
    assert result.stdout.startswith("disk_full"), result
    assert result.stderr == ""
    assert names(tmp_path) == []


UNSHARE = [shutil.which("unshare") or "false", "--map-root-user", "--mount"]  # mounts in it are ours alone


def can_mount() -> bool:
    command = [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no user namespaces; the two tests above cover it")
@pytest.mark.parametrize(("suffix", "part"), LARGE_PARTS)
def test_a_disk_that_is_really_full(tmp_path: Path, suffix: str, part: str) -> None:
    python = [sys.executable, "-c", textwrap.dedent(WRITE_LARGE), str(tmp_path), suffix, part, "0"]
    shell = 'mount -t tmpfs -o size=64k tmpfs "$0" && "$@" && ls -A "$0"'
    result = subprocess.run(
        [*UNSHARE, "bash", "-c", shell, str(tmp_path), *python],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith("disk_full"), result
    assert len(result.stdout.splitlines()) == 1, "nothing is left on the disk"


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("death", ["exit 7", "head -c 100000 >/dev/null; kill -9 $$", "exec false"])
def test_ffmpeg_that_dies_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, death: str) -> None:
    slow_start(tmp_path / "bin", monkeypatch, "echo the reason is this >&2", death)
    with pytest.raises(GenerationError, match="the reason is this") as caught:
        write(tmp_path / f"clip.{suffix}", moving_picture(14, 256, 384))
    assert caught.value.code == "encoding_failed"
    assert names(tmp_path) == ["bin"]


def test_ffmpeg_that_loses_a_frame_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(tmp_path / "bin", monkeypatch, "", '[[ "$*" == *pipe:0* ]] && set -- -t 0.2 "$@"; exec "$REAL" "$@"')
    with pytest.raises(GenerationError, match="2 frames") as caught:
        write(tmp_path / "clip.mp4")
    assert caught.value.code == "corrupted_output"
    assert names(tmp_path) == ["bin"]


def test_ffmpeg_that_loses_the_record_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = 'a=("$@"); for i in "${!a[@]}"; do [ "${a[i]}" != -map_metadata ] || a[i+1]=-1; done; exec "$REAL" "${a[@]}"'
    slow_start(tmp_path / "bin", monkeypatch, "", drop)
    with pytest.raises(GenerationError, match="record"):
        write(tmp_path / "clip.mp4")
    assert names(tmp_path) == ["bin"]


def test_no_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "clip.mp4")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    for action in (lambda: write(tmp_path / "other.mp4"), lambda: video.read_record(path)):
        with pytest.raises(SetupError) as caught:
            action()
        assert caught.value.code == "missing_dependency"
    assert names(tmp_path) == ["clip.mp4"]


def test_ffmpeg_without_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(tmp_path / "bin", monkeypatch, "", 'exec "$REAL" "${@/libx264/libx999}"')
    with pytest.raises(SetupError, match="libx999") as caught:
        write(tmp_path / "clip.mp4")
    assert caught.value.code == "missing_dependency"


def test_keyboard_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "bin" / "pid"
    slow_start(
        tmp_path / "bin", monkeypatch, f"echo $$ > '{pid_file}'; sleep 0.5; kill -INT {os.getpid()}; exec sleep 1000"
    )
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "clip.mp4", moving_picture(14, 256, 384))
    assert names(tmp_path) == ["bin"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_what_a_killed_process_left_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(tmp_path / "bin", monkeypatch, f"touch '{tmp_path}/started'; sleep 2")
    code = "import sys; sys.path[:0] = ['tests']; import test_video as t, pathlib; t.write(pathlib.Path(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "clip.mp4")])
    try:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    other = tmp_path / f".clip.mp4.{child.pid}1.part.mp4"
    other.touch()
    left = [file.name for file in files.partial_files(tmp_path, child.pid)]
    assert [name.partition(f".{child.pid}.part")[2] for name in left] == [".mp4", ".tags.txt"]
    assert not (tmp_path / "clip.mp4").exists()


def test_temporary_name_is_ours_beside_the_target(tmp_path: Path) -> None:
    temporary = files.temporary_beside(tmp_path / "clip.mp4")
    assert temporary.parent == tmp_path
    assert temporary.name.startswith(".clip.mp4.")
    assert temporary.name.endswith(f".{os.getpid()}.part.mp4")
    with ThreadPoolExecutor(1) as other_thread:
        assert other_thread.submit(files.temporary_beside, tmp_path / "clip.mp4").result() != temporary
    temporary.symlink_to(tmp_path / "elsewhere")  # a leftover, or a trap
    write(tmp_path / "clip.mp4")
    assert names(tmp_path) == ["clip.mp4"]
    assert not (tmp_path / "clip.mp4").is_symlink()


def test_names_that_could_mean_something_to_ffmpeg(tmp_path: Path) -> None:
    for name in ("a%03d.mp4", "-y.mp4", "pipe:1.mp4", "it's [x] {y} é 🎬.mp4", "concat:a|b.mp4", "no suffix"):
        path = write(tmp_path / name, output_format="mp4", cover=[noise(8, 8)], record=NASTY)
        assert video.read_record(path) == NASTY
        assert len(video.read_cover(path)) == 1
    assert len(names(tmp_path)) == 6


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in FORMATS:
        path = write(tmp_path / f"clip.{suffix}")
        video.read_frames(path)
        video.read_record(path)
    assert capfd.readouterr() == ("", "")


# --- damaged and foreign files --------------------------------------------------------------------------------------

READERS = [video.probe, video.read_frames, video.read_record, video.read_cover]


@pytest.mark.parametrize("reader", READERS)
def test_missing_clip(tmp_path: Path, reader: Any) -> None:
    with pytest.raises(InputError) as caught:
        reader(tmp_path / "clip.mp4")
    assert caught.value.code == "clip_not_found"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("damage", ["empty", "head", "text", "playlist", "noise"])
def test_no_clip_at_all(tmp_path: Path, suffix: str, reader: Any, damage: str) -> None:
    data = write(tmp_path / f"good.{suffix}").read_bytes()
    contents = {
        "empty": b"",
        "head": data[:40],
        "text": b"hello world, hello world",
        "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "noise": data[:16] + np.random.default_rng(0).bytes(5000) + b";",
    }
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes(contents[damage])
    with pytest.raises(InputError) as caught:
        if video.read_cover is reader and bad.read_bytes()[:3] == b"GIF":
            video.probe(bad)  # no GIF has a cover, so none is read
        reader(bad)
    assert caught.value.code == "invalid_clip"
    assert "bad." in caught.value.message


@pytest.mark.parametrize("reader", [video.probe, video.read_frames])
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_truncated_clip(tmp_path: Path, suffix: str, reader: Any, kept: float) -> None:
    path = write(tmp_path / f"clip.{suffix}", moving_picture(14, 128, 128))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError) as caught:
        reader(path)
    assert caught.value.code == "invalid_clip"
    with pytest.raises(GenerationError):
        video.verify_video(path, frames=14, width=128, height=128, fps=8)


def test_gif_cut_between_two_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.gif", moving_picture(5, 32, 32))
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\x21\xf9\x04")])  # where the last frame begins
    with pytest.raises(InputError, match="cut off"):
        video.probe(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("wrong", [{"frames": 2}, {"frames": 4}, {"width": 46}, {"height": 30}, {"fps": 9}, {"fps": 7}])
def test_verify_finds_every_difference(tmp_path: Path, suffix: str, wrong: dict[str, int]) -> None:
    path = write(tmp_path / f"clip.{suffix}")
    right = {"frames": 3, "width": 48, "height": 32, "fps": 8}
    video.verify_video(path, **right)
    with pytest.raises(GenerationError) as caught:
        video.verify_video(path, **(right | wrong))
    assert caught.value.code == "corrupted_output"


# --- broken frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_bad_number_is_found(value: float, dtype: Any) -> None:
    frames = (moving_picture(4, 16, 16) / 255).astype(dtype)
    video.check_frames(frames, noise(16, 16))
    frames[2, 3, 4, 1] = value
    with pytest.raises(GenerationError, match="frame 2") as caught:
        video.check_frames(frames, noise(16, 16))
    assert caught.value.code == "corrupted_output"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
@pytest.mark.parametrize(("level", "word"), [(0.0, "black"), (0.5, "flat"), (1.0, "flat")])
def test_flat_clips_are_refused_unless_the_picture_is_flat(dtype: Any, level: float, word: str) -> None:
    frames = np.full((3, 16, 16, 3), level * 255 if dtype == np.uint8 else level).astype(dtype)
    for picture in (noise(16, 16), None):
        with pytest.raises(GenerationError, match=word):
            video.check_frames(frames, picture)
    video.check_frames(frames, Image.new("RGB", (16, 16), "gray"))


def test_a_fade_from_black_is_no_failure() -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[2] = np.asarray(noise(16, 16))
    video.check_frames(frames, noise(16, 16))


def test_a_faint_picture_is_no_flat_one() -> None:
    frames = np.full((2, 16, 16, 3), 100, np.uint8)
    frames[:, ::2] += 4
    video.check_frames(frames, noise(16, 16))


# --- stills ---------------------------------------------------------------------------------------------------------


def test_contact_sheet_reads_like_text() -> None:
    frames = np.stack([np.full((4, 6, 3), 10 * (number + 1), np.uint8) for number in range(5)])
    sheet = np.asarray(video.contact_sheet(frames, 3))
    assert sheet.shape == (8, 18, 3)
    assert sheet[::4, ::6, 0].tolist() == [[10, 20, 30], [40, 50, 0]]


def test_poster_is_the_first_frame() -> None:
    frames = moving_picture(3, 16, 16)
    assert np.array_equal(np.asarray(video.poster(frames)), frames[0])


def test_torch_is_not_loaded() -> None:
    subprocess.run([sys.executable, "-c", "import sys, vidkit.video; sys.exit('torch' in sys.modules)"], check=True)
