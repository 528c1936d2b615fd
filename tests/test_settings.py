"""The settings file: read, and changed key by key, whole or not at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vidkit.errors import SetupError
from vidkit.settings import Settings, all_settings, load_settings, look, settings_or_defaults, update_settings
from vidkit.settings_schema import Entry

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


# --- the schema


ROOT = Path(__file__).parent.parent


def variables(*files: Path) -> set[str]:
    """Every VIDKIT_ name that the files mention, but for what is the beginning of others (`VIDKIT_LIMIT_*`)."""
    texts = [file.read_text(encoding="utf-8") for file in files]
    return {name for text in texts for name in re.findall(r"\bVIDKIT_[A-Z][A-Z_]*[A-Z]\b", text)} - {"VIDKIT_TEST"}


def test_every_variable_that_the_package_reads_is_a_setting() -> None:
    """And every variable of a setting is read: by `look`, or under its name elsewhere."""
    known = {entry.variable for entry in all_settings() if entry.variable}
    assert variables(*(ROOT / "vidkit").rglob("*.py")) == known


def test_the_pages_name_no_variable_that_is_none() -> None:
    known = {entry.variable for entry in all_settings()}
    named = variables(ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb"))
    assert not {name for name in named - known if not name.startswith("VIDKIT_TEST_")}


@pytest.mark.parametrize("entry", all_settings(), ids=lambda entry: entry.key)
def test_each_setting_says_what_it_means_and_may_be(entry: Entry) -> None:
    assert re.fullmatch(r"[A-Z].*\.", entry.meaning) and len(entry.meaning) <= 120
    assert not entry.values.startswith("a value")
    assert look({}).origins.get(entry.key, "") in ("", entry.variable)


def test_unknown_keys_are_kept_and_told(vidkit_home: Path) -> None:
    content = {"future": 1, "log": {"colour": "red", "format": "json"}, "home": "/x"}
    (vidkit_home / "config.json").write_text(json.dumps(content))
    assert load_settings().log.format == "json"
    assert load_settings().home == vidkit_home
    assert look(content).unknown == ("future", "log.colour", "home")
    update_settings(panel={})
    assert json.loads((vidkit_home / "config.json").read_text()) == {**content, "panel": {}}


def test_a_full_disk_loses_no_settings(vidkit_home: Path) -> None:
    resource = pytest.importorskip("resource")
    path = vidkit_home / "config.json"
    path.write_text('{"defaultModels": {"svd": "mine"}}')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the system says EFBIG, as for a quota
    try:
        with pytest.raises(OSError, match="too large"):
            update_settings(panel={"request": {"prompt": "x" * 2000}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == '{"defaultModels": {"svd": "mine"}}'
    assert [file.name for file in vidkit_home.iterdir() if file.suffix not in (".lock", ".json")] == []


def test_a_models_folder_of_the_file(vidkit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (vidkit_home / "config.json").write_text(json.dumps({"modelsFolder": str(tmp_path)}))
    assert load_settings().models == tmp_path
    monkeypatch.setenv("VIDKIT_MODELS", str(tmp_path / "other"))
    assert load_settings().models == tmp_path / "other"
