"""Signals, kills and long sessions: whatever becomes of a process, one JSON document and no half-made file."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import (
    PROMISE,
    Running,
    assert_good_progress,
    children,
    lives,
    names,
    run,
    save_picture,
    wait_for,
)

from vidkit.settings import update_settings
from vidkit.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends POSIX signals and looks into /proc")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.fixture
def quick(tmp_path: Path, output: Path, tiny_svd_folder: Path) -> dict[str, Any]:
    """A request of some tenths of a second on a warm worker."""
    return {
        "baseModel": str(tiny_svd_folder),
        "imagePath": str(save_picture(tmp_path / "photo.png")),
        "prompt": "slow zoom in",
        "width": 64,
        "height": 64,
        "numFrames": 2,
        "numInferenceSteps": 2,
        "seed": 7,
        "outputPath": str(output / "clip.mp4"),
    }


@pytest.fixture
def slow(quick: dict[str, Any]) -> dict[str, Any]:
    """A request that takes its time: long enough to be stopped in the midst of it."""
    return {**quick, "numFrames": 6, "numInferenceSteps": 200}


def test_signal_in_mid_denoise(slow: dict[str, Any], output: Path) -> None:
    with Running(json.dumps(slow)) as running:
        running.wait_for_step(2)
        worker = running.worker()
        sent = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        finished = running.finish()
        assert time.monotonic() - sent < PROMISE
    assert_cancelled(finished.code, finished.response)
    assert names(output) == []
    assert not lives(worker)
    assert "Traceback" not in "\n".join(finished.log)


def test_signal_to_a_worker_that_is_stuck(slow: dict[str, Any], output: Path) -> None:
    with Running(json.dumps(slow)) as running:
        wait_for(lambda: running.progress)
        worker = running.worker()
        os.kill(worker, signal.SIGSTOP)  # as deaf as in a long compilation
        part = output / f".clip.mp4.{worker}.part.mp4"
        part.write_bytes(b"half a clip")
        sent = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert_cancelled(None, running.response())
        assert time.monotonic() - sent < PROMISE
        assert running.finish().code == 130
    assert names(output) == []
    assert not lives(worker)


def test_signal_while_the_worker_starts(slow: dict[str, Any], output: Path) -> None:
    with Running(json.dumps(slow)) as running:
        running.worker()  # it is there, and far from reading its input
        sent = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        finished = running.finish()
        assert time.monotonic() - sent < PROMISE
    assert_cancelled(finished.code, finished.response)
    assert names(output) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_waiting_for_input(number: signal.Signals) -> None:
    with Running("-") as running:
        wait_for(lambda: reads_input(running.process.pid))
        running.process.send_signal(number)
        running.process.wait(PROMISE)
        finished = running.finish()
    assert_cancelled(finished.code, finished.response)


def test_signal_between_two_requests(quick: dict[str, Any]) -> None:
    with Running("--jsonl") as running:
        response, _ = running.ask({**quick, "imagePath": "nowhere.png"})
        assert response["code"] == "image_not_found"
        worker = running.worker()
        wait_for(lambda: reads_input(running.process.pid))
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(PROMISE)
        finished = running.finish()
    assert (finished.code, finished.stdout) == (130, "")  # there was no request to answer
    assert not lives(worker)


def test_killed_worker_then_killed_parent(slow: dict[str, Any], quick: dict[str, Any], output: Path) -> None:
    with Running("--jsonl") as running:
        running.send(slow)
        running.wait_for_step(1)
        worker = running.worker()
        (output / f".clip.mp4.{worker}.part.mp4").write_bytes(b"half a clip")
        (output / ".other.mp4.1.part.mp4").write_bytes(b"another process's, at work")
        os.kill(worker, signal.SIGKILL)
        response = running.response()
        assert (response["status"], response["code"], response["category"]) == ("error", "process_killed", "critical")
        assert "SIGKILL" in response["message"] and response["suggestions"]
        assert names(output) == [".other.mp4.1.part.mp4"]
        response, _ = running.ask(quick)  # a new worker
        assert response["status"] == "success"
        assert running.worker() != worker

        running.lines.clear()
        running.send({**slow, "outputPath": str(output / "another.mp4")})
        running.wait_for_step(1)
        worker = running.worker()
        running.process.kill()
        wait_for(lambda: not lives(worker), seconds=PROMISE)
    assert names(output) == [".other.mp4.1.part.mp4", "clip.mp4", "clip.mp4.json"]


def test_killed_worker_exit_code(slow: dict[str, Any], output: Path) -> None:
    with Running(json.dumps(slow)) as running:
        wait_for(lambda: running.progress)
        os.kill(running.worker(), signal.SIGKILL)
        finished = running.finish()
    assert (finished.code, finished.response["code"]) == (4, "process_killed")
    assert names(output) == []


def test_time_limit(slow: dict[str, Any], quick: dict[str, Any], output: Path) -> None:
    """A worker stops by itself, stays warm and goes on; one that hangs is ended."""
    supervisor, events = Supervisor(overtime=1.0), []
    others = set(children(os.getpid()))  # of other tests in this process: a browser's driver, a resource tracker
    try:
        assert supervisor.run({**quick, "overwrite": True}, events.append)[0]["status"] == "success"
        update_settings(limits={"time": 2})
        (output / "clip.mp4").unlink()
        (output / "clip.mp4.json").unlink()
        response, code = supervisor.run({**slow, "numFrames": 8}, events.append)
        assert (code, response["code"], response["category"]) == (1, "timeout", "generation")
        assert "while denoising" in response["message"]
        assert response["suggestions"][0].startswith("Set numInferenceSteps to ")
        assert names(output) == []
        assert supervisor.run(quick, events.append)[0]["status"] == "success"

        (worker,) = set(children(os.getpid())) - others

        def hang(event: dict[str, Any]) -> None:
            if event.get("progress", 0) >= 15:  # it computes; its own limit is not reached yet
                os.kill(worker, signal.SIGSTOP)

        began = time.monotonic()
        response, code = supervisor.run({**slow, "outputPath": str(output / "late.mp4")}, hang)
        assert (code, response["code"]) == (1, "timeout")
        assert "did not stop by itself" in response["message"]
        assert 3 <= time.monotonic() - began < 3 + PROMISE
        assert not lives(worker)
    finally:
        supervisor.close()


def test_session_stays_warm_survives_bad_lines_and_is_interrupted(
    quick: dict[str, Any], slow: dict[str, Any], output: Path
) -> None:
    with Running("--jsonl", start_new_session=True) as running:
        started = time.monotonic()
        first, progress = running.ask(quick)
        cold = time.monotonic() - started
        assert first["status"] == "success"
        assert_good_progress(progress)
        worker = running.worker()

        for line, code in [("{not json", "invalid_json"), ("[1]", "invalid_json"), ('{"fps": 0}', "empty_prompt")]:
            running.write(line + "\n\n")  # an empty line is no request
            assert running.response()["code"] == code
        for bad, code in [({"numFrame": 4}, "unknown_parameter"), ({"imagePath": "nowhere.png"}, "image_not_found")]:
            assert running.ask({**quick, **bad})[0]["code"] == code

        started = time.monotonic()
        second, progress = running.ask({**quick, "outputPath": str(output / "second.mp4")})
        warm = time.monotonic() - started
        assert second["status"] == "success"
        assert_good_progress(progress)  # from 0 again
        assert running.worker() == worker
        assert warm < cold / 2  # neither torch nor the model was loaded again
        took = {"generationTime": 0, "timing": {}}
        assert {**second["metadata"], **took} == {**first["metadata"], **took}

        running.lines.clear()
        running.send({**slow, "outputPath": str(output / "third.mp4")})
        running.wait_for_step(2)
        sent = time.monotonic()
        os.killpg(running.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal: parent and worker get it
        finished = running.finish()
        assert time.monotonic() - sent < PROMISE
    assert_cancelled(finished.code, finished.response)
    assert not lives(worker)
    assert "Traceback" not in "\n".join(finished.log)
    assert names(output) == ["clip.mp4", "clip.mp4.json", "second.mp4", "second.mp4.json"]


def test_session_with_input_that_is_no_text(quick: dict[str, Any]) -> None:
    finished = run("--jsonl", stdin=b'{"prompt": "\xff"}\n' + b"\xef\xbb\xbf" + b'{"prompt": "x"}\n')
    codes = [json.loads(line)["code"] for line in finished.stdout.splitlines()]
    assert (finished.code, codes) == (0, ["invalid_json", "missing_parameter"])


def test_two_at_once(quick: dict[str, Any], output: Path) -> None:
    requests = [{**quick, "outputPath": str(output / name)} for name in ("one.mp4", "two.mp4")]
    with Running(json.dumps(requests[0])) as one, Running(json.dumps(requests[1])) as two:
        results = [one.finish(), two.finish()]
    assert [result.response["status"] for result in results] == ["success", "success"]
    assert (output / "one.mp4").read_bytes() == (output / "two.mp4").read_bytes()


def test_noise_on_stdout_becomes_log(quick: dict[str, Any], tmp_path: Path) -> None:
    """From the first moment of the worker, half lines and lines that look like JSON too, at the descriptor."""
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "sitecustomize.py").write_text(
        "import atexit, os, sys, threading, time\n"
        "def chatter():\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        os.write(1, b'chatter\\n')\n"
        "if any('vidkit.worker' in part for part in sys.orig_argv):\n"
        "    os.write(1, b'[1]\\n5\\n{\"a\": 1}\\nhalf a line')\n"
        "    threading.Thread(target=chatter, daemon=True).start()\n"
        "    atexit.register(lambda: os.write(1, b'at exit\\n'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "noise")}
    finished = run(json.dumps({**quick, "imagePath": "nowhere.png"}), env=environment)
    assert (finished.code, finished.response["code"]) == (2, "image_not_found")
    for text in ("half a line", "chatter", "at exit"):
        assert any(text in line for line in finished.log)


def test_modules_in_the_current_folder_are_not_run(quick: dict[str, Any], tmp_path: Path) -> None:
    """A picture folder can hold anything; what it holds is no part of the program."""
    for name in ("json.py", "numpy.py", "queue.py"):
        (tmp_path / name).write_text("raise SystemExit('a module of the picture folder was run')")
    command = (str(Path(sys.executable).with_name("vidkit")), "generate")
    finished = run(json.dumps({**quick, "imagePath": "nowhere.png"}), command=command, cwd=tmp_path)
    assert finished.response["code"] == "image_not_found"


def assert_cancelled(code: int | None, response: dict[str, Any]) -> None:
    assert code in (130, None)
    assert set(response) == {"status", "error", "message", "suggestions", "code", "category"}
    assert (response["status"], response["error"]) == ("error", "Cancelled")
    assert (response["code"], response["category"]) == ("cancelled", "generation")


def reads_input(pid: int) -> bool:
    """Whether a process sleeps in reading a pipe."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text() or Path(f"/proc/{pid}/syscall").read_text().startswith(
        "0 0x0 "
    )
