"""The class of the warm engine; see `engine.py`, where it is imported from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from papermill.engines import NBClientEngine, NotebookExecutionManager

from vidkit.sweep.kernel import installed_name, warm_kernel
from vidkit.sweep.living import LivingManager


class WarmEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine on a kernel that lives on."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any) -> Any:
        """Run the notebook; the options are those of papermill's own engine.

        Raises:
            CellTimeoutError: a cell took longer than `execution_timeout` seconds; the kernel was interrupted.
            DeadKernelError: the kernel died, and the new one that ran the notebook again died too.
            KeyboardInterrupt: after the kernel was interrupted.
            NoSuchKernel: no kernel of this name is installed.
        """
        stock = super().execute_managed_notebook
        if options.keys() & {"km", "kernel_manager_class"} or not is_python(kernel_name):
            return stock(nb_man, kernel_name, **options)
        unrun = copy.deepcopy(nb_man.nb)

        def execute(manager: LivingManager) -> Any:
            return stock(nb_man, kernel_name, km=manager, **options)

        def start_again() -> None:
            nb_man.notebook_start(nb=unrun)
            if nb_man.pbar is not None:
                nb_man.pbar.reset()

        folder = options.get("resources", {}).get("metadata", {}).get("path") or Path.cwd()
        return warm_kernel(kernel_name).run(execute, start_again, Path(folder), options.get("extra_arguments", ()))


def is_python(kernel_name: str) -> bool:
    """Whether the kernel speaks Python, going by its specification."""
    return bool(KernelSpecManager().get_kernel_spec(installed_name(kernel_name)).language.lower() == "python")
