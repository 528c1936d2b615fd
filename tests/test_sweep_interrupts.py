"""A signal that Python drops, as it came in a callback, ends a sweep nevertheless."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_files import Sweep, one_home

from vidkit.runs import run_folders
from vidkit.sweep.interrupts import heed, interrupt_on_signals
from vidkit.sweep.status import read_status

#: as a command line, but that the first collection of garbage in the first point gets the signal
LOSING = """
import gc, signal, sys, threading
from pathlib import Path
from vidkit.cli import main

number, root = int(sys.argv.pop(1)), Path(sys.argv.pop(1))

def lose(phase, _):
    if threading.current_thread() is threading.main_thread() and list(root.glob(".runner-*.json")):
        gc.callbacks.remove(lose)
        signal.raise_signal(number)

gc.set_threshold(50)
gc.callbacks.append(lose)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module", autouse=True)
def vidkit_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from one_home(tmp_path_factory)


@pytest.fixture
def handlers(signals_restored: None) -> Iterator[None]:
    """They and what was noted are as before in the end."""
    yield
    interrupt_on_signals()  # forgets it


class Thing:
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_callback_is_heeded_later(handlers: None, number: int) -> None:
    interrupt_on_signals()
    heed()
    thing = Thing()
    seen = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing  # Python prints the KeyboardInterrupt of the callback and goes on
    assert seen() is None
    elsewhere = threading.Thread(target=heed)
    elsewhere.start()
    elsewhere.join()  # other threads are not ended: an exception there would be pytest's warning
    with pytest.raises(KeyboardInterrupt):
        heed()
    interrupt_on_signals()
    heed()


def test_an_ignored_ctrl_c_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_on_signals()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_sweep_ends_though_its_signal_was_dropped(tmp_path: Path, tiny_svd_folder: Path, options: list[str]) -> None:
    sweep = Sweep(tmp_path, tiny_svd_folder)
    sweep.write(seed=range(1, 31))
    command = [sys.executable, "-c", LOSING, str(int(signal.SIGTERM)), str(sweep.root)]
    arguments = ["sweep", str(sweep.file), "--output", str(sweep.root), *options]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert "Exception ignored in" in done.stderr and "KeyboardInterrupt" in done.stderr, "it was not dropped"
    assert done.returncode == 130, done.stderr
    assert "Stopped. Finished points are kept" in done.stderr
    assert len(run_folders(sweep.root)) == len(sweep.done()) < 30
    assert read_status(sweep.root).state == "stopped"
