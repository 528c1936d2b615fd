"""Widgets that answer while a cell runs."""

from __future__ import annotations

from typing import Any

import ipywidgets


def answer_while_busy(widget: ipywidgets.Widget) -> None:
    """Let this widget and all inside it have their callbacks on the page's subshell, also while a cell runs.

    JupyterLab sends widgets' messages to a subshell (a thread) of the kernel. ipykernel 7.4 sends them on to the shell
    that the widget itself last sent from: for a widget made in a cell that is the main one, where they wait until the
    running cell has ended. Here each message goes where the page sent it, as in ipykernel 7.0 to 7.3. Kernels without
    subshells (ipykernel 6, Colab) run callbacks between cells, whatever is done here.

    Call it again for what is added later.
    """
    comm = widget.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = _as_sent
    for child in getattr(widget, "children", ()):
        answer_while_busy(child)


def _as_sent(data: Any, subshell_id: str | None) -> str | None:
    """The subshell that the page chose for a message."""
    return subshell_id
