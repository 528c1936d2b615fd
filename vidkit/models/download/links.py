"""A model of the hub's cache in the models folder: a folder of its own whose files are links, so nothing is twice.

The snapshot itself is shared with other tools, which may put more files into it: its content, and so its hash, would
change with them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from vidkit.errors import InputError
from vidkit.files import typed_write_errors
from vidkit.models.folder_scan import WEIGHTS
from vidkit.models.locate import CARD_FILE


def link_model(folder: Path, files: Iterable[str], target: Path) -> Path:
    """Put links to files of the snapshot `folder` at `target`; one alone: at `target` with its suffix. Returns it.

    Raises:
        InputError: `output_exists`. SetupError: `output_not_writable`. CriticalError: `disk_full`.
    """
    names = list(files)
    if len(names) != 1:
        return link_folder({name: folder / name for name in names}, target)
    target = target.with_name(target.name + Path(names[0]).suffix)
    check_free(target)
    with typed_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        link(folder / names[0], target)
    return target


def link_folder(files: Mapping[str, Path], target: Path, contents: Mapping[str, bytes] | None = None) -> Path:
    """A folder of links to these files, by their names in it, and of files with these contents. It appears whole.

    Returns and raises as `link_model`.
    """
    check_free(target)
    building = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with typed_write_errors(target):
            for name, file in files.items():
                link(file, made_place(building / name))
            for name, content in (contents or {}).items():
                made_place(building / name).write_bytes(content)
            building.replace(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)  # of a failure; once renamed, nothing is there
    return target


def made_place(file: Path) -> Path:
    """With its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def link(file: Path, place: Path) -> None:
    """A link to the file's content; where links need a right that users lack (Windows), its second name, or a copy."""
    content = file.resolve()
    try:
        place.symlink_to(content)
    except OSError:
        try:
            place.hardlink_to(content)
        except OSError:
            shutil.copyfile(content, place)


def check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise InputError(
            "output_exists",
            f"{target} exists already.",
            ["Give the new one another name: --name NAME", f"Or take the old one away: {target}"],
        )


def remove_links(target: Path, cache: Path) -> None:
    """Take away what `link_model` has made of the hub's cache, whether its links still lead anywhere.

    Anything else is left as it is. Raises SetupError `output_not_writable`.
    """
    with typed_write_errors(target):
        for suffix in ("", *WEIGHTS):
            single = target.with_name(target.name + suffix)
            if leads_into(single, cache):
                single.unlink()
        if target.is_dir() and all(leads_into(path, cache) or is_frame(path) for path in target.rglob("*")):
            shutil.rmtree(target)


def leads_into(link: Path, cache: Path) -> bool:
    return link.is_symlink() and link.readlink().is_relative_to(cache)


def is_frame(path: Path) -> bool:
    """What is around the links: folders, and the card that the catalogue's models get."""
    return not path.is_symlink() and (path.is_dir() or path.name == CARD_FILE)


def take_away(target: Path) -> None:
    """What `link_model` has just made and turned out to be no model."""
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
