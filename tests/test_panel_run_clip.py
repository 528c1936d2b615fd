from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import saved
from panel_runs import request, wait_until
from run_folders import files

from vidkit.errors import Cancelled, InputError, SetupError
from vidkit.panel.run_clip import plan, run_clip
from vidkit.progress import CancelToken, Progress
from vidkit.record import RESULTS_VERSION, key_of, show
from vidkit.runs import RunFolder, claim, content_key, read_manifest
from vidkit.video import read_frames, sidecar_path

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return saved(tmp_path)


def test_a_clip_is_a_run_under_its_content_key_and_is_made_once(tiny_svd_folder: Path, image: Path, root: Path) -> None:
    params = request(tiny_svd_folder, image, fps=12)
    progress: list[int] = []
    looks: list[np.ndarray[Any, Any]] = []
    run, known = run_clip(
        params, root, on_progress=lambda event: progress.append(event.progress), on_preview=looks.append
    )
    assert not known
    assert run.key == content_key(params)[0]
    assert files(run.path) == ["clip.mp4", "clip.mp4.json", "manifest.json", "poster.png"]
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.request["fps"] == 12
    assert manifest.request["motionBucketId"] == 127
    assert key_of({"resultsVersion": RESULTS_VERSION, **manifest.model_dump(by_alias=True)}) == run.key
    assert {"load", "denoise", "overhead", "total"} <= set(manifest.timing)
    assert manifest.plan["device"] in ("cpu", "cuda")
    assert str(image.parent) not in run.manifest.read_text()
    assert len(progress) > 5
    assert looks[0].shape[0] == 2

    before = run.clip().stat().st_mtime_ns
    assert run_clip(params, root, on_progress=lambda event: pytest.fail("it is there")) == (run, True)
    assert run.clip().stat().st_mtime_ns == before


def test_a_drawn_seed_is_that_of_the_clip(tiny_svd_folder: Path, image: Path, root: Path) -> None:
    run, _ = run_clip(request(tiny_svd_folder, image, seed=-1), root)
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.seed == manifest.request["seed"] == show(run.clip())["request"]["seed"] >= 0


def test_the_output_path_gets_a_copy_and_is_never_overwritten_unasked(
    tiny_svd_folder: Path, image: Path, root: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "mine.webm"
    params = request(tiny_svd_folder, image, output_path=str(target))
    run, _ = run_clip(params, root)
    assert target.read_bytes() == run.clip("webm").read_bytes()
    assert sidecar_path(target).read_bytes() == sidecar_path(run.clip("webm")).read_bytes()
    assert files(target.parent) == ["mine.webm", "mine.webm.json"]

    target.write_bytes(b"something else")
    with pytest.raises(InputError) as caught:
        run_clip(params, root)
    assert caught.value.code == "output_exists"
    assert target.read_bytes() == b"something else"
    assert run_clip(params.replace(overwrite=True), root) == (run, True)
    assert target.read_bytes() == run.clip("webm").read_bytes()


def test_a_target_that_cannot_be_is_told_before_the_work(tiny_svd_folder: Path, image: Path, root: Path) -> None:
    params = request(tiny_svd_folder, image, output_path=str(image / "clip.mp4"))
    with pytest.raises(SetupError) as caught:
        run_clip(params, root, on_progress=lambda event: pytest.fail("it began"))
    assert caught.value.code == "output_not_writable"
    assert not root.exists()


def test_a_copy_that_fails_at_the_end_leaves_the_clip_in_the_history(
    tiny_svd_folder: Path, image: Path, root: Path, tmp_path: Path
) -> None:
    target = tmp_path / "clip.mp4"
    with pytest.raises(InputError) as caught:
        run_clip(
            request(tiny_svd_folder, image, output_path=str(target)),
            root,
            on_progress=lambda event: target.write_bytes(b"another's"),
        )
    assert caught.value.code == "output_exists"
    assert "in the history" in caught.value.message
    assert target.read_bytes() == b"another's"
    assert RunFolder(root, content_key(request(tiny_svd_folder, image))[0]).is_done()


def test_a_cancelled_run_leaves_nothing(tiny_svd_folder: Path, image: Path, root: Path) -> None:
    token = CancelToken()

    def stop(event: Progress) -> None:
        if event.step == 1:
            token.cancel()

    params = request(tiny_svd_folder, image, num_inference_steps=5)
    with pytest.raises(Cancelled):
        run_clip(params, root, on_progress=stop, cancel=token)
    assert files(root) == [".locks"]
    assert run_clip(params, root)[1] is False


def test_while_another_makes_the_same_clip_it_waits_and_can_be_cancelled(
    tiny_svd_folder: Path, image: Path, root: Path
) -> None:
    params = request(tiny_svd_folder, image)
    key = plan(params).key
    told: list[str] = []
    token = CancelToken()
    outcome: list[Any] = []

    def wait() -> None:
        try:
            outcome.append(run_clip(params, root, on_progress=lambda event: told.append(event.message), cancel=token))
        except Cancelled as error:
            outcome.append(error)

    with claim(root, key) as ours:
        assert ours
        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: told)
        time.sleep(0.5)
        assert told == ["Waiting: another process is making this very clip..."]
        token.cancel()
        waiting.join(5)
    assert isinstance(outcome[0], Cancelled)


def test_a_bare_clip_says_nothing_and_a_full_one_is_never_taken_for_it(
    tiny_svd_folder: Path, image: Path, root: Path
) -> None:
    bare = request(tiny_svd_folder, image, bare=True)
    run, _ = run_clip(bare, root)
    assert "request" not in show(run.clip())
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.request["numFrames"] == 2
    assert str(image.parent) not in run.manifest.read_text()
    assert run_clip(bare, root) == (run, True)

    full = request(tiny_svd_folder, image, seed=8)
    run_clip(full, root)
    with pytest.raises(InputError) as caught:
        run_clip(full.replace(bare=True), root)
    assert caught.value.concerns == ("bare",)


def test_the_clip_is_the_one_that_generate_makes(
    tiny_svd_folder: Path, image: Path, root: Path, tmp_path: Path
) -> None:
    from vidkit import generate

    params = request(tiny_svd_folder, image, num_frames=3)
    run, _ = run_clip(params, root)
    plain = generate(params.replace(output_path=str(tmp_path / "plain.mp4")))
    assert (read_frames(run.clip()) == read_frames(plain.output)).all()
