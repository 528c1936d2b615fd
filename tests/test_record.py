"""What a clip knows of itself, and the way back: the same frames from the clip alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from PIL import Image
from tiny_models import TinyAnimateDiff

import vidkit
from vidkit.errors import InputError
from vidkit.images import fit_image, load_image
from vidkit.models.files.content_hash import hash_model
from vidkit.record import AI_GENERATED, load_picture, request_from_clip, show
from vidkit.settings import load_settings
from vidkit.video import read_cover, read_frames, sidecar_path

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture
def home(vidkit_home: Path, tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff) -> Path:
    """A vidkit home whose models folder holds the tiny models, as a user's holds the downloaded ones."""
    models = vidkit_home / "models"
    shutil.copytree(tiny_svd_folder, models / "tiny-svd")
    shutil.copytree(tiny_animatediff.base.parent, models, dirs_exist_ok=True)
    return vidkit_home


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Larger than the clip and of another shape: the fitted picture differs from the file."""
    return clips.saved(tmp_path, size=(150, 90))


def svd(image: Path, **more: Any) -> dict[str, Any]:
    return clips.svd_request(Path("tiny-svd"), image, **more)


def make(request: dict[str, Any], target: Path) -> Path:
    return vidkit.generate(request | {"output_path": str(target)}).output


def test_the_record_says_what_made_the_clip(home: Path, image: Path, tmp_path: Path) -> None:
    clip = make(svd(image, seed=-1, prompt="wäves 🌊\nand wind", fps=12), tmp_path / "clip.mp4")
    record = show(clip)
    assert record["digitalSourceType"] == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert record["declaration"] == "AI-generated"
    request = record["request"]
    assert 0 <= request["seed"] < 2**31
    assert (request["prompt"], request["fps"]) == ("wäves 🌊\nand wind", 12)
    assert request["maxGuidanceScale"] == 3.0  # a default of the model's, filled in
    assert set(request) == set(vidkit.GenerationParams(**svd(image)).to_record()) - {
        *("imagePath", "lastImagePath", "outputPath", "baseModel", "motionAdapter", "controlnet", "loras"),
        *("overwrite", "bare"),
    }
    sha256 = hash_model(home / "models" / "tiny-svd", load_settings())
    assert record["models"] == {"baseModel": {"name": "tiny-svd", "sha256": sha256}}
    assert record["pictures"] == [{"name": "picture.png", "sha256": hashlib.sha256(image.read_bytes()).hexdigest()}]
    assert record["plan"] == {"device": "cpu", "dtype": "float32", "offload": "none", "speed": "exact"}
    assert {"vidkit", "python", "torch", "diffusers", "transformers"} <= set(record["versions"])
    assert any(note.startswith("prompt is ignored") for note in record["notes"])


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webm"])
def test_the_sidecar_is_the_same_record(home: Path, image: Path, tmp_path: Path, suffix: str) -> None:
    clip = make(svd(image), tmp_path / f"clip.{suffix}")
    sidecar = json.loads(sidecar_path(clip).read_text(encoding="utf-8"))
    pictures = sidecar.pop("storedPictures", [])
    assert sidecar == show(clip)
    assert len(pictures) == (0 if suffix == "mp4" else 1)


@pytest.mark.parametrize("family", ["svd", "animatediff"])
def test_no_absolute_path_goes_into_a_clip(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, family: str
) -> None:
    """Neither of the models, given by their absolute paths here, nor of the pictures or the clip."""
    if family == "svd":
        request = clips.svd_request(tiny_svd_folder, image)
    else:
        last = clips.saved(tmp_path, "last.png", value=9)
        request = clips.animatediff_request(tiny_animatediff, image, "sparsectrl", last_image_path=str(last))
    result = vidkit.generate(request | {"output_path": str(tmp_path / "clip.webm")})
    secrets = {str(tmp_path), str(tiny_svd_folder), str(tiny_animatediff.base), str(Path.home()), "/tmp"}  # noqa: S108
    for text in (
        json.dumps(result.record),
        json.dumps(show(result.output)),
        sidecar_path(result.output).read_text(encoding="utf-8"),
        result.output.read_bytes().decode("latin-1"),
    ):
        assert not [secret for secret in secrets if secret in text]
    assert all("/" not in model["name"] and "\\" not in model["name"] for model in result.record["models"].values())


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_cover_is_the_fitted_picture(home: Path, image: Path, tmp_path: Path, fit: Any) -> None:
    clip = make(svd(image, fit=fit), tmp_path / "clip.mp4")
    fitted = fit_image(load_image(image), 64, 64, fit)
    covers = read_cover(clip)
    assert [cover.tobytes() for cover in covers] == [fitted.tobytes()]


REMADE = [
    ("svd", "mp4", {"num_frames": 5, "motion_bucket_id": 33}),
    ("svd", "gif", {"fit": "pad"}),
    ("svd", "webm", {"width": 128}),
    ("sparsectrl", "mp4", {"guidance_scale": 3.0}),
    ("sparsectrl", "webm", {}),
    ("init", "mp4", {"strength": 0.5, "negative_prompt": "blur"}),
]


@pytest.mark.parametrize(("mode", "suffix", "more"), REMADE)
def test_a_clip_makes_itself_again_without_its_pictures(
    home: Path, tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, mode: str, suffix: str, more: Any
) -> None:
    last = clips.saved(tmp_path, "last.png", size=(99, 140), value=255)
    if mode == "svd":
        request = svd(image, **more)
    else:
        request = clips.animatediff_request(tiny_animatediff, image, mode, **more)
        if mode == "sparsectrl":
            request["last_image_path"] = str(last)
    expected = clips.frames_of(request)
    clip = make(request, tmp_path / f"clip.{suffix}")
    image.unlink()
    last.unlink()
    clips.cold()
    again = request_from_clip(clip)
    assert "outputPath" not in again
    np.testing.assert_array_equal(clips.frames_of(again), expected)
    remade = make(again, tmp_path / f"again.{suffix}")
    np.testing.assert_array_equal(read_frames(remade), read_frames(clip))
    # and so does the clip that was made from the clip
    np.testing.assert_array_equal(clips.frames_of(request_from_clip(remade)), expected)


def test_a_clip_that_was_changed_to_fit_makes_itself_again_where_there_is_room(
    home: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = svd(image, width=256, height=192, num_frames=10, num_inference_steps=1, base_model="bundled:tiny-svd")
    monkeypatch.setenv("VIDKIT_LIMIT_MEMORY", "0.1")
    first = clips.frames_of({**request, "allow_changes": True})
    clip = make({**request, "allow_changes": True}, tmp_path / "clip.mp4")
    record = show(clip)
    changes = record["plan"]["changes"]
    assert changes.keys() & {"width", "numFrames", "windowFrames", "decodeChunkSize"}
    assert "width" not in record["request"] or record["request"]["width"] == 256  # as it was asked
    assert any("more does not fit into memory" in note for note in record["notes"])
    monkeypatch.delenv("VIDKIT_LIMIT_MEMORY")
    again = request_from_clip(clip)
    assert changes.items() <= again.items()
    remade = clips.frames_of(again)
    assert remade.shape == first.shape
    assert np.abs(remade.astype(int) - first).max() <= 1  # the measures round otherwise


def test_a_model_outside_the_models_folder_is_found_again(tiny_svd_folder: Path, image: Path, tmp_path: Path) -> None:
    """The clip names it without its path; this machine remembers where a model of that hash was."""
    request = clips.svd_request(tiny_svd_folder, image)
    clip = make(request, tmp_path / "clip.mp4")
    expected = clips.frames_of(request)
    image.unlink()
    np.testing.assert_array_equal(clips.frames_of(request_from_clip(clip)), expected)


def test_the_model_of_the_clip_is_preferred_to_another_of_its_name(
    home: Path, tiny_svd_folder: Path, image: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "tiny-svd"
    shutil.copytree(tiny_svd_folder, mine)
    (mine / "vidkit.json").write_text('{"defaults": {"fps": 8}}')  # another hash
    clip = make(clips.svd_request(mine, image), tmp_path / "clip.mp4")
    assert request_from_clip(clip)["baseModel"] == str(mine)
    shutil.rmtree(mine)
    assert request_from_clip(clip)["baseModel"] == "tiny-svd"


def test_a_bare_clip_keeps_nothing_but_the_declaration(home: Path, image: Path, tmp_path: Path) -> None:
    clip = make(svd(image, bare=True, prompt="a secret"), tmp_path / "clip.mp4")
    assert show(clip) == dict(AI_GENERATED)
    assert read_cover(clip) == []
    assert not sidecar_path(clip).exists()
    assert b"secret" not in clip.read_bytes()
    with pytest.raises(InputError, match="bare") as caught:
        request_from_clip(clip)
    assert caught.value.code == "invalid_clip"


def test_a_bare_clip_over_another_takes_its_sidecar_away(home: Path, image: Path, tmp_path: Path) -> None:
    clip = make(svd(image, prompt="a secret"), tmp_path / "clip.mp4")
    make(svd(image, bare=True, overwrite=True), clip)
    assert not sidecar_path(clip).exists()


def test_what_is_no_clip_of_ours_is_refused(image: Path, tmp_path: Path) -> None:
    for content, suffix in ((b"", "mp4"), (b"nothing", "mp4"), (b"GIF89a", "gif")):
        path = tmp_path / f"broken.{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            show(path)
        assert caught.value.code == "invalid_clip"
    with pytest.raises(InputError) as caught:
        show(tmp_path / "none.mp4")
    assert caught.value.code == "clip_not_found"
    plain = tmp_path / "plain.gif"
    Image.open(image).save(plain, comment=b'{"digitalSourceType": "mine"}')
    with pytest.raises(InputError) as caught:
        request_from_clip(plain)
    assert caught.value.code == "invalid_clip"


@pytest.mark.parametrize("damage", [{"models": None}, {"models": {"baseModel": {}}}, {"request": 7}, {"pictures": 1}])
def test_a_record_written_by_another_hand_is_refused(image: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    record = {**AI_GENERATED, "request": {"prompt": "x"}, "models": {}, "pictures": [], **damage}
    clip = tmp_path / "clip.gif"
    Image.open(image).save(clip, comment=json.dumps(record).encode())
    with pytest.raises(InputError, match="did not write") as caught:
        request_from_clip(clip)
    assert caught.value.code == "invalid_clip"


def test_a_clip_that_lost_its_picture_says_so(home: Path, image: Path, tmp_path: Path) -> None:
    for suffix in ("webm", "gif"):
        clip = make(svd(image), tmp_path / f"clip.{suffix}")
        sidecar_path(clip).unlink()
        with pytest.raises(InputError, match="no picture is stored") as caught:
            load_picture(Path(request_from_clip(clip)["imagePath"]))
        assert caught.value.code == "invalid_image"
    other = tmp_path / "other.gif"  # anybody else's animation is a picture
    clips.picture().save(other, save_all=True, append_images=[clips.picture(value=9)])
    assert load_picture(other).size == (64, 64)
