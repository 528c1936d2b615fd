"""The command line's verb `vidkit lab`: JupyterLab on copies of vidkit's notebooks, which are the user's to change."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

from vidkit.cli_output import Output
from vidkit.errors import InputError, SetupError
from vidkit.paths import local_path
from vidkit.settings import home
from vidkit.shipped import Copies, copy_shipped

#: opened when none is named
FIRST: Final = "quickstart"


def add_verbs(verbs: Any) -> None:
    """Add this file's verb to those of the command line."""
    parser = verbs.add_parser("lab", help="open vidkit's notebooks in JupyterLab", allow_abbrev=False)
    parser.usage = "vidkit lab [--folder FOLDER] [--copy-only] [NAME] [OPTION OF JUPYTER ...]"
    parser.description = (
        "Copy vidkit's notebooks and parameter files into a folder of yours, where what you changed is kept, and open "
        "JupyterLab there, with this Python. Options after NAME are Jupyter's, for example --no-browser --port 9000."
    )
    parser.add_argument("--folder", type=local_path, metavar="FOLDER", help="where to; default: VIDKIT_HOME")
    parser.add_argument("--copy-only", action="store_true", help="start nothing, for VS Code and others; print where")
    parser.add_argument(
        "name_and_options",
        nargs=argparse.REMAINDER,
        metavar="NAME",
        help=f"the notebook to open; default: {FIRST}",
    )
    parser.set_defaults(run=run_lab, unknown_options=[])


def run_lab(options: argparse.Namespace, output: Output) -> int:
    """Returns when the server ends; Ctrl-C is Jupyter's own, since it runs in this process."""
    name, jupyter_options = split(options)
    folder = (options.folder or home()).absolute()
    copies = copy_shipped(folder)
    notebook = notebook_named(name, folder / "notebooks")
    for line in told(copies):
        output.event({"log": line})
    if options.copy_only:
        output.text(str(folder / "notebooks"))
        return 0
    start(folder, notebook, jupyter_options)
    return 0


def split(options: argparse.Namespace) -> tuple[str, list[str]]:
    """The notebook's name, and what Jupyter gets: all from the first option on that is not ours."""
    given = [*options.unknown_options, *options.name_and_options]
    if given and not given[0].startswith("-"):
        return given[0], given[1:]
    return FIRST, given


def notebook_named(name: str, folder: Path) -> Path:
    """Raises:
    InputError: `invalid_value`: there is none of that name, nor one of the user's own.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    stem = name.removesuffix(".ipynb")
    if stem not in found:
        near = difflib.get_close_matches(stem, found, n=1)
        raise InputError(
            "invalid_value",
            f"There is no notebook {name!r} in {folder}." + (f" Did you mean {near[0]}?" if near else ""),
            [*(f"vidkit lab {one}" for one in near), f"Use one of {', '.join(found)}"],
        )
    return found[stem]


def told(copies: Copies) -> list[str]:
    """What a person should know of the copying."""
    lines = [f"Notebooks: {copies.folder / 'notebooks'}"]
    if copies.kept:
        lines.append(f"Kept as you left them: {', '.join(copies.kept)}")
    if copies.outdated:
        lines.append(f"vidkit's differ from yours (rename yours to get them): {', '.join(copies.outdated)}")
    return lines


def start(folder: Path, notebook: Path, jupyter_options: list[str]) -> None:
    """Raises:
    SetupError: `missing_dependency`: there is no JupyterLab in this Python.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise SetupError(
            "missing_dependency",
            f"JupyterLab is not installed for {sys.executable}. The notebooks are in {notebook.parent}.",
            [f"Install it: {sys.executable} -m pip install jupyterlab", "Or open the notebooks in VS Code"],
        )
    # this environment's kernel, also where the user's own folder names another Python's
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    from jupyterlab.labapp import LabApp

    signal.signal(signal.SIGINT, interrupted)
    LabApp.launch_instance(
        [
            f"--ServerApp.root_dir={folder}",
            f"--LabApp.default_url=/lab/tree/notebooks/{notebook.name}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",  # asks PyPI otherwise
            *jupyter_options,
        ]
    )


def interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C ends the server as SIGTERM does, where Jupyter does not ask whether it is meant (it asks in a terminal).

    Python's own KeyboardInterrupt may strike wherever the server is, also while it ends a thread, for which the process
    then waits for ever.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # the server is not there yet
        signal.default_int_handler(number, frame)
    signal.raise_signal(signal.SIGTERM)
