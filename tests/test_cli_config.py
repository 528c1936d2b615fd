"""`vidkit config`: shown, changed, refused; and the file that others write too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import together

from vidkit.cli import main
from vidkit.errors import EXIT_CODES
from vidkit.settings import all_settings, load_settings


class Config:
    """Runs `vidkit config` in this process."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = home / "config.json"
        self._capsys = capsys

    def says(self, *words: str, code: int = 0) -> str:
        assert main(["config", *words]) == code, self._capsys.readouterr().out
        return self._capsys.readouterr().out

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.says(*words, "--json", code=code))

    def refused(self, *words: str, code: str) -> dict[str, Any]:
        before = self.file.read_bytes() if self.file.exists() else None
        category = "system" if code in ("invalid_config", "output_not_writable") else "input"
        error = json.loads(self.says(*words, code=EXIT_CODES[category]))
        assert error["code"] == code
        assert (self.file.read_bytes() if self.file.exists() else None) == before
        return dict(error)

    @property
    def kept(self) -> Any:
        return json.loads(self.file.read_text())


@pytest.fixture
def config(vidkit_home: Path, capsys: pytest.CaptureFixture[str]) -> Config:
    return Config(vidkit_home, capsys)


def test_every_setting_is_shown_with_its_value_its_origin_and_its_meaning(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.file.write_text('{"limits": {"frames": 9}, "log": {"format": "JSON"}}')
    monkeypatch.setenv("VIDKIT_LIMIT_FRAMES", "7")
    settings = config.json()["settings"]
    assert list(settings) == [entry.key for entry in all_settings()]
    assert all(one["meaning"].endswith(".") for one in settings.values())
    assert settings["limits.frames"] | {"meaning": ""} == {
        "value": 7, "from": "VIDKIT_LIMIT_FRAMES", "variable": "VIDKIT_LIMIT_FRAMES", "meaning": "",
    }  # fmt: skip
    assert (settings["log.format"]["value"], settings["log.format"]["from"]) == ("json", "config.json")
    assert (settings["limits.time"]["value"], settings["limits.time"]["from"]) == (600, "default")
    text = config.says()
    assert "limits.time" in text and "(default; VIDKIT_LIMIT_TIME)" in text and "Seconds that a clip" in text
    assert [line for line in config.says("log").splitlines() if line.startswith("limits")] == []
    assert config.says("--path").strip() == str(config.file)


def test_a_value_is_checked_written_and_in_force(config: Config) -> None:
    config.file.write_text('{"future": [1], "limits": {"disk": 1}}')
    assert "limits.time = 30.0" in config.says("limits.time", "30")
    config.says("set", "log.private", "TRUE")
    config.says("defaultModels.svd", "mine")
    config.says("defaultModels.animatediff", "C:/models/other")
    assert config.kept == {
        "future": [1],
        "limits": {"disk": 1, "time": 30.0},
        "log": {"private": True},
        "defaultModels": {"svd": "mine", "animatediff": "C:/models/other"},
    }
    found = load_settings()
    assert (found.limits.time, found.log.private, found.default_models["svd"]) == (30, True, "mine")
    assert config.json("defaultModels.svd")["value"] == "mine"
    config.says("limits.time", "0")
    assert load_settings().limits.time is None
    assert config.says("limits.time").startswith("limits.time = none")


def test_unset_takes_out_a_key_and_what_is_empty_then(config: Config) -> None:
    config.file.write_text('{"limits": {"time": 3, "disk": null}, "typo": 1, "defaultModels": {"svd": "mine"}}')
    assert config.json("--unset", "limits.time")["from"] == "default"
    config.says("--unset", "limits.disk")
    config.says("--unset", "defaultModels.svd")
    assert "typo is not in config.json any more" in config.says("--unset", "typo")
    assert config.kept == {}
    config.file.unlink()
    config.says("--unset", "limits.time")
    assert not config.file.exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["limits.tim"], "unknown_parameter", "Did you mean limits.time?"),
        (["LIMIT-TIME", "3"], "unknown_parameter", "Did you mean limits.time?"),
        (["--unset", "nothing.like.it"], "unknown_parameter", "no setting 'nothing.like.it'"),
        (["limits.time", "ten"], "invalid_value", "limits.time is 'ten', not a number of at least 0"),
        (["limits.time", "-1"], "invalid_value", "not a number of at least 0"),
        (["limits.frames", "2.5"], "invalid_value", "not a whole number of at least 0"),
        (["log.megabytes", "0"], "invalid_value", "not a number of more than 0 and at most 1000000"),
        (["log.megabytes", "1e308"], "invalid_value", "at most 1000000"),
        (["log.files", "1001"], "invalid_value", "not a whole number of at least 2 and at most 1000"),
        (["log.level", "loud"], "invalid_value", "one of DEBUG, INFO, WARNING, ERROR, OFF"),
        (["defaultModels.svx", "mine"], "invalid_value", "has 'svx', not 'svd' or 'animatediff'"),
        (["defaultModels", "[1]"], "invalid_value", "not a JSON object"),
        (["home", "/x"], "invalid_request", "set by the environment alone"),
        (["panel", "{}"], "invalid_request", "changed by the control panel"),
        (["a", "b", "c"], "invalid_request", "takes KEY and VALUE, not 'a b c'"),
        (["--unset"], "invalid_request", "takes --unset KEY"),
    ],
)
def test_what_is_wrong_is_refused_with_a_remedy(config: Config, words: list[str], code: str, told: str) -> None:
    error = config.refused(*words, code=code)
    assert told in error["message"] and error["suggestions"]
    assert not config.file.exists()


def test_a_key_with_a_dot_in_its_own_name_can_be_taken_out(config: Config) -> None:
    config.file.write_text('{"a.b": 1, "limits": {"x.y": 2}, "a": {"b": 3}}')
    config.says("--unset", "a.b")
    assert config.kept == {"limits": {"x.y": 2}, "a": {"b": 3}}
    config.says("--unset", "limits.x.y")
    config.says("--unset", "a.b")
    assert config.kept == {}


def test_a_key_is_not_put_into_what_is_no_object(config: Config) -> None:
    config.file.write_text('{"defaultModels": [1]}')
    error = config.refused("defaultModels.svd", "mine", code="invalid_value")
    assert "defaultModels is [1]" in error["message"]
    assert error["suggestions"] == ["vidkit config --unset defaultModels"]


@pytest.mark.parametrize("content", ["{", "[]", "", "\x00"])
def test_a_broken_file_is_told_and_never_overwritten(config: Config, content: str) -> None:
    config.file.write_text(content)
    for words in ([], ["limits.time"], ["limits.time", "3"], ["--unset", "limits.time"]):
        error = config.refused(*words, code="invalid_config")
        assert str(config.file) in error["message"] and str(config.file) in error["suggestions"][0]


def test_what_is_wrong_in_a_file_is_shown_and_can_be_mended_key_by_key(config: Config) -> None:
    config.file.write_text('{"limits": {"time": "ten", "seconds": 3}, "log": 5, "defaultModles": {}}')
    seen = config.json(code=EXIT_CODES["system"])
    assert seen["problems"].keys() == {"limits.time", "limits.seconds", "log"}
    assert seen["unknown"] == ["defaultModles"]
    text = config.says(code=EXIT_CODES["system"])
    assert "Problem:  limits.time is 'ten', not a number of at least 0" in text
    assert "did you mean defaultModels?" in text
    config.says("limits.time", "10")
    assert config.kept["log"] == 5  # what a value can't be put into is not replaced by it
    assert "--unset log" in config.refused("log.level", "info", code="invalid_request")["suggestions"][0]
    config.says("--unset", "log")
    config.says("--unset", "limits.seconds")
    assert load_settings().limits.time == 10


def test_the_environment_comes_first_and_that_is_said(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKIT_LIMIT_TIME", "5")
    assert main(["config", "limits.time", "9"]) == 0
    out, err = capsys.readouterr()
    assert "limits.time = 5" in out and "VIDKIT_LIMIT_TIME comes first" in err
    assert config.kept == {"limits": {"time": 9.0}}
    monkeypatch.setenv("VIDKIT_LIMIT_TIME", "soon")
    assert "VIDKIT_LIMIT_TIME is 'soon'" in config.says(code=EXIT_CODES["system"])
    config.says("limits.disk", "1")  # which is another


def test_a_folder_that_may_not_be_written_to(vidkit_home: Path, tmp_path: Path) -> None:
    """A file stands where the data folder should be made: that stops root too."""
    (tmp_path / "file").write_text("")
    env = {**os.environ, "VIDKIT_HOME": str(tmp_path / "file" / "home")}
    command = [sys.executable, "-m", "vidkit", "config", "limits.time", "3"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode in (EXIT_CODES["system"], EXIT_CODES["critical"])
    assert json.loads(done.stdout)["code"] in ("output_not_writable", "invalid_config")


TURNS = """
import sys
from vidkit.cli_config import change
from vidkit.config_file import read_config, value_at
print(flush=True)
sys.stdin.readline()
for n in range(1, 31):
    for key, text in ((sys.argv[1], str(n)), (f"defaultModels.{sys.argv[2]}", f"m{n}")):
        change(key, text)
        assert str(value_at(read_config(), key)).removesuffix(".0") == text  # nobody else changes this one
"""


def test_a_data_folder_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKIT_HOME", "D:data")
    assert main(["config"]) == EXIT_CODES["system"]
    error = json.loads(capsys.readouterr().out)
    assert error["code"] == "invalid_config" and "VIDKIT_HOME" in error["message"]
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])


def test_two_at_once_lose_nothing(vidkit_home: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", TURNS, *words], stdin=-1, stdout=-1, text=True)
        for words in (("limits.time", "svd"), ("limits.frames", "animatediff"))
    ]
    together(both)
    assert [process.wait() for process in both] == [0, 0]
    assert json.loads((vidkit_home / "config.json").read_text()) == {
        "limits": {"time": 30.0, "frames": 30},
        "defaultModels": {"svd": "m30", "animatediff": "m30"},
    }


def test_help_says_what_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["config", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "set in the environment comes first, then what is in config.json, then the default" in text
