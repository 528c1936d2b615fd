"""Where weights are while a clip is made, and that neither that nor a failure changes anything of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import lora_files
import numpy as np
import pytest
import torch
from opened_files import opened
from tiny_models import TinyAnimateDiff
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidkit.computing import Computation, Job, Stopwatch
from vidkit.device import Plan
from vidkit.models.loading.tensors import cast_for, tensors_of
from vidkit.models.loading.warm import WarmComponents
from vidkit.pipelines.layers import Layers, layers_of
from vidkit.pipelines.offloading import networks
from vidkit.placement import allow_growing_segments, place, release, restore
from vidkit.progress import Reporter
from vidkit.warm import WarmModels, fresh_pipeline

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")

HERE = Plan("cpu", "float32")
MODES = ("svd", "init", "sparsectrl", "pia")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return clips.saved(tmp_path)


def request_for(mode: str, svd: Path, parts: TinyAnimateDiff, image: Path, **more: Any) -> dict[str, Any]:
    if mode == "svd":
        return clips.svd_request(svd, image, **more)
    return clips.animatediff_request(parts, image, mode, **more)


def frames_with(pipe: Any, job: Job, plan: Plan) -> clips.Frames:
    return Computation(job, Reporter(None, None), Stopwatch(), None).frames(pipe, plan)[0]


def places(pipe: Any) -> dict[str, int]:
    """Of each tensor of a pipeline, by name: where its memory is."""
    return {
        f"{name}.{key}": tensor.data_ptr()
        for name, network in networks(pipe).items()
        for key, tensor in network.state_dict(keep_vars=True).items()
    }


def hooks(pipe: Any) -> list[str]:
    """What is attached to the modules of a pipeline."""
    return [
        f"{name}.{path}: {attached}"
        for name, network in networks(pipe).items()
        for path, module in network.named_modules()
        for attached in ("_hf_hook", "forward", "_forward_hooks", "_forward_pre_hooks")
        if vars(module).get(attached)
    ]


@contextmanager
def failing(module: torch.nn.Module) -> Iterator[None]:
    """Each call of a module runs out of memory once it has computed."""

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = module.register_forward_hook(fail)
    try:
        yield
    finally:
        handle.remove()


# --- offloading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_offloading_changes_no_frame_and_is_taken_back(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    job = clips.prepared(request_for(mode, tiny_svd_folder, tiny_animatediff, image))
    pipe = fresh_pipeline(job, HERE)
    plain, where = frames_with(pipe, job, HERE), places(pipe)
    for offload in ("model", "layers"):
        plan = replace(HERE, offload=offload)
        place(pipe, plan)
        assert hooks(pipe)
        for _ in range(2):
            np.testing.assert_array_equal(frames_with(pipe, job, plan), plain)
            assert places(pipe) == where  # what came to the device was a copy, and went
    release(pipe)
    assert hooks(pipe) == []
    assert places(pipe) == where


def test_one_part_at_a_time_is_on_the_device(tiny_animatediff: TinyAnimateDiff, image: Path) -> None:
    """UNet and ControlNet are one: both compute in each step."""
    job = clips.prepared(clips.animatediff_request(tiny_animatediff, image, "sparsectrl"))
    pipe, plan = fresh_pipeline(job, HERE), replace(HERE, offload="model")
    place(pipe, plan)
    resting = places(pipe)
    seen: dict[str, set[str]] = {}

    def look(calling: str) -> None:
        seen[calling] = {key.split(".")[0] for key, where in places(pipe).items() if where != resting[key]}

    calls = {
        "text_encoder": pipe.text_encoder,
        "unet": pipe.unet.conv_in,
        "controlnet": pipe.controlnet.conv_in,
        "encoder": pipe.vae.encoder,
        "decoder": pipe.vae.decoder,
    }
    for name, module in calls.items():
        module.register_forward_pre_hook(lambda module, arguments, name=name: look(name))
    frames_with(pipe, job, plan)
    both = {"unet", "controlnet"}
    assert seen["text_encoder"] == {"text_encoder"}
    assert seen["unet"] == seen["controlnet"] == both
    assert seen["encoder"] == seen["decoder"] == {"vae"}
    assert places(pipe) == resting


@pytest.mark.parametrize("mode", ["svd", "sparsectrl"])
def test_of_a_unet_one_layer_and_the_next_are_on_the_device(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    job = clips.prepared(request_for(mode, tiny_svd_folder, tiny_animatediff, image))
    pipe, plan = fresh_pipeline(job, HERE), replace(HERE, offload="layers")
    place(pipe, plan)
    unet = pipe.unet
    resting = {id(tensor): tensor.data_ptr() for tensor in tensors_of(unet)}
    layers = layers_of(unet)
    fetched: list[tuple[int, set[int]]] = []

    def look(number: int) -> None:
        here = {i for i, layer in enumerate(layers) if any(t.data_ptr() != resting[id(t)] for t in tensors_of(layer))}
        fetched.append((number, here))

    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda layer, arguments, number=number: look(number))
    frames_with(pipe, job, plan)
    assert {number for number, _ in fetched} == set(range(len(layers)))
    assert all(here == {number} for number, here in fetched)
    by_layers = sum(tensor.nbytes for layer in layers for tensor in tensors_of(layer))
    assert by_layers > 0.9 * sum(tensor.nbytes for tensor in tensors_of(unet))


class Resting(TorchDispatchMode):
    """Finds what computes with weights where they wait: on a GPU's machine that is another device."""

    MOVES = ("detach", "copy_", "_to_copy")

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.waiting = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.found: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        name = function.__name__.split(".")[0]
        tensors = [value for value in tree_leaves((given, options)) if isinstance(value, torch.Tensor)]
        if name not in self.MOVES and any(one.untyped_storage().data_ptr() in self.waiting for one in tensors):
            self.found.add(name)
        return function(*given, **(options or {}))


@pytest.mark.parametrize("mode", MODES)
def test_no_weight_computes_where_it_waits(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    """With all measures together, of which some compute a layer's result in the next one."""
    job = clips.prepared(request_for(mode, tiny_svd_folder, tiny_animatediff, image))
    pipe = fresh_pipeline(job, HERE)
    weights = [tensor for network in networks(pipe).values() for tensor in tensors_of(network)]
    with Resting(weights) as resident:
        plain = frames_with(pipe, job, HERE)
    assert {"convolution", "addmm"} <= resident.found
    plan = replace(HERE, offload="layers", halves=True, slices=True, host_skips=True, vae_float32=True)
    place(pipe, plan)
    with Resting(weights) as offloaded:
        frames = frames_with(pipe, job, plan)
    assert offloaded.found == set()
    assert abs(frames.astype(int) - plain).max() <= 1


@pytest.mark.parametrize("mode", ["svd", "pia"])
def test_windows_made_together_are_so_with_all_measures(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    more = {"num_frames": 7, "window_frames": 4, "windowing": "together"}
    job = clips.prepared(request_for(mode, tiny_svd_folder, tiny_animatediff, image, **more))
    pipe = fresh_pipeline(job, HERE)
    plain = frames_with(pipe, job, HERE)
    plan = replace(HERE, offload="layers", halves=True, slices=True, host_skips=True)
    place(pipe, plan)
    assert abs(frames_with(pipe, job, plan).astype(int) - plain).max() <= 1


def test_the_next_layer_is_fetched_while_one_computes() -> None:
    """From the second time on: the order is learned. A layer that comes unexpected is fetched all the same."""
    modules = [torch.nn.Linear(3, 3) for _ in range(5)]
    layers = Layers(modules, torch.device("cpu"))
    assert len(list(layers.watch())) == 2 * len(modules)
    weights = [module.weight.detach().clone() for module in modules]
    value = torch.ones(1, 3)
    layers.begin()
    ahead: list[int | None] = []
    for number in [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 2, 4]:
        ahead.append(number if modules[number] in layers.here else None)
        resting = modules[number].weight.data_ptr()
        modules[number](value)
        assert modules[number].weight.data_ptr() == resting
        torch.testing.assert_close(modules[number].weight.detach(), weights[number], rtol=0, atol=0)
        assert len(layers.here) <= 2
    assert ahead == [None] * 6 + [1, 2, 3, 4, 0, None, None]
    layers.end()
    assert layers.here == []


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", ["model", "layers"])
def test_a_failure_anywhere_leaves_nothing_on_the_device(tiny_svd_folder: Path, image: Path, offload: Any) -> None:
    job, plan = clips.prepared(clips.svd_request(tiny_svd_folder, image)), replace(HERE, offload=offload)
    pipe = fresh_pipeline(job, plan)
    resting, attached = places(pipe), hooks(pipe)
    fresh = frames_with(pipe, job, plan)
    unet = pipe.unet
    for part in (pipe.image_encoder, pipe.vae.encoder, unet.up_blocks[0].resnets[0], unet.conv_out, pipe.vae.decoder):
        with failing(part), pytest.raises(torch.OutOfMemoryError):
            frames_with(pipe, job, plan)
        assert places(pipe) == resting
    assert hooks(pipe) == attached
    np.testing.assert_array_equal(frames_with(pipe, job, plan), fresh)


@pytest.mark.parametrize("offload", ["none", "model"])
def test_the_autoencoder_gets_its_precision_back(tiny_svd_folder: Path, image: Path, offload: Any) -> None:
    """A failure between the picture's encoding in full precision and the cast back leaves it there."""
    plan = replace(HERE, offload=offload)
    pipe = fresh_pipeline(clips.prepared(clips.svd_request(tiny_svd_folder, image)), plan)
    weights = {key: tensor.clone() for key, tensor in pipe.vae.state_dict().items()}
    for after in (restore, release):
        pipe.vae.to(dtype=torch.float64)
        after(pipe)
        torch.testing.assert_close(pipe.vae.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize("offload", ["none", "layers"])
def test_a_device_that_takes_nothing_changes_nothing(tiny_svd_folder: Path, image: Path, offload: Any) -> None:
    """There is no such device: without offloading it is found as the pipeline is placed, else as it is called."""
    job = clips.prepared(clips.svd_request(tiny_svd_folder, image))
    pipe = fresh_pipeline(job, HERE)
    plain, where = frames_with(pipe, job, HERE), places(pipe)
    plan = Plan("maia", "float32", offload)
    with pytest.raises(RuntimeError, match="maia"):
        place(pipe, plan)
        frames_with(pipe, job, plan)
    assert places(pipe) == where
    assert (hooks(pipe) == []) == (offload == "none")
    place(pipe, HERE)
    np.testing.assert_array_equal(frames_with(pipe, job, HERE), plain)


# --- an autoencoder in single precision -------------------------------------------------------------------------------


def test_what_is_cast_for_a_while_comes_back_as_it_was() -> None:
    layer = torch.nn.Linear(3, 3).half()
    before = layer.weight.data_ptr()
    with pytest.raises(RuntimeError, match="amid"), cast_for(layer, torch.float32):
        assert layer.weight.dtype == torch.float32
        layer.bias.data = layer.bias.data.clone()  # as offloading moves it
        raise RuntimeError("amid")
    assert layer.weight.data_ptr() == before
    assert layer.bias.dtype == torch.float16
    with cast_for(layer, torch.float16):
        assert layer.weight.data_ptr() == before


@pytest.mark.parametrize("mode", MODES)
def test_an_autoencoder_in_float32_encodes_and_decodes_in_it(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    half = Plan("cpu", "bfloat16", vae_float32=True)
    job = clips.prepared(request_for(mode, tiny_svd_folder, tiny_animatediff, image))
    pipe = fresh_pipeline(job, half)
    seen: dict[str, set[torch.dtype]] = {"encoder": set(), "decoder": set(), "unet": set()}
    for name, module in (("encoder", pipe.vae.encoder), ("decoder", pipe.vae.decoder), ("unet", pipe.unet)):
        part = module.conv_in

        def look(module: Any, arguments: Any, result: torch.Tensor, name: str = name) -> None:
            seen[name] |= {module.weight.dtype, arguments[0].dtype, result.dtype}

        part.register_forward_hook(look)
    for offload in ("none", "model"):
        plan = replace(half, offload=offload)
        place(pipe, plan)
        frames_with(pipe, job, plan)
        assert pipe.vae.dtype == torch.bfloat16
    assert seen == {"encoder": {torch.float32}, "decoder": {torch.float32}, "unet": {torch.bfloat16}}


# --- the same components in another place -----------------------------------------------------------------------------


def test_another_plan_moves_what_is_loaded(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    """With a LoRA, whose sums stand in the place of weights that come back."""
    parts = tiny_animatediff
    plain = clips.animatediff_request(parts, image)
    pairs = lora_files.pairs_for(fresh_pipeline(clips.prepared(plain), HERE), ("to_q", "to_out.0"))
    lora = lora_files.save(lora_files.kohya(pairs), tmp_path / "lora.safetensors")
    plans = [replace(HERE, offload=offload) for offload in ("none", "layers", "model", "none")]
    with_lora = clips.prepared(plain | {"loras": f"{lora}:0.5"})
    without = clips.prepared(plain)
    warm = WarmModels()
    first = frames_with(warm.pipeline(with_lora, plans[0]), with_lora, plans[0])
    pipe = warm.last_pipeline
    with opened(parts.base, parts.motion_adapter) as found:
        for plan in plans:
            assert warm.pipeline(with_lora, plan) is pipe
            np.testing.assert_array_equal(frames_with(pipe, with_lora, plan), first)
            bare = frames_with(warm.pipeline(without, plan), without, plan)
            assert not np.array_equal(bare, first)
    assert not [path for path in found if path.endswith(".safetensors")]
    np.testing.assert_array_equal(bare, frames_with(fresh_pipeline(without, HERE), without, HERE))
    warm.unload()


# --- the allocator ----------------------------------------------------------------------------------------------------


def test_growing_segments_are_the_default_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(names[1], "max_split_size_mb:64")
    allow_growing_segments()
    assert names[0] not in os.environ
    monkeypatch.delenv(names[1])
    monkeypatch.setenv(names[0], "")  # so that it is undone
    monkeypatch.delenv(names[0])
    allow_growing_segments()
    assert os.environ[names[0]] == "expandable_segments:True"


# --- on a GPU ---------------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("mode", MODES)
def test_on_a_gpu_only_what_rests_there_is_there_between_clips(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path, mode: str
) -> None:
    """Whether a clip was made or not; what is loaded is moved, and frames are the same."""
    job = clips.prepared(request_for(mode, tiny_svd_folder, tiny_animatediff, image))
    warm, plan = WarmModels(), Plan("cuda", "float16")
    pipe = warm.pipeline(job, plan)
    frames = frames_with(pipe, job, plan).astype(int)
    gc.collect()
    resident = torch.cuda.memory_allocated()
    weights = sum(tensor.nbytes for network in networks(pipe).values() for tensor in tensors_of(network))
    models = [Path(model.path) for model in job.models.values()]
    with opened(*models) as found:
        for offload in ("layers", "model", "none"):
            plan = replace(plan, offload=offload)
            assert warm.pipeline(job, plan) is pipe
            assert abs(frames_with(pipe, job, plan).astype(int) - frames).max() <= 1
            for part in (pipe.unet.up_blocks[0].resnets[0], pipe.vae.decoder):
                with failing(part), pytest.raises(torch.OutOfMemoryError):
                    frames_with(pipe, job, plan)
            gc.collect()
            allocated = torch.cuda.memory_allocated()
            assert allocated <= (resident if offload == "none" else resident - 0.9 * weights)
            layers = [tensor for layer in layers_of(pipe.unet) for tensor in tensors_of(layer)]
            assert offload != "layers" or all(tensor.is_pinned() for tensor in layers)
    assert not [path for path in found if path.endswith(".safetensors")]
    warm.unload()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("room", [10**9, 0])
def test_on_a_gpu_what_has_no_room_goes_to_the_host_if_that_has(room: int) -> None:
    gc.collect()
    before, warm = torch.cuda.memory_allocated(), WarmComponents()  # cuBLAS keeps its workspace from other tests
    for number in range(2):
        warm.keep(number, torch.nn.Linear(1000, 1000, device="cuda"), f"model {number}")
    warm.make_room({"cuda": 5_000_000, "cpu": room}, [])
    assert warm.size("cuda") == 4_004_000
    assert warm.size("cpu") == (4_004_000 if room else 0)
    assert torch.cuda.memory_allocated() - before <= warm.size("cuda") + 100_000


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_segments_grow() -> None:
    """In a process of its own: the allocator reads its settings once."""
    code = (
        "import torch; from vidkit.placement import allow_growing_segments; allow_growing_segments();"
        "torch.zeros(1, device='cuda'); print([one['is_expandable'] for one in torch.cuda.memory_snapshot()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[True]"]
