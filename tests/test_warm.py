"""What stays loaded: components by their content, within the memory there is; and what is read for what changes."""

from __future__ import annotations

import gc
import json
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from command_line import Running
from opened_files import opened
from safetensors.torch import load_file, save_file
from tiny_models import TinyAnimateDiff, save_single_file

import vidkit
from vidkit import generation, placement
from vidkit.device import Plan, chosen_device, plain_plan
from vidkit.errors import Cancelled, SetupError
from vidkit.memory import fitting, room_beside
from vidkit.models.loading import reading
from vidkit.models.loading.warm import WarmComponents
from vidkit.progress import CancelToken, Progress, Reporter
from vidkit.warm import WarmModels

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    clips.cold()
    return clips.saved(tmp_path)


# --- the files that are opened ----------------------------------------------------------------------------------------


def read_bytes(process: int | str = "self") -> int:
    """All that a process has read so far, also what the page cache gave."""
    return int(Path(f"/proc/{process}/io").read_text().split()[1])


def weights_among(paths: set[str]) -> set[str]:
    return {path for path in paths if path.endswith((".safetensors", ".ckpt"))}


@pytest.mark.parametrize("mode", ["svd", "init", "sparsectrl", "pia"])
def test_a_second_generation_opens_no_file_of_its_models(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    parts = tiny_animatediff
    folders = (tiny_svd_folder, parts.base, parts.motion_adapter, parts.sparse_controlnet, parts.pia_adapter)
    request = (
        clips.svd_request(tiny_svd_folder, image) if mode == "svd" else clips.animatediff_request(parts, image, mode)
    )
    time.sleep(0.2)  # what was written within 0.1 s may still change unseen, and would be read again
    with opened(*folders) as first:
        vidkit.generate(request)
    assert weights_among(first)
    before = read_bytes()
    with opened(*folders) as second:
        vidkit.generate(request | {"seed": 8, "num_inference_steps": 3})
    assert second == set()
    assert read_bytes() - before < 1_000_000  # the picture and the clip; the models have 3 to 8 MB


def test_what_is_read_is_what_is_new(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    """Another base model, another motion adapter, another conditioning, and all of them back again."""
    parts = tiny_animatediff
    other_base, other_adapter = other(parts.base, tmp_path, "unet"), other(parts.motion_adapter, tmp_path, "")
    folders = (parts.base, parts.motion_adapter, parts.sparse_controlnet, other_base, other_adapter)
    init = clips.animatediff_request(parts, image)

    def weights_read(request: dict[str, Any]) -> set[str]:
        job = clips.prepared(request)  # which hashes what is new
        with opened(*folders) as found:
            generation.compute(job, Reporter(None, None))
        return weights_among(found)

    base = {f"{parts.base.name}/{name}" for name in ("unet/D", "vae/D", "text_encoder/model.safetensors")}
    base = {name.replace("D", "diffusion_pytorch_model.safetensors") for name in base}
    adapter = f"{parts.motion_adapter.name}/diffusion_pytorch_model.safetensors"
    assert weights_read(init) == base | {adapter}
    swapped = weights_read(init | {"base_model": str(other_base)})
    assert swapped == {name.replace(parts.base.name, other_base.name, 1) for name in base}
    assert weights_read(init | {"motion_adapter": str(other_adapter)}) == {
        f"{other_adapter.name}/diffusion_pytorch_model.safetensors"
    }
    controlnet = f"{parts.sparse_controlnet.name}/diffusion_pytorch_model.safetensors"
    assert weights_read(clips.animatediff_request(parts, image, "sparsectrl")) == {controlnet}
    for request in (init, init | {"base_model": str(other_base)}, init | {"motion_adapter": str(other_adapter)}):
        assert weights_read(request) == set()


def other(folder: Path, target: Path, part: str) -> Path:
    """A model of the same shape with other weights."""
    copy = target / f"other_{folder.name}"
    shutil.copytree(folder, copy)
    for file in (copy / part).glob("*.safetensors"):
        save_file({key: value * 1.1 for key, value in load_file(file).items()}, file)
    return copy


def test_a_session_of_the_command_line_keeps_several_models_warm(image: Path, tmp_path: Path) -> None:
    """Two families in turns, as a front end asks: each is read once."""
    common = {"imagePath": str(image), "prompt": "waves", "numFrames": 3, "numInferenceSteps": 2, "strength": 1.0}
    requests = [{**common, "pipeline": pipeline} for pipeline in ("svd", "animatediff", "svd", "animatediff")]
    read, loading = [], []
    with Running("--jsonl") as running:
        for number, request in enumerate(requests):
            before = read_bytes(running.worker()) if number else 0
            response, progress = running.ask({**request, "outputPath": str(tmp_path / f"{number}.mp4")})
            assert response["status"] == "success"
            read.append(read_bytes(running.worker()) - before)
            loading.append(any(event["message"].startswith("Loading model:") for event in progress))
        running.finish()
    assert loading == [True, True, False, False]
    assert max(read[2:]) < 1_000_000 < 5_000_000 < min(read[:2])


def test_swaps_give_what_fresh_loads_give(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    parts = tiny_animatediff
    init = clips.animatediff_request(parts, image)
    requests = [
        init,
        init | {"base_model": str(other(parts.base, tmp_path, "unet"))},
        init | {"motion_adapter": str(other(parts.motion_adapter, tmp_path, ""))},
        clips.animatediff_request(parts, image, "pia"),
        clips.animatediff_request(parts, image, "sparsectrl"),
    ]
    fresh = []
    for request in requests:
        clips.cold()
        fresh.append(clips.frames_of(request))
    clips.cold()
    for number in (0, 1, 2, 3, 4, 1, 0):
        np.testing.assert_array_equal(clips.frames_of(requests[number]), fresh[number])
    assert len({frames.tobytes() for frames in fresh}) == 5


def test_the_same_model_at_another_place_is_not_loaded_again(
    tiny_svd_folder: Path, image: Path, tmp_path: Path
) -> None:
    vidkit.generate(clips.svd_request(tiny_svd_folder, image))
    pipe = generation.last_pipeline()
    copy = shutil.copytree(tiny_svd_folder, tmp_path / "copy")
    job = clips.prepared(clips.svd_request(copy, image))
    before = read_bytes()
    generation.compute(job, Reporter(None, None))
    assert generation.last_pipeline() is pipe
    assert read_bytes() - before < 500_000  # headers, for the memory that it needs


def test_a_pipeline_that_was_given_out_is_not_played_from_what_was_recorded_before(
    tiny_svd_folder: Path, image: Path
) -> None:
    job, warm = clips.prepared(clips.svd_request(tiny_svd_folder, image)), WarmModels()
    plan = plain_plan("cpu")

    def may_outlast(plan: Plan) -> bool:
        return placement._placed[warm.pipeline(job, plan)].known.may_outlast

    assert may_outlast(plan)
    pipe = warm.last_pipeline
    assert not may_outlast(plan)
    assert not may_outlast(replace(plan, speed="fast")), "whoever has it has it still"
    del pipe
    warm.unload()
    assert may_outlast(plan)
    warm.unload()


def test_what_lies_around_a_file_decides_too(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    """The same checkpoint in two folders, whose configurations name different schedulers."""
    requests = []
    for name, prediction in (("one", "epsilon"), ("other", "sample")):
        folder = shutil.copytree(tiny_animatediff.base, tmp_path / name)
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": prediction}))
        base = save_single_file(tiny_animatediff.base, folder / "model.safetensors")
        requests.append(clips.animatediff_request(tiny_animatediff, image) | {"base_model": str(base)})
    first, second = map(clips.frames_of, requests)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(clips.frames_of(requests[0]), first)


# --- room -------------------------------------------------------------------------------------------------------------


class Weights(torch.nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size, dtype=torch.uint8), requires_grad=False)


def filled(*sizes: int) -> WarmComponents:
    warm = WarmComponents()
    for number, size in enumerate(sizes):
        warm.keep(number, Weights(size), f"model {number}")
    return warm


def test_the_least_recently_used_goes_first() -> None:
    warm = filled(10, 20, 30, 40)
    assert (warm.size("cpu"), warm.size("cuda")) == (100, 0)
    warm.make_room({"cpu": 100}, [])
    assert len(warm) == 4
    warm.found({"first": 0})
    warm.make_room({"cpu": 60}, [])
    assert warm.models == ["model 3", "model 0"]  # 20 and 30 were enough
    warm.make_room({"cpu": 10}, [])
    assert warm.models == ["model 0"]


def test_what_the_request_uses_stays_whatever_the_room() -> None:
    warm = filled(10, 20, 30)
    warm.make_room({"cpu": -1000}, [0, 2])
    assert warm.models == ["model 0", "model 2"]
    assert warm.size("cpu") == 40


def test_room_in_one_place_costs_nothing_in_another() -> None:
    warm = filled(10, 20)
    warm.keep("elsewhere", Weights(1000).to("meta"), "on another device")
    assert (warm.size("cpu"), warm.size("meta")) == (30, 1000)
    warm.make_room({"meta": 0}, [])
    assert warm.models == ["model 0", "model 1"]
    assert (warm.size("cpu"), warm.size("meta")) == (30, 0)


def test_dropped_components_are_freed() -> None:
    warm = filled(10, 20)
    components = [weakref.ref(component) for component in warm.found({"a": 0, "b": 1}).values()]
    warm.make_room({"cpu": 20}, [])
    assert [component() is None for component in components] == [True, False]
    warm.drop()
    assert all(component() is None for component in components)
    assert len(warm) == 0


def test_a_request_leaves_the_room_that_it_does_not_need(
    tiny_svd_folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plain_plan(chosen_device())
    rooms = []
    for available in (2**30, 2**31):
        monkeypatch.setattr(fitting, "free_host_memory", lambda available=available: available)
        for frames in (4, 40):
            job = clips.prepared(clips.svd_request(tiny_svd_folder, image, num_frames=frames))
            rooms.append(room_beside(job.params, job.models, plan, lambda place: {"cpu": 1000}[place])["cpu"])
    assert rooms[2] - rooms[0] == rooms[3] - rooms[1] == 2**30
    assert 2**30 > rooms[0] > rooms[1]
    weights = sum(file.stat().st_size for file in tiny_svd_folder.rglob("*.safetensors"))
    assert 2**30 - rooms[1] > weights


def test_models_that_wait_in_the_hosts_memory_hold_none_of_a_gpu(
    tiny_svd_folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or other processes would ask for memory that they cannot get."""
    generation.preload(clips.svd_request(tiny_svd_folder, image))
    on_the_cpu = generation._warm.held()
    assert on_the_cpu is not None and on_the_cpu > 1_000_000
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    assert generation._warm.held() == 0
    generation.unload()
    assert generation._warm.held() is None


def test_models_that_have_no_room_are_dropped(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    svd, init = clips.svd_request(tiny_svd_folder, image), clips.animatediff_request(tiny_animatediff, image)
    vidkit.generate(svd)
    vidkit.generate(init)
    both = [tiny_svd_folder.name, tiny_animatediff.base.name, tiny_animatediff.motion_adapter.name]
    assert generation.loaded_models() == both
    unet = weakref.ref(generation.last_pipeline().unet)
    monkeypatch.setattr(fitting, "free_host_memory", lambda: 0)
    frames = clips.frames_of(svd)
    assert generation.loaded_models() == [tiny_svd_folder.name]
    assert unet() is None
    monkeypatch.undo()
    np.testing.assert_array_equal(clips.frames_of(svd), frames)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_load_leaves_what_was_loaded(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    parts = tiny_animatediff
    init = clips.animatediff_request(parts, image)
    fresh = clips.frames_of(init)
    broken = other(parts.base, tmp_path, "unet")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(dict(list(load_file(weights).items())[5:]), weights)
    with pytest.raises(SetupError, match="lacks 5 weights"):
        clips.frames_of(init | {"base_model": str(broken)})
    assert broken.name not in generation.loaded_models()
    with opened(parts.base, parts.motion_adapter) as found:
        np.testing.assert_array_equal(clips.frames_of(init), fresh)
    assert weights_among(found) == set()


def test_a_cancelled_load_leaves_what_was_loaded(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SHARE", 50_000)
    svd = clips.svd_request(tiny_svd_folder, image)
    fresh = clips.frames_of(svd)
    token = CancelToken()

    def listener(event: Progress) -> None:
        if event.message.startswith("Loading model:"):
            token.cancel()

    with pytest.raises(Cancelled):
        clips.computed(clips.animatediff_request(tiny_animatediff, image), listener, token)
    assert generation.loaded_models() == [tiny_svd_folder.name]
    with opened(tiny_svd_folder) as found:
        np.testing.assert_array_equal(clips.frames_of(svd), fresh)
    assert weights_among(found) == set()


def test_unloading_frees_every_network(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    clips.frames_of(clips.animatediff_request(tiny_animatediff, image))
    pipe = generation.last_pipeline()
    networks = [weakref.ref(getattr(pipe, name)) for name in ("unet", "vae", "text_encoder", "motion_adapter")]
    del pipe
    generation.unload()
    gc.collect()
    assert [network() for network in networks] == [None] * 4
    assert generation.last_pipeline() is None
    assert generation.loaded_models() == []
