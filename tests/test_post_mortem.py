"""What is said of a worker that died: by its signal, the system's count of kills, and its request."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from vidkit import post_mortem
from vidkit.errors import Remedy
from vidkit.post_mortem import died, hung, memory_kills

REQUEST = {"imagePath": "a.png", "prompt": "x", "numFrames": 24, "width": 1024, "height": 576, "decodeChunkSize": 4}


def test_killed() -> None:
    error = died(-9, REQUEST)
    assert (error.code, error.exit_code) == ("process_killed", 4)
    assert "(signal SIGKILL)" in error.message and "memory" not in error.message
    changes = [advice.changes for advice in error.suggestions if isinstance(advice, Remedy)]
    assert changes == [{"decode_chunk_size": 2}, {"num_frames": 16}, {"width": 768, "height": 384}]
    assert any(advice.startswith("Close other programs: of ") for advice in error.suggestions)


def test_killed_by_the_system_for_its_memory() -> None:
    assert "The system's memory had run out" in died(-9, REQUEST, killed_for_memory=True).message


@pytest.mark.parametrize("status", [-signal.SIGSEGV, 0xC0000005])
def test_a_crash_is_no_matter_of_size(status: int) -> None:
    error = died(status, REQUEST)
    assert not any(isinstance(advice, Remedy) for advice in error.suggestions)
    assert "a library has crashed" in error.suggestions[-1]


@pytest.mark.parametrize(("status", "told"), [(1, "exit status 1"), (-99, "signal 99")])
def test_any_other_end(status: int, told: str) -> None:
    assert told in died(status, REQUEST).message


def test_another_workers_request_has_no_smaller_one() -> None:
    assert died(-9, {"model": "svd"}).suggestions[-1].startswith("Send the request again")
    assert hung(600, {"model": "svd"}).code == "timeout"


def test_the_systems_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_mortem, "KILLS", tmp_path / "vmstat")
    assert memory_kills() == 0
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 3\nunused 0\n")
    assert memory_kills() == 3
