"""Files in place in one step, also where a reader stands in the way for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkit import files
from vidkit.files import written_whole


def refusing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A rename that is refused so often, as Windows does while the target is read; what was asked for."""
    asked: list[Path] = []
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        asked.append(self)
        if len(asked) <= times:
            raise PermissionError(13, "Access is denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    return asked


def test_a_reader_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 5.0)
    asked = refusing(3, monkeypatch)
    with written_whole(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert len(asked) == 4
    assert (tmp_path / "a.json").read_text() == "{}"


def test_one_that_stays_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    refusing(1000, monkeypatch)
    with pytest.raises(PermissionError), written_whole(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert not list(tmp_path.iterdir())


def test_elsewhere_a_refusal_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = refusing(1, monkeypatch)
    with pytest.raises(PermissionError), written_whole(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert len(asked) == 1
