"""vidkit.images: every kind of picture file comes out as upright 8-bit sRGB, or as one InputError."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from vidkit import images
from vidkit.errors import InputError
from vidkit.images import decode_png, encode_png, fit_image, load_image

pytestmark = pytest.mark.filterwarnings("error")

RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)


def quadrants(width: int = 48, height: int = 32) -> Image.Image:
    """Red top left, green top right, blue bottom left, yellow bottom right."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, YELLOW
    return Image.fromarray(pixels)


def assert_same(actual: Image.Image, expected: Image.Image, tolerance: int = 0) -> None:
    assert (type(actual), actual.mode, actual.size, actual.info) == (Image.Image, "RGB", expected.size, {})
    difference = np.abs(np.asarray(actual).astype(int) - np.asarray(expected.convert("RGB")))
    assert difference.max() <= tolerance


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixels_of(image: Image.Image) -> list[tuple[int, int, int]]:
    return [tuple(map(int, pixel)) for pixel in np.asarray(image).reshape(-1, 3)]


def error_of(path: str | os.PathLike[str]) -> InputError:
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert Path(path).name.replace("\0", "\\x00") in caught.value.message
    return caught.value


# --- formats and modes


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif", "jpg"])
def test_every_format_gives_its_pixels_and_a_detached_image(tmp_path: Path, suffix: str) -> None:
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    path = save(tmp_path / f"a.{suffix}", quadrants(), **options)
    image = load_image(path)
    path.unlink()  # nothing may be read later
    assert_same(image, quadrants(), tolerance=4 if suffix == "jpg" else 0)
    assert_same(image.copy(), quadrants(), tolerance=4 if suffix == "jpg" else 0)


def test_the_content_counts_and_not_the_file_name(tmp_path: Path) -> None:
    assert_same(load_image(save(tmp_path / "photo.jpg", quadrants(), format="PNG")), quadrants())
    assert_same(load_image(str(save(tmp_path / "no suffix", quadrants(), format="PNG"))), quadrants())


def test_other_formats_are_refused(tmp_path: Path) -> None:
    for suffix in ("ppm", "tga", "ico", "pdf", "eps"):
        assert error_of(save(tmp_path / f"a.{suffix}", quadrants())).code == "invalid_image"


SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    # EXIF 2.3, tag 274: which visual sides the stored row 0 and column 0 are
    row_side, column_side = SIDES[orientation]
    stored = np.asarray(quadrants())
    if row_side in ("left", "right"):
        stored = stored.transpose(1, 0, 2)
    stored = stored[::-1] if row_side in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column_side in ("bottom", "right") else stored
    exif = Image.Exif()
    exif[274] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    assert_same(load_image(path), quadrants(), tolerance=4)


def test_broken_exif_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02"):
        assert_same(
            load_image(save(tmp_path / "a.jpg", quadrants(), exif=exif, quality=95, subsampling=0)), quadrants(), 4
        )


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_is_laid_over_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGBA", (4, 1))
    for x, alpha in enumerate((255, 128, 1, 0)):
        image.putpixel((x, 0), (255, 0, 0, alpha))
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    loaded = load_image(save(tmp_path / f"a.{suffix}", image, **options))
    assert pixels_of(loaded) == [RED, (255, 127, 127), (255, 254, 254), WHITE]


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.merge("LA", (Image.new("L", (2, 1), 100), Image.frombytes("L", (2, 1), b"\xff\x00")))
    for suffix in ("png", "tif"):
        assert pixels_of(load_image(save(tmp_path / f"a.{suffix}", image))) == [(100,) * 3, WHITE]


def test_premultiplied_alpha() -> None:
    grey = Image.merge("LA", (Image.new("L", (2, 1), 200), Image.frombytes("L", (2, 1), b"\xff\x00"))).convert("La")
    assert pixels_of(fit_image(grey, 2, 1)) == [(200,) * 3, WHITE]
    colour = Image.new("RGBA", (2, 1), (*BLUE, 255))
    colour.putpixel((1, 0), (255, 0, 0, 0))
    assert pixels_of(fit_image(colour.convert("RGBa"), 2, 1)) == [BLUE, WHITE]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        image.putpixel((x, 0), x)
    assert pixels_of(load_image(save(tmp_path / "a.png", image))) == [RED, GREEN, BLUE]
    assert pixels_of(load_image(save(tmp_path / "a.bmp", image))) == [RED, GREEN, BLUE]
    assert pixels_of(load_image(save(tmp_path / "b.png", image, transparency=1))) == [RED, WHITE, BLUE]
    assert pixels_of(load_image(save(tmp_path / "b.gif", image, transparency=1))) == [RED, WHITE, BLUE]
    half = pixels_of(load_image(save(tmp_path / "c.png", image, transparency=b"\xff\x00\x80")))
    assert half == [RED, WHITE, (127, 127, 255)]


def test_single_transparent_colour_of_rgb_and_grey(tmp_path: Path) -> None:
    assert pixels_of(load_image(save(tmp_path / "a.png", Image.new("RGB", (1, 1), RED), transparency=RED))) == [WHITE]
    assert pixels_of(load_image(save(tmp_path / "b.png", Image.new("L", (1, 1), 9), transparency=9))) == [WHITE]
    deep = Image.fromarray(np.array([[300, 301]], np.uint16))
    assert pixels_of(load_image(save(tmp_path / "c.png", deep, transparency=300))) == [WHITE, (1, 1, 1)]


def test_one_bit(tmp_path: Path) -> None:
    image = Image.frombytes("1", (8, 1), b"\xaa")
    for suffix in ("png", "bmp", "tif", "gif"):
        assert pixels_of(load_image(save(tmp_path / f"a.{suffix}", image))) == [WHITE, (0, 0, 0)] * 4


def test_cmyk_ycbcr_and_lab(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert_same(load_image(save(tmp_path / "a.jpg", cmyk, quality=95)), Image.new("RGB", (16, 16), RED), 4)
    assert_same(load_image(save(tmp_path / "a.tif", cmyk)), Image.new("RGB", (16, 16), RED))
    assert_same(load_image(save(tmp_path / "b.tif", quadrants().convert("YCbCr"))), quadrants(), 2)
    muted = quadrants().point(lambda value: 64 + value // 2)  # strong colours suffer in 8-bit Lab
    assert_same(load_image(save(tmp_path / "c.tif", muted.convert("LAB"))), muted, 5)


# --- more than 8 bits of grey

RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(1, 256)
GREYS = [(value,) * 3 for value in range(256)]


def write_tiff(path: Path, width: int, bits: int, photometric: int, data: bytes) -> Path:
    """One uncompressed row of grey; Pillow itself writes neither 12 bits nor white-is-zero with 16."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if value > 65535 else 3, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(header + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_16_bit_grey_keeps_its_gradient(tmp_path: Path) -> None:
    little, big = Image.fromarray(RAMP), Image.frombytes("I;16B", (256, 1), RAMP.astype(">u2").tobytes())
    for suffix in ("png", "tif"):
        assert pixels_of(load_image(save(tmp_path / f"a.{suffix}", little))) == GREYS
        assert pixels_of(load_image(save(tmp_path / f"b.{suffix}", big))) == GREYS
    wide = save(tmp_path / "c.tif", Image.fromarray(RAMP.astype(np.int32)))
    with Image.open(wide) as image:
        assert image.mode == "I"
    assert pixels_of(load_image(wide)) == GREYS
    compressed = save(tmp_path / "d.tif", little, compression="tiff_lzw")
    assert pixels_of(load_image(compressed)) == GREYS


def test_dark_16_bit_picture_stays_dark(tmp_path: Path) -> None:
    dark = Image.fromarray((RAMP[:, ::2] // 257 * 128).astype(np.uint16))
    greys = pixels_of(load_image(save(tmp_path / "a.png", dark)))
    assert greys[-1] == (127,) * 3
    assert len(set(greys)) == 128


def test_tiff_of_12_bits_and_white_is_zero(tmp_path: Path) -> None:
    assert pixels_of(load_image(write_tiff(tmp_path / "a.tif", 2, 12, 1, b"\xff\xf0\x00"))) == [WHITE, (0, 0, 0)]
    inverted = write_tiff(tmp_path / "b.tif", 256, 16, 0, RAMP.astype("<u2").tobytes())
    assert pixels_of(load_image(inverted)) == GREYS[::-1]


def test_wider_integers_go_from_darkest_to_brightest(tmp_path: Path) -> None:
    values = np.array([[-1000, 0, 1000]], np.int32) * 1000
    path = save(tmp_path / "a.tif", Image.fromarray(values))
    assert pixels_of(load_image(path)) == [(0,) * 3, (128,) * 3, (255,) * 3]


@pytest.mark.parametrize(
    ("values", "greys"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255]),
        ([0.2, 0.4, 0.6], [51, 102, 153]),
        ([-3.0, 0.0, 3.0], [0, 128, 255]),
        ([0.0, 100.0, 200.0], [0, 128, 255]),
        ([np.nan, 1.0, np.inf], [0, 255, 255]),
        ([-3.4e38, 0.0, 3.4e38], [0, 128, 255]),
        ([np.nan, np.nan, -np.inf], [0, 0, 0]),
        ([7.0, 7.0, 7.0], [0, 0, 0]),
    ],
)
def test_float_tiff(tmp_path: Path, values: list[float], greys: list[int]) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.array([values], np.float32)))
    assert pixels_of(load_image(path)) == [(grey,) * 3 for grey in greys]


# --- several frames


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert_same(load_image(path), frames[0])


def test_jpeg_of_a_phone_with_a_second_picture_inside(tmp_path: Path) -> None:
    other = Image.new("RGB", (8, 8), BLUE)
    path = save(tmp_path / "a.jpg", quadrants(), format="MPO", save_all=True, append_images=[other], quality=95)
    assert load_image(path).size == (48, 32)


# --- colour profiles


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC 2.4 profile with Lab (for CMYK) or XYZ as its connection space."""
    kind, connection = (b"prtr", b"Lab ") if space == b"CMYK" else (b"mntr", b"XYZ ")
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data
    white = struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\0") + table + body


def grey_is_linear() -> bytes:
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return icc_profile(b"GRAY", {b"wtpt": white, b"kTRC": b"curv" + bytes(4) + struct.pack(">IH", 1, 0x100)})


def cmyk_where_only_black_prints() -> bytes:
    identity = b"".join(struct.pack(">i", 0x10000 * (i % 4 == 0)) for i in range(9))
    ramp = bytes(range(256))
    lab = b"".join(bytes((0 if node & 1 else 255, 128, 128)) for node in range(16))  # K varies fastest
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + ramp * 4 + lab + ramp * 3
    return icc_profile(b"CMYK", {b"A2B0": lut})


def rgb_with_red_and_green_swapped() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(struct.unpack_from(">I", profile, 128)[0]):
        place = 132 + 12 * i
        name = bytes(profile[place : place + 4])
        profile[place : place + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name, name)
    return bytes(profile)


def test_rgb_profile_is_converted_and_dropped(tmp_path: Path) -> None:
    profile = rgb_with_red_and_green_swapped()
    expected = Image.merge("RGB", [quadrants().split()[i] for i in (1, 0, 2)])
    for suffix, tolerance in (("png", 1), ("tif", 1), ("jpg", 6), ("webp", 60)):
        path = save(tmp_path / f"a.{suffix}", quadrants(), icc_profile=profile, quality=95)
        image = load_image(path)
        assert np.median(np.abs(np.asarray(image).astype(int) - np.asarray(expected))) <= tolerance
        assert image.info == {}
        assert image.getpixel((4, 4))[1] > 200 > 60 > image.getpixel((4, 4))[0]  # type: ignore[index,operator]


def test_profile_and_transparency_together(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    path = save(tmp_path / "a.png", image, icc_profile=rgb_with_red_and_green_swapped())
    assert pixels_of(load_image(path))[1] == WHITE
    assert_same(load_image(path).crop((0, 0, 1, 1)), Image.new("RGB", (1, 1), GREEN), 1)


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert_same(load_image(save(tmp_path / "a.png", noise, icc_profile=profile)), noise, 1)


def test_cmyk_profile(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # cyan without a profile
    for suffix in ("jpg", "tif"):
        path = save(tmp_path / f"a.{suffix}", image, icc_profile=cmyk_where_only_black_prints())
        assert_same(load_image(path), Image.new("RGB", (16, 16), WHITE), 3)


def test_grey_profile(tmp_path: Path) -> None:
    profile = grey_is_linear()
    alpha = Image.merge("LA", (Image.new("L", (1, 1), 128), Image.new("L", (1, 1), 255)))
    for image in (Image.new("L", (1, 1), 128), alpha, Image.fromarray(np.full((1, 1), 128 * 257, np.uint16))):
        value = pixels_of(load_image(save(tmp_path / "a.png", image, icc_profile=profile)))[0][0]
        assert abs(value - 188) <= 2  # sRGB encodes linear 0.5 as 0.735


def test_broken_or_foreign_profile_is_ignored(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for profile in (b"nonsense", bytes(200), rgb_with_red_and_green_swapped()[:300]):
        assert_same(load_image(save(tmp_path / "a.png", quadrants(), icc_profile=profile)), quadrants())
        assert_same(load_image(save(tmp_path / "a.tif", cmyk, icc_profile=profile)), Image.new("RGB", (8, 8), RED))
    foreign = rgb_with_red_and_green_swapped()
    assert_same(load_image(save(tmp_path / "b.tif", cmyk, icc_profile=foreign)), Image.new("RGB", (8, 8), RED))
    assert_same(load_image(save(tmp_path / "b.png", quadrants(), icc_profile=grey_is_linear())), quadrants())


# --- files that cannot be read


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("missing.png", "no folder/a.png", "file/a.png", "x" * 300 + ".png", "null\0byte.png"):
        assert error_of(tmp_path / name).code == "image_not_found"
    assert error_of(str(tmp_path / "missing.png")).suggestions


def test_symlinks(tmp_path: Path) -> None:
    save(tmp_path / "a.png", quadrants())
    for name, target in (("link.png", "a.png"), ("dangling.png", "missing.png"), ("loop.png", "loop.png")):
        try:
            (tmp_path / name).symlink_to(target)
        except OSError:
            pytest.skip("no symlinks here")
    assert_same(load_image(tmp_path / "link.png"), quadrants())
    assert error_of(tmp_path / "dangling.png").code == "image_not_found"
    assert error_of(tmp_path / "loop.png").code == "image_not_found"


def test_folders_pipes_and_devices(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in error_of(tmp_path / "folder.png").message
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        error = error_of(tmp_path / "pipe.png")
        assert (error.code, "not a regular file" in error.message) == ("invalid_image", True)
    if Path("/dev/zero").exists():
        assert error_of("/dev/zero").code == "invalid_image"


@contextmanager
def as_common_user() -> Iterator[None]:
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_unreadable_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", quadrants())
    path.chmod(0)
    with as_common_user():
        error = error_of(path)
    assert error.code == "invalid_image"
    assert "permissions" in error.message


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    for name, data in (("empty.png", b""), ("text.png", b"no picture\n" * 99), ("zero.jpg", bytes(4096))):
        (tmp_path / name).write_bytes(data)
        assert error_of(tmp_path / name).code == "invalid_image"
    assert "0 bytes" in error_of(tmp_path / "empty.png").message
    assert "no JPEG, PNG, WEBP, BMP, TIFF, GIF" in error_of(tmp_path / "text.png").message


def png_of(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif_of(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b"\x02\x02\x44\x01\x00;"


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, 2**31 - 1), (10001, 10000), (10000, 10001), (70000, 1)])
@pytest.mark.parametrize("make", [png_of, bmp_of])
def test_bombs_are_refused_by_their_header(tmp_path: Path, make: Any, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(make(*size))
    start = time.perf_counter()
    assert error_of(tmp_path / "bomb.png").code == "image_too_large"
    assert time.perf_counter() - start < 2


def test_gif_bomb(tmp_path: Path) -> None:
    (tmp_path / "bomb.gif").write_bytes(gif_of(60000, 60000))
    assert error_of(tmp_path / "bomb.gif").code == "image_too_large"


def test_own_limit_counts_even_where_pillow_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png_of(60000, 60000))
    error = error_of(tmp_path / "bomb.png")
    assert (error.code, "60,000x60,000" in error.message) == ("image_too_large", True)


def test_pictures_without_pixels(tmp_path: Path) -> None:
    for make in (png_of, bmp_of, gif_of):
        for size in ((0, 0), (0, 5), (5, 0)):
            (tmp_path / "zero").write_bytes(make(*size))
            assert error_of(tmp_path / "zero").code == "invalid_image"


def test_file_size_limit(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)  # sparse
    assert error_of(tmp_path / "huge.png").code == "image_too_large"


def test_out_of_memory_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.core, "new", fail)
    assert error_of(save(tmp_path / "a.png", quadrants())).code == "image_too_large"


SAMPLES: dict[str, dict[str, Any]] = {
    "a.jpg": {},
    "progressive.jpg": {"progressive": True},
    "a.png": {"icc_profile": rgb_with_red_and_green_swapped()},
    "a.webp": {},
    "lossless.webp": {"lossless": True},
    "a.bmp": {},
    "a.gif": {},
    "raw.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "jpeg.tif": {"compression": "jpeg"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
}


LIBTIFF = ("lzw.tif", "jpeg.tif", "deflate.tif")  # prints to stderr from C, where Pillow leaves it no other way


def sample(name: str) -> bytes:
    """A small picture with noise (so that no format gets away with a few bytes) and with EXIF."""
    pixels = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274], exif[271] = 6, "camera"
    buffer = io.BytesIO()
    buffer.name = name
    Image.fromarray(pixels).save(buffer, **({"exif": exif} if "gif" not in name else {}), **SAMPLES[name])
    return buffer.getvalue()


def loads_or_input_error(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        image = load_image(path)
    except InputError as error:
        assert error.code in ("invalid_image", "image_too_large")
        return False
    assert image.mode == "RGB"
    assert min(image.size) > 0
    return True


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_files(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = sample(name)
    assert loads_or_input_error(tmp_path / name, data)
    for length in range(0, len(data), max(1, len(data) // 60)):
        loads = loads_or_input_error(tmp_path / name, data[:length])
        assert not loads or length > 0.8 * len(data)  # a missing end may be metadata, a missing half is not
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SAMPLES)
def test_mutated_files(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10**6)  # a changed header may announce what takes long to fill
    data, rng = sample(name), random.Random(name)
    for _ in range(50):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(rng.choice((min(64, len(data)), len(data))))
            mutant[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        loads_or_input_error(tmp_path / name, bytes(mutant))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "" or name in LIBTIFF


def test_files_are_closed(tmp_path: Path) -> None:
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("no /proc")
    good, bad = save(tmp_path / "a.gif", quadrants()), tmp_path / "bad.tif"
    bad.write_bytes(sample("lzw.tif")[:300])
    before = len(list(handles.iterdir()))
    kept = [load_image(good) for _ in range(5)]
    errors = [error_of(bad) for _ in range(5)]
    assert len(list(handles.iterdir())) == before
    assert len(kept) == len(errors)


def test_nothing_is_printed_by_a_plain_interpreter(tmp_path: Path) -> None:
    save(tmp_path / "a.png", Image.new("1", (9500, 9500)))  # above Pillow's warning, below our limit
    (tmp_path / "b.tif").write_bytes(
        sample("raw.tif").replace(struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 99))
    )
    code = """if True:
        import sys
        from vidkit.images import InputError, load_image
        assert load_image(sys.argv[1]).size == (9500, 9500)
        try:
            load_image(sys.argv[2])
        except InputError as error:
            assert error.code == "invalid_image"
        else:
            raise SystemExit("99 samples a pixel were read")
        assert "torch" not in sys.modules
    """
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path / "a.png"), str(tmp_path / "b.tif")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- fit_image


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_of_the_right_size_keeps_every_pixel(fit: images.Fit) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    result = fit_image(noise, 56, 40, fit)
    assert_same(result, noise)
    result.putpixel((0, 0), (1, 2, 3))
    assert noise.getpixel((0, 0)) != (1, 2, 3)


def disc(width: int, height: int, radius: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    inside = (x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2 < radius**2
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).convert("RGB")


def extent(image: Image.Image) -> tuple[int, int]:
    bright = np.asarray(image)[:, :, 0] > 200
    return int(bright.any(0).sum()), int(bright.any(1).sum())


@pytest.mark.parametrize(("size", "expected"), [((200, 100), 80), ((100, 200), 80)])
def test_crop_covers_from_the_centre_without_distortion(size: tuple[int, int], expected: int) -> None:
    width, height = extent(fit_image(disc(*size, 20), 200, 200, "crop"))
    assert abs(width - expected) <= 1
    assert abs(height - expected) <= 1
    wide = Image.new("RGB", (300, 100), RED)
    wide.paste(BLUE, (100, 0, 200, 100))
    assert_same(fit_image(wide, 100, 100, "crop"), Image.new("RGB", (100, 100), BLUE))


@pytest.mark.parametrize("size", [(200, 100), (100, 200)])
def test_pad_shows_the_whole_picture_without_black_bars(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (200, 120, 40))
    assert_same(fit_image(picture, 100, 100, "pad"), Image.new("RGB", (100, 100), (200, 120, 40)), 1)
    marked = disc(*size, 48)
    width, height = extent(fit_image(marked, 400, 400, "pad").crop((100, 100, 300, 300)))
    assert abs(width - height) <= 1
    assert abs(width - 192) <= 2


def test_pad_keeps_the_inside_sharp_and_the_border_blurred() -> None:
    stripes = np.zeros((50, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    result = np.asarray(fit_image(Image.fromarray(stripes), 200, 200, "pad"))
    assert np.array_equal(result[75:125], stripes)
    assert result[:70].std() < 10
    assert 100 < result[:70].mean() < 155


def test_stretch_distorts() -> None:
    width, height = extent(fit_image(disc(200, 100, 20), 100, 100, "stretch"))
    assert abs(width * 2 - height) <= 2


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extreme_shapes(fit: images.Fit) -> None:
    for size in ((1, 1), (1, 5000), (5000, 1), (3, 65535), (65535, 3), (511, 513)):
        for target in ((512, 320), (1, 1), (8, 1024), (1024, 8), (1, 4000)):
            result = fit_image(Image.new("RGB", size, (9, 80, 200)), *target, fit)
            assert_same(result, Image.new("RGB", target, (9, 80, 200)), 1)


def test_fit_refuses_impossible_wishes() -> None:
    for size in ((0, 5), (5, -1), (20_000, 20_000), (100_000, 1)):
        with pytest.raises(InputError, match=f"{size[0]}x{size[1]}") as caught:
            fit_image(quadrants(), *size)
        assert caught.value.code == "invalid_size"
    with pytest.raises(InputError, match=r"'zoom'.*crop, pad, stretch") as caught:
        fit_image(quadrants(), 8, 8, "zoom")  # type: ignore[arg-type]
    assert caught.value.code == "invalid_value"
    with pytest.raises(InputError) as caught:
        fit_image(Image.new("RGB", (0, 3)), 8, 8)
    assert caught.value.code == "invalid_image"


def test_fit_takes_any_mode_and_leaves_the_picture_alone() -> None:
    deep = Image.fromarray(RAMP)
    assert pixels_of(fit_image(deep, 256, 1)) == GREYS
    assert deep.mode == "I;16"
    lost = Image.fromarray(np.array([[np.nan, 1.0]], np.float32))
    assert pixels_of(fit_image(lost, 2, 1)) == [(0,) * 3, WHITE]  # without a warning
    exif = Image.Exif()
    exif[274] = 6
    turned = quadrants()
    turned.info["exif"] = exif.tobytes()
    assert_same(fit_image(turned, 32, 48), quadrants().transpose(Image.Transpose.ROTATE_270))
    assert turned.size == (48, 32)
    assert turned.info["exif"] == exif.tobytes()


# --- PNG bytes


def test_png_bytes_keep_every_pixel_and_no_metadata() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    noise.info = {"comment": "secret place", "dpi": (72, 72), "exif": b"Exif\0\0secret place"}
    data = encode_png(noise)
    assert_same(decode_png(data), noise)
    assert not [name for name in (b"tEXt", b"iTXt", b"eXIf", b"pHYs", b"iCCP", b"secret") if name in data]
    assert noise.info
    foreign = quadrants()
    foreign.info["icc_profile"] = rgb_with_red_and_green_swapped()
    assert b"iCCP" not in encode_png(foreign)
    assert pixels_of(decode_png(encode_png(Image.new("CMYK", (1, 1), (0, 255, 255, 0))))) == [RED]


def test_decode_png_refuses_everything_else() -> None:
    buffer = io.BytesIO()
    quadrants().save(buffer, "JPEG")
    for data in (b"", b"text", buffer.getvalue(), encode_png(quadrants())[:60]):
        with pytest.raises(InputError, match="bytes") as caught:
            decode_png(data)
        assert caught.value.code == "invalid_image"
