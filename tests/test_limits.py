"""What a request may take of the machine: read from settings and environment, and refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from PIL import Image

from vidkit.errors import CriticalError, InputError, Remedy, SetupError
from vidkit.limits import CLIP_BYTES, PICTURE_BYTES, ResourceLimits, check_disk, check_request, disk_needed
from vidkit.params import GenerationParams
from vidkit.record import encode_png, write_clip_sidecar
from vidkit.resolving import resolve_request
from vidkit.settings import load_settings
from vidkit.video import write_video

PARAMS = GenerationParams(image_path="a.png", prompt="waves", width=1024, height=576, num_frames=25)


def test_the_defaults() -> None:
    assert load_settings().limits == ResourceLimits(time=600, memory=None, frames=None, pixels=None, disk=0.25)


def test_the_environment_comes_before_the_file(vidkit_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"time": 30, "memory": 11.5, "frames": 100, "pixels": 0, "disk": None}
    (vidkit_home / "config.json").write_text(json.dumps({"limits": limits}))
    assert load_settings().limits == ResourceLimits(time=30, memory=11.5, frames=100, pixels=None, disk=None)
    monkeypatch.setenv("VIDKIT_LIMIT_TIME", "0")
    monkeypatch.setenv("VIDKIT_LIMIT_FRAMES", "50")
    monkeypatch.setenv("VIDKIT_LIMIT_MEMORY", "")
    assert load_settings().limits == ResourceLimits(time=None, memory=11.5, frames=50, pixels=None, disk=None)
    assert load_settings().limits.memory_bytes == 11.5 * 2**30


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seconds": 3}, "limits has 'seconds'; there are time, memory, frames, pixels, disk"),
        ({"time": -1}, "limits.time is -1"),
        ({"time": True}, "limits.time is True"),
        ({"memory": [1]}, "limits.memory is"),
        ({"memory": float("inf")}, "limits.memory is inf"),
        ({"frames": 2.5}, "limits.frames is 2.5, not a whole number"),
        ("many", "limits is 'many', not a JSON object"),
    ],
)
def test_a_limit_that_is_none_is_told(vidkit_home: Path, given: Any, told: str) -> None:
    (vidkit_home / "config.json").write_text(json.dumps({"limits": given}))
    with pytest.raises(SetupError, match=told.replace("(", r"\(")) as caught:
        load_settings()
    assert caught.value.code == "invalid_config"


def test_a_limit_in_the_environment_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDKIT_LIMIT_TIME", "ten minutes")
    with pytest.raises(SetupError, match=r"VIDKIT_LIMIT_TIME.*'ten minutes'") as caught:
        load_settings()
    assert caught.value.code == "invalid_config"


@pytest.mark.parametrize(
    ("limits", "changes", "concerns"),
    [
        (ResourceLimits(frames=24), {"num_frames": 24}, ("num_frames",)),
        (ResourceLimits(pixels=512 * 512), {"width": 640, "height": 384}, ("width", "height")),
    ],
)
def test_frames_and_size(limits: ResourceLimits, changes: dict[str, int], concerns: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        check_request(PARAMS, limits)
    assert (caught.value.code, caught.value.concerns) == ("over_limit", concerns)
    remedy = caught.value.suggestions[0]
    assert isinstance(remedy, Remedy) and remedy.changes == changes
    assert "VIDKIT_LIMIT_" in caught.value.suggestions[-1]
    check_request(PARAMS.replace(**changes), limits)
    check_request(PARAMS, ResourceLimits(frames=25, pixels=1024 * 576))


def test_a_request_over_a_limit_is_not_resolved(
    tiny_svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GenerationParams(**clips.svd_request(tiny_svd_folder, clips.saved(tmp_path)))
    resolve_request(request, load_settings())
    monkeypatch.setenv("VIDKIT_LIMIT_FRAMES", "3")
    with pytest.raises(InputError, match="numFrames is 4, and this machine's limit is 3"):
        resolve_request(request, load_settings())


# --- disk -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_format", ["mp4", "webm", "gif"])
def test_no_clip_takes_more_than_is_reckoned_with(tmp_path: Path, output_format: Any) -> None:
    """Pure noise, which nothing compresses; with its sidecar and its pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 192, 3), dtype=np.uint8)
    picture = Image.fromarray(noise[0])
    clip, is_mp4 = tmp_path / f"clip.{output_format}", output_format == "mp4"
    write_video(noise, clip, fps=8, output_format=output_format, record={}, cover=[picture, picture] if is_mp4 else ())
    write_clip_sidecar(clip, {}, [] if is_mp4 else [picture, picture])
    taken = sum(file.stat().st_size for file in tmp_path.iterdir())
    beside = 2 * len(encode_png(picture)) if is_mp4 else 0  # pictures are files of their own while ffmpeg works
    params = PARAMS.replace(width=192, height=128, num_frames=8)
    assert taken + beside < disk_needed(params, 2)
    assert (taken + beside) / disk_needed(params, 2) > 0.6  # nor is it reckoned with far too much
    assert disk_needed(params, 2) == round(192 * 128 * (8 * CLIP_BYTES + 2 * PICTURE_BYTES))


def test_a_full_disk_is_told_before_anything_is_loaded(
    tiny_svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**28))
    request = clips.svd_request(tiny_svd_folder, clips.saved(tmp_path), output_path=str(tmp_path / "out" / "clip.mp4"))
    with pytest.raises(CriticalError, match="256 MiB are to stay free, but only 256 MiB are free in") as caught:
        clips.prepared(request)
    assert caught.value.code == "disk_full"
    assert str(tmp_path / "out") in caught.value.message
    monkeypatch.setenv("VIDKIT_LIMIT_DISK", "0.1")
    assert clips.prepared(request).limits.disk == 0.1
    check_disk(PARAMS, tmp_path / "clip.mp4", ResourceLimits(disk=0.1))
