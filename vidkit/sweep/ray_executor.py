"""A sweep's points on a Ray cluster: one worker per GPU (or machine), each with its own warm kernel, pulling points.

The folder, the keys and the guarantees are those of a local run: a worker claims a point in the sweep's folder, which
all machines must see, with file locks that hold between them (`vidkit.runs` says what that takes). For a worker that
does not see the folder the driver claims the point, sends the picture and the notebook, and keeps what comes back.
Models must be where the request names them on every machine.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from vidkit.errors import SetupError
from vidkit.libraries import FROM_RFC3987, NO_TELEMETRY, when_used
from vidkit.sweep.execute import OnBegan, Outcomes, Task
from vidkit.sweep.ray_pool import Pool
from vidkit.sweep.workers import at_least_one

#: seconds for a cluster to say that it is there
ANSWER_SECONDS: Final = 10

#: Ray reads these when it is imported, or when it starts a cluster: nothing is sent anywhere, no notice is printed
ENVIRONMENT: Final[Mapping[str, str]] = {**NO_TELEMETRY, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayExecutor:
    """Runs points on a Ray cluster.

    Args:
        address: of a running cluster (`ray start --head` prints it; "auto" finds one on this machine); None takes the
            one that this process is connected to, else starts one on this machine for the time of the sweep.
        workers: None: one per GPU; without GPUs one per machine.

    Raises:
        InputError: `out_of_range`.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._address, self._workers = address, None if workers is None else at_least_one(workers)

    def run(self, tasks: Sequence[Task], began: OnBegan) -> Outcomes:
        """Raises:
        SetupError: `missing_dependency`: Ray is not installed, the cluster cannot be reached, or no worker can start
            there; `output_not_writable`, from a worker.
        CriticalError: `disk_full`, from a worker.
        """
        if not tasks:
            return
        with connected(self._address) as ray:
            pool = Pool(ray, self._workers, tasks[0].root)
            try:
                yield from pool.run(tasks, began)
            finally:
                pool.close()


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected. What was connected before stays so, and a cluster that others started runs on."""
    os.environ.update(ENVIRONMENT)
    try:
        with when_used(FROM_RFC3987):
            ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise SetupError(
            "missing_dependency", "--executor ray needs Ray, which is not installed.", ["pip install 'vidkit[ray]'"]
        ) from error
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "error"}
    folder = None if address or os.name == "nt" else tempfile.mkdtemp(prefix="vidkit-", dir="/tmp")
    try:
        with kept_signals(), typed_connection_errors(address):
            if address is None:  # Unix sockets have short paths, so not in a TMPDIR that may be long
                ray.init(address="local", include_dashboard=False, _temp_dir=folder, **quiet)
            else:
                check_address(address)
                ray.init(address=address, **quiet)
        yield ray
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def kept_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def typed_connection_errors(address: str | None) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
        raise SetupError(
            "missing_dependency",
            f"No Ray cluster at {address or 'this machine'}: {error}",
            ["Check --address", "Start one: ray start --head", "Leave --address out to start one for this sweep"],
        ) from error


def check_address(address: str) -> None:
    """Ray's own way to connect waits for minutes, and may end the process.

    Raises:
        ConnectionError, SubprocessError: nothing answers as a cluster does.
    """
    if address == "auto" or "://" in address:
        return
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if process.wait(ANSWER_SECONDS) != 0:
            raise ConnectionError("nothing answers there as a Ray cluster does")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
