"""What a file is, by its first bytes: its name says nothing of its content."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final, Literal

from vidkit.errors import SetupError
from vidkit.near_paths import near_paths

Format = Literal[
    "safetensors",
    "zip archive",  # what torch.save writes since 1.6: a pickle and the tensors' bytes, stored
    "pickle",  # what it wrote before
    "tar archive",
    "GGUF",
    "web page",
    "Git LFS pointer",
    "JSON",
    "compressed archive",
    "empty file",
    "unknown",
]

#: the formats that hold pickles and can be read by `vidkit.models.files.pickles`
PICKLES: Final = frozenset({"zip archive", "pickle"})

#: as an error says it
DESCRIPTIONS: Final[dict[Format, str]] = {
    "safetensors": "a safetensors file",
    "zip archive": "a zip archive, the format of torch's pickles (.ckpt, .pt, .bin)",
    "pickle": "a pickle, the older format of torch's .ckpt, .pt and .bin files",
    "tar archive": "a tar archive; torch's oldest pickles are",
    "GGUF": "a GGUF file",
    "web page": "a web page, not a model: the download led to a page that asks for something, or to an error",
    "Git LFS pointer": "a Git LFS pointer, not the model itself: it was cloned without Git LFS",
    "JSON": "a JSON text, not a model",
    "compressed archive": "a compressed archive; unpack it first",
    "empty file": "empty",
    "unknown": "of an unknown format",
}

FETCH_AGAIN: Final = "Download the file again; it may be incomplete, or a web page or Git LFS pointer under its name."

#: what tells the format: a tar archive's first header has 512 bytes
START_BYTES: Final = 1024

_STARTS: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"PK\x03\x04", "zip archive"),
    (b"PK\x05\x06", "zip archive"),
    (b"GGUF", "GGUF"),
    (b"version https://git-lfs.github.com/", "Git LFS pointer"),
    (b"\x1f\x8b", "compressed archive"),  # gzip
    (b"7z\xbc\xaf\x27\x1c", "compressed archive"),
    (b"Rar!", "compressed archive"),
    (b"\xfd7zXZ", "compressed archive"),
    (b"\x28\xb5\x2f\xfd", "compressed archive"),  # zstd
    (b"BZh", "compressed archive"),
)


def file_format(path: Path) -> Format:
    """The format of a file, by its first `START_BYTES`.

    Raises:
        SetupError: `model_not_found` when there is no such file; `invalid_model` when it can't be read.
    """
    try:
        if not path.is_file():
            raise SetupError("model_not_found", f"There is no model file {str(path)!r}.", near_paths(path))
        with path.open("rb") as file:
            return format_of(file.read(START_BYTES))
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror or error}", "Check the file's permissions.") from error


def format_of(start: bytes) -> Format:
    """The format of a file that begins with `start`, of which `START_BYTES` suffice."""
    if not start:
        return "empty file"
    if start[8:9] == b"{" and start[4:8] == b"\0\0\0\0":  # the length of its header, and the header
        return "safetensors"
    for prefix, found in _STARTS:
        if start.startswith(prefix):
            return found
    if start[257:262] == b"ustar" or _is_old_tar(start):
        return "tar archive"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "pickle"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text):
        return "web page"
    if text[:1] in (b"{", b"[") and b"\0" not in start:
        return "JSON"
    return "unknown"


def _is_old_tar(start: bytes) -> bool:
    """By the checksum of its first header: before POSIX, tar had no signature."""
    field = start[148:156].strip(b" \0")
    if len(start) < 512 or not re.fullmatch(rb"[0-7]{1,7}", field):
        return False
    return int(field, 8) == sum(start[:148]) + sum(start[156:512]) + 8 * 32


def examine(*models: object) -> str:
    """How to find out what of some models, by path or name, is damaged."""
    return f"See what is damaged, and fetch that again: vidkit models verify {shlex.join(map(str, models))}"


def invalid(path: Path, problem: str, remedy: str) -> SetupError:
    return SetupError("invalid_model", f"{str(path)!r} {problem}.", [remedy])


def quoted(value: object) -> str:
    """As it stands in an error message: escaped, and short whatever a hostile file holds."""
    return ascii(value if not isinstance(value, str) else value[:80])[:200]
