"""The content key of a request: what is in it, and what is not."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import clips
import pytest
from tiny_models import TinyAnimateDiff

import vidkit
from vidkit.errors import InputError
from vidkit.models.files.content_hash import hash_model
from vidkit.params import GenerationParams
from vidkit.record import content_of, key_of
from vidkit.runs import content_key, content_keys
from vidkit.settings import Settings

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture
def request_(tiny_svd_folder: Path, tmp_path: Path) -> dict[str, Any]:
    return clips.svd_request(tiny_svd_folder, clips.saved(tmp_path))


def key(request: dict[str, Any], **changes: Any) -> str:
    return content_key(GenerationParams(**{**request, **changes}))[0]


def test_what_files_are_called_and_where_they_lie_is_not_in_the_key(request_: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = clips.saved(tmp_path / "elsewhere", "other.png")
    model = tmp_path / "elsewhere" / "model"
    model.symlink_to(request_["base_model"])
    first = key(request_)
    assert len(first) == 64 and int(first, 16)
    same = {"image_path": str(copy), "base_model": str(model), "output_path": "a.mp4", "overwrite": True, "bare": True}
    for name, value in same.items():
        assert key(request_, **{name: value}) == first, name
    assert key(request_, fps=8, motion_bucket_id=127, speed="exact") == first  # the defaults, given
    assert key(request_, output_path="a.gif") != first


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompt": "Waves"},
        {"num_frames": 5},
        {"decode_chunk_size": 3},
        {"motion_bucket_id": 126},
        {"fps": 9},
        {"width": 128},
        {"fit": "pad"},
        {"output_format": "webm"},
    ],
    ids=str,
)
def test_every_other_parameter_is_in_the_key(request_: dict[str, Any], change: dict[str, Any]) -> None:
    assert key(request_, **change) != key(request_)


def test_speed_is_in_the_key() -> None:
    """Of a resolved request: turbo, for one, may be resolved to fast."""
    params = GenerationParams(image_path="a.png", prompt="waves", seed=1)
    exact, fast = (key_of(content_of(p, models={}, pictures=[])) for p in (params, params.replace(speed="fast")))
    assert exact != fast


def test_the_pictures_bytes_are_in_the_key(request_: dict[str, Any]) -> None:
    first, path = key(request_), Path(request_["image_path"])
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as after a copy that keeps times
    assert key(request_) != first


def test_the_models_files_are_in_the_key(request_: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(request_["base_model"], model)
    first = key(request_, base_model=str(model))
    assert first == key(request_)
    scheduler = model / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + "\n")
    assert key(request_, base_model=str(model)) != first


def test_the_last_picture_and_every_model_are_in_the_key(tiny_animatediff: TinyAnimateDiff, tmp_path: Path) -> None:
    image, last = clips.saved(tmp_path), clips.saved(tmp_path, "last.png", value=90)
    request = clips.animatediff_request(tiny_animatediff, image, "sparsectrl")
    keys = {key(request), key(request, last_image_path=str(image)), key(request, last_image_path=str(last))}
    assert len(keys) == 3
    params = GenerationParams(**request)
    hashes = {name: {"sha256": hash_model(Path(getattr(params, name)), Settings())} for name in ("controlnet",)}
    assert key_of(content_of(params, models=hashes, pictures=[])) != key_of(
        content_of(params, models={"controlnet": {"sha256": "0" * 64}}, pictures=[])
    )


def test_a_picture_stored_in_a_sidecar_is_in_the_key(request_: dict[str, Any], tmp_path: Path) -> None:
    """A GIF holds no cover art: the picture of the next clip is read from its sidecar."""
    made = vidkit.generate({**request_, "output_path": str(tmp_path / "clip.gif")})
    first = key(request_, image_path=str(made.output))
    sidecar = tmp_path / "clip.gif.json"
    sidecar.write_text(sidecar.read_text() + " ")
    assert key(request_, image_path=str(made.output)) != first


def test_the_finished_clip_has_the_key_it_was_planned_with(request_: dict[str, Any], tmp_path: Path) -> None:
    params = GenerationParams(**{**request_, "seed": -1})
    planned, resolved = content_key(params)
    assert resolved.seed >= 0
    assert resolved.num_inference_steps == 2
    assert resolved.min_guidance_scale is not None
    assert content_key(resolved) == (planned, resolved)
    result = vidkit.generate(resolved.replace(output_path=str(tmp_path / "out.mp4")))
    assert key_of(result.record) == planned
    assert key_of(vidkit.show(result.output)) == planned


@pytest.mark.parametrize("path", ["nowhere.png", ".", "nul\0l.png", "/dev/zero"])
def test_a_picture_that_cannot_be_read_is_an_input_error(request_: dict[str, Any], path: str) -> None:
    with pytest.raises(InputError) as caught:
        key(request_, image_path=path)
    assert caught.value.code == "image_not_found"


def test_two_thousand_keys_take_less_than_two_seconds(request_: dict[str, Any]) -> None:
    points = [GenerationParams(**request_).replace(seed=seed, motion_bucket_id=seed % 200) for seed in range(2000)]
    started = time.process_time()  # others may use this machine too
    keys = content_keys(points)
    assert time.process_time() - started < 2
    assert len(set(keys)) == 2000
    assert keys[7] == content_key(points[7])[0]
