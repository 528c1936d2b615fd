"""A process that shares a device, for tests: it does what it is told, a line of JSON each, and answers likewise.

    python tests/device_peer.py IDENTITY

hold: load a model, in a turn; turn: take a turn and keep it until end; look; cancel: stop waiting. Beside the answers
it says what it waits for, as `{"waits": words}`.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

import psutil

from vidkit import device_lock, lock_folder
from vidkit.device_lock import DeviceLock
from vidkit.errors import Cancelled
from vidkit.progress import CancelToken


class Model:
    """Some memory with something in it, the keeper's model."""

    def __init__(self) -> None:
        self.weights: bytearray | None = None
        self.trimmed = 0

    def held(self) -> int | None:
        return len(self.weights) if self.weights is not None else None

    def trim(self) -> None:
        self.trimmed += 1

    def unload(self) -> None:
        self.weights = None


def say(**content: Any) -> None:
    print(json.dumps(content), flush=True)


class Shared:
    """Does one order after the other. A cancel is heard while it waits."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.model = Model()
        self.lock = DeviceLock(self.model)
        self.token = CancelToken()
        self.words = ""
        self.orders: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "cancel":
                self.token.cancel()
            else:
                self.orders.put(order)
        os._exit(0)

    def on_wait(self, words: str) -> None:
        self.token.check()
        if words != self.words:
            self.words = words
            say(waits=words)

    def serve(self) -> None:
        say(started=os.getpid())
        while True:
            order = self.orders.get()
            self.token, self.words = CancelToken(), ""
            try:
                getattr(self, order.pop("do"))(**order)
            except Cancelled:
                say(cancelled=True)

    def look(self) -> None:
        rss = psutil.Process().memory_info().rss
        say(held=self.model.held(), trimmed=self.model.trimmed, rss=rss)

    def hold(self, mib: int) -> None:
        with self.lock.turn(self.identity, "the GPU", "loading models", self.on_wait):
            self.model.weights = bytearray(os.urandom(2**20) * mib)
        say(held=self.model.held())

    def turn(self, room: int = 0) -> None:
        """room: so many others must unload before it fits."""
        with self.lock.turn(self.identity, "the GPU", "making a clip", self.on_wait):
            fitting = len(self.lock.holders()) - room
            self.lock.make_room(self.lock.holders(), lambda: len(self.lock.holders()) <= fitting, self.on_wait)
            say(turn=True, holders=len(self.lock.holders()))
            while self.orders.get()["do"] != "end":
                pass
        say(turn=False)


if __name__ == "__main__":
    lock_folder.DEAF = float(os.environ.get("DEAF", lock_folder.DEAF))  # type: ignore[misc]
    device_lock.PATIENCE = float(os.environ.get("PATIENCE", device_lock.PATIENCE))  # type: ignore[misc]
    Shared(sys.argv[1]).serve()
