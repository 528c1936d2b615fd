"""The warm engine: papermill runs notebooks in a kernel that lives on, with its modules and its loaded model.

    papermill in.ipynb out.ipynb --engine vidkit-warm
    papermill.execute_notebook("in.ipynb", "out.ipynb", engine_name="vidkit-warm")

Everything but the kernel is papermill's own: its options, what it writes, its errors. Variables are cleared between
runs, imported modules stay. One kernel for each kernel name in a process; a kernel in another language than Python is
papermill's affair (a new one each time). A new kernel is started when the environment variables or the kernel's
arguments differ from those it was started with, and when it died; a notebook whose kernel dies in mid-run is run once
more from its first cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidkit.sweep.kernel import WarmKernel, shutdown_kernels, warm_kernel

if TYPE_CHECKING:
    from vidkit.sweep.papermill_engine import WarmEngine

__all__ = ["WarmEngine", "WarmKernel", "shutdown_kernels", "warm_kernel"]


def __getattr__(name: str) -> Any:
    """`WarmEngine`. papermill asks for it while it is being imported, perhaps from here, so papermill comes first."""
    if name == "WarmEngine":
        import papermill.engines  # noqa: F401  (its import is what matters)

        from vidkit.sweep.papermill_engine import WarmEngine

        return WarmEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
