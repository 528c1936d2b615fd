"""Lean execution: exact up to rounding for each network and measure, gone once removed, and in little memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    MotionAdapter,
    SparseControlNetModel,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from tiny_models import TinyAnimateDiff

from benchmarks.live_bytes import empty, most_alive
from vidkit.device import Plan
from vidkit.pipelines import lean
from vidkit.pipelines.lean.maps import Held, OnHost
from vidkit.pipelines.lean.slicing import ranges
from vidkit.pipelines.lean.statistics import group_norm, group_statistics
from vidkit.pipelines.motion_unet import motion_unet
from vidkit.pipelines.watch import denoiser_layers, watched

pytestmark = pytest.mark.usefixtures("without_gradients")

MEASURES: Mapping[str, Mapping[str, bool]] = {
    "halves": {"halves": True},
    "slices": {"slices": True},
    "host_skips": {"host_skips": True},
    "all": {"halves": True, "slices": True, "host_skips": True},
}

#: slices of one frame, row or pixel; of a few; all in one
SLICES = (1, 20_000, 1 << 30)

FRAMES = 5

#: latents whose sides can't be halved as often as the networks do it
HEIGHT, WIDTH = 7, 10


@dataclass
class Case:
    """A network as its pipeline calls it. pipe: its networks; call(videos): its result, always of the same inputs."""

    pipe: Any
    call: Callable[[int], torch.Tensor]

    def plain_and_lean(self, videos: int, slice_bytes: int = 1, **measures: bool) -> tuple[torch.Tensor, torch.Tensor]:
        plain = self.call(videos)
        lean.install(self.pipe, plan(**measures), slice_bytes)
        return plain, self.call(videos)


def plan(**measures: bool) -> Plan:
    return Plan("cpu", "float32", **measures)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result.float() - exact).norm() / exact.norm())


@pytest.fixture(scope="module")
def svd_networks(tiny_svd_folder: Path) -> Any:
    return SimpleNamespace(
        unet=UNetSpatioTemporalConditionModel.from_pretrained(tiny_svd_folder, subfolder="unet"),
        vae=AutoencoderKLTemporalDecoder.from_pretrained(tiny_svd_folder, subfolder="vae"),
    )


@pytest.fixture(scope="module")
def animatediff_networks(tiny_animatediff: TinyAnimateDiff) -> Any:
    base = UNet2DConditionModel.from_pretrained(tiny_animatediff.base, subfolder="unet")
    return SimpleNamespace(
        unet=motion_unet(base, MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter)),
        vae=AutoencoderKL.from_pretrained(tiny_animatediff.base, subfolder="vae"),
        controlnet=SparseControlNetModel.from_pretrained(tiny_animatediff.sparse_controlnet),
    )


@pytest.fixture
def networks(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("svd_networks" if request.param == "svd" else "animatediff_networks")


def svd_unet(pipe: Any, videos: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    latents, context = random(videos, FRAMES, 8, HEIGHT, WIDTH), random(videos, 1, 32, seed=1)
    ids = random(videos, 3, seed=2).abs()
    latents, context, ids = (tensor.to(device, dtype) for tensor in (latents, context, ids))
    result: torch.Tensor = pipe.unet(latents, torch.tensor(0.7), context, ids, return_dict=False)[0]
    return result


def motion(pipe: Any, videos: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    latents, text = random(videos, 4, FRAMES, HEIGHT, WIDTH), random(videos * FRAMES, 7, 32, seed=1)
    latents, text = (tensor.to(device, dtype) for tensor in (latents, text))
    result: torch.Tensor = pipe.unet(latents, torch.tensor(500), encoder_hidden_states=text).sample
    return result


def sparsectrl(pipe: Any, videos: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    """The ControlNet, and the UNet with its residuals, as the pipeline calls them.

    Each frame has a picture: without, the frames of so small a ControlNet are of one colour, and its norms divide their
    rounding errors by next to nothing.
    """
    latents, text = random(videos, 4, FRAMES, HEIGHT, WIDTH), random(videos * FRAMES, 7, 32, seed=1)
    picture, mask = random(1, 4, FRAMES, HEIGHT, WIDTH, seed=2), random(1, 1, FRAMES, HEIGHT, WIDTH, seed=3)
    latents, text, picture, mask = (tensor.to(device, dtype) for tensor in (latents, text, picture, mask))
    down, middle = pipe.controlnet(
        latents, torch.tensor(500), encoder_hidden_states=text, controlnet_cond=picture, conditioning_mask=mask,
        conditioning_scale=0.7, return_dict=False,
    )  # fmt: skip
    result: torch.Tensor = pipe.unet(
        latents, torch.tensor(500), encoder_hidden_states=text,
        down_block_additional_residuals=down, mid_block_additional_residual=middle,
    ).sample  # fmt: skip
    return result


def decode(pipe: Any, videos: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    latents = random(videos * FRAMES, 4, 3, 5).to(device, dtype)
    is_temporal = isinstance(pipe.vae, AutoencoderKLTemporalDecoder)
    result: torch.Tensor = pipe.vae.decode(latents, **({"num_frames": FRAMES} if is_temporal else {})).sample
    return result


def denoise(pipe: Any, videos: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return (sparsectrl if hasattr(pipe, "controlnet") else svd_unet)(pipe, videos, dtype, device)


CALLS = {"svd": svd_unet, "temporal decoder": decode, "motion": motion, "sparsectrl": sparsectrl, "autoencoder": decode}


@pytest.fixture(params=CALLS)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    kind = "svd" if request.param in ("svd", "temporal decoder") else "animatediff"
    pipe = request.getfixturevalue(f"{kind}_networks")
    yield Case(pipe, lambda videos: CALLS[request.param](pipe, videos))
    lean.remove(pipe)


@pytest.mark.parametrize("measures", MEASURES)
def test_each_measure_is_exact(case: Case, measures: str) -> None:
    for slice_bytes in SLICES if measures == "slices" else SLICES[:1]:
        for videos in (1, 2):
            plain, result = case.plain_and_lean(videos, slice_bytes, **MEASURES[measures])
            assert error(result, plain) < 1e-5
            lean.remove(case.pipe)


def test_measures_that_are_removed_leave_nothing(case: Case) -> None:
    plain, result = case.plain_and_lean(2, **MEASURES["all"])
    assert not torch.equal(result, plain), "else nothing was installed"
    lean.remove(case.pipe)
    lean.remove(case.pipe)
    assert torch.equal(case.call(2), plain)


def test_a_half_installed_pipeline_can_be_removed_and_another_plan_replaces_one(svd_networks: Any) -> None:
    unet = svd_networks.unet
    plain = svd_unet(svd_networks, 2)
    with pytest.raises(AttributeError):
        lean.install(SimpleNamespace(unet=unet, vae=torch.nn.Module()), plan(**MEASURES["all"]))
    assert lean_modules(unet)
    lean.remove(svd_networks)
    assert not lean_modules(unet)
    lean.install(svd_networks, plan(slices=True))
    lean.install(svd_networks, plan(halves=True))
    assert lean_modules(unet) == [unet]
    lean.remove(svd_networks)
    assert torch.equal(svd_unet(svd_networks, 2), plain)


def lean_modules(network: Any) -> list[Any]:
    return [module for module in network.modules() if "forward" in vars(module)]


@pytest.mark.parametrize("networks", ["svd", "animatediff"], indirect=True)
def test_each_layer_is_still_called_once(networks: Any) -> None:
    seen: list[float] = []
    layers = denoiser_layers(networks)
    lean.install(networks, plan(slices=True, host_skips=True), 1)
    with watched(layers, seen.append):
        denoise(networks, 1)
    lean.remove(networks)
    assert seen == [number / len(layers) for number in range(len(layers))]


def test_work_that_is_stopped_in_a_layer_can_begin_anew(svd_networks: Any) -> None:
    plain = svd_unet(svd_networks, 2)

    def stop(share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    lean.install(svd_networks, plan(**MEASURES["all"]), 1)
    with pytest.raises(KeyboardInterrupt), watched(denoiser_layers(svd_networks), stop):
        svd_unet(svd_networks, 2)
    again = svd_unet(svd_networks, 2)
    lean.remove(svd_networks)
    assert error(again, plain) < 1e-5


# --- half precision -------------------------------------------------------------------------------------------------


def in_half(networks: Any, dtype: torch.dtype, device: str = "cpu") -> tuple[float, float]:
    """The errors of plain diffusers in half precision, and of all measures, to plain diffusers in single precision."""
    exact = denoise(networks, 2)
    try:
        for network in vars(networks).values():
            network.to(device, dtype)
        plain = denoise(networks, 2, dtype, device)
        lean.install(networks, plan(**MEASURES["all"]), 5_000)
        result = denoise(networks, 2, dtype, device)
    finally:
        lean.remove(networks)
        for network in vars(networks).values():
            network.to("cpu", torch.float32)
    assert result.dtype == dtype
    return error(plain.cpu(), exact), error(result.cpu(), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("networks", ["svd", "animatediff"], indirect=True)
def test_in_half_precision_the_error_is_that_of_plain_diffusers(networks: Any, dtype: torch.dtype) -> None:
    usual, found = in_half(networks, dtype)
    assert 0 < found < 1.3 * usual


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("networks", ["svd", "animatediff"], indirect=True)
def test_on_a_gpu_the_error_is_that_of_plain_diffusers(networks: Any) -> None:
    for _ in range(20):  # copies beside the computing would not go wrong each time
        usual, found = in_half(networks, torch.float16, "cuda")
        assert 0 < found < 1.3 * usual


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def far_away(networks: Any) -> Iterator[Any]:
    """The networks on the meta device, where tensors have sizes and take no memory."""
    copies = SimpleNamespace(**{name: deepcopy(network).to("meta") for name, network in vars(networks).items()})
    copies.controlnet = getattr(copies, "controlnet", None)
    yield copies


@pytest.mark.parametrize("networks", ["svd", "animatediff"], indirect=True)
def test_few_maps_are_alive_at_once(far_away: Any) -> None:
    """In plain diffusers twenty and more of each video: skip connections, and what layers make of their input."""
    frames, height, width = 32, 16, 16
    is_svd = not far_away.controlnet
    one_map = frames * 32 * height * width * 4
    latents = 2 * frames * (8 if is_svd else 4) * height * width * 4

    def call() -> None:
        if is_svd:
            shapes = (2, frames, 8, height, width), (), (2, 1, 32), (2, 3)
            far_away.unet(*(empty(*shape, dtype=torch.float32) for shape in shapes))
        else:
            text = empty(2 * frames, 7, 32, dtype=torch.float32)
            far_away.unet(empty(2, 4, frames, height, width, dtype=torch.float32), empty(), encoder_hidden_states=text)

    def maps(**measures: bool) -> float:
        lean.install(far_away, plan(**measures), one_map // 3)
        return (most_alive(far_away.unet, call) - latents) / one_map

    assert maps() > 2 * 20
    assert maps(**MEASURES["all"]) < 6, "a layer's input, as much again, and what its slices take"


@pytest.mark.parametrize("networks", ["svd"], indirect=True)
def test_the_temporal_decoder_holds_two_maps(far_away: Any) -> None:
    frames, height, width = 4, 16, 20
    one_map = frames * 32 * 8 * height * 8 * width * 4

    def maps(**measures: bool) -> float:
        lean.install(far_away, plan(**measures), one_map // 16)
        latents = empty(frames, 4, height, width, dtype=torch.float32)
        return most_alive(far_away.vae, lambda: far_away.vae.decode(latents, num_frames=frames)) / one_map

    assert maps() > 4
    assert maps(slices=True) < 2.8


# --- parts ----------------------------------------------------------------------------------------------------------


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    whole = 3 + random(4, 8, 6, 10) * torch.arange(1, 9).view(8, 1, 1)
    mean, variance = group_statistics(torch.split(whole, 4, dim=2), groups=2)
    groups = whole.transpose(0, 1).reshape(2, -1)
    assert torch.allclose(mean, groups.mean(1).repeat_interleave(4), rtol=1e-5)
    assert torch.allclose(variance, groups.var(1, correction=0).repeat_interleave(4), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_statistics_in_half_precision_are_neither_rounded_nor_overflow(dtype: torch.dtype) -> None:
    whole = (1000 + 800 * random(4, 8, 6, 10)).to(dtype)  # a variance of 640,000
    mean, variance = group_statistics([whole], groups=1)
    right = whole.double()
    assert mean.dtype == variance.dtype == torch.float32
    assert torch.allclose(mean.double(), right.mean(), rtol=1e-5)
    assert torch.allclose(variance.double(), right.var(correction=0), rtol=1e-5)


def test_slices_normalised_by_themselves_would_be_others() -> None:
    norm, whole = torch.nn.GroupNorm(2, 8), random(4, 8, 6, 10)
    whole[:, :, :3] += 2
    right = norm(whole.transpose(0, 1)[None])[0].transpose(0, 1)
    statistics = group_statistics([whole], groups=2)
    rows = whole[:, :, :3]
    assert torch.allclose(group_norm(norm, rows, statistics), right[:, :, :3], atol=1e-5)
    assert error(norm(rows.transpose(0, 1)[None])[0].transpose(0, 1), right[:, :, :3]) > 0.1


def test_slices_are_of_nearly_one_size_and_at_least_one() -> None:
    assert list(ranges(25, 10, 80)) == [(0, 7), (7, 14), (14, 21), (21, 25)]
    assert list(ranges(3, 10, 1)) == [(0, 1), (1, 2), (2, 3)]
    assert list(ranges(3, 10, None)) == [(0, 3)]


def test_a_skip_connection_on_the_host_leaves_the_device_after_its_first_reader() -> None:
    tensor = random(4, 2, 3, 3)
    kept = tensor.clone()
    skip = OnHost(tensor)
    alive = weakref.ref(tensor)
    assert torch.equal(skip.frames(1, 3), kept[1:3])
    skip.done()
    tensor.zero_()  # its memory is used anew
    del tensor
    gc.collect()
    assert alive() is None
    assert torch.equal(skip.frames(0, 4), kept)
    skip.done()
    with pytest.raises(RuntimeError, match="read already"):
        skip.frames(0, 1)


def test_a_map_is_overwritten_only_by_its_last_reader() -> None:
    tensor = random(4, 2, 3, 3)
    skip = Held(tensor, readers=2)
    assert skip.spare(tensor.shape) is None
    skip.done()
    assert skip.spare(tensor.shape) is tensor
    assert skip.spare((4, 3, 3, 3)) is None
    skip.done()
    assert skip.tensor is None
    assert Held(tensor, readers=None).spare(tensor.shape) is None
