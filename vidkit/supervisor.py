"""The torch-free parent of a worker process: asks, relays, cancels; whatever becomes of the worker, it answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from vidkit.errors import Cancelled, VidkitError
from vidkit.libraries import NO_TELEMETRY
from vidkit.logs import log_failure
from vidkit.post_mortem import died, hung, memory_kills
from vidkit.progress import COMPUTED, COMPUTING
from vidkit.settings import settings_or_defaults
from vidkit.unfinished import remove_unfinished

#: seconds a worker has to stop by itself; the protocol promises an answer within 5
GRACE: Final = 3.5

#: seconds after the time limit that a worker has to stop by itself: it looks at each layer, and some take long on a CPU
OVERTIME: Final = 60.0

#: nothing at run time goes to the network, and nobody is told
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", **NO_TELEMETRY, "PYTHONUTF8": "1"}

#: The worker sees the modules that we see. `python -m` would look into the current folder first, and a picture folder
#: with a json.py in it would run that.
WORKER: Final = "import importlib, sys; sys.path[:] = sys.argv[2:]; importlib.import_module(sys.argv[1]).main()"

#: of a process: Ctrl-C in the console is not for it
DEAF_ON_WINDOWS: Final = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)

OnEvent = Callable[[dict[str, Any]], None]


class Supervisor:
    """One worker, started when first needed and again when it died; requests one after another."""

    def __init__(self, overtime: float = OVERTIME, worker: str = "vidkit.worker") -> None:
        """
        Args:
            overtime: seconds after the time limit at which a worker is ended that does not stop by itself.
            worker: the module whose `main` serves the requests, as that of `vidkit.worker` does.
        """
        self._module = worker
        self._overtime = overtime
        self._worker: subprocess.Popen[str] | None = None
        self._relay: threading.Thread | None = None
        self._memory_kills = 0  # of the system, before the worker was started
        self.cancelled = False

    def run(self, request: Mapping[str, Any], on_event: OnEvent) -> tuple[dict[str, Any], int]:
        """The response and exit code for one request.

        on_event: called with each progress event and, as {"log": line}, with each line the worker printed; from two
        threads, so it must write whole lines.
        """
        if self.cancelled:
            return answer(Cancelled())
        worker = self._running(on_event)
        watch = Watch(worker, settings_or_defaults().limits.time, self._overtime)
        try:
            try:
                self._send({"request": dict(request)})
            except BrokenPipeError:  # it died before it read the request; its exit says how
                return self._post_mortem(worker, request, watch)
            if self.cancelled:  # by a signal that came before there was a worker to tell
                self.cancel()
            for event in events(worker):
                if "response" in event:
                    if event["response"].get("code") == "gpu_driver":
                        self.close()  # no CUDA call works any more in a process that has met one: the next gets a new
                    return event["response"], event["exitCode"]
                watch.see(event)
                on_event(event.get("progress", event))
        finally:
            watch.stop()
        return self._post_mortem(worker, request, watch)

    def cancel(self) -> None:
        """Ask the worker to stop; end it when it does not. Safe in a signal handler."""
        self.cancelled = True
        worker = self._worker
        if worker is None or worker.poll() is not None:
            return
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: a signal in the middle of _send
            self._send({"cancel": True})
        timer = threading.Timer(GRACE, worker.kill)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """End the worker: its input ends, so it does; after the grace it is killed."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with contextlib.suppress(OSError):
            worker.stdin.close()  # type: ignore[union-attr]
        try:
            worker.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        if self._relay is not None:
            self._relay.join(1)

    def _running(self, on_event: OnEvent) -> subprocess.Popen[str]:
        if self._worker is None or self._worker.poll() is not None:
            self._memory_kills = memory_kills()
            with interrupts_held_back():
                self._worker = subprocess.Popen(
                    [sys.executable, "-P", "-c", WORKER, self._module, *sys.path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    env={**os.environ, **OFFLINE},
                    creationflags=DEAF_ON_WINDOWS,
                )
            self._relay = threading.Thread(target=relay, args=(self._worker, on_event), daemon=True)
            self._relay.start()
        return self._worker

    def _send(self, message: dict[str, Any]) -> None:
        worker = self._worker
        if worker is not None and worker.stdin is not None:
            worker.stdin.write(json.dumps(message) + "\n")
            worker.stdin.flush()

    def _post_mortem(
        self, worker: subprocess.Popen[str], request: Mapping[str, Any], watch: Watch
    ) -> tuple[dict[str, Any], int]:
        """The worker ended without an answer: remove what it left half-made, and say why."""
        status = worker.wait()
        self._worker = None
        if self._relay is not None:
            self._relay.join(1)
        remove_unfinished(request, worker.pid)
        if self.cancelled:
            return answer(Cancelled())
        if watch.has_ended_it:
            return answer(hung(watch.limit, request))
        return answer(died(status, request, memory_kills() > self._memory_kills))


class Watch:
    """Ends a worker that neither answers nor stops in time.

    limit: seconds from when it has the device, 0 for none; once all frames are computed, it has as long again to write
    them. overtime: seconds beyond.
    """

    def __init__(self, worker: subprocess.Popen[str], limit: float | None, overtime: float) -> None:
        self.limit = limit or 0.0
        self._worker = worker
        self._overtime = overtime
        self._stages = [COMPUTING, COMPUTED]
        self._timer: threading.Timer | None = None
        self.has_ended_it = False

    def see(self, event: Mapping[str, Any]) -> None:
        """An event of the worker's: its progress tells what it is at."""
        percent = event.get("progress", {}).get("progress", 0)
        if not self.limit or not self._stages or percent < self._stages[0]:
            return
        self._stages = [stage for stage in self._stages if stage > percent]
        self.stop()
        self._timer = threading.Timer(self.limit + self._overtime, self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.has_ended_it = True
        self._worker.kill()


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """A process that is started here never hears Ctrl-C, not even while it starts; we hear it at the end of the block.

    It reaches all processes of a terminal, and to cancel is ours.
    """
    if sys.platform == "win32":  # has no such masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def events(worker: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What the worker sends; a line that is none of ours was printed by something else, and is log text."""
    for line in worker.stdout or ():
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and event.keys() & {"response", "progress"}:
            yield event
        elif line.strip():
            yield {"log": line.rstrip("\n")}


def relay(worker: subprocess.Popen[str], on_event: OnEvent) -> None:
    if worker.stderr is not None:
        for line in worker.stderr:
            if line.strip():
                on_event({"log": line.rstrip("\n")})


def answer(error: VidkitError) -> tuple[dict[str, Any], int]:
    log_failure("request", error)
    return error.to_json(), error.exit_code
