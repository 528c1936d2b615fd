"""What the command line says: one document on stdout, whole lines on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, TextIO

#: seconds without one line being taken, after which nobody seems to read them
PATIENCE: Final = 0.5

#: lines that wait for a reader; a clip has about a hundred
MOST_WAITING: Final = 1000


class Output:
    """stdout: the response alone. stderr: whole lines, progress as JSON, the rest log text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: whether a document got lost: stdout is a file on a full disk, say
        self.is_lost = False

    def event(self, event: dict[str, Any]) -> None:
        self._write(sys.stderr, str(event["log"]) if "log" in event else json.dumps(event))

    def response(self, response: Mapping[str, Any]) -> bool:
        """False when it got lost."""
        return self.text(json.dumps(response))

    def text(self, text: str) -> bool:
        """False when it got lost."""
        arrived = self._write(sys.stdout, text)
        self.is_lost = self.is_lost or not arrived
        return arrived

    def _write(self, stream: TextIO | None, line: str) -> bool:
        if stream is None:  # closed before we began; print() would take stdout for it
            return True
        with self._lock:
            try:
                print(line, file=stream, flush=True)
            except OSError as error:  # the clip still gets made
                give_up(stream.fileno())
                return isinstance(error, BrokenPipeError)  # nobody listens any more: nothing is lost
        return True


def show_progress(event: Mapping[str, Any]) -> None:
    """Tell a person how far it is."""
    if "log" in event:
        print(event["log"], file=sys.stderr, flush=True)
    else:
        print(f"{event['progress']:3d} %  {event['message']}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def unhurried_stderr() -> Iterator[None]:
    """In the block, a client that leaves stderr unread, so that its pipe fills, holds nothing up.

    A pipe holds 4 KiB on Windows, 64 KiB on Linux, and a clip's progress is some 10 KiB.
    """
    if not is_pipe(sys.stderr):
        yield
        return
    stream = UnhurriedStream(sys.stderr)
    try:
        with contextlib.redirect_stderr(stream):
            yield
    finally:
        stream.close()


class UnhurriedStream(io.TextIOBase):
    """Writes to a pipe by a thread of its own, and waits for that only as long as somebody reads.

    A line is written whole, whichever thread prints it. Lines beyond `MOST_WAITING` that nobody reads are left out, and
    counted in a line of their own. The process can end while the thread waits: it writes past the pipe's own stream,
    whose lock it would hold.
    """

    def __init__(self, stream: TextIO) -> None:
        self._descriptor, self._encoding = stream.fileno(), stream.encoding
        self._own = threading.local()  # the beginning of this thread's line
        self._waiting: deque[str] = deque()
        self._written = self._left_out = 0
        self._deaf = self._ended = False
        self._moved = threading.Condition()
        threading.Thread(target=self._work, name="vidkit stderr", daemon=True).start()

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        lines, end, self._own.part = (getattr(self._own, "part", "") + text).rpartition("\n")
        self._put(lines + end)
        return len(text)

    def flush(self) -> None:
        """Until all is written, or nobody seems to read."""
        part, self._own.part = getattr(self._own, "part", ""), ""
        self._put(part)
        with self._moved:
            while self._waiting and not self._deaf:
                before = self._written
                self._deaf = not self._moved.wait_for(lambda: self._written > before, PATIENCE)  # noqa: B023

    def close(self) -> None:
        if not self._ended:
            self.flush()
        with self._moved:
            self._ended = True
            self._moved.notify_all()

    def _put(self, text: str) -> None:
        if not text:
            return
        with self._moved:
            if len(self._waiting) >= MOST_WAITING:
                self._left_out += len(text.splitlines())
            else:
                self._waiting.append(text)
                self._moved.notify_all()

    def _work(self) -> None:
        while text := self._next():
            write_whole(self._descriptor, text.encode(self._encoding, "backslashreplace"))
            with self._moved:
                self._waiting.popleft()
                if self._left_out:
                    self._waiting.append(f"{self._left_out} lines were left out here: nobody read them\n")
                self._written, self._left_out, self._deaf = self._written + 1, 0, False
                self._moved.notify_all()

    def _next(self) -> str:
        """What is to be written, which stays in the line until it is; nothing at the end."""
        with self._moved:
            self._moved.wait_for(lambda: self._waiting or self._ended)
            return self._waiting[0] if self._waiting else ""


def is_pipe(stream: TextIO | None) -> bool:
    """Whether what is written may have to wait for a program that reads it."""
    try:
        return stream is not None and stream.fileno() >= 0 and not stream.isatty()
    except (OSError, ValueError):  # a stream that is kept in memory
        return False


def write_whole(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:  # nobody listens any more, or it is a file on a full disk; the clip still gets made
        give_up(descriptor)


def give_up(descriptor: int) -> None:
    """From now on nothing that is written there arrives anywhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
