"""The specification's desktop client at work: six at once, killed, interrupted, deaf; a warm session for many clips."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from command_line import PROMISE, Running, children, environment, names, run, save_picture, wait_for
from desktop_client import GENERATE_SCRIPT, DesktopClient, Outcome, arrived, has_ended
from tiny_models import TinyAnimateDiff

from vidkit.device_lock import LINE, TURN_LOCK
from vidkit.lock_folder import folder_for, locked, peers
from vidkit.video import probe, read_record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends POSIX signals and looks into /proc")

SCRIPT = (sys.executable, str(GENERATE_SCRIPT))

#: the specification's request, section 3, to the letter
SAMPLE: dict[str, Any] = {
    "pipeline": "animatediff",
    "baseModel": "D:\\VideoGenerator\\models\\realistic-vision\\model.safetensors",
    "motionAdapter": "D:\\VideoGenerator\\models\\animatediff\\",
    "imagePath": "D:\\Images\\photo.jpg",
    "prompt": "slow cinematic zoom in, woman turning head slowly, wind blowing through hair, golden hour lighting, "
    "dreamy atmosphere, film grain",
    "negativePrompt": "blurry, distorted, low quality, static, ugly, deformed, low res",
    "numFrames": 48,
    "fps": 16,
    "guidanceScale": 7.5,
    "motionBucketId": 180,
    "numInferenceSteps": 30,
    "decodeChunkSize": 4,
    "seed": 42,
    "outputPath": "D:\\VideoGenerator\\output\\video_001.mp4",
}
ADAPTER = SAMPLE["motionAdapter"].rstrip("\\")

#: pixels a side that the models' cards have for default: the client's class has no size
SIDE = 32


@dataclass
class Desk:
    """The specification's folders on a drive D: with small models, and how a client asks for clips there."""

    folder: Path
    device: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "d" / "VideoGenerator" / "output"

    def quick(self, name: str, **changes: Any) -> dict[str, Any]:
        """A request of the client's class that takes some tenths of a second."""
        small = {"numFrames": 4, "numInferenceSteps": 2, "imagePath": SAMPLE["imagePath"], "prompt": name, "seed": 7}
        path = rf"D:\VideoGenerator\output\{name}"
        return {
            "pipeline": "svd",
            "baseModel": "D:\\VideoGenerator\\models\\svd-xt",
            **small,
            "outputPath": path,
        } | changes

    def start(self, params: dict[str, Any], **more: Any) -> DesktopClient:
        return DesktopClient(params, **{"env": self.environment, "stdin": subprocess.DEVNULL, **more})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff) -> Desk:
    folder = tmp_path_factory.mktemp("drives")
    models = folder / "d" / "VideoGenerator" / "models"
    # a folder, whatever its name says: the layout in one file is for models of full size
    shutil.copytree(tiny_animatediff.base, models / "realistic-vision" / "model.safetensors")
    shutil.copytree(tiny_animatediff.motion_adapter, models / "animatediff")
    shutil.copytree(tiny_svd_folder, models / "svd-xt")
    card = json.dumps({"defaults": {"width": SIDE, "height": SIDE}, "ranges": {"width": [16, 96], "height": [16, 96]}})
    for model in ("realistic-vision/model.safetensors", "svd-xt"):
        (models / model / "vidkit.json").write_text(card)
    (folder / "d" / "Images").mkdir()
    save_picture(folder / "d" / "Images" / "photo.jpg")
    desk = Desk(folder, device=f"test {os.getpid()} {folder.name}")
    desk.output.mkdir()
    more = {"VIDKIT_DRIVES": str(folder), "VIDKIT_DEVICE_LOCK": desk.device, "OMP_NUM_THREADS": "1"}
    desk.environment |= environment(folder / "home", **more)
    return desk


# --- one request ------------------------------------------------------------------------------------------------------


def test_the_sample_request_as_the_client_sends_it(desk: Desk) -> None:
    """Its motion adapter's path ends in a backslash: the specification's own request breaks on its way."""
    with desk.start(SAMPLE) as client:
        outcome = client.finish()
    assert (outcome.code, outcome.document["code"], outcome.progress) == (2, "invalid_json", [])
    assert "broken at a backslash before a quote, at the end of motionAdapter " in outcome.document["message"]
    assert outcome.document["suggestions"][0].endswith(rf": {ADAPTER}")


def test_as_many_characters_as_windows_passes(desk: Desk) -> None:
    """32,767 with the program's name; what is longer no program of Windows can start."""
    request = desk.quick("x.mp4", fps=0, prompt="sea " * 8000)
    assert 32_000 < len(arrived(request)[0]) < 32_700
    with desk.start(request) as client:
        outcome = client.finish()
    assert (outcome.code, outcome.document["code"]) == (2, "out_of_range")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"])
def test_a_session_fed_by_a_pipe_of_windows(desk: Desk, encoding: str) -> None:
    """CRLF, byte order marks, UTF-16 with bytes in it that look like line ends."""
    lines = [json.dumps({"prompt": word, "fps": 0}, ensure_ascii=False) for word in ("größer", "\u0a0a\u0d0aĊ", "😀")]
    text = "\r\n".join([*lines, "", "{fps: 0}", lines[0]])
    bytes_ = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-mark" else text.encode(encoding)
    done = run("--jsonl", command=SCRIPT, stdin=bytes_, env=desk.environment)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    codes = [*["missing_parameter"] * 3, "invalid_json", "missing_parameter"]
    assert (done.code, [answer["code"] for answer in answers]) == (0, codes)


def test_a_current_folder_that_is_gone(desk: Desk, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    remove_and_run = f'rmdir "{gone}" && exec "$@"'
    request = json.dumps(desk.quick("x.mp4", outputPath="clip.mp4"))
    done = run(request, command=("sh", "-c", remove_and_run, "sh", *SCRIPT), cwd=gone, env=desk.environment)
    assert (done.code, done.response["code"]) == (2, "invalid_value")
    assert "clip.mp4" in done.response["message"] and "whole path" in done.response["suggestions"][0]


# --- several at once --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(desk: Desk) -> Iterator[dict[str, Outcome]]:
    """Six clients that began at the same moment, when all have ended.

    sample: the specification's request; one, two: both want the same file; deaf: reads stderr in the end only, gives no
    input but a pipe that stays open, in a folder that nobody may write into; gone: starts without standard input and
    error, as from pythonw.exe, and does not wait for stdout; wrong: is refused.
    """
    unheard, silent = os.pipe()
    without = ("sh", "-c", 'exec "$@" <&- 2>&-', "sh")
    with (
        desk.start({**SAMPLE, "motionAdapter": ADAPTER}) as sample,
        desk.start(desk.quick("same.mp4", prompt="one", seed=1)) as one,
        desk.start(desk.quick("same.mp4", prompt="two", seed=2)) as two,
        # a pipe of 4 KiB, as Windows makes it
        desk.start(desk.quick("deaf.mp4"), reads_stderr=False, pipesize=4096, stdin=unheard, cwd="/proc") as deaf,
        desk.start(desk.quick("gone.mp4"), through=without) as gone,
        desk.start(desk.quick("wrong.mp4", imagePath="D:\\nowhere.jpg")) as wrong,
    ):
        assert gone.process.stdout is not None and deaf.process.stderr is not None
        gone.process.stdout.close()
        clients = {"sample": sample, "one": one, "two": two, "deaf": deaf, "wrong": wrong}
        outcomes = {name: client.finish() for name, client in clients.items()}
        outcomes["deaf"].log = deaf.process.stderr.read().decode().splitlines()
        outcomes["gone"] = Outcome(gone.process.wait(240), "")
        yield outcomes
    os.close(unheard)
    os.close(silent)


def test_the_sample_request(together: dict[str, Outcome], desk: Desk) -> None:
    outcome = together["sample"]
    assert outcome.code == 0, outcome
    assert set(outcome.document) == {"status", "output", "metadata"}
    assert (outcome.document["status"], outcome.document["output"]) == ("success", SAMPLE["outputPath"])
    metadata = outcome.document["metadata"]
    same = ("pipeline", "prompt", "numFrames", "fps", "seed")
    assert {key: metadata[key] for key in same} == {key: SAMPLE[key] for key in same}
    assert (metadata["duration"], metadata["resolution"]) == (3.0, f"{SIDE}x{SIDE}")
    percents = [update["progress"] for update in outcome.progress]
    assert percents == sorted(percents) and (percents[0], percents[-1]) == (0, 100)
    assert "Complete!" in outcome.progress[-1]["message"]
    assert probe(desk.output / "video_001.mp4").frames == 48


def test_two_that_want_the_same_file(together: dict[str, Outcome], desk: Desk) -> None:
    """One gets it, whole, and the other is told; neither is given the other's clip."""
    outcomes = {together[name].code: (together[name], seed) for name, seed in (("one", 1), ("two", 2))}
    assert set(outcomes) == {0, 2}
    (made, seed), (refused, _) = outcomes[0], outcomes[2]
    assert refused.document["code"] == "output_exists"
    assert (made.document["metadata"]["seed"], made.document["metadata"]["prompt"]) == (
        seed,
        {1: "one", 2: "two"}[seed],
    )
    assert read_record(desk.output / "same.mp4")["request"]["seed"] == seed
    assert probe(desk.output / "same.mp4").frames == 4


def test_a_client_that_does_not_read_stderr(together: dict[str, Outcome]) -> None:
    """Nothing waits for it; what there was no room for is there in the end, in whole lines."""
    outcome = together["deaf"]
    assert (outcome.code, outcome.document["status"]) == (0, "success")
    first = json.loads(outcome.log[0])
    assert first["progress"] == 0
    assert 2000 < sum(len(line) + 1 for line in outcome.log) <= 4096  # the pipe was full, so the test is one


def test_a_client_without_a_console_that_does_not_wait(together: dict[str, Outcome], desk: Desk) -> None:
    """Its clip is made all the same."""
    assert together["gone"].code == 0
    assert probe(desk.output / "gone.mp4").frames == 4


def test_one_that_is_refused_and_what_all_leave(together: dict[str, Outcome], desk: Desk) -> None:
    wrong = together["wrong"]
    assert (wrong.code, wrong.document["code"]) == (2, "image_not_found")
    clips = ["deaf.mp4", "gone.mp4", "same.mp4", "video_001.mp4"]
    assert [name for name in names(desk.output) if name in clips or name.startswith(".")] == clips
    assert is_free(desk.device)


def is_free(device: str) -> bool:
    """Whether nobody has the device's turn or waits for it."""
    folder = folder_for(device)
    locked(folder / TURN_LOCK).release()
    return peers(folder, LINE) == []


# --- stopped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "seed"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_stopped_at_any_moment(desk: Desk, number: signal.Signals, seed: int) -> None:
    """Ctrl-C, which reaches all processes of a console, and a service manager's way: one document all the same."""
    slow = desk.quick("stopped.mp4", numInferenceSteps=200)
    with desk.start(slow, start_new_session=True) as client:
        workers = wait_for(lambda: children(client.process.pid), 60)  # a cold start, on a machine with other work
        time.sleep(random.Random(seed).uniform(0, 1.5))
        sent = time.monotonic()
        if number is signal.SIGINT:
            os.killpg(client.process.pid, number)
        else:
            client.process.send_signal(number)
        outcome = client.finish()
        assert time.monotonic() - sent < 2 * PROMISE  # twice, on a machine with other work
        has_ended(workers, PROMISE)
    assert (outcome.code, outcome.document["code"]) == (130, "cancelled")
    assert not any("Traceback" in line for line in outcome.log)
    assert not any("stopped" in name for name in names(desk.output))
    assert is_free(desk.device)


def test_killed_while_the_encoder_hangs(desk: Desk, tmp_path: Path) -> None:
    """`Process.Kill()` ends the one process. What works for it sees that, whatever it waits for, and clears away."""
    encoder = tmp_path / "ffmpeg"
    encoder.write_text('#!/bin/sh\nfor last; do :; done\nprintf half > "${last#file:}"\nexec sleep 600\n')
    encoder.chmod(0o755)
    more = {"env": {**desk.environment, "IMAGEIO_FFMPEG_EXE": str(encoder)}}
    with desk.start(desk.quick("killed.mp4"), **more) as client:
        wait_for(lambda: [part for part in desk.output.glob(".killed*") if part.read_bytes() == b"half"], seconds=120)
        working = [process.pid for process in psutil.Process(client.process.pid).children(recursive=True)]
        assert len(working) == 2
        client.kill()
        has_ended(working, 2 * PROMISE)
    assert not any("killed" in name for name in names(desk.output))
    assert is_free(desk.device)


# --- a warm session ---------------------------------------------------------------------------------------------------

#: clips until everything that is loaded and kept is there, and clips that are looked at after that
WARM_UP, MANY = 4, 20

#: bytes of one clip's frames
FRAMES = 4 * SIDE * SIDE * 3

#: so that what is freed is given back to the system at once, and what a process has of it is what it has not freed
EXACT_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "65536"}

#: A process that gets SIGUSR1 writes the bytes that it has of malloc into the file named by TEST_MALLOC. Its memory as
#: the system sees it does not tell of a leak at first: that goes into holes between what was freed.
TELLS_MALLOC = """
import ctypes, os, signal

class Info(ctypes.Structure):  # mallinfo2(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def tell(*_):
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Info
    info = mallinfo2()
    with open(os.environ["TEST_MALLOC"] + ".part", "w") as file:
        file.write(str(info.uordblks + info.hblkhd))
    os.replace(os.environ["TEST_MALLOC"] + ".part", os.environ["TEST_MALLOC"])

signal.signal(signal.SIGUSR1, tell)
"""

#: lines that are no request, or a wrong one, and what each is answered
WRONG: dict[str, str] = {
    "{": "invalid_json",
    "[]": "invalid_json",
    "null": "invalid_json",
    "{imagePath: photo.jpg}": "invalid_json",
    '{"prompt": "x", "imagePath": "x", "nonsense": 1}': "unknown_parameter",
    '{"prompt": "", "imagePath": "x"}': "empty_prompt",
    '{"prompt": "\\ud800", "imagePath": "nowhere.png"}': "image_not_found",
    '{"prompt": "x", "imagePath": "x", "seed": 1e400}': "invalid_value",
}


@dataclass(frozen=True)
class Held:
    """What the process that answers and the one that works hold. Of the latter, bytes: of RAM, and of malloc."""

    ram: int
    allocated: int
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    temporary_files: int

    @classmethod
    def now(cls, session: Running, folder: Path) -> Held:
        both = [psutil.Process(session.process.pid), psutil.Process(session.worker())]
        told = folder / "malloc"
        told.unlink(missing_ok=True)
        both[1].send_signal(signal.SIGUSR1)
        wait_for(told.exists)
        return cls(
            both[1].memory_info().rss,
            int(told.read_text()),
            (both[0].num_fds(), both[1].num_fds()),
            (settled_threads(both[0]), settled_threads(both[1])),
            len(names(folder / "temporary")),
        )


def settled_threads(process: psutil.Process) -> int:
    """Without timers that have been stopped, and take a moment to end."""
    counts = []
    for _ in range(10):
        counts.append(process.num_threads())
        time.sleep(0.03)
    return min(counts)


def test_many_clips_in_one_warm_process(desk: Desk, tmp_path: Path) -> None:
    """Both families in turn, wrong lines between them: one answer a line, its own, and nothing is kept of a clip."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text(TELLS_MALLOC)
    more = {"PYTHONPATH": str(tmp_path / "modules"), "TEST_MALLOC": str(tmp_path / "malloc")}
    more |= {**EXACT_MALLOC, "TMPDIR": str(tmp_path / "temporary")}
    chance = random.Random(7)
    with Running("--jsonl", command=SCRIPT, env=desk.environment | more) as session:
        for number in range(WARM_UP + MANY):
            if number == WARM_UP:
                before = Held.now(session, tmp_path)
            wrong = chance.choice(list(WRONG))
            session.write(wrong + "\n")
            assert session.response()["code"] == WRONG[wrong], wrong
            make_one(session, desk, number)
        after = Held.now(session, tmp_path)
        finished = session.finish()
    assert (finished.code, finished.stdout) == (0, "")
    assert after.allocated - before.allocated < MANY * FRAMES / 2, (before, after)
    assert after.ram - before.ram < 2**20, (before, after)
    assert replace(after, ram=before.ram, allocated=before.allocated) == before


def make_one(session: Running, desk: Desk, number: int) -> None:
    families = [{}, {"pipeline": "animatediff", "baseModel": SAMPLE["baseModel"], "motionAdapter": ADAPTER}]
    changes = {**families[number % 2], "seed": number}
    request = desk.quick(f"clip_{number}.mp4", **changes)
    response, progress = session.ask(request)
    assert response["status"] == "success", response
    assert (response["output"], response["metadata"]["seed"]) == (request["outputPath"], number)
    assert response["metadata"]["prompt"] == request["prompt"]
    percents = [event["progress"] for event in progress]
    assert percents == sorted(percents) and percents[0] == 0
