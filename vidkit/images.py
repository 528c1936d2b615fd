"""Any picture file to an upright 8-bit sRGB picture of the wanted size, or one `InputError`.

Colour is taken from the pixel format and from an embedded ICC profile; PNG's gAMA/cHRM/cICP hints and an EXIF colour
space without a profile are read as sRGB.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, get_args

import numpy as np
from PIL import Image, ImageCms, ImageFilter, ImageOps, UnidentifiedImageError

from vidkit.errors import InputError
from vidkit.near_paths import near_paths
from vidkit.params import Fit

#: What `load_image` opens. Pillow's forty other formats are rare as pictures, and each is one more parser to attack.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
#: 100 megapixels: the largest medium-format cameras. Pillow holds RGB in 4 bytes a pixel, so this is 0.4 GB a copy,
#: and grey of more than 8 bits takes 0.8 GB for a moment. No model here makes more than a few megapixels of it.
MAX_PIXELS: Final = 100_000_000
#: The longest side JPEG can hold. LANCZOS needs 48 bytes a source row and column, gigabytes for 100,000,000 x 1.
MAX_SIDE: Final = 65_535
#: 256 MiB: `MAX_PIXELS` of camera JPEG or PNG stay well below it. A larger file is a scan or a volume, not a picture.
MAX_FILE_BYTES: Final = 256 * 2**20

#: Everything Pillow is known to raise on a damaged file: its decoders check little and let Python's errors through.
#: OSError: data cut short, nothing identified. SyntaxError: "not a ... file", a broken PNG chunk. ArithmeticError and
#: LookupError: overflow, division by zero, wrong index or key. RuntimeError: not implemented, recursion.
READ_ERRORS: Final = (
    *(OSError, SyntaxError, EOFError, struct.error, zlib.error, ArithmeticError, LookupError),
    *(ValueError, TypeError, AttributeError, RuntimeError, AssertionError, BufferError),
)

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_GIVE = "Give the full path of a picture file."
_AGAIN = "Copy or download the picture again."
_CONVERT = "Open it in a picture editor or viewer and export it as PNG or JPEG."
_SHRINK = "Scale it down in a picture editor; the video models work at about one megapixel."

# `warnings.catch_warnings` changes the whole process before Python 3.14: two threads that interleave would leave
# warnings off for good.
_WARNINGS_LOCK = threading.Lock()
# Pillow logs some damage as errors. Without a handler Python prints them; handlers that a program sets still get them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a JPEG, PNG, WebP, BMP, TIFF or GIF file as an upright 8-bit sRGB image, mode "RGB".

    The EXIF orientation is applied and an embedded ICC profile converted (a broken one is ignored). Transparency is
    laid over white, the page that transparent pictures are drawn for. Of animations and several pages the first
    counts. Grey of more than 8 bits is scaled, see `_grey_to_8_bits`. The result carries no metadata. Nothing is
    printed, except that libtiff may say on stderr what is wrong with a damaged, compressed TIFF.

    Raises:
        InputError: `image_not_found`; `image_too_large` (`MAX_PIXELS`, `MAX_SIDE`, `MAX_FILE_BYTES`, memory);
            `invalid_image` for everything else that keeps the file from being read.
    """
    name = f"The image {os.fspath(path)!r}"
    with _open_file(path, name) as file:
        return _decode(file, name, FORMATS)


def decode_png(data: bytes) -> Image.Image:
    """The picture in the bytes of a PNG file; otherwise like `load_image`."""
    return _decode(io.BytesIO(data), f"The PNG of {len(data):,} bytes", ("PNG",))


def encode_png(image: Image.Image) -> bytes:
    """The bytes of an 8-bit RGB PNG file without metadata; `decode_png` gives the same pixels back."""
    buffer = io.BytesIO()
    _to_rgb(image).save(buffer, "PNG")
    return buffer.getvalue()


def fit_image(image: Image.Image, width: int, height: int, fit: Fit = "crop") -> Image.Image:
    """A copy of the picture as RGB of exactly `width` x `height` pixels, resampled with LANCZOS.

    "crop" covers the frame and cuts off what stands out on two sides, "pad" shows the whole picture, "stretch"
    distorts it. What "pad" leaves empty is filled with the enlarged, blurred picture: black bars are a hard edge that
    the models keep, darken or animate, a smear of edge colours draws streaks. An RGB picture that already has the size
    keeps every pixel, so that a clip can be made again from its stored picture.

    Raises:
        InputError: `invalid_size` (of the result), `invalid_value` (`fit`), `invalid_image` (no pixels),
            `image_too_large`.
    """
    if width < 1 or height < 1 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        limits = f"sides of 1 to {MAX_SIDE:,} and at most {MAX_PIXELS:,} pixels"
        told = f"A picture cannot be fitted to {width}x{height}; choose {limits}."
        raise InputError("invalid_size", told, [f"Choose {limits}"])
    if fit not in get_args(Fit):
        raise InputError("invalid_value", f"fit is {fit!r}; choose one of {', '.join(get_args(Fit))}.", ["Use crop"])
    _check_size(image, "The image")
    image = _to_rgb(image)
    if image.size == (width, height):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    if fit == "pad":
        return _pad(image, width, height)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _open_file(path: str | os.PathLike[str], name: str) -> BinaryIO:
    try:
        status = Path(path).stat()
        # Opening a named pipe would wait for ever and /dev/zero has no end: ask before opening.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise InputError("invalid_image", f"{name} is {kind}; give the path of a picture file.", [_GIVE])
        if status.st_size == 0:
            raise InputError("invalid_image", f"{name} is empty (0 bytes); copy or download it again.", [_AGAIN])
        if status.st_size > MAX_FILE_BYTES:
            sizes = f"has {status.st_size / 2**20:,.0f} MiB, the limit is {MAX_FILE_BYTES / 2**20:,.0f} MiB"
            raise InputError("image_too_large", f"{name} {sizes}; make it smaller.", [_SHRINK, _CONVERT])
        return Path(path).open("rb")
    except PermissionError as error:
        message = f"{name} may not be read by this user ({error.strerror}); change its permissions or copy it."
        raise InputError("invalid_image", message, [f"Copy {name} to where this user may read it."]) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        message = f"{name} was not found ({reason}); check the path."
        raise InputError("image_not_found", message, near_paths(Path(path))) from error


def _decode(file: BinaryIO, name: str, formats: tuple[str, ...]) -> Image.Image:
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata and large sizes: no one's business once the picture is read
            with Image.open(file, formats=formats) as image:
                _check_size(image, name)  # from the header: nothing is decoded yet
                image.load()
                return _to_rgb(image)
    except (Image.DecompressionBombError, MemoryError) as error:
        message = f"{name} is too large to decode ({str(error) or 'not enough memory'}); make it smaller."
        raise InputError("image_too_large", message, [_SHRINK]) from error
    except UnidentifiedImageError as error:
        message = f"{name} is no {', '.join(formats)} picture, or its header is damaged."
        raise InputError("invalid_image", message, [_CONVERT]) from error
    except READ_ERRORS as error:
        message = f"{name} is damaged or cut short ({type(error).__name__}: {error}); copy or download it again."
        raise InputError("invalid_image", message, [_CONVERT]) from error


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError("invalid_image", f"{name} has no pixels ({width}x{height}); choose another.", [_GIVE])
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        limits = f"{MAX_PIXELS:,} in all and {MAX_SIDE:,} a side"
        message = f"{name} has {width:,}x{height:,} pixels, more than {limits}; make it smaller."
        raise InputError("image_too_large", message, [_SHRINK])


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new upright sRGB image, mode "RGB", without metadata, from a Pillow image of any mode."""
    tags = getattr(image, "tag_v2", {})  # of TIFF files; copies lose them
    image = _upright(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _grey_to_8_bits(image, tags)
    alpha = None
    if image.has_transparency_data:
        is_grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("LA") if image.mode == "La" else image  # Pillow has no other way out of La
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if is_grey else "RGB")
    rgb = _through_profile(image, profile) if profile else None
    rgb = rgb or image.convert("RGB")
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    rgb.info = {}  # else the old profile would be written into the next file
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    image = image.copy()
    with contextlib.suppress(*READ_ERRORS):  # unreadable EXIF says nothing of the orientation; the pixels are good
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image in sRGB, or None where the profile is broken or made for another colour space."""
    image = image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, *READ_ERRORS):
        return None


def _grey_to_8_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Mode "L" from "I;16...", "I" or "F", for which Pillow's `convert` would clip at 255.

    Black to white is 0 to 65,535 for integers (0 to 4,095 for TIFFs of 12 bits) and 0 to 1 for floats. No format says
    where white is for wider values: these go from the darkest to the brightest. Not-a-number is black.
    """
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    black, white = 0.0, 1.0 if image.mode == "F" else 2.0 ** (12 if tags.get(_BITS_PER_SAMPLE) == (12,) else 16) - 1
    if finite.size and (finite.min() < black or finite.max() > white):
        black, white = float(finite.min()), float(finite.max())
    grey = np.clip((values - black) / max(white - black, 1e-30) * 255, 0, 255)
    if image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts 8 bits only
        grey = 255 - grey
    if isinstance(transparent := image.info.get("transparency"), int):  # the one clear grey that a PNG may name
        grey[values == transparent] = 255  # white, as in `_to_rgb`
    return Image.fromarray(np.rint(np.nan_to_num(grey, nan=0.0)).astype(np.uint8))


def _pad(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # A 24th of the frame leaves colours and light, and no shape that could be taken for a second subject.
    background = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    background = background.filter(ImageFilter.GaussianBlur(max(width, height) / 24))
    background.paste(image.resize(inner, Image.Resampling.LANCZOS), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return background
