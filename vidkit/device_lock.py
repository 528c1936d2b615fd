"""One device, several processes: they compute in turns, and who holds models while idle unloads when asked.

Turns go in the order of asking, so a sweep lets the control panel in between two of its clips. Models stay loaded while
others compute, as long as there is memory for all: only who lacks room asks the idle holders to unload, one by one.
Processes of one user see each other; those of another user, or in another container, only fill the memory.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from filelock import FileLock, Timeout

from vidkit.lock_folder import (
    Peer,
    Sign,
    Silence,
    folder_for,
    has_turn,
    locked,
    peers,
    program_in_words,
    waiting_in_words,
)

logger = logging.getLogger("vidkit")

#: seconds between two looks: of who waits at the line; of who holds models at whether somebody asks for them
LOOK: Final = 0.1
LISTEN: Final = 0.2

#: seconds that an idle process has to unload; it takes some tenths
PATIENCE: Final = 5.0

#: seconds of idleness after which memory is given back that holds no model
IDLE: Final = 3.0

LINE: Final = "turn"
HOLDER: Final = "hold"
TURN_LOCK: Final = "turn.lock"

OnWait = Callable[[str], object]


class Keeper(Protocol):
    """What a process keeps on a device between its turns. Called while it has no turn, or at its end."""

    def held(self) -> int | None:
        """Bytes of the device's memory that are taken; None when no model is loaded."""

    def trim(self) -> None:
        """Give back memory that holds no model."""

    def unload(self) -> None:
        """Drop all models and give their memory back."""


class DeviceLock:
    """This process's part in it; one for a process. Turns are taken by one thread at a time, unloading by any."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        self._in_use = threading.Lock()  # the keeper's models are: by a turn, or because they are being unloaded
        self._signs = threading.Lock()  # guards the four below
        self._turn: Sign | None = None
        self._holding: Sign | None = None
        self._watcher: threading.Thread | None = None
        self._idle_since: float | None = None  # None: trimmed already
        self._folder: Path | None = None
        self._program: str | None = None
        self._silence = Silence()

    def _after_fork(self) -> None:
        """The signs stay the parent's: a child holds nothing on the device."""
        _of_the_parent.append((self._turn, self._holding))
        self._reset()

    @contextmanager
    def turn(self, identity: str | None, label: str, doing: str, on_wait: OnWait) -> Iterator[None]:
        """Compute on a device while no other process does.

        Args:
            identity: of the device; None: it is shared with nobody.
            label: of the device, in words ("the GPU"); doing: what this turn is for ("making a clip").
            on_wait: called some ten times a second while others have the device, with words that say who; what it
                raises ends the waiting.
        """
        with ExitStack() as stack:
            self._folder = None
            if identity is not None:
                try:
                    self._folder = folder_for(identity)
                    stack.enter_context(self._in_line(self._folder, label, doing, on_wait))
                except OSError as error:
                    self._folder = None
                    logger.warning("processes on %s are not kept apart: %s", label, error)
            stack.enter_context(self._in_use)
            try:
                yield
            finally:
                self._settle()

    def make_room(self, holders: Sequence[Peer], fits: Callable[[], bool], on_wait: OnWait) -> None:
        """Within a turn: ask these to unload, one after another, until it fits. One that hangs keeps what it holds.

        on_wait: as in `turn`.
        """
        for peer in holders:
            if fits():
                return
            self._ask(peer, on_wait)

    def holders(self) -> list[Peer]:
        """The other processes that hold models on the device of this turn, who holds most first."""
        return sorted(self._others(HOLDER), key=lambda peer: -peer.bytes)

    def unload(self) -> None:
        """Unload this process's models; waits while it has a turn."""
        with self._in_use:
            self._keeper.unload()
            self._hold(None)

    # --- the line ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _in_line(self, folder: Path, label: str, doing: str, on_wait: OnWait) -> Iterator[None]:
        """Raises OSError only before the block."""
        ticket = Sign(folder, LINE, time.time_ns())
        with ExitStack() as stack:
            stack.callback(ticket.remove)
            ticket.say(program=self._name(), doing=doing)
            lock = self._first_in_line(folder, ticket, label, on_wait)
            stack.callback(lock.release)
            ticket.say(program=self._name(), doing=doing, turn=True)
            self._show(turn=ticket)
            stack.callback(self._show, turn=None)
            yield

    def _first_in_line(self, folder: Path, ticket: Sign, label: str, on_wait: OnWait) -> FileLock:
        """Wait for those who came before, but not for who gives no sign of life. The lock says that it is our turn."""
        while True:
            others = [peer for peer in peers(folder, LINE) if peer.path != ticket.path]
            awake, deaf = self._silence.parted(others)
            before = [peer for peer in awake if has_turn(peer) or peer.path.name < ticket.path.name]
            if not before:
                with suppress(Timeout):
                    return locked(folder / TURN_LOCK)
                if any(map(has_turn, deaf)):  # for all who come from now on there is a new lock
                    with suppress(OSError):  # on Windows it cannot be removed, and is waited for
                        (folder / TURN_LOCK).unlink(missing_ok=True)
            on_wait(waiting_in_words(label, before or deaf))
            ticket.beat()
            time.sleep(LOOK)

    # --- memory -----------------------------------------------------------------------------------------------------

    def _ask(self, peer: Peer, on_wait: OnWait) -> None:
        """Ask a process to unload, and wait for it. What it does not hear now it finds later."""
        if peer.asked_for() > PATIENCE:  # it has not answered, and is not waited for once more
            return
        logger.info("asking %s to unload its models", peer.in_words)
        try:
            peer.asked.touch(mode=0o600)
        except OSError as error:
            logger.warning("%s cannot be asked to unload its models: %s", peer.in_words, error)
            return
        ends = time.monotonic() + PATIENCE
        while peer.lives():
            if time.monotonic() > ends:
                logger.warning("%s holds models and does not unload them", peer.in_words)
                return
            on_wait(f"Waiting for {peer.in_words} to unload its models...")
            time.sleep(LOOK / 2)

    def _settle(self) -> None:
        """A turn ends: what stays loaded is said, and memory that holds no model given back to who is waiting."""
        try:
            self._idle_since = time.monotonic()
            if self._others(LINE) or self._others(HOLDER):
                self._keeper.trim()
                self._idle_since = None
            self._hold(self._keeper.held(), turn_ended=True)
        except Exception:  # of a driver that has failed, which is told already
            logger.exception("what stays on the device is not known")

    def _hold(self, size: int | None, *, turn_ended: bool = False) -> None:
        """Say that this process holds so much in the folder of its last turn; None: nothing."""
        folder = self._folder if size is not None else None
        with self._signs:
            if self._holding is not None and self._holding.path.parent != folder:
                self._holding.remove()
                self._holding = None
            if folder is None:
                return
            try:
                self._holding = self._holding or Sign(folder, HOLDER)
            except OSError as error:
                logger.warning("nobody can ask this process to unload its models: %s", error)
                return
            self._holding.say(program=self._name(), bytes=size)
            if turn_ended:
                self._holding.beat()
        self._watch()

    def _others(self, kind: str) -> list[Peer]:
        """Other processes' signs."""
        ours = [sign.path for sign in (self._turn, self._holding) if sign is not None]
        try:
            return [peer for peer in peers(self._folder, kind) if peer.path not in ours] if self._folder else []
        except OSError as error:  # somebody has removed it
            logger.warning("other processes on the device cannot be seen: %s", error)
            return []

    def _name(self) -> str:
        if self._program is None:
            self._program = program_in_words()
        return self._program

    # --- the thread that gives signs of life and hears who asks -------------------------------------------------------

    def _show(self, turn: Sign | None) -> None:
        with self._signs:
            self._turn = turn
        self._watch()

    def _watch(self) -> None:
        with self._signs:
            if self._watcher is None and (self._turn or self._holding):
                self._watcher = threading.Thread(target=self._work, name="vidkit device", daemon=True)
                self._watcher.start()

    def _work(self) -> None:
        while True:
            time.sleep(LISTEN)
            with self._signs:
                turn, holding = self._turn, self._holding
                if turn is None and holding is None:
                    self._watcher = None
                    return
            if turn is not None:
                turn.beat()
            elif holding is not None:
                try:
                    self._look(holding)
                except Exception:  # or nobody would be heard any more
                    logger.exception("memory of the device could not be given back")

    def _look(self, holding: Sign) -> None:
        """While no turn is on: unload if asked to, and give back spare memory after a while."""
        asked, idle_since = holding.asked.exists(), self._idle_since
        tired = idle_since is not None and time.monotonic() - idle_since > IDLE
        if not (asked or tired) or not self._in_use.acquire(blocking=False):
            return
        try:
            self._idle_since = None
            if not asked:
                self._keeper.trim()
                self._hold(self._keeper.held())
                return
            logger.info("another process needs the device's memory: the models are unloaded")
            self._keeper.unload()
        finally:
            if asked:
                self._hold(None)  # which answers, too: the files of the sign go
            self._in_use.release()


#: kept, so that they are not finalised in a child process: that would free what the parent holds
_of_the_parent: list[Any] = []
