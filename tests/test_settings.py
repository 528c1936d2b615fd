"""The settings file: read, and changed key by key, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vidkit.errors import SetupError
from vidkit.settings import Settings, load_settings, settings_or_defaults, update_settings

BROKEN = ["{", "[]", '{"defaultModels": 3}', '{"defaultModels": {"svd": 1}}', '{"panel": []}', "\x00", "[" * 100_000]


def test_no_file_is_the_defaults(vidkit_home: Path) -> None:
    assert load_settings() == Settings()
    assert load_settings().pictures == vidkit_home / "pictures"


def test_updates_keep_what_they_do_not_name(vidkit_home: Path) -> None:
    path = vidkit_home / "config.json"
    path.write_text('{"defaultModels": {"svd": "mine"}, "future": [1]}')
    update_settings(panel={"request": {"seed": 3}})
    assert load_settings() == Settings(default_models={"svd": "mine"}, panel={"request": {"seed": 3}})
    assert json.loads(path.read_text())["future"] == [1]
    assert sorted(file.name for file in vidkit_home.iterdir() if file.suffix != ".lock") == ["config.json"]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_told_and_left_alone(vidkit_home: Path, content: str) -> None:
    path = vidkit_home / "config.json"
    path.write_text(content)
    with pytest.raises(SetupError) as caught:
        load_settings()
    assert caught.value.code == "invalid_config"
    assert str(path) in caught.value.message
    assert settings_or_defaults() == Settings()
    if content not in BROKEN[2:5]:  # JSON objects of another shape can be mended key by key
        with pytest.raises(SetupError):
            update_settings(panel={})
        assert path.read_text() == content


def test_two_processes_lose_no_update(vidkit_home: Path) -> None:
    code = (
        "import sys\nfrom vidkit.settings import update_settings\n"
        "for n in range(20): update_settings(**{f'{sys.argv[1]}{n}': n})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert len(json.loads((vidkit_home / "config.json").read_text())) == 40
