"""Downloads from a real HTTP server on 127.0.0.1: a hub, a model-sharing site, and all that goes wrong on the way."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import pickle
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import pytest
from huggingface_hub import constants, snapshot_download
from model_server import COMMIT, ModelServer, Repository, Served, sha256
from tiny_models import TinyAnimateDiff

import vidkit
from vidkit.errors import Cancelled, CriticalError, InputError, SetupError, VidkitError
from vidkit.models.download import DownloadProgress, address, download, transfer
from vidkit.models.download.fetching import UNFINISHED
from vidkit.models.files.content_hash import hash_model
from vidkit.models.locate import BUNDLED_FOLDER, find
from vidkit.models.registry import find_registered, register, registered, unregister
from vidkit.progress import CancelToken, Progress
from vidkit.settings import Settings

ADAPTER = (BUNDLED_FOLDER / "tiny-motion-adapter" / "diffusion_pytorch_model.safetensors").read_bytes()
NAME = "org/tiny-adapter"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer().running() as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: ModelServer) -> None:
    """The hub is our server, its cache and token file are empty, and nobody waits long between two tries."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(transfer, "PAUSES", (0.01,) * 4)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CIVITAI_API_TOKEN", *PROXIES):
        monkeypatch.delenv(name, raising=False)


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def adapter_repository(server: ModelServer) -> Repository:
    folder = BUNDLED_FOLDER / "tiny-motion-adapter"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    files |= {"README.md": b"# read me", "pytorch_model.bin": b"\x80" * 3000}
    server.repositories[NAME] = Repository(files)
    return server.repositories[NAME]


def unfinished(settings: Settings) -> list[Path]:
    """What is kept of files that are not whole."""
    return sorted((settings.models / UNFINISHED).glob("*/part"))


def refused(call: Callable[[], Any], kind: type[VidkitError], code: str) -> VidkitError:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


# --- the hub


def test_a_repository_of_the_hub_comes_into_its_cache_and_the_registry(
    server: ModelServer, adapter_repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    events: list[Progress] = []
    done = download(NAME, settings, on_progress=events.append)

    assert done.name == "tiny-adapter"
    assert done.inspection.kind == "motion adapter"
    assert (done.path / "diffusion_pytorch_model.safetensors").read_bytes() == ADAPTER
    assert done.fetched == len(ADAPTER)
    fetched = {path.rpartition("/")[2] for path in server.paths() if "/resolve/" in path}
    assert fetched == {"config.json", "vidkit.json", "diffusion_pytorch_model.safetensors"}
    entry = find_registered("tiny-adapter", settings)
    assert entry is not None and entry.path == done.path
    assert (entry.text("source"), entry.text("licence"), entry.text("sha256")) == (NAME, "openrail", done.sha256)
    assert [event.progress for event in events] == sorted(event.progress for event in events)
    assert events[-1].progress == 100
    assert all(isinstance(event, DownloadProgress) for event in events)


def test_the_weights_lie_once_where_other_tools_of_the_hub_find_them(
    server: ModelServer, adapter_repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    done = download(NAME, settings)
    weights = done.path / "diffusion_pytorch_model.safetensors"
    blob = tmp_path / "hub" / "models--org--tiny-adapter" / "blobs" / sha256(ADAPTER)
    assert weights.resolve() == blob.resolve()
    before = len(server.asked)
    folder = snapshot_download(
        NAME, cache_dir=constants.HF_HUB_CACHE, local_files_only=True, allow_patterns="*.safetensors"
    )
    assert (Path(folder) / "diffusion_pytorch_model.safetensors").samefile(blob)
    assert len(server.asked) == before


def test_what_another_tool_has_fetched_is_not_fetched_again(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    snapshot_download(NAME, cache_dir=constants.HF_HUB_CACHE, endpoint=server.url, allow_patterns="*.safetensors")
    cdn = f"/cdn/{sha256(ADAPTER)}"
    assert len(server.of(cdn)) == 1
    done = download(NAME, settings)
    assert done.fetched == 0
    assert len(server.of(cdn)) == 1


def test_what_another_tool_has_damaged_is_fetched_again(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    snapshot = snapshot_download(
        NAME, cache_dir=constants.HF_HUB_CACHE, endpoint=server.url, allow_patterns="*.safetensors"
    )
    blob = (Path(snapshot) / "diffusion_pytorch_model.safetensors").resolve()
    blob.write_bytes(ADAPTER[:-1] + b"?")
    done = download(NAME, settings)
    assert done.fetched == len(ADAPTER)
    assert blob.read_bytes() == ADAPTER


def test_files_that_others_add_to_the_snapshot_do_not_change_the_models_hash(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    done = download(NAME, settings)
    snapshot_download(NAME, cache_dir=constants.HF_HUB_CACHE, endpoint=server.url)
    assert hash_model(done.path, settings) == done.sha256


def test_the_whole_pipeline_of_a_repository_is_found_by_its_name(server: ModelServer, settings: Settings) -> None:
    folder = BUNDLED_FOLDER / "tiny-svd"
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    files |= {"whole.safetensors": b"x" * 5000, "unet/diffusion_pytorch_model.bin": b"x" * 5000}
    server.repositories["org/tiny"] = Repository(files)
    done = download(f"{server.url}/org/tiny/tree/main", settings)
    assert done.inspection.kind == "Stable Video Diffusion"
    assert find("tiny", settings, "base model") == done.path
    names = {str(path.relative_to(done.path)) for path in done.path.rglob("*") if path.is_file()}
    assert "unet/diffusion_pytorch_model-00001-of-00002.safetensors" in names
    assert not names & {"whole.safetensors", "unet/diffusion_pytorch_model.bin", "training_log.jsonl"}


def test_one_file_of_a_repository(server: ModelServer, adapter_repository: Repository, settings: Settings) -> None:
    done = download(f"{NAME}/diffusion_pytorch_model.safetensors", settings, name="mine")
    assert done.path == settings.models / "mine.safetensors"
    assert find("mine", settings, "motion adapter").suffix == ".safetensors"
    assert done.sha256 == sha256(ADAPTER)
    by_address = f"{server.url}/{NAME}/blob/main/diffusion_pytorch_model.safetensors"
    assert download(by_address, settings).name == "mine"


def test_several_checkpoints_have_to_be_told_apart(server: ModelServer, settings: Settings) -> None:
    server.repositories["org/many"] = Repository({"a.safetensors": ADAPTER, "b.ckpt": ADAPTER})
    error = refused(lambda: download("org/many", settings), InputError, "invalid_value")
    assert "vidkit models download org/many/a.safetensors" in error.suggestions


def test_a_gated_repository_says_what_to_do(
    server: ModelServer, adapter_repository: Repository, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter_repository.gated = "login"
    error = refused(lambda: download(NAME, settings), SetupError, "access_denied")
    assert f"Accept its licence on {server.url}/{NAME}" in error.suggestions
    assert any("hf auth login" in suggestion for suggestion in error.suggestions)

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    adapter_repository.gated = "licence"
    error = refused(lambda: download(NAME, settings), SetupError, "access_denied")
    assert not any("hf auth login" in suggestion for suggestion in error.suggestions)

    adapter_repository.gated = "login"
    assert download(NAME, settings).name == "tiny-adapter"
    with_token = {one.path.partition("?")[0] for one in server.asked if "authorization" in one.headers}
    assert f"/{NAME}/resolve/{COMMIT}/diffusion_pytorch_model.safetensors" in with_token
    assert not any(path.startswith("/cdn/") for path in with_token), "the token went to another host"


def test_a_repository_that_is_not_there_names_similar_ones(settings: Settings) -> None:
    error = refused(
        lambda: download("guoyww/animatediff-motion-adapter-v1-5-4", settings), SetupError, "model_not_found"
    )
    assert "animatediff-v1-5-3" in error.suggestions[0]
    error = refused(lambda: download("animatedif-v1-5-3", settings), SetupError, "model_not_found")
    assert error.suggestions[0].startswith("Did you mean animatediff-v1-5-3")


def test_a_name_of_the_catalogue_fetches_its_files(server: ModelServer, settings: Settings) -> None:
    config = (BUNDLED_FOLDER / "tiny-motion-adapter" / "config.json").read_bytes()
    server.repositories["guoyww/animatediff-motion-adapter-v1-5-3"] = Repository(
        {"config.json": config, "diffusion_pytorch_model.safetensors": ADAPTER, "other.safetensors": ADAPTER}
    )
    done = download("animatediff-v1-5-3", settings)
    assert done.name == "animatediff-v1-5-3"
    assert sorted(path.name for path in done.path.iterdir() if path.name != "vidkit.json") == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    entry = find_registered("animatediff-v1-5-3", settings)
    assert entry is not None and entry.family == "animatediff"
    assert any("SD 1.5 base model" in note for note in done.notes)


@pytest.mark.parametrize("pickled", [True, False])
def test_the_safety_checker_comes_in_whatever_form_its_repository_has_it(
    server: ModelServer, settings: Settings, tmp_path: Path, pickled: bool
) -> None:
    import numpy as np
    from safety_checkers import save_checker, with_published_keys

    from vidkit.safety.checker import Checker
    from vidkit.safety.screening import installed_checker

    red, black = np.full((32, 32, 3), (230, 20, 10), np.uint8), np.zeros((32, 32, 3), np.uint8)
    folder = with_published_keys(save_checker(tmp_path / "published", red, [black]), pickled=pickled)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    server.repositories["CompVis/stable-diffusion-safety-checker"] = Repository({**files, "README.md": b"# read me"})
    assert installed_checker(settings) is None
    done = download("safety-checker", settings)
    assert done.inspection.kind == "safety checker"
    found = installed_checker(settings)
    assert found is not None and found.samefile(done.path)
    assert Checker(found).flagged([black, red]) == [1]


def test_an_interrupted_file_of_the_hub_goes_on_where_it_stopped(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    cdn = f"/cdn/{sha256(ADAPTER)}"
    server.files[cdn] = Served(ADAPTER, etag="x", cuts=[1_000_000])
    download(NAME, settings)
    first, second = server.of(cdn)
    assert second.headers["range"] == f"bytes={first.sent}-"
    assert first.sent + second.sent == len(ADAPTER)


def test_a_cancelled_download_of_the_hub_is_gone_on_with_by_another_call(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    cdn = f"/cdn/{sha256(ADAPTER)}"
    server.files[cdn] = Served(ADAPTER, etag="x", slow=0.05)
    cancel = CancelToken()
    server.before_block = lambda asked: cancel.cancel() if asked.sent > 500_000 else None
    with pytest.raises(Cancelled, match="is kept"):
        download(NAME, settings, cancel=cancel)
    assert not registered(settings)
    assert not (settings.models / "tiny-adapter").exists()
    server.before_block = lambda asked: None
    server.files[cdn].slow = 0
    done = download(NAME, settings)
    asked = server.of(cdn)
    assert int(asked[-1].headers["range"].removeprefix("bytes=").removesuffix("-")) > 400_000
    assert done.fetched < len(ADAPTER) - 400_000


def test_bytes_with_another_hash_are_refused_and_deleted(
    server: ModelServer, adapter_repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    adapter_repository.wrong["diffusion_pytorch_model.safetensors"] = ADAPTER[:-1] + b"?"
    error = refused(lambda: download(NAME, settings), SetupError, "download_failed")
    assert sha256(ADAPTER) in error.message
    blobs = tmp_path / "hub" / "models--org--tiny-adapter" / "blobs"
    assert not list(blobs.glob(f"{sha256(ADAPTER)}*"))


def test_a_wrong_beginning_from_an_earlier_try_is_fetched_anew(
    server: ModelServer, adapter_repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    blobs = tmp_path / "hub" / "models--org--tiny-adapter" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(ADAPTER)}.incomplete").write_bytes(b"?" * 100_000)
    assert (download(NAME, settings).path / "diffusion_pytorch_model.safetensors").read_bytes() == ADAPTER


def test_a_small_file_that_is_not_what_the_hub_lists_is_refused(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    listed = adapter_repository.files["config.json"]
    adapter_repository.wrong["config.json"] = listed.replace(b"{", b"[", 1)
    error = refused(lambda: download(NAME, settings), SetupError, "download_failed")
    assert "config.json" in error.message
    del adapter_repository.wrong["config.json"]
    download(NAME, settings)


def test_the_disk_is_asked_before_anything_is_fetched(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    adapter_repository.sizes["diffusion_pytorch_model.safetensors"] = 1 << 60
    error = refused(lambda: download(NAME, settings), CriticalError, "disk_full")
    assert "HF_HOME" in " ".join(error.suggestions)
    assert not [path for path in server.paths() if "/resolve/" in path]


def test_a_repository_that_lists_files_outside_of_it_is_refused(server: ModelServer, settings: Settings) -> None:
    server.repositories["org/evil"] = Repository({"config.json": b"{}", "../../evil.safetensors": ADAPTER})
    refused(lambda: download("org/evil", settings), SetupError, "invalid_model")
    assert not [path for path in server.paths() if "/resolve/" in path]


def test_links_that_broke_when_the_cache_was_cleared_are_made_again(
    server: ModelServer, adapter_repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    done = download(NAME, settings)
    (tmp_path / "hub").rename(tmp_path / "elsewhere")
    again = download(NAME, settings)
    assert again.path == done.path
    assert (again.path / "diffusion_pytorch_model.safetensors").read_bytes() == ADAPTER


def test_removed_and_downloaded_again(server: ModelServer, adapter_repository: Repository, settings: Settings) -> None:
    unregister(settings, download(NAME, settings).name)
    asked = len(server.of(f"/cdn/{sha256(ADAPTER)}"))
    assert download(NAME, settings).fetched == 0
    assert len(server.of(f"/cdn/{sha256(ADAPTER)}")) == asked


def test_what_a_user_has_put_in_its_place_stays(
    server: ModelServer, adapter_repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    mine = settings.models / "tiny-adapter"
    mine.mkdir(parents=True)
    (mine / "weights.safetensors").symlink_to(tmp_path)
    refused(lambda: download(NAME, settings), InputError, "output_exists")
    assert (mine / "weights.safetensors").is_symlink()
    assert not [path for path in server.paths() if "/resolve/" in path]


def test_a_name_that_another_model_has_is_refused_before_anything_is_fetched(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    register(settings, BUNDLED_FOLDER / "tiny-svd", "tiny-adapter", "svd")
    refused(lambda: download(NAME, settings), InputError, "invalid_value")
    assert not server.asked
    assert download(NAME, settings, name="other").name == "other"


def test_the_catalogues_settings_of_a_model_come_with_it(server: ModelServer, settings: Settings) -> None:
    config = (BUNDLED_FOLDER / "tiny-motion-adapter" / "config.json").read_bytes()
    files = {"config.json": config, "diffusion_pytorch_model.safetensors": ADAPTER}
    server.repositories["wangfuyun/AnimateLCM"] = Repository(files)
    done = download("animatelcm", settings)
    assert json.loads((done.path / "vidkit.json").read_text())["defaults"]["numInferenceSteps"] == 6
    assert hash_model(done.path, settings) == done.sha256


def test_a_models_mark_comes_with_it(
    server: ModelServer, settings: Settings, tiny_animatediff: TinyAnimateDiff, tmp_path: Path
) -> None:
    """Or it could be used without the acknowledgement."""
    base = tiny_animatediff.base
    files = {path.relative_to(base).as_posix(): path.read_bytes() for path in base.rglob("*") if path.is_file()}
    server.repositories["emilianJR/epiCRealism"] = Repository({**files, "tokenizer/README.txt": b"words"})
    done = download("epicrealism", settings)
    entry = find_registered("epicrealism", settings)
    assert entry is not None and entry.fields["nsfw"] is True
    request = clips.animatediff_request(replace(tiny_animatediff, base=done.path), clips.saved(tmp_path))
    error = refused(lambda: vidkit.generate(request), SetupError, "acknowledgement_needed")
    assert error.concerns == ("base_model",)


# --- what is here already, and two at once


def test_a_model_that_is_here_is_not_asked_for_again(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    first = download(NAME, settings)
    before = len(server.asked)
    events: list[Progress] = []
    again = download(NAME, settings, on_progress=events.append)
    assert len(server.asked) == before
    assert (again.name, again.path, again.sha256, again.fetched) == (first.name, first.path, first.sha256, 0)
    assert events[-1].progress == 100


def test_what_is_here_and_no_model_any_more_says_how_to_fetch_it_again(
    server: ModelServer, adapter_repository: Repository, settings: Settings
) -> None:
    (weights,) = download(NAME, settings).path.glob("*.safetensors")
    weights.unlink()
    weights.write_bytes(b"<html>")
    with pytest.raises(SetupError) as caught:
        download(NAME, settings)
    assert caught.value.code == "invalid_model"
    assert "vidkit models remove" in caught.value.suggestions[0]


@pytest.mark.parametrize("from_hub", [True, False])
def test_two_downloads_of_the_same_fetch_it_once(
    server: ModelServer, adapter_repository: Repository, settings: Settings, from_hub: bool
) -> None:
    path = f"/cdn/{sha256(ADAPTER)}" if from_hub else "/adapter.safetensors"
    server.files[path] = Served(ADAPTER, etag="x", slow=0.01)
    wanted = NAME if from_hub else server.elsewhere + path
    said: list[str] = []
    done: list[Any] = []

    def work() -> None:
        try:
            done.append(download(wanted, settings, on_progress=lambda event: said.append(event.message)))
        except VidkitError as error:
            done.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [one for one in done if isinstance(one, Exception)]
    assert done[0].path == done[1].path
    assert sum(one.sent for one in server.of(path)) == len(ADAPTER)
    assert any("waiting for another process" in message for message in said)


# --- plain addresses


@pytest.fixture
def site(server: ModelServer) -> Served:
    """A model at a plain address; the site is another host than the hub."""
    server.files["/files/nice%20move.safetensors"] = server.files["/files/nice move.safetensors"] = Served(
        ADAPTER, etag="v1"
    )
    return server.files["/files/nice move.safetensors"]


def at(server: ModelServer, path: str = "/files/nice%20move.safetensors") -> str:
    return server.elsewhere + path


def test_a_model_at_an_address_comes_into_the_models_folder(
    server: ModelServer, site: Served, settings: Settings
) -> None:
    done = download(at(server), settings, sha256=sha256(ADAPTER).upper())
    assert done.path == settings.models / "nice move.safetensors"
    assert done.path.read_bytes() == ADAPTER
    assert (done.name, done.sha256, done.fetched) == ("nice move", sha256(ADAPTER), len(ADAPTER))
    assert done.inspection.kind == "motion adapter"
    entry = find_registered("nice move", settings)
    assert entry is not None and entry.text("source") == at(server)
    assert find("nice move", settings, "motion adapter") == done.path
    assert not unfinished(settings)


def test_a_known_hash_is_not_computed_again(server: ModelServer, site: Served, settings: Settings) -> None:
    done = download(at(server), settings)
    notes = [json.loads(note.read_text()) for note in (settings.cache / "hashes").iterdir()]
    assert {"path": str(done.path), "sha256": sha256(ADAPTER)} in notes


@pytest.mark.parametrize("cuts", [[0], [1_000_000], [1_000_000, 0, 0, 70_000, 2_000_000]])
def test_a_connection_that_breaks_is_made_again_where_it_stopped(
    server: ModelServer, site: Served, settings: Settings, cuts: list[int]
) -> None:
    site.cuts = list(cuts)
    done = download(at(server), settings)
    assert done.path.read_bytes() == ADAPTER
    asked = server.of("/files/nice%20move.safetensors")
    assert len(asked) == len(cuts) + 1
    assert sum(one.sent for one in asked) == len(ADAPTER)
    assert all(one.headers["if-range"] == '"v1"' for one in asked if "range" in one.headers)


def test_a_server_without_ranges_sends_it_all_again(server: ModelServer, site: Served, settings: Settings) -> None:
    site.ranges, site.cuts = False, [1_000_000]
    done = download(at(server), settings)
    assert done.path.read_bytes() == ADAPTER
    assert done.fetched == len(ADAPTER) + server.of("/files/nice%20move.safetensors")[0].sent


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    server: ModelServer, site: Served, settings: Settings
) -> None:
    site.slow = 0.02
    cancel = CancelToken()
    server.before_block = lambda asked: cancel.cancel() if asked.sent > 300_000 else None
    with pytest.raises(Cancelled):
        download(at(server), settings, cancel=cancel)
    assert len(unfinished(settings)) == 1
    server.before_block, site.slow = lambda asked: None, 0
    other = (BUNDLED_FOLDER / "tiny-svd" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    site.content, site.etag = other, "v2"
    assert download(at(server), settings).path.read_bytes() == other


def test_a_cancelled_download_keeps_what_has_come(server: ModelServer, site: Served, settings: Settings) -> None:
    site.slow = 0.02
    cancel = CancelToken()
    server.before_block = lambda asked: cancel.cancel() if asked.sent > 300_000 else None
    with pytest.raises(Cancelled):
        download(at(server), settings, cancel=cancel)
    kept = unfinished(settings)[0].stat().st_size
    assert kept >= 300_000
    assert not registered(settings)
    server.before_block, site.slow = lambda asked: None, 0
    assert download(at(server), settings).fetched == len(ADAPTER) - kept


def test_a_stalled_server_does_not_hold_up_a_cancel(server: ModelServer, site: Served, settings: Settings) -> None:
    released = threading.Event()
    cancel = CancelToken()

    def stall(asked: Any) -> None:
        if asked.sent > 100_000:
            cancel.cancel()
            released.wait(20)

    server.before_block = stall
    started = time.monotonic()
    with pytest.raises(Cancelled):
        download(at(server), settings, cancel=cancel)
    assert time.monotonic() - started < 3
    released.set()


def test_a_file_that_stays_too_short_is_no_model(server: ModelServer, site: Served, settings: Settings) -> None:
    site.content, site.claims = ADAPTER[:1_000_000], len(ADAPTER)
    site.ranges = False
    error = refused(lambda: download(at(server), settings), SetupError, "download_failed")
    assert not list(settings.models.glob("*.safetensors"))
    assert error.suggestions


def test_a_truncated_file_that_the_server_takes_for_whole_is_no_model(
    server: ModelServer, site: Served, settings: Settings
) -> None:
    site.content = ADAPTER[:1_000_000]
    refused(lambda: download(at(server), settings), SetupError, "invalid_model")
    assert not list(settings.models.glob("*.safetensors"))
    assert not unfinished(settings)
    assert not registered(settings)


def test_another_hash_than_the_one_given_is_refused(server: ModelServer, site: Served, settings: Settings) -> None:
    error = refused(lambda: download(at(server), settings, sha256="0" * 64), SetupError, "download_failed")
    assert sha256(ADAPTER) in error.message
    assert not unfinished(settings)
    refused(lambda: download(at(server), settings, sha256="abc"), InputError, "invalid_value")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"<!doctype html><html>log in</html>", "text/html; charset=utf-8", "text/html"),
        (b"<!doctype html><html>log in</html>", "application/octet-stream", "web page"),
        (b'{"error": "no"}', "application/json", "application/json"),
        (b'{"error": "no"}', "application/octet-stream", "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "application/octet-stream", "Git LFS pointer"),
        (b"\x89PNG" + bytes(3000), "application/octet-stream", "unknown"),
        (b"", "application/octet-stream", "empty"),
    ],
)
def test_what_is_no_weights_is_refused_by_its_type_or_first_bytes(
    server: ModelServer, settings: Settings, content: bytes, kind: str, said: str
) -> None:
    server.files["/x.safetensors"] = Served(content, headers={"Content-Type": kind})
    error = refused(lambda: download(at(server, "/x.safetensors"), settings), SetupError, "invalid_model")
    assert said in error.message
    assert not unfinished(settings)
    assert not list(settings.models.glob("x*"))


def test_a_large_file_that_is_no_model_is_left_after_its_first_bytes(server: ModelServer, settings: Settings) -> None:
    server.files["/x.safetensors"] = Served(b"?" * 20_000_000, slow=0.01)
    refused(lambda: download(at(server, "/x.safetensors"), settings), SetupError, "invalid_model")
    assert server.of("/x.safetensors")[0].sent < 10_000_000


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="my move.safetensors"', "my move.safetensors"),
        ("attachment; filename=plain.safetensors", "plain.safetensors"),
        ("attachment; filename=x; filename*=UTF-8''b%C3%A4r.safetensors", "bär.safetensors"),
        ("attachment", "42.safetensors"),
        ('attachment; filename="mislabelled.ckpt"', "mislabelled.safetensors"),
        ('attachment; filename="v1.5 best"', "v1.5 best.safetensors"),
    ],
)
def test_the_servers_name_for_the_file_is_taken(
    server: ModelServer, settings: Settings, header: str, name: str
) -> None:
    server.files["/download/42"] = Served(ADAPTER, headers={"Content-Disposition": header})
    assert download(at(server, "/download/42"), settings).path == settings.models / name


@pytest.mark.parametrize(
    "name",
    ["../evil.safetensors", "/etc/evil.safetensors", "..\\evil.safetensors", "C:\\evil.safetensors", ".hidden", "..",
     "NUL.safetensors", "a:b.safetensors", "x" * 200, "-rf.safetensors", "~root.safetensors"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(server: ModelServer, settings: Settings, name: str) -> None:
    for header in (f'attachment; filename="{name}"', f"attachment; filename*=UTF-8''{name.replace('/', '%2F')}"):
        server.files["/download/42"] = Served(ADAPTER, headers={"Content-Disposition": header})
        refused(lambda: download(at(server, "/download/42"), settings), SetupError, "download_failed")
    assert not [path for path in settings.models.parent.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert download(at(server, "/download/42"), settings, name="good").path == settings.models / "good.safetensors"


def test_a_file_of_that_name_is_never_overwritten(server: ModelServer, site: Served, settings: Settings) -> None:
    settings.models.mkdir(parents=True)
    (settings.models / "nice move.safetensors").write_bytes(b"mine")
    refused(lambda: download(at(server), settings), InputError, "output_exists")
    assert (settings.models / "nice move.safetensors").read_bytes() == b"mine"
    assert download(at(server), settings, name="other").path.name == "other.safetensors"


def test_the_disk_is_asked_before_a_file_comes(server: ModelServer, site: Served, settings: Settings) -> None:
    site.claims = 1 << 60
    error = refused(lambda: download(at(server), settings), CriticalError, "disk_full")
    assert "VIDKIT_MODELS" in " ".join(error.suggestions)
    assert not unfinished(settings)


def test_a_pickle_is_named_and_can_be_converted(server: ModelServer, settings: Settings, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load

    torch.save({"state_dict": load(ADAPTER)}, tmp_path / "move.ckpt")
    server.files["/move.ckpt"] = Served((tmp_path / "move.ckpt").read_bytes())
    done = download(at(server, "/move.ckpt"), settings)
    assert done.inspection.kind == "motion adapter"
    assert any("vidkit models convert move" in note for note in done.notes)


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def test_a_pickle_with_code_runs_nothing_and_stays_out(server: ModelServer, settings: Settings, tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(tmp_path / "canary")))
    server.files["/evil.ckpt"] = Served(data.getvalue())
    refused(lambda: download(at(server, "/evil.ckpt"), settings), SetupError, "invalid_model")
    assert not (tmp_path / "canary").exists()
    assert not list(settings.models.glob("*.ckpt"))


# --- redirects and secrets


def test_a_token_goes_to_its_own_host_alone(
    server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(address.TOKENS, "localhost", "CIVITAI_API_TOKEN")
    monkeypatch.setenv("CIVITAI_API_TOKEN", "civitai-secret")
    server.files["/api/download"] = Served(status=302, headers={"Location": f"{server.url}/moved"})
    server.files["/moved"] = Served(ADAPTER, headers={"Content-Disposition": "attachment; filename=a.safetensors"})
    download(at(server, "/api/download"), settings)
    assert server.of("/api/download")[0].headers["authorization"] == "Bearer civitai-secret"
    assert "authorization" not in server.of("/moved")[0].headers


def test_a_token_stays_at_its_host_through_a_detour(
    server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(address.TOKENS, "localhost", "CIVITAI_API_TOKEN")
    monkeypatch.setenv("CIVITAI_API_TOKEN", "civitai-secret")
    server.files["/one"] = Served(status=307, headers={"Location": "/two"})
    server.files["/two"] = Served(ADAPTER)
    download(at(server, "/one"), settings, name="a")
    assert server.of("/two")[0].headers["authorization"] == "Bearer civitai-secret"


def test_a_site_that_asks_for_a_login_is_told_of_in_words(
    server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(address.TOKENS, "localhost", "CIVITAI_API_TOKEN")
    server.files["/x"] = Served(status=401)
    error = refused(lambda: download(at(server, "/x"), settings), SetupError, "access_denied")
    assert "CIVITAI_API_TOKEN" in error.suggestions[0]


def test_passwords_and_tokens_of_an_address_are_nowhere_to_be_read(
    server: ModelServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    server.files["/a.safetensors"] = Served(ADAPTER)
    given = f"http://me:pass-word@localhost:{server.port}/a.safetensors?token=query-secret"
    with caplog.at_level(logging.DEBUG):
        events: list[Progress] = []
        done = download(given, settings, on_progress=events.append)
        server.files["/a.safetensors"] = Served(status=404)
        error = refused(lambda: download(given, settings, name="b"), SetupError, "model_not_found")
    assert server.of("/a.safetensors")[0].headers["authorization"].startswith("Basic ")
    files = [path.read_text(errors="replace") for path in settings.models.rglob("*") if path.suffix == ".json"]
    said = [caplog.text, str(done), json.dumps(error.to_json()), *map(str, events), *files]
    assert not [text for text in said if "pass-word" in text or "query-secret" in text]


@pytest.mark.parametrize(
    "wanted",
    ["file:///etc/passwd", "ftp://host/x.safetensors", "data://x", "https://", "https://h:port/x"],
)
def test_only_the_web_is_fetched_from(settings: Settings, wanted: str) -> None:
    refused(lambda: download(wanted, settings), InputError, "invalid_value")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "http://h:port/"])
def test_no_redirect_leads_off_the_web(server: ModelServer, settings: Settings, target: str) -> None:
    server.files["/x"] = Served(status=302, headers={"Location": target})
    refused(lambda: download(at(server, "/x"), settings), SetupError, "download_failed")


def test_redirects_end(server: ModelServer, settings: Settings) -> None:
    server.files["/x"] = Served(status=302, headers={"Location": "/x"})
    refused(lambda: download(at(server, "/x"), settings), SetupError, "download_failed")
    assert len(server.of("/x")) == transfer.MAX_REDIRECTS


def test_without_encryption_no_secret_leaves_and_a_note_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIVITAI_API_TOKEN", "secret")
    for wanted in ("http://me:word@example.org/x.safetensors", "http://civitai.com/api/download/models/1"):
        error = refused(lambda wanted=wanted: download(wanted, settings), InputError, "invalid_value")
        assert "encryption" in error.message
    assert "encryption" in address.url_source("http://example.org/x").notes[0]
    assert not address.url_source("https://example.org/x").notes


def test_the_page_of_a_model_becomes_the_address_of_its_file() -> None:
    page = "https://civitai.com/models/4201/realistic-vision?modelVersionId=501240"
    assert str(address.url_source(page).url) == "https://civitai.com/api/download/models/501240"
    with pytest.raises(InputError, match="may offer several"):
        address.url_source("https://civitai.com/models/4201")


# --- servers that are not there, or not well


def test_no_network_at_all(server: ModelServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(lambda: download(NAME, settings), SetupError, "no_network")
    error = refused(lambda: download("http://127.0.0.1:1/x.safetensors", settings), SetupError, "no_network")
    assert "127.0.0.1" in error.message
    refused(lambda: download("https://nowhere.invalid/x.safetensors", settings), SetupError, "no_network")


def test_the_hubs_own_offline_switch_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(lambda: download(NAME, settings), SetupError, "no_network")
    assert "HF_HUB_OFFLINE" in error.message


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_patience_gets_it(
    server: ModelServer, site: Served, settings: Settings, status: int
) -> None:
    site.statuses = [status, status]
    assert download(at(server), settings).path.exists()


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "model_not_found"), (403, "access_denied"), (429, "download_failed"), (500, "download_failed")],
)
def test_a_server_that_says_no_is_believed(server: ModelServer, settings: Settings, status: int, code: str) -> None:
    server.files["/x"] = Served(status=status, headers={"Retry-After": "3600"})
    error = refused(lambda: download(at(server, "/x"), settings), SetupError, code)
    assert str(status) in error.message
    assert len(server.of("/x")) == 1


def test_a_disk_that_fills_up_meanwhile(
    server: ModelServer, site: Served, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # the system says EFBIG, as for a quota
    try:
        error = refused(lambda: download(at(server), settings), CriticalError, "disk_full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EFBIG
    assert 0 < unfinished(settings)[0].stat().st_size <= 1_000_000
    assert download(at(server), settings).path.read_bytes() == ADAPTER


def test_it_runs_in_a_cell_whose_loop_runs_already(server: ModelServer, site: Served, settings: Settings) -> None:
    import asyncio

    async def cell() -> Path:
        return download(at(server), settings).path

    assert asyncio.run(cell()).read_bytes() == ADAPTER
