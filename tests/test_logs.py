"""What is logged, where, and what is not: real processes, real clips."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import environment, run, together

import vidkit
from vidkit import log_file, logs
from vidkit.errors import InputError
from vidkit.libraries import NO_TELEMETRY
from vidkit.log_file import SharedLogFile
from vidkit.log_privacy import remember, without_private
from vidkit.logs import log_to
from vidkit.settings import load_settings

logger = logging.getLogger("vidkit")

#: the specification's line, and in its message which process and request it is of
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - vidkit - (DEBUG|INFO|WARNING|ERROR) - \[\d+(\.\d+)?\] .")
PRIVATE = "my neighbour's cat, dancing"
SMALL = {"imagePath": "example:photo", "prompt": PRIVATE, "numFrames": 3, "numInferenceSteps": 1, "seed": 7}


@pytest.fixture(autouse=True)
def nothing_attached() -> Iterator[None]:
    yield
    for handler in list(logs._attached):
        logger.removeHandler(handler)
    logs._attached.clear()
    logger.setLevel(logging.NOTSET)


def log_of(home: Path) -> list[str]:
    return (home / "logs" / "generation.log").read_text(encoding="utf-8").splitlines()


# --- a request


def test_a_request_is_a_line_as_it_begins_one_a_phase_and_one_as_it_ends(vidkit_home: Path) -> None:
    finished = run(json.dumps(SMALL), env=environment(vidkit_home))
    assert finished.code == 0 and finished.log == []  # the console is quiet
    lines = log_of(vidkit_home)
    assert all(LINE.match(line) for line in lines)
    told = [line.split("] ", 1)[1] for line in lines if "loading" not in line]
    begins = [text.split(":")[0] for text in told]
    assert begins == ["request begins", "load", "encode", "denoise", "decode", "write", "request is done"]
    assert all(re.match(r"\w+: \d+\.\d{3} s; host \d+\.\d\d GiB$", text) for text in told[1:-1])
    assert "seed 7" in told[0] and "model tiny-svd" in told[-1] and "3, resolution 128x128" in told[-1]
    assert not any(word in "\n".join(lines) for word in ("neighbour", "cat", str(vidkit_home)))


IN_ONE_PROCESS = f"""
import os, pathlib, vidkit
home = pathlib.Path(os.environ["VIDKIT_HOME"])
vidkit.log_to(console="info")
print(vidkit.generate({SMALL!r}).metadata["timing"]["denoise"])
(home / "logs").rename(home / "before")
(home / "logs").write_text("a file where the folder should be")
vidkit.log_to()
print(vidkit.generate({SMALL!r}).output.is_file())
import huggingface_hub
print(huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)
"""


def test_json_lines_a_console_by_choice_and_clips_where_nothing_can_be_logged(vidkit_home: Path) -> None:
    env = environment(vidkit_home, VIDKIT_LOG_FORMAT="json")
    env = {name: value for name, value in env.items() if name not in NO_TELEMETRY}
    done = subprocess.run([sys.executable, "-c", IN_ONE_PROCESS], env=env, capture_output=True, text=True)
    denoising, is_there, telemetry_is_off = done.stdout.split()
    lines = [json.loads(line) for line in (vidkit_home / "before" / "generation.log").read_text().splitlines()]
    assert {"time", "level", "logger", "process", "request", "message"} <= lines[0].keys()
    assert lines[0]["parameters"] == {
        "schemaVersion": 1,
        **{key: value for key, value in SMALL.items() if key != "prompt"},
    }
    phases = {line["phase"]: line for line in lines if line.get("event") == "phase"}
    assert list(phases) == ["load", "encode", "denoise", "decode", "write"]
    assert phases["denoise"]["seconds"] == float(denoising)
    assert phases["load"]["hostBytes"] > 2**26  # torch alone takes more
    assert (lines[-1]["event"], lines[-1]["seed"]) == ("done", 7)
    told = done.stderr.splitlines()
    assert any(line.startswith("INFO: request begins: ") for line in told)
    assert telemetry_is_off == "True"
    assert is_there == "True"  # and what cannot be logged is told, once
    assert len([line for line in told if line.startswith("WARNING: nothing is logged: ")]) == 1


def test_prompts_and_folders_are_told_by_choice_alone(vidkit_home: Path, tmp_path: Path) -> None:
    picture = tmp_path / "clients of mine" / "face.txt"
    picture.parent.mkdir()
    picture.write_text("no picture")
    request = json.dumps({**SMALL, "imagePath": str(picture)})
    assert run(request, env=environment(vidkit_home)).code == 2
    text = "\n".join(log_of(vidkit_home))
    assert "invalid_image" in text and "face.txt" in text
    assert "clients" not in text and "neighbour" not in text
    run(request, env=environment(vidkit_home, VIDKIT_LOG_PRIVATE="true"))
    text = "\n".join(log_of(vidkit_home))
    assert str(picture) in text and PRIVATE in text


def test_a_failure_is_told_with_its_code_and_not_twice_on_stderr(vidkit_home: Path, tmp_path: Path) -> None:
    finished = run(json.dumps({**SMALL, "imagePath": "/nowhere/a.png"}), env=environment(vidkit_home))
    assert finished.log == []  # the response says it
    last = log_of(vidkit_home)[-1]
    assert " - ERROR - " in last and "image_not_found" in last and "nowhere" not in last
    run('{"prompt": "my neighbour', env=environment(vidkit_home))
    assert log_of(vidkit_home)[-1].endswith("command failed: invalid_json")


def test_a_defect_is_told_with_its_traceback_and_no_folders(vidkit_home: Path, tmp_path: Path) -> None:
    code = f"""
import vidkit, vidkit.generation
vidkit.log_to(console="OFF")
vidkit.generation.prepare = lambda *_: 1 / 0
vidkit.generate({SMALL!r})
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(vidkit_home), capture_output=True, text=True)
    assert "ZeroDivisionError" in done.stderr
    text = "\n".join(log_of(vidkit_home))
    assert "request failed after" in text and 'File "vidkit/generation.py", line' in text
    assert "ZeroDivisionError: division by zero" in text
    assert str(Path(vidkit.__file__).parent) not in text


def test_the_console_tells_all_of_a_traceback_and_the_file_no_folders(
    vidkit_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to()
    try:
        raise RuntimeError("no /home/me/clients/face.png")
    except RuntimeError:
        logger.exception("a defect")
    assert "RuntimeError: no /home/me/clients/face.png" in capsys.readouterr().err
    assert log_of(vidkit_home)[-1] == "RuntimeError: no [folder]/face.png"


def test_stopped_is_no_error(vidkit_home: Path) -> None:
    log_to()
    token = vidkit.CancelToken()
    token.cancel()
    with pytest.raises(vidkit.Cancelled):
        vidkit.generate(SMALL, cancel=token)
    assert re.search(r" - INFO - \[\d+\.\d+\] request was stopped after \d", log_of(vidkit_home)[-1])


# --- a library


def test_a_library_says_nothing_unasked(vidkit_home: Path) -> None:
    code = """
import logging, vidkit, vidkit.generation
assert not logging.getLogger().handlers
assert [type(handler) for handler in logging.getLogger("vidkit").handlers] == [logging.NullHandler]
logging.getLogger("vidkit").warning("heard by nobody")
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(vidkit_home), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (vidkit_home / "logs").exists()


def test_log_to_replaces_what_it_did_before(
    vidkit_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log_to() == vidkit_home / "logs" / "generation.log"
    logs.log_unless_chosen(console="DEBUG")  # it was chosen
    logger.info("not on the console")
    assert capsys.readouterr().err == ""
    assert log_to(console="info", file=tmp_path / "own.log") == tmp_path / "own.log"
    logger.info("two\nlines\x1b[2J")
    logger.debug("details")
    assert capsys.readouterr().err == "INFO: two\\nlines\\x1b[2J\n"
    assert len((tmp_path / "own.log").read_text().splitlines()) == 2
    assert len(log_of(vidkit_home)) == 1
    assert log_to(console="off", file=False) is None
    logger.error("heard by nobody")
    assert capsys.readouterr().err == "" and len(log_of(vidkit_home)) == 1
    with pytest.raises(InputError, match="loud"):
        log_to(console="loud")


def test_the_setting_everywhere_is_for_programs_that_do_not_ask(vidkit_home: Path) -> None:
    code = f"import vidkit; vidkit.generate({ {**SMALL, 'imagePath': 'nowhere.png'}!r})"
    for more, told in (({}, False), ({"VIDKIT_LOG_EVERYWHERE": "1"}, True)):
        subprocess.run([sys.executable, "-c", code], env=environment(vidkit_home, **more), capture_output=True)
        assert (vidkit_home / "logs" / "generation.log").exists() is told


def test_the_panel_and_the_kernels_of_sweeps_are_the_application(vidkit_home: Path) -> None:
    code = """
import logging, os, vidkit
from vidkit.cli import main
vidkit.ControlPanel(mode="live").close()
logging.getLogger("vidkit").info("seen")
main(["sweep", "nowhere.yaml"])  # its kernels inherit the environment
print(os.environ["VIDKIT_LOG_EVERYWHERE"])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(vidkit_home), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1", done.stderr
    assert any(line.endswith("] seen") for line in log_of(vidkit_home))


# --- the file


WRITER = """
import logging, sys, vidkit
from vidkit.log_file import SharedLogFile
handler = SharedLogFile(sys.argv[1], 2_000, 100)
handler.setFormatter(logging.Formatter("%(message)s"))
logger = logging.getLogger("vidkit")
logger.addHandler(handler)
logger.setLevel("INFO")
print(flush=True)
sys.stdin.readline()  # all begin at once
for number in range(200):
    logger.info("%s %03d %s", sys.argv[2], number, "x" * 100)
"""


def test_several_processes_write_and_rotate_one_file(tmp_path: Path) -> None:
    file = tmp_path / "shared.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), name], stdin=-1, stdout=-1, text=True)
        for name in "abc"
    ]
    together(writers)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    files = sorted(tmp_path.glob("shared.log*"), key=lambda path: int(path.suffix[1:]) if path.suffix != ".log" else 0)
    assert len(files) >= 3 and all(path.stat().st_size <= 2_000 for path in files)
    lines = [line for path in reversed(files) for line in path.read_text().splitlines()]
    for name in "abc":
        assert [line for line in lines if line.startswith(name)] == [f"{name} {n:03d} {'x' * 100}" for n in range(200)]
    assert len(lines) == 600


def test_so_many_files_are_kept(tmp_path: Path) -> None:
    handler = SharedLogFile(tmp_path / "a.log", 100, 3)
    for number in range(20):
        handler.emit(logging.makeLogRecord({"msg": f"{number:02d} " + "x" * 60}))
    kept = [path.read_text()[:2] for path in (tmp_path / "a.log.2", tmp_path / "a.log.1", tmp_path / "a.log")]
    assert kept == ["17", "18", "19"]
    assert len(list(tmp_path.glob("a.log*"))) == 3


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system says EFBIG beyond 1,000 bytes: to a program as a full disk or a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_once_and_leaves_no_half_line(
    vidkit_home: Path, small_files: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "SILENCE", 0.0)
    log_to()
    for number in range(5):
        logger.info("%d %s", number, "x" * 300)
    lines = log_of(vidkit_home)
    assert [line.split("] ")[1][0] for line in lines] == ["0", "1"]
    assert all(line.endswith("x" * 300) for line in lines)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("WARNING: nothing is logged: ") and "File too large" in told[0]
    logger.info("short")  # which finds room again
    assert log_of(vidkit_home)[-1].endswith("] short")


def test_who_never_ends_its_turn_is_waited_for_once(
    vidkit_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "PATIENCE", 0.1)
    log_to()
    (vidkit_home / "logs").mkdir()
    holder = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    lock = vidkit_home / "logs" / ".generation.log.lock"
    with subprocess.Popen([sys.executable, "-c", holder, str(lock)], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        began = time.monotonic()
        for _ in range(50):
            logger.info("unheard")
        assert time.monotonic() - began < 2  # not 50 times its patience
        process.communicate()
    assert "nothing is logged" in capsys.readouterr().err


def test_a_wrong_record_is_a_defect_of_who_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = SharedLogFile(tmp_path / "a.log", 1000, 2)
    handler.emit(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    assert "Logging error" in capsys.readouterr().err
    handler.emit(logging.makeLogRecord({"msg": "goes on"}))
    assert (tmp_path / "a.log").read_text() == "goes on\n"


# --- what is left out


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("No picture at /home/me/secret/a.png.", "No picture at [folder]/a.png."),
        ("'/home/me/my secret/a.png' is none", "'[folder]/a.png' is none"),
        (r"C:\Users\me\a.png is none", "[folder]/a.png is none"),
        (r"'\\server\secret share\a.png'", "'[folder]/a.png'"),
        ("see https://example.org/a/b and 3/4 of w/h", "see https://example.org/a/b and 3/4 of w/h"),
        ("clients/acme/face.png is none", "[folder]/face.png is none"),
        ("prompt is 'a red fox': too long", "prompt is '[prompt]': too long"),
        (f"in {Path.home()}/with space/a.png", "in [folder]/with space/a.png"),
    ],
)
def test_what_is_left_out_of_a_message(text: str, left: str) -> None:
    remember(["a red fox"], ["clients/acme/face.png"])
    assert without_private(text) == left


def test_a_current_folder_that_is_gone_stops_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert without_private(f"in {Path.home()}/with space/a.png") == "in [folder]/with space/a.png"


def test_what_a_record_carries_changes_nothing_of_its_line() -> None:
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO"})
    record.data = {"level": "none", "message": "forged", "folder": Path("x"), "event": "begin"}
    line = json.loads(logs.JsonLines(private=False).format(record))
    assert (line["level"], line["message"], line["folder"], line["event"]) == ("INFO", "hello", "x", "begin")


def test_libraries_tell_nobody() -> None:
    """Those that would: each asked itself."""
    code = (
        "from vidkit.libraries import tell_nobody; tell_nobody()\n"
        "import huggingface_hub.constants; print(huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)\n"
        "from ray._common.usage import usage_lib; print(not usage_lib.usage_stats_enabled())"
    )
    env = {name: value for name, value in os.environ.items() if name not in NO_TELEMETRY}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_settings_of_the_log(vidkit_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_LOG_LEVEL", "off")
    assert load_settings().log.level == "OFF"
    log_to()
    logger.error("to nobody's file")
    assert not (vidkit_home / "logs").exists()
