r"""What Windows lets files be called: forbidden characters and how WSL writes them, reserved names."""

from __future__ import annotations

import re
from typing import Final

#: No name in NTFS has these. A colon leads to a stream of a file; a backslash separates folders.
FORBIDDEN: Final = frozenset([*map(chr, range(1, 32)), *'"*:<>?\\|'])

#: WSL shows a forbidden character as the one so much higher, in Unicode's private area (drvfs' convention)
_SHIFT: Final = 0xF000

#: devices in every folder, whatever is behind a dot:
#: learn.microsoft.com/windows/win32/fileio/naming-a-file; CONIN$ and CONOUT$ are the console's
_DEVICES: Final = frozenset(
    [
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "CONIN$",
        "CONOUT$",
        *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789¹²³"),
    ]
)


def escaped(path: str) -> str:
    r"""A path of Linux with Windows' separators, forbidden characters as WSL shows them: `a:b` as `a\uf03ab`."""
    return "".join("\\" if one == "/" else chr(_SHIFT + ord(one)) if one in FORBIDDEN else one for one in path)


def without_escapes(path: str) -> str:
    """The name in Linux of what Windows sees by `escaped`; separators stay."""
    return "".join(chr(ord(one) - _SHIFT) if chr(max(0, ord(one) - _SHIFT)) in FORBIDDEN else one for one in path)


def why_unusable(parts: list[str]) -> str | None:
    """Why Windows cannot open a file of this path, or opens another, in words; None when nothing stands against it.

    parts: folders and the file, without a drive.
    """
    for part in parts:
        if part in ("", ".", ".."):
            continue
        if wrong := sorted(FORBIDDEN.intersection(part)):
            return f"{part!r} has {', '.join(map(repr, wrong))}, which no name in Windows may have"
        if re.split(r"[ .]*(?:\.|$)", part, maxsplit=1)[0].upper() in _DEVICES:
            return f"{part!r} is the name of a device in Windows, in every folder"
        if part[-1] in " .":
            return f"{part!r} ends in {part[-1]!r}, which Windows leaves off: it would be {part.rstrip(' .')!r}"
    return None
