"""A sweep's points on a Ray cluster: one worker per GPU (or machine), each with its own warm kernel, pulling points.

The folder, the keys and the guarantees are those of a local run: a worker claims a point in the sweep's folder, which
all machines must see, with file locks that hold between them (NFS 4, Lustre with flock, CephFS). A worker that does not
see the folder gets the picture and the notebook sent, works in a folder of its own, and sends the run back to the
driver, which claims the point. Models must be where the request names them on every machine.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vidkit.errors import CriticalError, InputError, SetupError
from vidkit.sweep.execute import OnBegan, Outcome, Task, keep_away_run, run_task

#: a point whose worker dies is tried again by another, once: a second death is likely the point's own doing
ATTEMPTS: Final = 2


class RayExecutor:
    """Runs points on a Ray cluster.

    Args:
        address: of a running cluster (`ray start --head` prints it; "auto" finds one on this machine); None starts one
            on this machine for the time of the sweep.
        workers: None: one per GPU; without GPUs one per machine.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InputError("out_of_range", f"workers is {workers}.", ["Set workers to 1 or more, or leave it out"])
        self._address, self._workers = address, workers

    def run(self, tasks: Sequence[Task], began: OnBegan) -> Iterator[tuple[Task, Outcome]]:
        """Raises:
        SetupError: `missing_dependency`; or the cluster cannot be reached.
        CriticalError: `disk_full`, from a worker.
        """
        if not tasks:
            return
        ray = connected(self._address)
        pool = Pool(ray, self._workers, tasks[0].root)
        try:
            yield from pool.run(tasks, began)
        finally:
            pool.close()
            if self._address is None:
                ray.shutdown()


def connected(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise SetupError(
            "missing_dependency", "--executor ray needs Ray, which is not installed.", ["pip install 'vidkit[ray]'"]
        ) from error
    if ray.is_initialized():
        return ray
    try:
        ray.init(address=address or "local", include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise SetupError(
            "missing_dependency",
            f"No Ray cluster at {address or 'this machine'}: {error}",
            ["Check --address", "Start one: ray start --head", "Leave --address out to start one for this sweep"],
        ) from error
    return ray


class Worker:
    """Runs in an actor: one at a time, in its process's warm kernel."""

    def sees(self, probe: Path) -> bool:
        return probe.exists()

    def run(self, task: Task) -> Outcome:
        return run_task(task)

    def run_away(self, task: Task, sent: Mapping[str, bytes]) -> tuple[Outcome, dict[str, bytes]]:
        """Run a point in a folder of this machine. sent: the notebook and pictures, by their path at the driver.

        Returns the run folder's files by name.
        """
        with tempfile.TemporaryDirectory(prefix="vidkit-ray-") as temporary:
            places = {path: Path(temporary) / f"{number}-{Path(path).name}" for number, path in enumerate(sent)}
            for path, content in sent.items():
                places[path].write_bytes(content)
            pictures = {name: str(places[path]) for name, path in picture_paths(task).items() if path in places}
            here = dataclasses.replace(
                task,
                root=Path(temporary) / "run",
                notebook=places[str(task.notebook)],
                params=task.params.replace(**pictures),
            )
            outcome = run_task(here)
            return outcome, {file.name: file.read_bytes() for file in here.folder.path.iterdir() if file.is_file()}


def picture_paths(task: Task) -> dict[str, str]:
    given = {name: getattr(task.params, name) for name in ("image_path", "last_image_path")}
    return {name: path for name, path in given.items() if path is not None and Path(path).is_file()}


def to_send(task: Task) -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in {str(task.notebook), *picture_paths(task).values()}}


class Pool:
    """The workers, and who does what."""

    def __init__(self, ray: Any, workers: int | None, root: Path) -> None:
        self._ray, self._root = ray, root
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        nodes = sum(node["Alive"] for node in ray.nodes())
        count = workers or gpus or nodes
        share = gpus / count if gpus else 0
        self._options = {
            "num_gpus": min(share, 1),
            "num_cpus": 0 if gpus else max(1, int(resources.get("CPU", 1)) // count),
        }
        self._idle: deque[tuple[Any, bool]] = deque(self._new() for _ in range(count))
        self._busy: dict[Any, tuple[Any, bool, Task]] = {}

    def run(self, tasks: Sequence[Task], began: OnBegan) -> Iterator[tuple[Task, Outcome]]:
        waiting, tried = deque(tasks), dict.fromkeys((task.index for task in tasks), 0)
        while waiting or self._busy:
            while waiting and self._idle:
                task = waiting.popleft()
                tried[task.index] += 1
                began(task)
                self._start(task)
            finished, _ = self._ray.wait(list(self._busy), num_returns=1)
            for reference in finished:
                worker, shared, task = self._busy.pop(reference)
                outcome = self._outcome(reference, task, shared)
                self._idle.append(self._new() if outcome is None else (worker, shared))
                if outcome is not None:
                    yield task, outcome
                elif tried[task.index] < ATTEMPTS:
                    waiting.append(task)
                else:
                    yield task, died(tried[task.index])

    def close(self) -> None:
        """End all workers; their kernels end with them."""
        for worker in [worker for worker, _ in self._idle] + [worker for worker, _, _ in self._busy.values()]:
            self._ray.kill(worker)

    def _new(self) -> tuple[Any, bool]:
        """A worker, and whether it sees the sweep's folder."""
        worker = self._ray.remote(Worker).options(**self._options).remote()
        probe = self._root / f".probe-{secrets.token_hex(8)}"
        probe.touch()
        try:
            return worker, self._ray.get(worker.sees.remote(probe))
        finally:
            probe.unlink()

    def _start(self, task: Task) -> None:
        worker, shared = self._idle.popleft()
        reference = worker.run.remote(task) if shared else worker.run_away.remote(task, to_send(task))
        self._busy[reference] = (worker, shared, task)

    def _outcome(self, reference: Any, task: Task, shared: bool) -> Outcome | None:
        """None when the worker died."""
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return None
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, CriticalError) else error  # noqa: B904
        if shared:
            return result  # type: ignore[no-any-return]
        outcome, files = result
        return keep_away_run(task, outcome, files)


def died(times: int) -> Outcome:
    error = CriticalError(
        "process_killed",
        f"The worker died {times} times over this point.",
        ["Look for out-of-memory kills in the machine's log", "Make the request smaller"],
    )
    return Outcome("failed", {**error.to_json(), "traceback": ""})
