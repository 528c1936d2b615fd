"""Full-size networks with random weights, and calls of them as diffusers' pipelines make them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.memory_models import SD15, SVD_VAE

BUNDLED = SD15.parents[1] / "bundled"

#: measures by name: of a UNet, and of a decoder, which has no guidance and no skip connections
UNET_MEASURES: Mapping[str, Mapping[str, Any]] = {
    "halves": {"halves": True},
    "slices": {"slices": True},
    "host_skips": {"host_skips": True},
    "slices, host_skips": {"slices": True, "host_skips": True},
    "halves, slices, host_skips": {"halves": True, "slices": True, "host_skips": True},
    "layers": {"offload": "layers"},
    "all": {"offload": "layers", "halves": True, "slices": True, "host_skips": True},
}
DECODER_MEASURES: Mapping[str, Mapping[str, Any]] = {"slices": {"slices": True}}


@dataclass(frozen=True)
class Call:
    """A network of a pipeline, called as the pipeline does it. inputs: in single precision; call takes them by name."""

    name: str
    call: Callable[..., Any]
    inputs: Mapping[str, Any]
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: UNET_MEASURES)


@dataclass(frozen=True)
class Setup:
    """Where and how precisely networks compute. few: small ones stand in for the published."""

    device: str
    few: bool

    @property
    def dtype(self) -> Any:
        import torch

        return torch.float16 if self.device == "cuda" else torch.float32

    @property
    def reference(self) -> Any:
        """Of what the results are compared with."""
        import torch

        return torch.float32 if self.device == "cuda" else torch.float64


def svd(setup: Setup) -> tuple[Any, list[Call]]:
    """SVD-XT's UNet, 25 frames of 1024x576, both halves of guidance; its decoder, four frames."""
    import diffusers as d

    config: Mapping[str, Any] = {"num_attention_heads": [5, 10, 20, 20]}
    vae: Mapping[str, Any] = SVD_VAE | {"block_out_channels": [128, 256, 512, 512]}
    frames, height, width = 25, 72, 128
    if setup.few:
        config, vae = bundled("tiny-svd/unet"), bundled("tiny-svd/vae")
        frames, height, width = 5, 12, 20
    pipe = d.StableVideoDiffusionPipeline(
        vae=made(setup, lambda: d.AutoencoderKLTemporalDecoder.from_config(vae), 1),
        unet=made(setup, lambda: d.UNetSpatioTemporalConditionModel.from_config(config), 2),
        scheduler=d.EulerDiscreteScheduler(),
        image_encoder=None,
        feature_extractor=None,
    )
    unet, channels = pipe.unet, pipe.vae.config.latent_channels
    inputs = {
        "sample": noise(setup, 3, 2, frames, unet.config.in_channels, height, width),
        "timestep": noise(setup, 4, 1)[0],
        "encoder_hidden_states": noise(setup, 5, 2, 1, unet.config.cross_attention_dim),
        "added_time_ids": noise(setup, 6, 2, 3),
    }

    def decoded(latents: Any) -> Any:
        return pipe.vae.decode(latents, num_frames=len(latents)).sample

    return pipe, [
        Call("svd unet", lambda **inputs: unet(**inputs).sample, inputs),
        Call("svd decoder", decoded, {"latents": noise(setup, 7, 4, channels, height, width)}, DECODER_MEASURES),
    ]


def animatediff(setup: Setup) -> tuple[Any, list[Call]]:
    """AnimateDiff's UNet, 16 frames of 512x512, both halves of guidance; SD 1.5's decoder, four frames."""
    import diffusers as d

    pipe = d.AnimateDiffVideoToVideoPipeline(
        vae=sd15_vae(setup),
        unet=made(setup, lambda: motion_unet_of(setup), 12),
        scheduler=d.EulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
        motion_adapter=None,
    )
    unet, inputs = pipe.unet, motion_inputs(setup, pipe.unet)
    side = inputs["sample"].shape[-1]
    return pipe, [
        Call("animatediff unet", lambda **inputs: unet(**inputs).sample, inputs),
        Call(
            "animatediff decoder",
            lambda latents: pipe.vae.decode(latents).sample,
            {"latents": noise(setup, 13, 4, pipe.vae.config.latent_channels, side, side)},
            DECODER_MEASURES,
        ),
    ]


def sparsectrl(setup: Setup) -> tuple[Any, list[Call]]:
    """SparseCtrl and the UNet that takes what it adds, 16 frames of 512x512, both halves of guidance."""
    import diffusers as d

    config: Mapping[str, Any] = {}
    if setup.few:
        unet = bundled("tiny-animatediff/unet")
        names = ("block_out_channels", "cross_attention_dim", "attention_head_dim", "norm_num_groups")
        config = {name: unet[name] for name in names}
        config |= {"down_block_types": ["DownBlockMotion", "CrossAttnDownBlockMotion"]}
        config |= {"motion_num_attention_heads": 2}
    pipe = d.AnimateDiffSparseControlNetPipeline(
        vae=sd15_vae(setup),
        unet=made(setup, lambda: motion_unet_of(setup), 22),
        controlnet=made(setup, lambda: d.SparseControlNetModel.from_config(config), 23),
        scheduler=d.EulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
        motion_adapter=None,
    )
    inputs = motion_inputs(setup, pipe.unet)
    _, channels, frames, height, width = inputs["sample"].shape
    mask = noise(setup, 24, 1, 1, frames, height, width).zero_()
    mask[:, :, 0] = 1
    inputs |= {"controlnet_cond": noise(setup, 25, 1, channels, frames, height, width) * mask, "mask": mask}

    def call(sample: Any, timestep: Any, encoder_hidden_states: Any, controlnet_cond: Any, mask: Any) -> Any:
        down, mid = pipe.controlnet(
            sample,
            timestep,
            encoder_hidden_states=encoder_hidden_states,
            controlnet_cond=controlnet_cond,
            conditioning_mask=mask,
            conditioning_scale=1.0,
            guess_mode=False,
            return_dict=False,
        )
        return pipe.unet(
            sample,
            timestep,
            encoder_hidden_states=encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample

    return pipe, [Call("sparsectrl and unet", call, inputs)]


def sd15_vae(setup: Setup) -> Any:
    import diffusers as d

    config = bundled("tiny-animatediff/vae") if setup.few else json.loads((SD15 / "vae" / "config.json").read_text())
    return made(setup, lambda: d.AutoencoderKL.from_config(config), 11)


def motion_unet_of(setup: Setup) -> Any:
    import diffusers as d

    from vidkit.pipelines.motion_unet import motion_unet

    if setup.few:
        unet, adapter = bundled("tiny-animatediff/unet"), bundled("tiny-motion-adapter") | {"conv_in_channels": None}
    else:
        unet, adapter = json.loads((SD15 / "unet" / "config.json").read_text()), {}
    return motion_unet(d.UNet2DConditionModel.from_config(unet), d.MotionAdapter.from_config(adapter))


def motion_inputs(setup: Setup, unet: Any) -> dict[str, Any]:
    frames, side = (5, 12) if setup.few else (16, 64)
    return {
        "sample": noise(setup, 14, 2, frames, unet.config.in_channels, side, side).transpose(1, 2),
        "timestep": noise(setup, 15, 1)[0].abs() * 100,
        "encoder_hidden_states": noise(setup, 16, 2 * frames, 77, unet.config.cross_attention_dim),
    }


def bundled(part: str) -> dict[str, Any]:
    return dict(json.loads((BUNDLED / part / "config.json").read_text()))


def made(setup: Setup, make: Callable[[], Any], seed: int) -> Any:
    """A network on the device with random weights, all of them values of the lower precision."""
    import torch

    with torch.device(setup.device):
        module = make().to(setup.device)  # some of its tensors are made on the CPU all the same
    draw = torch.Generator(setup.device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dim() > 1:  # keeps the size of what it is applied to
                weight.normal_(0, weight[0].numel() ** -0.5, generator=draw)
            elif name.endswith("mix_factor"):
                weight.normal_(0, 1, generator=draw)
            else:
                weight.normal_(1 if name.endswith("weight") else 0, 0.1, generator=draw)
    return module.to(setup.device, torch.float16).to(setup.reference).eval()


def noise(setup: Setup, seed: int, *shape: int) -> Any:
    """Unlike from one entry of the second axis, the frames, to the next, so that each has statistics of its own."""
    import torch

    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) > 3:
        drawn += torch.linspace(-1, 1, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
        drawn *= torch.linspace(0.5, 1.5, shape[-1])
    return drawn.half().float().to(setup.device)
