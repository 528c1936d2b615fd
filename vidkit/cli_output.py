"""What the command line says: one document on stdout, whole lines on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO


class Output:
    """stdout: the response alone. stderr: whole lines, progress as JSON, the rest log text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def event(self, event: dict[str, Any]) -> None:
        self._write(sys.stderr, str(event["log"]) if "log" in event else json.dumps(event))

    def response(self, response: Mapping[str, Any]) -> bool:
        """False when it got lost: stdout is a file on a full disk, say."""
        return self.text(json.dumps(response))

    def text(self, text: str) -> bool:
        return self._write(sys.stdout, text)

    def _write(self, stream: TextIO | None, line: str) -> bool:
        if stream is None:  # closed before we began; print() would take stdout for it
            return True
        with self._lock:
            try:
                print(line, file=stream, flush=True)
            except OSError as error:  # the clip still gets made
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                return isinstance(error, BrokenPipeError)  # nobody listens any more: nothing is lost
        return True
