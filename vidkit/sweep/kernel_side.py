"""What runs inside a warm kernel: between two runs it makes everything new that a notebook's author counts on.

`living.py` sends this file to the kernel as text, for the kernel's environment need not have vidkit: it uses the
standard library and IPython alone. Imported modules stay as they are, and so does what they hold (a loaded model). What
else stays: environment variables that were added (a library may have set them on import), random states, threads.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import zmq
from IPython import get_ipython

_fresh: dict[str, Any] = {
    "path": list(sys.path),
    "argv": list(sys.argv),
    "stdout": sys.stdout,
    "stderr": sys.stderr,
    "environment": dict(os.environ),
    "directory": str(Path.cwd()),
}


def renew(directory: str) -> None:
    """Make the kernel as new for a notebook that runs in this folder; the next cell is number 1."""
    _enter(directory)
    sys.path[:], sys.argv[:] = _fresh["path"], _fresh["argv"]
    sys.stdout, sys.stderr = _fresh["stdout"], _fresh["stderr"]
    os.environ.update(_fresh["environment"])
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    with warnings.catch_warnings():
        pass  # leaving it makes Python forget which warnings were shown: each run shows its own again
    _renew_matplotlib()
    _close_widgets()
    shell: Any = get_ipython()
    _forget_callbacks(shell)
    _reset(shell)


def _reset(shell: Any) -> None:
    """Clear the namespace and collect what its variables held: cycles may hold the memory of a GPU.

    A collection takes 0.25 s with torch and diffusers loaded (IPython's `reset` does one too, before it clears). What
    was there before the run is therefore set aside (frozen), and these look only at what the run made. Any collection
    in a run is as full as ever: `_thaw` brings back what was set aside.
    """
    gc.callbacks[:] = [callback for callback in gc.callbacks if callback is not _thaw]
    shell.reset(new_session=True)
    gc.collect()
    gc.freeze()
    gc.callbacks.append(_thaw)


def _thaw(phase: str, info: dict[str, int]) -> None:
    if phase == "start" and info["generation"] == 2:
        gc.unfreeze()


def _enter(directory: str) -> None:
    """Work in this folder; modules that were found in the one it leaves are not there for the next notebook."""
    left, _fresh["directory"] = _fresh["directory"], directory
    os.chdir(directory)
    if left == directory or left in _fresh["path"]:
        return
    tops = {name for name, module in list(sys.modules.items()) if "." not in name and _folder(module) == left}
    for name in list(sys.modules):
        if name.partition(".")[0] in tops - {"__main__"}:
            del sys.modules[name]


def _folder(module: Any) -> str | None:
    """The folder in which a top-level module was found."""
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    path = Path(file).parent
    return str(path.parent if Path(file).stem == "__init__" else path)


def _renew_matplotlib() -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib"].rc_file_defaults()


def _close_widgets() -> None:
    """Widgets are held by a registry of ipywidgets: without this, every run's stay."""
    if "ipywidgets" in sys.modules:
        sys.modules["ipywidgets"].Widget.close_all()


def _forget_callbacks(shell: Any) -> None:
    """Callbacks on IPython's events that a cell defined; those of libraries (matplotlib's figures) stay."""
    for event, callbacks in shell.events.callbacks.items():
        for callback in list(callbacks):
            if getattr(callback, "__module__", None) == "__main__":
                shell.events.unregister(event, callback)


def move_fork_pipe(address: str) -> None:
    """Let forked children send what they print over this address; ipykernel listens on a TCP port for it.

    Uses ipykernel's own parts (7.x); without them the port stays, which takes nothing without its 128-bit secret.
    """
    shell: Any = get_ipython()
    thread: Any = getattr(shell.kernel, "iopub_thread", None)
    if not hasattr(thread, "_pipe_in") or not hasattr(thread, "_setup_pipe_out"):
        return

    def rebind() -> None:
        socket = thread._pipe_in.socket
        port = socket.last_endpoint
        socket.bind(address)
        socket.unbind(port)

    def connect() -> tuple[Any, Any]:
        context: Any = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.linger = 3000  # milliseconds, as ipykernel's own
        socket.connect(address)
        return context, socket

    thread._setup_pipe_out = connect
    thread.schedule(rebind)
