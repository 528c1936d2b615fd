"""The process that works: requests in on stdin, events out on a private copy of stdout, one JSON a line.

In: {"request": {...}} to generate, {"cancel": true} to stop the present one; the end of input ends the process.
Out: {"progress": {...}}, then {"response": {...}, "exitCode": n}. Whatever a library prints on stdout lands on stderr.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from vidkit.errors import VidkitError, internal_error
from vidkit.generation import generate
from vidkit.progress import CancelToken

Send = Callable[[dict[str, Any]], None]


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
        self.token = CancelToken()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("cancel"):
                self.token.cancel()
            else:
                self.requests.put(message["request"])
        self.token.cancel()  # whoever started us is gone
        self.requests.put(None)


def serve(send: Send, inbox: Inbox) -> None:
    while (request := inbox.requests.get()) is not None:
        response, code = answer(request, send, inbox.token)
        send({"response": response, "exitCode": code})


def answer(request: dict[str, Any], send: Send, token: CancelToken) -> tuple[dict[str, Any], int]:
    """One request's response and exit code; no exception leaves it."""
    try:
        result = generate(request, on_progress=lambda event: send({"progress": event.to_json()}), cancel=token)
    except VidkitError as error:
        return error.to_json(), error.exit_code
    except Exception as error:  # noqa: BLE001  (the boundary of the process: any defect becomes a typed response)
        traceback.print_exc()
        return internal_error(error).to_json(), internal_error(error).exit_code
    return result.to_json(), 0


def main() -> None:
    send, inbox = private_stdout(), Inbox()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent tells us
    signal.signal(signal.SIGTERM, lambda *_: inbox.token.cancel())  # as do service managers with theirs
    serve(send, inbox)


if __name__ == "__main__":
    main()
