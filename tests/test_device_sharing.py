"""Real generations of two processes on one device: turns, models that are unloaded for others, memory given back."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clips
import psutil
import pytest
from command_line import Running, wait_for

import vidkit
from benchmarks.memory_models import on_meta, save_module
from vidkit import generation
from vidkit.errors import Cancelled, GenerationError
from vidkit.lock_folder import Peer, folder_for, peers
from vidkit.memory.fitting import Room, with_tolerance
from vidkit.memory.planning import case_of
from vidkit.progress import CancelToken, Progress
from vidkit.resolving import resolve_request
from vidkit.settings import load_settings

pytestmark = [
    pytest.mark.usefixtures("no_warm_pipeline"),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="measures by /proc"),
]

MIB = 2**20


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a device that this process, and those that it starts, share with nobody else."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("VIDKIT_DEVICE_LOCK", "workstation")
    yield folder_for("workstation")
    generation.unload()


@pytest.fixture
def request_(tiny_svd_folder: Path, tmp_path: Path) -> dict[str, Any]:
    return clips.svd_request(tiny_svd_folder, clips.saved(tmp_path), output_path=str(tmp_path / "clip.mp4"))


def others_that_hold(folder: Path) -> list[Peer]:
    return [peer for peer in peers(folder, "hold") if peer.pid != os.getpid()]


@pytest.fixture
def crowded(shared: Path, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, as long as others hold models, half of what those take is lacking for the request, whatever is
    done to save memory.
    """
    found = resolve_request(vidkit.GenerationParams(**request_), load_settings())
    needed = with_tolerance(case_of(found.params, found.models, "cpu", Room(None)).leanest().peak)
    plenty = psutil.virtual_memory()

    def memory() -> Any:
        held = sum(peer.bytes for peer in others_that_hold(shared))
        return plenty._replace(available=needed - held // 2) if held else plenty

    return lambda: monkeypatch.setattr(psutil, "virtual_memory", memory)


def test_two_processes(shared: Path, request_: dict[str, Any], tmp_path: Path, crowded: Callable[[], None]) -> None:
    theirs = {**request_, "output_path": str(tmp_path / "theirs.mp4"), "overwrite": True}
    said: list[str] = []

    def generate(token: CancelToken | None = None) -> vidkit.GenerationResult:
        return vidkit.generate(
            {**request_, "overwrite": True}, on_progress=lambda progress: said.append(progress.message), cancel=token
        )

    with Running("--jsonl") as other:
        assert other.ask(theirs)[0]["status"] == "success"
        worker = other.worker()
        (holder,) = others_that_hold(shared)
        assert (holder.pid, holder.content["program"]) == (worker, "vidkit generate")

        # who fits beside others leaves them their models
        generation.preload(request_)
        assert holder.lives()
        generation.unload()

        # loading ahead takes nobody's models
        crowded()
        with pytest.raises(GenerationError) as raised:
            generation.preload(request_)
        assert raised.value.code == "out_of_memory"
        assert holder.in_words in raised.value.message
        assert generation.loaded_models() == []
        assert holder.lives()

        # a clip does, since it does not fit beside them
        generate()
        assert f"Waiting for {holder.in_words} to unload its models..." in said
        assert others_that_hold(shared) == []
        assert generation.loaded_models() == [Path(request_["base_model"]).name]
        assert other.worker() == worker  # and lives on

        # while they compute we wait, and can give up
        other.lines.clear()
        other.send({**theirs, "num_inference_steps": 200, "num_frames": 6})
        other.wait_for_step(2)
        generation.unload()
        said.clear()
        token = CancelToken()
        words = f"Waiting for the CPU: process {worker} (vidkit generate) is making a clip..."
        canceller = threading.Thread(target=lambda: wait_for(lambda: words in said) and token.cancel())
        canceller.start()
        with pytest.raises(Cancelled):
            generate(token)
        canceller.join()
        assert all(event["progress"] < 100 for event in other.progress)  # it gave up while they went on
        assert said.count(words) == 1

        # or have our turn after theirs; a process that is killed is not waited for
        said.clear()
        results: list[vidkit.GenerationResult] = []
        thread = threading.Thread(target=lambda: results.append(generate()))
        thread.start()
        wait_for(lambda: words in said)
        time.sleep(0.5)
        os.kill(worker, 9)
        thread.join(30)
        assert other.response()["code"] == "process_killed"
    timing = results[0].metadata["timing"]
    assert timing["wait"] > 0.5
    assert results[0].metadata["generationTime"] < timing["wait"] + timing["total"]
    assert abs(timing["total"] - sum(spent for phase, spent in timing.items() if phase not in ("wait", "total"))) < 1


def test_cpu_is_shared_with_anybody(shared: Path, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDKIT_DEVICE_LOCK")
    result = vidkit.generate(request_)
    assert "wait" not in result.metadata["timing"]
    assert list(shared.iterdir()) == []
    wait_for(lambda: "vidkit device" not in [thread.name for thread in threading.enumerate()])


def test_holding_ends_with_unloading(shared: Path, request_: dict[str, Any]) -> None:
    generation.preload(request_)
    (sign,) = peers(shared, "hold")
    assert sign.pid == os.getpid()
    generation.unload()
    assert peers(shared, "hold") == []


def test_preload_tells_how_much_is_read(request_: dict[str, Any]) -> None:
    generation.unload()
    events: list[Progress] = []
    generation.preload(request_, on_progress=events.append)
    percents = [event.progress for event in events]
    assert percents == sorted(set(percents))
    reading = [event for event in events if event.message.endswith("MiB...")]
    assert len(reading) >= 3  # parts
    done, total = reading[-1].message.removeprefix("Loading model: ").removesuffix(" MiB...").split(" of ")
    assert done == total
    assert 99 in percents
    token = CancelToken()
    generation.unload()
    with pytest.raises(Cancelled):
        generation.preload(
            request_, cancel=token, on_progress=lambda event: token.cancel() if "MiB" in event.message else None
        )
    assert generation.loaded_models() == []


def test_unloading_gives_the_memory_back(tmp_path: Path, tiny_svd_folder: Path) -> None:
    """To the system, not only to an allocator that keeps it for later."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = shutil.copytree(tiny_svd_folder, tmp_path / "large")
    config = CLIPVisionConfig.from_pretrained(model / "image_encoder")
    config.update({"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 8})
    config.save_pretrained(model / "image_encoder")
    save_module(model / "image_encoder", on_meta(lambda: CLIPVisionModelWithProjection(config)), "model")
    size = 2 * (model / "image_encoder" / "model.safetensors").stat().st_size  # in full precision
    assert 200 * MIB < size < 300 * MIB
    request = clips.svd_request(model, clips.saved(tmp_path))
    process = psutil.Process()
    shares = []
    for _ in range(3):
        generation.preload(request)
        loaded = process.memory_info().rss
        generation.unload()
        shares.append((loaded - process.memory_info().rss) / size)
    assert sorted(shares)[1] > 0.8, shares
