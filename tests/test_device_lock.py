"""Processes that share a device: turns in order, idle models unloaded when asked, whatever becomes of the others."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import Running, wait_for

from vidkit.device import device_identity
from vidkit.device_lock import DeviceLock
from vidkit.lock_folder import Peer, Sign, UnusableError, folder_for, peers, program_in_words

MIB = 2**20
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of the test's own."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


class Process:
    """`device_peer.py`, one thing told after the other."""

    def __init__(self, identity: str = "device", **more: str) -> None:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "device_peer.py"), identity],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, **more},
        )
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.waited_for: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.hear("started")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def in_words(self) -> str:
        return f"process {self.pid} ({program_in_words(self.pid)})"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            content = json.loads(line)
            if "waits" in content:
                self.waited_for.append(content["waits"])
            else:
                self.said.put(content)

    def tell(self, do: str, **more: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()

    def hear(self, key: str, seconds: float = 20) -> dict[str, Any]:
        answer = self.said.get(timeout=seconds)
        assert key in answer, answer
        return answer

    def ask(self, do: str, key: str, **more: Any) -> dict[str, Any]:
        self.tell(do, **more)
        return self.hear(key)

    def waits(self) -> str:
        return str(wait_for(lambda: self.waited_for)[-1])


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*arguments: Any, **more: Any) -> Process:
        started.append(Process(*arguments, **more))
        return started[-1]

    yield begin
    for process in started:
        process.process.kill()
        process.process.communicate()


# --- turns ----------------------------------------------------------------------------------------------------------


def test_turns_in_the_order_of_asking(start: Callable[..., Process]) -> None:
    """A sweep that asks for its next turn at once does not starve who waits."""
    sweep, panel, other = start(), start(), start("another device")
    sweep.ask("turn", "turn")
    panel.tell("turn")
    assert panel.waits() == f"Waiting for the GPU: {sweep.in_words} is making a clip..."
    assert other.ask("turn", "turn")["turn"]  # its device is free

    sweep.ask("end", "turn")
    sweep.tell("turn")
    assert panel.hear("turn", 2)["turn"]
    assert panel.in_words in sweep.waits()
    assert sweep.said.empty()
    panel.ask("end", "turn")
    assert sweep.hear("turn", 2)["turn"]


def test_how_many_wait_is_said(start: Callable[..., Process]) -> None:
    first, second, third = start(), start(), start()
    first.ask("turn", "turn")
    second.tell("turn")
    second.waits()
    third.tell("turn")
    assert third.waits().endswith("is making a clip (1 more waits for it)...")


def test_cancel_while_waiting(start: Callable[..., Process]) -> None:
    first, second, third = start(), start(), start()
    first.ask("turn", "turn")
    second.tell("turn")
    second.waits()
    began = time.monotonic()
    second.ask("cancel", "cancelled")
    assert time.monotonic() - began < 1
    third.tell("turn")
    assert third.waits().endswith("is making a clip...")  # the other has left the line
    first.ask("end", "turn")
    third.hear("turn", 2)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_killed_holder_frees_at_once(start: Callable[..., Process]) -> None:
    first, second = start(), start()
    first.ask("turn", "turn")
    second.tell("turn")
    second.waits()
    first.process.kill()
    assert second.hear("turn", 2)["turn"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_stopped_process_is_not_waited_for_for_ever(start: Callable[..., Process]) -> None:
    stopped, second, third = start(), start(DEAF="1.5"), start(DEAF="1.5")
    stopped.ask("turn", "turn")
    second.tell("turn")
    second.waits()
    time.sleep(2)
    assert second.said.empty()  # it computes for long, and lives
    os.kill(stopped.pid, signal.SIGSTOP)
    began = time.monotonic()
    second.hear("turn", 10)
    assert time.monotonic() - began > 1
    third.tell("turn")
    assert second.in_words in third.waits()
    time.sleep(2)
    assert third.said.empty()  # two never compute because a third sleeps
    second.ask("end", "turn")
    third.hear("turn", 5)
    third.ask("end", "turn")
    began = time.monotonic()
    second.ask("turn", "turn")
    assert time.monotonic() - began < 1  # what was found out once is remembered
    second.ask("end", "turn")
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.ask("end", "turn")
    stopped.ask("turn", "turn")
    second.tell("turn")
    assert stopped.in_words in wait_for(lambda: second.waited_for[1:])[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_child_keeps_nothing(start: Callable[..., Process]) -> None:
    """Neither does its life hold the lock, nor does its end free it."""
    other, lock = start(), DeviceLock(Nothing())
    with lock.turn("device", "the GPU", "making a clip", ignore):
        child = os.fork()
        if child:
            other.tell("turn")
            other.waits()
            time.sleep(0.5)  # the child has left the block
    if not child:
        time.sleep(20)
        os._exit(0)
    try:
        assert other.waited_for[0].startswith(f"Waiting for the GPU: process {os.getpid()} ")
        assert len(other.waited_for) == 1  # all the time the parent was seen
        other.hear("turn", 2)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- memory ---------------------------------------------------------------------------------------------------------


class Nothing:
    """A process that keeps no model."""

    def held(self) -> int | None:
        return None

    def trim(self) -> None:
        raise AssertionError("there is nothing to give back")

    def unload(self) -> None:
        pass


def ignore(words: str) -> None:
    pass


def test_idle_models_stay_while_there_is_room(start: Callable[..., Process]) -> None:
    holder, other = start(), start()
    holder.ask("hold", "held", mib=100)
    assert other.ask("turn", "turn")["holders"] == 1
    other.ask("end", "turn")
    assert holder.ask("look", "held")["held"] == 100 * MIB


def test_idle_models_are_unloaded_when_asked(start: Callable[..., Process]) -> None:
    small, large, other = start(), start(), start()
    small.ask("hold", "held", mib=1)
    large.ask("hold", "held", mib=100)
    before = large.ask("look", "rss")["rss"]
    began = time.monotonic()
    assert other.ask("turn", "turn", room=1)["holders"] == 1
    assert time.monotonic() - began < 1
    assert other.waited_for == [f"Waiting for {large.in_words} to unload its models..."]
    after = large.ask("look", "held")
    assert after["held"] is None
    assert before - after["rss"] > 90 * MIB
    assert small.ask("look", "held")["held"] == MIB  # it was enough


def test_models_of_a_waiting_process_are_unloaded(start: Callable[..., Process]) -> None:
    """Both want the device, and there is room for one: neither waits for the other for ever."""
    panel, sweep, other = start(), start(), start()
    panel.ask("hold", "held", mib=1)
    other.ask("turn", "turn")
    sweep.tell("turn", room=1)
    sweep.waits()
    panel.tell("turn")
    panel.waits()
    other.ask("end", "turn")
    assert sweep.hear("turn", 2)["holders"] == 0
    sweep.ask("end", "turn")
    panel.hear("turn", 2)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_idle_process_that_hangs_keeps_its_models(start: Callable[..., Process]) -> None:
    holder, other = start(), start(PATIENCE="1.5")
    holder.ask("hold", "held", mib=1)
    os.kill(holder.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert other.ask("turn", "turn", room=1)["holders"] == 1
    assert 1.4 < time.monotonic() - began < 4
    other.ask("end", "turn")
    began = time.monotonic()
    other.ask("turn", "turn", room=1)
    assert time.monotonic() - began < 1  # not once more
    os.kill(holder.pid, signal.SIGCONT)
    wait_for(lambda: holder.ask("look", "held")["held"] is None, 2)  # it finds the request when it goes on


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_killed_process_holds_nothing(start: Callable[..., Process], runtime: Path) -> None:
    holder, other = start(), start()
    holder.ask("hold", "held", mib=1)
    holder.process.kill()
    holder.process.wait()
    assert other.ask("turn", "turn")["holders"] == 0
    other.ask("end", "turn")
    assert [path.name for path in (runtime / "vidkit" / "device").iterdir()] == ["turn.lock"]  # all cleared away


def test_spare_memory_is_given_back_for_others_or_when_idle(start: Callable[..., Process]) -> None:
    alone = start()
    alone.ask("hold", "held", mib=1)
    assert alone.ask("look", "trimmed")["trimmed"] == 0  # the next clip takes it at once
    wait_for(lambda: alone.ask("look", "trimmed")["trimmed"] == 1, 5)
    time.sleep(0.5)
    assert alone.ask("look", "trimmed")["trimmed"] == 1
    start().ask("hold", "held", mib=1)
    alone.ask("hold", "held", mib=1)
    assert alone.ask("look", "trimmed")["trimmed"] == 2


def test_listening_costs_next_to_nothing(start: Callable[..., Process]) -> None:
    holder = start()
    holder.ask("hold", "held", mib=1)
    process = psutil.Process(holder.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(3)
    assert sum(process.cpu_times()[:2]) - before <= 0.03  # of 3 s


def test_no_thread_without_a_device_or_models() -> None:
    lock, others = DeviceLock(Nothing()), set(threading.enumerate())

    def listens() -> bool:
        return "vidkit device" in [thread.name for thread in set(threading.enumerate()) - others]

    with lock.turn(None, "the CPU", "making a clip", ignore):
        assert lock.holders() == []
        assert not listens()
    with lock.turn("device", "the GPU", "making a clip", ignore):
        assert listens()
    wait_for(lambda: not listens())


# --- the folder -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_folder_lets_only_its_user_in(runtime: Path) -> None:
    folder = folder_for("GPU-1/../2 x")
    assert folder == runtime / "vidkit" / "GPU-1_.._2_x"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    sign = Sign(folder, "hold")
    assert sign.path.stat().st_mode & 0o077 == 0
    sign.remove()
    folder.chmod(0o777)
    with pytest.raises(UnusableError, match="not this user's alone"):
        folder_for("GPU-1/../2 x")
    folder.rmdir()
    folder.symlink_to(runtime)
    with pytest.raises(OSError, match=r"exists|alone"):
        folder_for("GPU-1/../2 x")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("unusable", ["another's", "a file"])
def test_without_a_folder_turns_are_taken_all_the_same(
    runtime: Path, unusable: str, caplog: pytest.LogCaptureFixture
) -> None:
    if unusable == "a file":
        (runtime / "vidkit").touch()
    else:
        (runtime / "vidkit").mkdir(mode=0o777)
        (runtime / "vidkit").chmod(0o777)
    with (
        caplog.at_level(logging.WARNING, "vidkit"),
        DeviceLock(Nothing()).turn("device", "the GPU", "making a clip", ignore),
    ):
        pass
    assert "processes on the GPU are not kept apart" in caplog.text


def test_full_disk(runtime: Path, start: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    """Locks take no space, and what a process says of itself is left out: turns are kept apart, names are missing."""
    resource = pytest.importorskip("resource")
    other = start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # a write of one byte fails
    try:
        with DeviceLock(Nothing()).turn("device", "the GPU", "making a clip", ignore):
            other.tell("turn")
            assert other.waits() == f"Waiting for the GPU: process {os.getpid()} is at work..."
        other.hear("turn", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "not kept apart" not in caplog.text


def test_broken_words_of_a_process(runtime: Path) -> None:
    folder = folder_for("device")
    sign = Sign(folder, "hold")
    for text in ("", "[1]", "{", "\xff"):
        sign.path.with_suffix(".json").write_text(text, encoding="latin-1")
        peer = peers(folder, "hold")[0]
        assert (peer.pid, peer.content, peer.in_words) == (os.getpid(), {}, f"process {os.getpid()}")
    sign.remove()
    assert peers(folder, "hold") == []
    assert not Peer(sign.path, {}).lives()


def test_program_in_words(tmp_path: Path) -> None:
    with Running("-") as running:
        assert program_in_words(running.process.pid) == "vidkit generate"
    assert program_in_words(2**22 + 1) == ""
    assert re.match("python|pytest", program_in_words())


# --- identity -------------------------------------------------------------------------------------------------------


def test_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDKIT_DEVICE_LOCK", raising=False)
    assert device_identity("cpu") is None
    monkeypatch.setenv("VIDKIT_DEVICE_LOCK", "workstation")
    assert device_identity("cpu") == device_identity("cuda") == "workstation"
