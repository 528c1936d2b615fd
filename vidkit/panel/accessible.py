"""What stock widgets leave out for those who use a screen reader; everything works without it."""

from __future__ import annotations

from pathlib import Path

import anywidget


class Accessible(anywidget.AnyWidget):
    """Shows nothing. Names sliders' handles, and ties help and problems to the inputs of each `.vidkit-control`."""

    _esm = Path(__file__).with_name("accessible.js")
