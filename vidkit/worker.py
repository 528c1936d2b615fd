"""The process that works: requests in on stdin, events out on a private copy of stdout, one JSON a line.

In: {"request": {...}} to generate, {"cancel": true} to stop the present one; the end of input ends the process, within
`ALONE` seconds whatever it is at: whoever started it may have been killed.
Out: {"progress": {...}}, then {"response": {...}, "exitCode": n}. Whatever a library prints on stdout lands on stderr.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from vidkit.errors import VidkitError, internal_error
from vidkit.generation import generate
from vidkit.logs import log_to
from vidkit.processes import end_children
from vidkit.progress import CancelToken, OnProgress
from vidkit.unfinished import remove_unfinished

#: seconds to stop by itself that it has after whoever started it has gone
ALONE: Final = 3.5

Send = Callable[[dict[str, Any]], None]
#: from a request to its response; raises as `vidkit.generate`
Make = Callable[[dict[str, Any], OnProgress, CancelToken], dict[str, Any]]


def private_stdout() -> Send:
    """Keep stdout's descriptor for ourselves and point descriptor 1 at stderr; returns how to send an event."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    channel.write("\n")  # ends the line of whoever printed before us; the parent takes that for log text
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    lock = threading.Lock()

    def send(event: dict[str, Any]) -> None:
        with lock:
            channel.write(json.dumps(event) + "\n")
            channel.flush()

    return send


class Inbox:
    """Reads stdin on a thread of its own, so that a cancel arrives while a request runs."""

    def __init__(self) -> None:
        self.requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last: dict[str, Any] = {}
        self.token = CancelToken()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("cancel"):
                self.token.cancel()
            else:
                self._last = message["request"]
                self.requests.put(self._last)
        self.token.cancel()  # whoever started us is gone
        self.requests.put(None)
        time.sleep(ALONE)
        try:
            end_children()  # ffmpeg, which would go on writing
            remove_unfinished(self._last, os.getpid())
        finally:
            # out of whatever does not look at the token: a compilation, an encoder, a file that cannot be read
            os._exit(1)


def serve(send: Send, inbox: Inbox, make: Make) -> None:
    while (request := inbox.requests.get()) is not None:
        response, code = answer(request, send, inbox.token, make)
        send({"response": response, "exitCode": code})


def answer(request: dict[str, Any], send: Send, token: CancelToken, make: Make) -> tuple[dict[str, Any], int]:
    """One request's response and exit code; no exception leaves it."""
    try:
        return make(request, lambda event: send({"progress": event.to_json()}), token), 0
    except VidkitError as error:
        return error.to_json(), error.exit_code
    except Exception as error:  # noqa: BLE001  (the boundary of the process: any defect becomes a typed response)
        traceback.print_exc()
        return internal_error(error).to_json(), internal_error(error).exit_code


def clip(request: dict[str, Any], on_progress: OnProgress, token: CancelToken) -> dict[str, Any]:
    return generate(request, on_progress=on_progress, cancel=token).to_json()


def main(make: Make = clip) -> None:
    """make: what is done with a request; its response."""
    send, inbox = private_stdout(), Inbox()
    log_to()
    for name in ("SIGINT", "SIGBREAK"):  # Ctrl-C and Ctrl-Break reach the whole process group; the parent tells us
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: inbox.token.cancel())  # as do service managers with theirs
    serve(send, inbox, make)


if __name__ == "__main__":
    main()
