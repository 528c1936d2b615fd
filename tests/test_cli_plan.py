"""`vidkit plan` as a person and as a program use it, and the same as data: `vidkit.plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vidkit
from vidkit.cli import main
from vidkit.device import GIB
from vidkit.errors import Remedy

REQUEST = ["--image-path", "example:photo", "--prompt", "the sea"]


@pytest.fixture(scope="module")
def svd(full_size_models: Path) -> str:
    """SVD-XT at its full size."""
    return str(full_size_models / "svd")


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["plan", *arguments])
    return code, capsys.readouterr().out


def test_for_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = plan(capsys, *REQUEST)
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == "Request:  tiny-svd, 14 frames of 128x128 pixels"
    assert lines[1].startswith("Free:     ")
    assert "GiB denoising" in lines[2]
    assert "Fits:     yes" in lines
    assert "  - No baseModel was given: tiny-svd was used." in lines
    assert "What would fit:" not in lines


def test_for_another_card(capsys: pytest.CaptureFixture[str], svd: str) -> None:
    code, text = plan(capsys, *REQUEST, "--base-model", svd, "--free", "6")
    assert code == 0
    assert "Free:     6.0 GiB on the GPU" in text
    assert "  - One part of the model is on the GPU at a time: " in text
    assert "wait in the host's memory" in text


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str], svd: str) -> None:
    code, text = plan(capsys, *REQUEST, "--base-model", svd, "--num-frames", "250", "--free", "2")
    assert code == 1
    assert "Needs:    at the least " in text
    assert "Fits:     no" in text
    advice = text.split("What would fit:\n")[1].splitlines()
    assert advice[0].startswith("  - Set allowChanges to true. Then: ")


def test_as_one_document(capsys: pytest.CaptureFixture[str], svd: str) -> None:
    request = {"imagePath": "example:photo", "prompt": "the sea", "baseModel": svd, "allowChanges": True}
    code, text = plan(capsys, json.dumps(request), "--free", "2", "--json")
    content = json.loads(text)
    assert code == 0
    assert content["fits"]
    assert content["freeBytes"] == 2 * GIB
    assert content["plan"]["changes"].keys() <= {"decodeChunkSize", "windowFrames", "width", "height", "numFrames"}
    assert content["neededBytes"]["peak"] == max(content["neededBytes"][key] for key in ("encode", "denoise", "decode"))
    assert content["neededBytes"]["peak"] < 2 * GIB < content["withoutMeasuresBytes"]["peak"]
    assert content["request"]["numFrames"] == 25
    assert content["request"]["seed"] == -1
    assert any("more does not fit into memory" in note for note in content["notes"])


def test_suggestions_can_be_applied_by_a_program(svd: str) -> None:
    request: dict[str, Any] = {"imagePath": "example:photo", "prompt": "the sea", "baseModel": svd, "numFrames": 250}
    planned = vidkit.plan(request, free=2)
    assert not planned.fits
    assert planned.planned is None
    remedies = [one for one in planned.to_json()["suggestions"] if one["changes"]]
    assert {"allowChanges": True} in [remedy["changes"] for remedy in remedies]
    assert all(vidkit.plan({**request, **remedy["changes"]}, free=2).fits for remedy in remedies)
    assert len(remedies) == len([text for text in planned.suggestions if isinstance(text, Remedy)])


@pytest.mark.parametrize("given", ["eleven", "0", "-1", "nan", "inf"])
def test_free_is_a_number_of_gib(capsys: pytest.CaptureFixture[str], given: str) -> None:
    code, text = plan(capsys, *REQUEST, f"--free={given}")
    assert code == 2
    assert json.loads(text)["code"] == "invalid_value"


def test_a_wrong_request_is_an_error_as_for_generate(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = plan(capsys, *REQUEST, "--width", "1000")
    assert code == 2
    assert json.loads(text)["code"] in ("invalid_size", "out_of_range")


def test_the_limit_of_the_settings_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDKIT_LIMIT_MEMORY", "0.25")
    request = {"image_path": "example:photo", "prompt": "the sea"}
    assert vidkit.plan(request).room.device == GIB // 4
    assert vidkit.plan(request, free=1).room.device == GIB  # another card than this machine's
