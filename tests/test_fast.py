"""Speed fast: equal to exact up to rounding in both families and all conditionings, gone once removed, less work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clips
import lora_files
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.models import modeling_utils
from diffusers.models.attention_processor import Attention, AttnProcessor
from tiny_models import TinyAnimateDiff
from torch.utils._python_dispatch import TorchDispatchMode

import vidkit
from benchmarks import speed
from benchmarks.live_bytes import empty, most_alive
from vidkit.computing import Job
from vidkit.device import Plan
from vidkit.pipelines import fast
from vidkit.pipelines.fast import installing
from vidkit.pipelines.fast.attention import first_rows, is_one_product, lay_together, projections, whole
from vidkit.pipelines.fast.waiting import made_small
from vidkit.placement import place, release
from vidkit.warm import fresh_pipeline

pytestmark = pytest.mark.usefixtures("no_warm_pipeline", "without_gradients")

EXACT = Plan("cpu", "float32")
#: Far more precise than any clip is computed: what differs is a mistake. In single precision so small a SparseCtrl's
#: norms divide rounding errors by next to nothing, since its frames without a picture are of one colour.
DOUBLE = Plan("cpu", "float64")
FAST = replace(EXACT, speed="fast")
MODES = ("svd", "init", "sparsectrl", "pia")

#: with what a plan may combine it
MEASURES: dict[str, dict[str, Any]] = {
    "alone": {},
    "halves, layer by layer": {"halves": True, "offload": "layers"},
    "lean": {"halves": True, "slices": True, "host_skips": True},
}


@pytest.fixture(scope="module")
def made(tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, image: Path) -> dict[str, tuple[Job, Any]]:
    """Of each mode the request and its pipeline in double precision; of SVD one with guidance."""
    requests = {mode: clips.animatediff_request(tiny_animatediff, image, mode) for mode in MODES[1:]}
    requests["svd"] = clips.svd_request(tiny_svd_folder, image, max_guidance_scale=3.0)
    jobs = {mode: clips.prepared(request) for mode, request in requests.items()}
    return {mode: (job, fresh_pipeline(job, DOUBLE)) for mode, job in jobs.items()}


@pytest.fixture(params=MODES)
def case(request: pytest.FixtureRequest, made: dict[str, tuple[Job, Any]]) -> Iterator[tuple[Job, Any]]:
    job, pipe = made[request.param]
    yield job, pipe
    place(pipe, DOUBLE)


@pytest.fixture(scope="module")
def singles(made: dict[str, tuple[Job, Any]]) -> dict[str, tuple[Job, Any]]:
    """Of both families, in single precision."""
    return {mode: (made[mode][0], fresh_pipeline(made[mode][0], EXACT)) for mode in ("svd", "init")}


@pytest.fixture(params=["svd", "init"])
def single(request: pytest.FixtureRequest, singles: dict[str, tuple[Job, Any]]) -> Iterator[tuple[Job, Any]]:
    yield singles[request.param]
    place(singles[request.param][1], EXACT)


svd, init = (pytest.mark.parametrize("single", [mode], indirect=True) for mode in ("svd", "init"))


def latents_with(job: Job, pipe: Any, plan: Plan) -> torch.Tensor:
    place(pipe, plan)
    latents: torch.Tensor = job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)[0]
    return latents


def error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result.float() - exact.float()).norm() / exact.float().norm())


def psnr(result: torch.Tensor, exact: torch.Tensor) -> float:
    """dB, of pixels in [-1, 1]."""
    return float(10 * torch.log10(4 / (result - exact).square().mean()))


class Operations(TorchDispatchMode):
    """How often each of torch's operations was called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


# --- the same clip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measures", MEASURES)
def test_latents_and_frames_are_those_of_exact(case: tuple[Job, Any], measures: str) -> None:
    job, pipe = case
    exact = latents_with(job, pipe, DOUBLE)
    pixels = job.family.decode(pipe, exact)
    result = latents_with(job, pipe, replace(DOUBLE, speed="fast", **MEASURES[measures]))
    assert not torch.equal(result, exact), "else nothing was installed"
    assert error(result, exact) < 1e-7
    assert psnr(job.family.decode(pipe, result), pixels) > 120
    place(pipe, DOUBLE)
    assert torch.equal(latents_with(job, pipe, DOUBLE), exact)
    assert torch.equal(job.family.decode(pipe, exact), pixels)


def test_in_single_precision_rounding_is_all_that_differs(single: tuple[Job, Any]) -> None:
    job, pipe = single
    exact = latents_with(job, pipe, EXACT)
    result = latents_with(job, pipe, FAST)
    assert error(result, exact) < 1e-4
    assert psnr(job.family.decode(pipe, result), job.family.decode(pipe, exact)) > 80


def test_released_components_are_as_they_were_loaded(case: tuple[Job, Any]) -> None:
    job, pipe = case
    kinds, attributes = (type(pipe), type(pipe.unet)), (set(vars(pipe)), set(vars(pipe.unet)))
    latents_with(job, pipe, FAST)
    assert own_forwards(pipe)
    release(pipe)
    assert not own_forwards(pipe)
    assert (type(pipe), type(pipe.unet)) == kinds
    assert not [name for name in set(vars(pipe)) - attributes[0] if name in ("_known_device", "_is_guided")]
    assert set(vars(pipe.unet)) == attributes[1]
    fast.remove(pipe)  # nothing to do


def own_forwards(pipe: Any) -> list[Any]:
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return [module for network in networks for module in network.modules() if "forward" in vars(module)]


def test_a_lora_is_in_the_fast_layers_too(tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path) -> None:
    request = clips.animatediff_request(tiny_animatediff, image)
    warm = vidkit.generation.WarmModels()
    plain = clips.prepared(request)
    pipe = warm.pipeline(plain, FAST)
    without = plain.family.denoise(pipe, plain.params, plain.models, plain.pictures, lambda: None)[0]
    pairs = lora_files.pairs_for(pipe, ("attn2.to_k", "attn2.to_v", "proj", "to_out.0"))
    lora = lora_files.save(lora_files.kohya(pairs), tmp_path / "lora.safetensors")
    job = clips.prepared(request | {"loras": f"{lora}:0.5"})
    results = []
    for plan in (EXACT, FAST):
        pipe = warm.pipeline(job, plan)
        results.append(job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)[0])
    assert error(results[1], results[0]) < 1e-4
    assert error(results[1], without) > 1e-3
    warm.unload()


def test_weights_are_laid_back_that_a_lora_stood_for(
    tiny_animatediff: TinyAnimateDiff, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where convolutions' weights lie in another order meanwhile."""
    monkeypatch.setattr(installing, "stays_on_a_gpu", lambda weight: True)
    request = clips.animatediff_request(tiny_animatediff, image)
    warm = vidkit.generation.WarmModels()
    pipe = warm.pipeline(clips.prepared(request), FAST)
    lora = lora_files.save(
        lora_files.kohya(lora_files.pairs_for(pipe, ("conv1",), inside="resnets")), tmp_path / "l.safetensors"
    )
    pipe = warm.pipeline(clips.prepared(request | {"loras": f"{lora}:0.5"}), FAST)
    assert not pipe.unet.mid_block.resnets[0].conv2.weight.is_contiguous()
    unet = pipe.unet
    warm.unload()
    assert [name for name, weight in unet.named_parameters() if not weight.is_contiguous()] == []


@svd
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_half_precision_the_error_is_that_of_plain_diffusers(single: tuple[Job, Any], dtype: torch.dtype) -> None:
    pipe = single[1]
    inputs = svd_inputs("cpu")
    exact = pipe.unet(*inputs, return_dict=False)[0]
    try:
        pipe.unet.to(dtype=dtype)
        halves = [tensor.to(dtype) for tensor in inputs]
        plain = pipe.unet(*halves, return_dict=False)[0]
        fast.install(pipe, FAST)
        result = pipe.unet(*halves, return_dict=False)[0]
    finally:
        fast.remove(pipe)
        pipe.unet.to(dtype=torch.float32)
    assert result.dtype == dtype
    assert 0 < error(result, exact) < 1.3 * error(plain, exact)


def svd_inputs(device: str, videos: int = 2) -> list[torch.Tensor]:
    """Latents whose sides can't be halved as often as the network does it, timestep, context, time ids."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(videos, 4, 8, 7, 10), (), (videos, 1, 32), (videos, 3)]
    return [torch.randn(shape, generator=generator).abs().to(device) for shape in shapes]


# --- less work ------------------------------------------------------------------------------------------------------


def calls(pipe: Any, ending: str, seen: Counter[tuple[int, ...]]) -> list[Any]:
    """Count calls of the UNet's layers whose name ends so, by their input's shape. Gives the handles of the hooks."""

    def count(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        seen[tuple(arguments[0].shape)] += 1

    layers = [module for name, module in pipe.unet.named_modules() if name.endswith(ending)]
    return [module.register_forward_pre_hook(count) for module in layers]


@svd
def test_attention_over_one_token_has_no_queries(single: tuple[Job, Any]) -> None:
    pipe = single[1]
    counted = {}
    for plan in (EXACT, FAST, replace(FAST, slices=True)):
        place(pipe, plan)
        seen: Counter[tuple[int, ...]] = Counter()
        handles = [*calls(pipe, "attn2.to_q", seen), *calls(pipe, "attn2.to_k", seen)]
        pipe.unet(*svd_inputs("cpu"))
        for handle in handles:
            handle.remove()
        counted[plan] = seen.total()
    assert list(counted.values())[1:] == [0, 0] < list(counted.values())[:1]


@init
def test_a_text_is_projected_once_a_clip(single: tuple[Job, Any]) -> None:
    job, pipe = single
    place(pipe, FAST)
    seen: Counter[tuple[int, ...]] = Counter()
    handles = calls(pipe, "attentions.0.transformer_blocks.0.attn2.to_k", seen)
    for clip in (1, 2):  # another clip's text is another
        job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)
        assert seen == {(2, 77, 32): clip * len(handles)}  # that of each half of guidance, not of each frame
    for handle in handles:
        handle.remove()


def test_frames_with_texts_of_their_own_keep_them() -> None:
    rows = torch.arange(3)[:, None, None].expand(3, 2, 4)
    assert first_rows(rows.repeat_interleave(4, 0)) == [0, 4, 8]
    assert first_rows(rows) == [0, 1, 2]
    assert first_rows(rows.repeat_interleave(torch.tensor([1, 3, 2]), 0)) == list(range(6))
    assert first_rows(rows[:1].repeat(5, 1, 1)) == [0]  # both halves have the same


@svd
def test_no_step_asks_the_device_whether_guidance_is_on(single: tuple[Job, Any]) -> None:
    job, pipe = single
    asked = {}
    for level in ("exact", "fast"):
        with Operations() as operations:
            latents_with(job, pipe, replace(EXACT, speed=level))
        asked[level] = operations.counts["max"]
    assert asked["exact"] - asked["fast"] >= 2 * job.params.num_inference_steps
    # the next call begins anew
    unguided = replace(job, params=job.params.replace(max_guidance_scale=1.0))
    exact = latents_with(unguided, pipe, EXACT)
    assert error(latents_with(unguided, pipe, FAST), exact) < 1e-4


def test_no_clip_looks_through_all_layers_for_where_it_computes(
    single: tuple[Job, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, pipe = single
    looked = []

    def look(pipe: Any) -> torch.device:
        looked.append(pipe)
        return torch.device("cpu")

    monkeypatch.setattr(DiffusionPipeline, "_execution_device", property(look))
    latents_with(job, pipe, EXACT)
    assert looked
    looked.clear()
    latents_with(job, pipe, FAST)
    assert not looked


@init
def test_no_step_looks_through_all_layers_for_their_type(
    single: tuple[Job, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, pipe = single
    asked = []
    own = modeling_utils.get_parameter_dtype

    def look(network: Any) -> torch.dtype:
        asked.append(network)
        return own(network)

    monkeypatch.setattr(modeling_utils, "get_parameter_dtype", look)
    latents_with(job, pipe, EXACT)
    assert asked
    place(pipe, FAST)
    asked.clear()
    job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)
    assert not asked
    assert pipe.unet.dtype == torch.float32
    assert deepcopy(pipe.unet).half().dtype == torch.float16


@pytest.mark.parametrize("guidance", [7.5, 1.0])
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("case", MODES[1:], indirect=True)
def test_before_its_first_text_an_animatediff_step_computes_one_half(
    case: tuple[Job, Any], guidance: float, halves: bool
) -> None:
    job, pipe = case
    job = replace(job, params=job.params.replace(guidance_scale=guidance))
    block = pipe.unet.down_blocks[0]
    (layer,) = block.attentions[0].transformer_blocks
    rows: dict[str, list[int]] = {"resnet": [], "pixels": [], "text": []}
    watched = zip(rows.values(), (block.resnets[0], layer.attn1.to_q, layer.attn2.to_q), strict=True)
    hooks = [
        module.register_forward_hook(lambda module, given, result, counts=counts: counts.append(len(result)))
        for counts, module in watched
    ]
    fast_ones = latents_with(job, pipe, replace(DOUBLE, speed="fast", halves=halves))
    for hook in hooks:
        hook.remove()
    once = {*rows["resnet"], *rows["pixels"]}
    assert once == {job.params.num_frames}
    assert {*rows["text"]} == {job.params.num_frames * (2 if guidance > 1 and not halves else 1)}
    assert error(fast_ones, latents_with(job, pipe, DOUBLE)) < 1e-9


def test_another_kind_of_first_attention_gets_both_halves(made: dict[str, tuple[Job, Any]]) -> None:
    job, pipe = made["init"]
    exact = latents_with(job, pipe, DOUBLE)
    attention = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    place(pipe, replace(DOUBLE, speed="fast"))
    usual = attention.processor
    attention.set_processor(AttnProcessor())
    found = job.family.denoise(pipe, job.params, job.models, job.pictures, lambda: None)[0]
    attention.set_processor(usual)
    place(pipe, DOUBLE)
    assert error(found, exact) < 1e-9


def test_free_u_is_diffusers_own(made: dict[str, tuple[Job, Any]]) -> None:
    job, pipe = made["init"]
    without = latents_with(job, pipe, DOUBLE)
    pipe.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    exact, found = (latents_with(job, pipe, replace(DOUBLE, speed=speed)) for speed in ("exact", "fast"))
    pipe.unet.disable_freeu()
    place(pipe, DOUBLE)
    assert error(found, exact) < 1e-9
    assert error(found, without) > 1e-3


def test_svds_decoder_is_not_cast_for_the_picture(tiny_svd_folder: Path, image: Path) -> None:
    half = replace(FAST, dtype="float16")
    vae = fresh_pipeline(clips.prepared(clips.svd_request(tiny_svd_folder, image)), half).vae
    assert vae.to(dtype=torch.float32) is vae  # as the pipeline does, before and after
    assert vae.dtype == vae.quant_conv.weight.dtype == torch.float32
    assert {weight.dtype for weight in vae.decoder.parameters()} == {torch.float16}
    vae.to(dtype=torch.float16)
    assert {weight.dtype for weight in vae.parameters()} == {torch.float16}
    vae.to("cpu", torch.float32)
    assert {weight.dtype for weight in vae.parameters()} == {torch.float32}


@svd
def test_a_picture_is_made_as_small_as_diffusers_makes_it(single: tuple[Job, Any]) -> None:
    job, pipe = single
    (picture,) = job.pictures
    wanted = pipe._encode_image(picture, "cpu", 1, True)
    small = made_small(pipe.video_processor, picture, "cpu")
    assert small.shape == (1, 3, 224, 224)
    assert torch.equal(pipe._encode_image(small, "cpu", 1, True), wanted)


def test_convolutions_weights_lie_in_another_order_and_are_the_same() -> None:
    for convolution, order in (
        (torch.nn.Conv2d(4, 6, 3), (0, 2, 3, 1)),
        (torch.nn.Conv3d(4, 6, (3, 1, 1)), (2, 1, 0, 3, 4)),
    ):
        weight = convolution.weight.data
        found = installing.laid_out(weight, order)
        assert torch.equal(found, weight)
        assert not found.is_contiguous()
        assert found.permute(*order).is_contiguous()
        convolution.weight.data = found
        installing.lay_back_convolutions(torch.nn.Sequential(convolution))
        assert convolution.weight.data.is_contiguous()
        assert torch.equal(convolution.weight.data, weight)


def test_weights_that_lie_together_are_one_matrix_without_a_copy() -> None:
    attention = Attention(8, heads=2, dim_head=4)
    apart = torch.cat(projections(attention))
    lay_together(attention)
    together = whole(projections(attention))
    assert torch.equal(together, apart)
    assert together.data_ptr() == attention.to_q.weight.data_ptr()
    with torch.no_grad():
        attention.to_k.weight += 1
    assert torch.equal(whole(projections(attention)), torch.cat(projections(attention)))
    attention.to_v.weight = torch.nn.Parameter(attention.to_v.weight + 1)  # as a LoRA's sum takes its place
    assert torch.equal(whole(projections(attention)), torch.cat(projections(attention)))
    order = [projections(attention)[number] for number in (1, 0)]
    assert torch.equal(whole(order), torch.cat(order))
    assert is_one_product(attention)
    assert not is_one_product(Attention(8, cross_attention_dim=12, heads=2, dim_head=4))
    assert not is_one_product(Attention(8, heads=2, dim_head=4, bias=True))


@svd
def test_layers_of_another_kind_keep_their_forwards(single: tuple[Job, Any]) -> None:
    """As with an IP-adapter, whose processors add to what attention gives."""
    pipe = single[1]
    block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    hidden, context = torch.randn(4, 6, 64), torch.randn(4, 1, 32)
    for attention in (block.attn1, block.attn2):
        usual = attention.processor
        attention.set_processor(AttnProcessor())
        plain = block(hidden, encoder_hidden_states=context)
        fast.install(pipe, FAST)
        assert torch.equal(block(hidden, encoder_hidden_states=context), plain)
        fast.remove(pipe)
        attention.set_processor(usual)


# --- memory ---------------------------------------------------------------------------------------------------------


def test_no_more_is_alive_than_at_speed_exact(single: tuple[Job, Any]) -> None:
    """Which is what is predicted."""
    job, pipe = single
    release(pipe)
    parts = SimpleNamespace(unet=deepcopy(pipe.unet).to("meta"), vae=deepcopy(pipe.vae).to("meta"))

    def denoise() -> None:
        if job.params.pipeline == "svd":
            parts.unet(*svd_inputs("meta"))
        else:
            text = empty(16, 7, 32, dtype=torch.float32)
            parts.unet(empty(2, 4, 8, 16, 16, dtype=torch.float32), empty(), encoder_hidden_states=text)

    def decode() -> None:
        options = {"num_frames": 4} if job.params.pipeline == "svd" else {}
        parts.vae.decode(empty(4, 4, 8, 8, dtype=torch.float32), **options)

    for network, call in ((parts.unet, denoise), (parts.vae, decode)):
        for device in ("cpu", "cuda"):
            fast.remove(parts)
            exact = most_alive(network, call, device)
            fast.install(parts, replace(FAST, device=device, halves=True))  # a text's values can't be compared there
            assert most_alive(network, call, device) <= 1.001 * exact


# --- requests -------------------------------------------------------------------------------------------------------


def test_a_clip_says_at_which_speed_it_was_made(tiny_svd_folder: Path, image: Path, tmp_path: Path) -> None:
    request = clips.svd_request(tiny_svd_folder, image, output_path=str(tmp_path / "clip.mp4"), speed="fast")
    result = vidkit.generate(request)
    assert result.record["plan"]["speed"] == result.record["request"]["speed"] == "fast"
    assert not [note for note in result.notes if "speed" in note]


# --- the benchmark --------------------------------------------------------------------------------------------------


def test_the_benchmark_has_each_way_beside_plain_diffusers(tiny_svd_folder: Path, image: Path) -> None:
    request = clips.svd_request(tiny_svd_folder, image)
    rows = {row["way"]: row for row in speed.rows_of("tiny", request, EXACT, repeats=1, rate=1e11)}
    assert list(rows) == ["plain", "exact", "fast", "turbo"]
    assert rows["exact"]["error"] == 0
    assert rows["exact"]["psnr"] is None  # the same frames
    assert 0 < rows["fast"]["error"] < 1e-4
    assert rows["fast"]["psnr"] > speed.EQUAL_PSNR
    assert rows["plain"]["times_faster_seconds"] == 1
    assert all(row["seconds"] > 0 < row["share_of_floor"] for row in rows.values())
