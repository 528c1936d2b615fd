"""What a log leaves out: the words of prompts, and of paths all but the last part."""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

#: prompts and folders of how many requests are remembered: what goes wrong may be told after its request ended
REMEMBERED: Final = 50

PROMPT: Final = "[prompt]"
FOLDER: Final = "[folder]"

#: the folders of an absolute path: in quotes with the spaces in them, else up to a space
QUOTED: Final = re.compile(r"""(?<=["'`])(?:[A-Za-z]:[\\/]|\\\\|/)[^"'`\n]*[\\/](?=[^\\/"'`\n]*["'`])""")
BARE: Final = re.compile(
    r"""(?<![\w.:/\\\]])(?:/(?:[^\s/"'`<>|:]+/)+|(?:[A-Za-z]:[\\/]|\\\\)(?:[^\s\\/"'`<>|:]+[\\/])+)"""
)

_prompts: deque[str] = deque(maxlen=2 * REMEMBERED)
_folders: deque[str] = deque(maxlen=8 * REMEMBERED)


def remember(prompts: Iterable[str], paths: Iterable[str]) -> None:
    """What the next lines are about. paths: as the request names them; names without a folder are no matter."""
    _prompts.extend(text for text in prompts if text.strip() and text not in _prompts)
    folders = (path[: len(path) - len(last_part(path))] for path in paths)
    _folders.extend(folder for folder in folders if folder.strip("\\/") and folder not in _folders)


def last_part(path: str) -> str:
    """A file's name, whichever system the path is of; all of what is no path."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def without_private(text: str) -> str:
    """A text without prompts and folders."""
    for prompt in longest_first(_prompts):
        for form in {prompt, repr(prompt)[1:-1], json.dumps(prompt)[1:-1]}:
            if form in text:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", PROMPT, text)
    for folder in longest_first([*_folders, *own_folders()]):
        text = text.replace(folder, f"{FOLDER}/").replace(repr(folder)[1:-1], f"{FOLDER}/")
    return BARE.sub(f"{FOLDER}/", QUOTED.sub(f"{FOLDER}/", text))


def without_places(traceback: str) -> str:
    """A traceback whose files are named from the packages on: `vidkit/generation.py`."""
    here = str(Path(__file__).parent.parent)  # an editable installation is not in sys.path
    for entry in longest_first([*sys.path, here]):
        if entry:
            traceback = traceback.replace(f'File "{entry}/', 'File "').replace(f'File "{entry}\\', 'File "')
    return traceback


def own_folders() -> Sequence[str]:
    """Those that name the user, spaces and all; but for one that is gone, or that nobody knows."""
    folders = set[Path]()
    for place in (Path.home, Path.cwd):
        with suppress(OSError, RuntimeError):
            folders.add(place())
    return [f"{folder}{end}" for folder in folders if len(folder.parts) > 1 for end in "/\\"]


def longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)
