"""Writes the API reference from the docstrings: python docs/api.py build/docs."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Final

import pdoc

MODULES: Final = ("vidkit", "vidkit.errors", "vidkit.sweep", "vidkit.runs")


def main() -> None:
    for module in map(importlib.import_module, MODULES):
        for name in getattr(module, "__all__", ()):  # loaded on first use, which pdoc does not wait for
            setattr(module, name, getattr(module, name))
    warnings.simplefilter("error")
    target = Path(sys.argv[1])
    pdoc.pdoc(*MODULES, output_directory=target)
    print(target / "index.html")


if __name__ == "__main__":
    main()
