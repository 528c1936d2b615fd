"""Triton's kernels, and layers that are made of them, beside the same in double precision: the errors, by name.

    TRITON_INTERPRET=1 python fused_cases.py

prints those on a CPU, in Triton's interpreter, as JSON. The interpreter is chosen when Triton is first imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, SpatioTemporalResBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.unets.unet_3d_blocks import CrossAttnUpBlockSpatioTemporal
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, CrossAttnUpBlockMotion
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.models.upsampling import Upsample2D

from vidkit.pipelines.fast import blocks, fused, fused_products, installing, layers, operations

FRAMES = 2

#: pictures, pixels, channels, pictures' parts with an addition of their own: channels that fill tiles and do not, one
#: and several programs for a picture, statistics over several frames of few, many and very many sums
SHAPES = [(4, 35, 96, 1), (2, 520, 64, 5), (1, 27, 320, 9), (1, 80, 64, 40)]


def kernel_errors(device: str, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    for pictures, pixels, channels, parts in SHAPES:
        torch.manual_seed(0)
        shape = (pictures, pixels, channels)
        source, other = far_from_zero(*shape), torch.randn(pixels, pictures, channels).transpose(0, 1)
        added, both = torch.randn(pictures * parts, channels), torch.randn(*shape[:2], 2 * channels)
        rows, shares = torch.randn(pictures, channels), torch.rand(pictures)
        given = source, other, added, both, rows, shares
        source, other, added, both, rows, shares = (tensor.to(device, dtype) for tensor in given)
        exact = [tensor.double().cpu() for tensor in (source, other, added, both, rows, shares)]

        group = drawn(torch.nn.GroupNorm(32, channels, 1e-6)).to(device, dtype)
        layer = drawn(torch.nn.LayerNorm(channels)).to(device, dtype)
        for name, more, silu in (("group norm", None, False), ("added, group norm, SiLU", added, True)):
            wanted = group_norm(group, exact[0], exact[2] if more is not None else None, silu)
            yield f"{name} of {shape}", error(fused.group_norm(group, source, more, silu), wanted)
        summed, more = source.clone(), rows[0]
        fused.group_norm(group, summed, added, silu=False, more=more)
        both_added = exact[2].repeat_interleave(pixels // parts, 0).view(shape)
        yield f"what a group norm leaves of {shape}", error(summed, exact[0] + both_added + exact[4][0])
        yield f"layer norm of {shape}", error(fused.layer_norm(layer, source), in_double(layer)(exact[0]))
        total = torch.empty_like(source)
        normed = fused.layer_norm(layer, source, added, added, total=total, more=more)
        yield f"shifted layer norm of {shape}", error(normed, in_double(layer)(exact[0] + both_added) + both_added)
        yield f"its sum of {shape}", error(total, exact[0] + both_added + exact[4][0])
        mixed = other.clone(memory_format=torch.contiguous_format)
        fused.layer_norm(layer, source, added, total=mixed, more=more, share=shares[:1])
        wanted = torch.lerp(exact[1], exact[0] + both_added + exact[4][0], exact[5][0])
        yield f"its sum by a share of {shape}", error(mixed, wanted)
        normed = fused.layer_norm(layer, source, rows[-1:], added)  # that one for all, this not
        wanted = in_double(layer)(exact[0] + exact[4][-1]) + both_added
        yield f"otherwise shifted layer norm of {shape}", error(normed, wanted)
        value, gate = exact[3].chunk(2, -1)
        yield f"gated {shape}", error(fused.gated(both), value * torch.nn.functional.gelu(gate))

        both_channels = torch.cat((exact[0], exact[3]), -1)
        yield f"concatenated to {shape}", error(fused.concatenated(source, both), both_channels)

        share, row = exact[5][:, None, None], exact[4][:, None]
        sums = {
            "all": ((other, rows, shares), exact[0] + share * (exact[1] + row)),
            "one bias": ((other, rows[0], None), exact[0] + exact[1] + exact[4][0]),
            "rows alone": ((None, rows, None), exact[0] + row),
        }
        for name, (terms, wanted) in sums.items():
            target = torch.empty_like(source)
            yield f"sum of {name} {shape}", error(fused.weighted_sum(source, *terms, target), wanted)


def product_errors(device: str, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    """Of what is done with a product of matrices or a convolution."""
    torch.manual_seed(0)
    for rows, inputs, channels in ((200, 72, 136), (3, 320, 64)):  # blocks that are filled, and that are not
        for bias in (True, False):
            projection = torch.nn.Linear(inputs, 2 * channels, bias, device, dtype)
            tokens = torch.randn(2, rows, inputs).to(device, dtype)
            if block := fused_products.block_for(tokens, projection):
                value, gate = in_double(projection)(tokens.double().cpu()).chunk(2, -1)
                found = fused_products.geglu(tokens, projection, block)
                yield f"GEGLU of {tokens.shape}, {bias}", error(found, value * torch.nn.functional.gelu(gate))
    for frames, pixels, heads, width in (
        (25, 7, 2, 40),
        (1, 40, 1, 16),
        (16, 5, 3, 16),
        (40, 3, 1, 64),
        (100, 2, 1, 20),
    ):
        parts = torch.randn(2 * frames, pixels, 3 * heads * width).to(device, dtype)
        given = [
            part.double().cpu().unflatten(0, (2, frames)).unflatten(-1, (heads, width)) for part in parts.chunk(3, -1)
        ]
        wanted = torch.nn.functional.scaled_dot_product_attention(*(part.permute(0, 2, 3, 1, 4) for part in given))
        found = fused_products.over_frames(*parts.chunk(3, -1), frames, heads)
        yield f"{frames} frames of {pixels} pixels", error(found, wanted.permute(0, 3, 1, 2, 4).reshape(found.shape))
    for bias, sides in ((True, (5, 7)), (False, (5, 7)), (True, (19, 20))):  # with a border that is copied, and not
        convolution = torch.nn.Conv2d(24, 16, 3, padding=1, bias=bias, device=device, dtype=dtype).requires_grad_(False)
        maps = torch.randn(2, 24, *sides).to(device, dtype, memory_format=torch.channels_last)
        large = torch.nn.functional.interpolate(maps.double().cpu(), scale_factor=2, mode="nearest")
        found = fused_products.upsampled(convolution, maps)
        yield f"upsampled {sides}, {bias}", error(found, in_double(convolution)(large))


def layer_errors(device: str, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    """Of whole layers as diffusers calls them, each with a map whose sides are no powers of 2."""
    torch.manual_seed(0)
    maps, temb = torch.randn(2 * FRAMES, 32, 3, 5), torch.randn(2 * FRAMES, 24)
    one_token, text = torch.randn(2 * FRAMES, 1, 16), torch.randn(2 * FRAMES, 7, 16)
    indicator = torch.zeros(2, FRAMES)
    heads: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 32}
    cases: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
        "resnet": (ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=24, groups=8), (maps, temb), {}),
        "an autoencoder's resnet": (
            ResnetBlock2D(in_channels=32, temb_channels=None, time_embedding_norm="group", groups=8), (maps, None), {},
        ),
        "spatio-temporal resnet": (SpatioTemporalResBlock(32, 64, 24), (maps, temb, indicator), {}),
        "spatio-temporal transformer": (
            TransformerSpatioTemporalModel(**heads, cross_attention_dim=16),
            (maps, one_token, indicator),
            {"return_dict": False},
        ),
        "transformer": (
            Transformer2DModel(**heads, cross_attention_dim=16, norm_num_groups=8),
            (maps,),
            {"encoder_hidden_states": text, "return_dict": False},
        ),
        "transformer whose norms have no weights": (
            Transformer2DModel(**heads, cross_attention_dim=16, norm_num_groups=8, norm_elementwise_affine=False),
            (maps,),
            {"encoder_hidden_states": text, "return_dict": False},
        ),
        "motion module": (
            AnimateDiffTransformer3D(
                **heads, norm_num_groups=8, double_self_attention=True, positional_embeddings="sinusoidal",
                num_positional_embeddings=8, activation_fn="geglu",
            ),
            (maps,),
            {"num_frames": FRAMES},
        ),
        "an autoencoder's attention": (
            Attention(32, heads=1, dim_head=32, bias=True, residual_connection=True, norm_num_groups=8), (maps,), {},
        ),
        "up block": (
            CrossAttnUpBlockSpatioTemporal(
                32, 32, 32, 24, num_layers=1, num_attention_heads=2, cross_attention_dim=16, add_upsample=False
            ),
            (),
            {
                "hidden_states": maps, "res_hidden_states_tuple": (torch.randn_like(maps),), "temb": temb,
                "encoder_hidden_states": one_token, "image_only_indicator": indicator,
            },
        ),
        "motion up block": (
            CrossAttnUpBlockMotion(
                32, 32, 32, 24, num_layers=1, num_attention_heads=2, cross_attention_dim=16, resnet_groups=8,
                temporal_num_attention_heads=2, add_upsample=False,
            ),
            (),
            {
                "hidden_states": maps, "res_hidden_states_tuple": (torch.randn_like(maps),), "temb": temb,
                "encoder_hidden_states": text, "num_frames": FRAMES,
            },
        ),
        "upsampling": (Upsample2D(32, use_conv=True), (torch.randn(2, 32, 15, 18),), {}),
        "upsampling of a small map": (Upsample2D(32, use_conv=True), (maps,), {}),
        "upsampling to odd sides": (Upsample2D(32, use_conv=True), (torch.randn(2, 32, 15, 18), (29, 35)), {}),
    }  # fmt: skip
    if device != "cpu":  # where the interpreter takes half a minute for it
        cases["a whole network"] = (
            UNetSpatioTemporalConditionModel(
                in_channels=8, block_out_channels=(32, 64), num_attention_heads=(2, 4), cross_attention_dim=16,
                down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
                up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
                addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, layers_per_block=1,
            ),
            (torch.randn(2, FRAMES, 8, 7, 6), 1.5, torch.randn(2, 1, 16), torch.rand(2, 3)),
            {"return_dict": False},
        )  # fmt: skip
    for name, (layer, arguments, options) in cases.items():
        layer.eval().requires_grad_(False)
        exact = called(deepcopy(layer), "cpu", torch.float64, arguments, options)
        layer.to(device, dtype)
        plain = error(called(layer, device, dtype, arguments, options), exact)
        forwards = Counted()
        installing.install_blocks(layer, None)
        (installing.install_layers if hasattr(layer, "conv_in") else installing.install_inner)(layer)
        with forwards, without_plain():
            result = called(layer, device, dtype, arguments, options)
        assert forwards.count, f"{name} was not computed by Triton's kernels"
        yield f"{name}, as a share of plain's", error(result, exact) / plain
    yield from half_error(device, dtype)


def half_error(device: str, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    """Of a transformer that is given one of two halves that are the same, and the texts of both."""
    torch.manual_seed(0)
    maps, texts = torch.randn(FRAMES, 32, 3, 5), torch.randn(2 * FRAMES, 7, 16)
    layer = Transformer2DModel(2, 16, 32, cross_attention_dim=16, norm_num_groups=8).eval().requires_grad_(False)
    options = {"encoder_hidden_states": texts, "return_dict": False}
    both = (torch.cat((maps, maps)),)
    exact = called(deepcopy(layer), "cpu", torch.float64, both, options)
    plain = error(called(layer.to(device, dtype), device, dtype, both, options), exact)
    installing.install_blocks(layer, None)
    installing.install_inner(layer)
    with without_plain():
        result = called(layer, device, dtype, (maps,), options)
    yield "a transformer of one half, as a share of plain's", error(result, exact) / plain


@contextmanager
def without_plain() -> Iterator[None]:
    """Meanwhile a layer that is not computed here, but by diffusers' own forward, fails."""
    before = layers.plain

    def plain(module: Any) -> Any:
        assert isinstance(module, torch.nn.Conv2d), f"{type(module).__name__} is computed by diffusers"
        return before(module)

    layers.plain = blocks.plain = plain
    try:
        yield
    finally:
        layers.plain = blocks.plain = before


class Counted:
    """How often kernels were asked for while it is entered."""

    def __enter__(self) -> None:
        self.count, self._own = 0, fused.takes

        def takes(tensor: torch.Tensor) -> bool:
            self.count += self._own(tensor)
            return self._own(tensor)

        operations.fused.takes = takes  # type: ignore[assignment]

    def __exit__(self, *_: Any) -> None:
        operations.fused.takes = self._own


def called(
    layer: Any, device: str, dtype: torch.dtype, arguments: tuple[Any, ...], options: dict[str, Any]
) -> torch.Tensor:
    def given(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(given, value))
        return value.to(device, dtype) if isinstance(value, torch.Tensor) else value

    result = layer.to(device, dtype)(*map(given, arguments), **{name: given(value) for name, value in options.items()})
    found: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return found


def far_from_zero(*shape: int) -> torch.Tensor:
    """Where a variance as the difference of two large numbers would be wrong."""
    return torch.randn(shape) * 0.5 + 20


def group_norm(norm: Any, rows: torch.Tensor, added: torch.Tensor | None, silu: bool) -> torch.Tensor:
    if added is not None:
        rows = (rows.view(len(added), -1, rows.shape[2]) + added[:, None]).view_as(rows)
    result: torch.Tensor = in_double(norm)(rows.transpose(1, 2)).transpose(1, 2)
    return torch.nn.functional.silu(result) if silu else result


def drawn(norm: Any) -> Any:
    for parameter in norm.requires_grad_(False).parameters():
        parameter.normal_()
    return norm


def in_double(module: Any) -> Callable[..., Any]:
    found: Callable[..., Any] = deepcopy(module).double().cpu()
    return found


def error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result.double().cpu() - exact).norm() / exact.norm())


def main() -> None:
    from distribution_kernel import largest_error

    with torch.no_grad():
        found = {
            name: dict((*kernel_errors("cpu", dtype), *product_errors("cpu", dtype)))
            for name, dtype in (("float32", torch.float32), ("float16", torch.float16))
        }
        found["layers"] = dict(layer_errors("cpu", torch.float32))
        found["distribution"] = {"near": largest_error(0, 6), "far": largest_error(6, 1e4)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
