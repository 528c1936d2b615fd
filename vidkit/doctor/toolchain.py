"""What Triton's kernels need, of which speed fast is made on a GPU: a C compiler, Python's headers, Triton."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vidkit.doctor.packages import version_of
from vidkit.finding import Finding, note, ok

#: in the order in which Triton looks for them
COMPILERS: Final = ("cl",) if os.name == "nt" else ("cc", "gcc", "clang")

UNUSED: Final = "Clips at speed exact need none of it; on a GPU speed fast and turbo are slower without"


def findings() -> Iterator[Finding]:
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, COMPILERS)), None)
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    triton = version_of("triton") or version_of("triton-windows")
    data: dict[str, Any] = {"compiler": compiler, "pythonHeaders": headers, "triton": triton}
    lacking = [
        name
        for name, there in (("a C compiler", compiler), ("Python's headers", headers), ("Triton", triton))
        if not there
    ]
    if not lacking:
        yield ok("compiling", f"Kernels can be compiled: {compiler}, Triton {triton}.", **data)
    else:
        yield note("compiling", f"No kernels can be compiled: {' and '.join(lacking)} missing. {UNUSED}.", **data)
