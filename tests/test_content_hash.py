"""A model's hash: of contents and names, read once, and the way back from it to the model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vidkit.errors import Cancelled, SetupError
from vidkit.models.files.content_hash import BLOCK, LARGE, hash_file, hash_model, hashed_bytes, place_file, remembered
from vidkit.models.locate import BUNDLED_FOLDER
from vidkit.settings import Settings


@pytest.fixture
def model(tmp_path: Path, vidkit_home: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    (folder / "unet" / "a.safetensors").write_bytes(b"weights")
    return settled(folder)


def settled(folder: Path) -> Path:
    """As files are that were not written just now."""
    for file in [folder, *folder.rglob("*")]:
        if file.is_file():
            os.utime(file, ns=(1, 1))
    return folder


def opened_while(work: Callable[[], object]) -> list[str]:
    """The files that are opened meanwhile."""
    names: list[str] = []
    watching = [True]

    def watch(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and watching:
            names.append(str(args[0]))

    sys.addaudithook(watch)
    work()
    watching.clear()  # an audit hook cannot be taken off
    return names


def test_a_hash_is_of_contents_and_names(model: Path) -> None:
    second = model.parent / "second"
    shutil.copytree(model, second)
    settings = Settings()
    assert hash_model(model, settings) == hash_model(second, settings)
    (second / "README.md").write_text("beside it")
    (second / ".hidden.json").write_text("{}")
    assert hash_model(model, settings) == hash_model(second, settings)
    (second / "unet" / "a.safetensors").rename(second / "unet" / "b.safetensors")
    assert hash_model(model, settings) != hash_model(second, settings)
    (second / "unet" / "b.safetensors").rename(second / "unet" / "a.safetensors")
    (second / "unet" / "a.safetensors").write_bytes(b"weighty")
    assert hash_model(model, settings) != hash_model(second, settings)


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2
    assert hash_model(file, Settings()) == hash_file(file, Settings()) == known


def test_a_second_look_at_a_folder_opens_no_file(model: Path) -> None:
    settings = Settings()
    first = hash_model(model, settings)
    assert opened_while(lambda: hash_model(model, settings)) == []
    weights = model / "unet" / "a.safetensors"
    weights.write_bytes(b"weighty")  # of the same size
    assert str(weights) in opened_while(lambda: hash_model(model, settings))
    assert hash_model(model, settings) != first


def test_a_bundled_model_is_read_once() -> None:
    settings = Settings()
    hash_model(BUNDLED_FOLDER / "tiny-svd", settings)
    assert opened_while(lambda: hash_model(BUNDLED_FOLDER / "tiny-svd", settings)) == []


def test_two_changes_at_the_same_moment_are_both_seen(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    hashes = set()
    now = time.time_ns()
    for letter in "abcdefghij":
        file.write_text(letter)
        os.utime(file, ns=(now, now))  # within a tick of the file system's clock, and of one size
        hashes.add(hash_file(file, Settings()))
    assert len(hashes) == 10


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "large.safetensors"
    file.write_bytes(bytes(LARGE + 1))
    os.utime(file, ns=(1, 1))
    settings = Settings()

    blocks: list[int] = []

    def change() -> None:
        blocks.append(1)
        if len(blocks) == 2:  # the first call comes before anything is read
            file.write_bytes(b"\1" * (LARGE + 1))

    hash_file(file, settings, change)
    os.utime(file, ns=(1, 1))  # as it was, to all appearance
    fresh = tmp_path / "fresh.safetensors"
    fresh.write_bytes(file.read_bytes())
    assert hash_file(file, settings) == hash_file(fresh, settings)


def test_another_process_reads_large_files_once_too(tmp_path: Path, vidkit_home: Path) -> None:
    file = tmp_path / "large.safetensors"
    file.write_bytes(bytes(LARGE + 1))
    script = f"""
from pathlib import Path
from vidkit.models.files.content_hash import hash_file
from vidkit.settings import load_settings

blocks = []
print(hash_file(Path({str(file)!r}), load_settings(), lambda: blocks.append(1)), bool(blocks))
"""

    def of_another_process() -> str:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    sha256 = hash_file(file, Settings())
    assert of_another_process() in (f"{sha256} True\n", f"{sha256} False\n")
    assert of_another_process() == f"{sha256} False\n"
    for entry in (vidkit_home / "cache" / "hashes").iterdir():
        entry.write_text("not JSON")
    assert of_another_process() == f"{sha256} True\n"  # a broken memory is no answer
    shutil.rmtree(vidkit_home / "cache")
    (vidkit_home / "cache").write_text("a file where the folder should be")
    assert of_another_process() == of_another_process() == f"{sha256} True\n"


def test_hashing_anew_finds_damage_that_left_size_and_time_alone(tmp_path: Path) -> None:
    file = tmp_path / "large.safetensors"
    file.write_bytes(bytes(LARGE + 1))
    os.utime(file, ns=(1, 1))
    settings = Settings()
    sound = hash_model(file, settings)
    with file.open("r+b") as stream:
        stream.seek(LARGE // 2)
        stream.write(b"\1")
    os.utime(file, ns=(1, 1))
    assert hash_model(file, settings) == sound
    damaged = hash_model(file, settings, anew=True)
    assert damaged != sound
    assert hash_model(file, settings) == damaged  # what is known now


def test_hashing_tells_of_each_block_and_can_be_cancelled(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "large.safetensors"
    file.write_bytes(bytes(2 * BLOCK))
    blocks: list[int] = []
    hash_file(file, Settings(), lambda: blocks.append(1))
    assert len(blocks) == hashed_bytes(file) // BLOCK + 1
    assert hashed_bytes(model) == sum(path.stat().st_size for path in model.rglob("*.*") if path.is_file())

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        hash_model(model, Settings(), stop)


def test_a_file_that_cannot_be_read_is_a_typed_error(model: Path) -> None:
    (model / "unet.safetensors").symlink_to(model / "gone")  # a broken link of a download cache
    for work in (lambda: hash_model(model, Settings()), lambda: hashed_bytes(model)):
        with pytest.raises(SetupError, match=r"unet\.safetensors") as caught:
            work()
        assert caught.value.code == "invalid_model"


def test_a_models_place_is_remembered_by_its_hash(model: Path) -> None:
    settings = Settings()
    sha256 = hash_model(model, settings)
    assert remembered(sha256, settings) == model
    place_file(sha256, settings).unlink()
    hash_model(model, settings)
    assert remembered(sha256, settings) == model  # though it was noted before
    (model / "model_index.json").write_text('{"_class_name": "Other"}')
    assert remembered(sha256, settings) is None  # another model lies there now
    shutil.rmtree(model)
    assert remembered(sha256, settings) is None
    assert remembered("0" * 64, settings) is None
    assert remembered("../../x", settings) is None
