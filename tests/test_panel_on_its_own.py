"""Processes beside the notebook are started apart and asked to end, on each system in its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from vidkit.panel.on_its_own import ask_to_end, on_its_own


def test_a_process_is_apart_and_hears_that_it_is_to_end() -> None:
    code = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); print(os.getsid(0), flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", code + "signal.pause()"], stdout=subprocess.PIPE, text=True, **on_its_own()
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid != os.getsid(0)
        ask_to_end(process.pid)
        assert process.wait(10) == 7
    ask_to_end(process.pid)  # no matter when it has ended


def test_without_sessions_it_is_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has this constant."""
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    assert on_its_own() == {"creationflags": 0x200}


@pytest.mark.parametrize("has_console", [True, False])
def test_where_sigterm_would_end_it_at_once_it_is_a_break(has_console: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def kill(pid: int, number: int) -> None:
        sent.append(number)
        if number == 1 and not has_console:
            raise OSError(6, "The handle is invalid")

    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    monkeypatch.setattr(os, "kill", kill)
    ask_to_end(os.getpid())
    assert sent == ([1] if has_console else [1, signal.SIGTERM])
