"""Where the panel is shown: a live front end, one where threads cannot update widgets, or none at all."""

from __future__ import annotations

import os
import sys
from typing import Any, Literal, get_args

from vidkit.errors import InputError

#: live: jobs run in a thread; foreground: in the Run button's own call (Colab drops what threads send to widgets,
#: googlecolab/colabtools#3373); static: nobody is there to press anything
Mode = Literal["live", "foreground", "static"]


def find_mode(wanted: str | None = None) -> Mode:
    """The mode to use: the wanted one, else that of `VIDKIT_PANEL`, else what the surroundings ask for.

    Raises:
        InputError: `invalid_value`, for another word.
    """
    wanted = wanted or os.environ.get("VIDKIT_PANEL") or None
    if wanted is None:
        return "foreground" if "google.colab" in sys.modules else "live" if is_watched() else "static"
    for mode in get_args(Mode):
        if wanted == mode:
            return mode  # type: ignore[no-any-return]
    raise InputError("invalid_value", f"The panel's mode is {wanted!r}.", [f"Use one of {', '.join(get_args(Mode))}"])


def is_watched() -> bool:
    """Whether a person's front end asked for the cell that runs now.

    JupyterLab, Notebook and VS Code send no user name, or the id of the cell; what runs notebooks by program
    (papermill, nbconvert, nbclient), and consoles, which show no widgets, use jupyter_client, which sends a name and
    no id.
    """
    header, metadata = request_being_answered()
    return "cellId" in metadata or (bool(header) and not header.get("username"))


def request_being_answered() -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and metadata of the message that the kernel works on; empty outside of a kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return {}, {}
    message = kernel.get_parent()
    return dict(message.get("header", {})), dict(message.get("metadata", {}))
