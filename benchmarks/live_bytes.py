"""Bytes of tensors alive at once inside a network, counted while it runs on the meta device, where they take none.

    python -m benchmarks.live_bytes svd 1024 576 25 [--chunk 4] [--halves] [--slices] [--host-skips] [--part unet]

Prints the widest moment of a full-size model's part beside what `vidkit.memory` predicts, and which tensors are alive
then: shape, bytes, and the lines of code that made them. Counted are the device's allocations as CUDA's kernels make
them, and cuDNN's workspaces by the rule that was measured (results/memory_convolutions.json).
"""

from __future__ import annotations

import argparse
import json
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.memory_models import PUBLISHED_UNET, PUBLISHED_VAE, SD15, on_meta
from vidkit.device import GIB, Plan
from vidkit.pipelines import lean


class Alive(TorchDispatchMode):
    """The most bytes of tensors alive at once while it is active, cuDNN's workspaces included.

    module: whose weights are not counted. explained: the number of an operation at which to note what is alive.
    """

    def __init__(self, module: torch.nn.Module, explained: int = -1) -> None:
        super().__init__()
        weights = [*module.parameters(), *module.buffers()]
        self._sizes = {weight.untyped_storage()._cdata: 0 for weight in weights}
        self._made: dict[int, str] = {}
        self._operations, self._explained = 0, explained
        self._now = self.peak = 0
        self.widest = -1
        self.alive: list[tuple[int, str]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = between_devices(function, args, kwargs or {})
        if result is None:
            result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                self._meet(tensor)
        workspace = workspace_of(args[0], args[1], result) if "convolution" in str(function) else 0
        if self._now + workspace > self.peak:
            self.peak, self.widest = self._now + workspace, self._operations
        if self._operations == self._explained:
            self.alive = [(self._sizes[key], text) for key, text in self._made.items() if key in self._sizes]
            self.alive.append((workspace, f"workspace of {function}"))
        self._operations += 1
        return result

    def _meet(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += storage.nbytes()
            weakref.finalize(storage, self._leave, key)
            if self._explained >= 0:
                self._made[key] = f"{tuple(tensor.shape)} {lines_of_code()}"

    def _leave(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)
        self._made.pop(key, None)


def between_devices(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A copy from the meta device to the host, which torch refuses since there is nothing to copy; None for others."""
    name = str(function)
    if name.startswith("aten._to_copy") and args[0].device.type == "meta":
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cpu":
            return torch.empty(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
    if name.startswith("aten.copy_") and args[0].device.type == "cpu" and args[1].device.type == "meta":
        return args[0]
    return None


def workspace_of(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> int:
    in_order = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if in_order or weight[0, 0].numel() == 1:
        return 0
    return (x.numel() + y.numel() + weight.numel()) * x.element_size()


def lines_of_code() -> str:
    """The innermost lines of Python on the stack that are a model's."""
    frames = [frame for frame in traceback.extract_stack() if "/models/" in frame.filename or "lean" in frame.filename]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-4:]))


class Fused(TorchFunctionMode):
    """Attention as CUDA's fused kernels do it: one output, in the order (batch, tokens, heads, channels)."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not torch.nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        query, value = args[0], args[2]
        return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3]).transpose(1, 2)


class OnCpu(Fused):
    """A CPU's norms and convolutions besides, which keep channels last where they are; CUDA's and the meta device's do
    not."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.functional.group_norm:
            return torch.empty_like(args[0])
        result = super().__torch_function__(function, types, args, kwargs)
        if function is torch.nn.functional.conv2d and args[0].is_contiguous(memory_format=torch.channels_last):
            return torch.empty_like(result, memory_format=torch.channels_last)
        return result


def most_alive(module: torch.nn.Module, call: Callable[[], Any], device: str = "cuda") -> int:
    return widest_moment(module, call, device=device).peak


def widest_moment(module: torch.nn.Module, call: Callable[[], Any], explained: int = -1, device: str = "cuda") -> Alive:
    alive, kernels = Alive(module, explained), Fused() if device == "cuda" else OnCpu()
    with torch.no_grad(), kernels, alive:
        call()
    return alive


def empty(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


# --- full-size models -----------------------------------------------------------------------------------------------


class Parts:
    """Of a pipeline, what computes in slices: its networks, on the meta device, in half precision.

    kind: "svd", "animatediff", "sparsectrl". configs: of the UNet and the autoencoder, else the published ones.
    """

    def __init__(self, kind: str, unet: Mapping[str, Any] | None = None, vae: Mapping[str, Any] | None = None) -> None:
        import diffusers as d

        self.kind, self.controlnet = kind, None
        if kind == "svd":
            self.unet = made(d.UNetSpatioTemporalConditionModel, unet or PUBLISHED_UNET)
            self.vae = made(d.AutoencoderKLTemporalDecoder, vae or PUBLISHED_VAE)
        else:
            configs = {part: json.loads((SD15 / part / "config.json").read_text()) for part in ("unet", "vae")}
            base = made(d.UNet2DConditionModel, unet or configs["unet"])
            adapter = made(d.MotionAdapter, {"block_out_channels": base.config.block_out_channels})
            motion = on_meta(lambda: d.UNetMotionModel.from_unet2d(base, adapter, load_weights=False))
            self.unet = motion.half().eval().requires_grad_(False)
            self.vae = made(d.AutoencoderKL, vae or configs["vae"])
        if kind == "sparsectrl":
            same = ("block_out_channels", "attention_head_dim", "cross_attention_dim")
            like = {name: base.config[name] for name in same}
            like["down_block_types"] = [kind.replace("2D", "Motion") for kind in base.config.down_block_types]
            self.controlnet = made(d.SparseControlNetModel, like)

    @property
    def networks(self) -> torch.nn.ModuleList:
        return torch.nn.ModuleList(filter(None, [self.unet, self.vae, self.controlnet]))

    def denoise(self, videos: int, frames: int, height: int, width: int) -> Any:
        """One call of the UNet, and of the ControlNet before it; height and width of the latents."""
        if self.kind == "svd":
            context, ids = empty(videos, 1, self.unet.config.cross_attention_dim), empty(videos, 3)
            latents = empty(videos, frames, self.unet.config.in_channels, height, width)
            return self.unet(latents, empty(), encoder_hidden_states=context, added_time_ids=ids)
        text = empty(videos * frames, 77, self.unet.config.cross_attention_dim)
        latents = empty(videos, self.unet.config.in_channels, frames, height, width)
        added: dict[str, Any] = {}
        if self.controlnet is not None:
            condition = empty(1, self.controlnet.config.conditioning_channels, frames, height, width)
            down, mid = self.controlnet(
                latents, empty(), encoder_hidden_states=text, controlnet_cond=condition,
                conditioning_mask=empty(1, 1, frames, height, width), conditioning_scale=1.0, return_dict=False,
            )  # fmt: skip
            added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return self.unet(latents, empty(), encoder_hidden_states=text, **added)

    def decode(self, frames: int, height: int, width: int) -> Any:
        more = {"num_frames": frames} if self.kind == "svd" else {}
        return self.vae.decode(empty(frames, self.vae.config.latent_channels, height, width), **more)


def made(cls: Any, config: Mapping[str, Any]) -> Any:
    module = on_meta(lambda: cls.from_config(dict(config)))
    return module.half().eval().requires_grad_(False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=["svd", "animatediff", "sparsectrl"])
    parser.add_argument("size", type=int, nargs=3, metavar=("WIDTH", "HEIGHT", "FRAMES"))
    parser.add_argument("--part", choices=["unet", "vae"], default="unet")
    parser.add_argument("--unguided", action="store_true", help="one video in a call of the UNet, not two")
    for measure in ("halves", "slices", "host-skips"):
        parser.add_argument(f"--{measure}", action="store_true")
    options = parser.parse_args()
    width, height, frames = options.size
    plan = Plan("cuda", "float16", halves=options.halves, slices=options.slices, host_skips=options.host_skips)
    parts, videos = Parts(options.kind), 1 if options.unguided else 2
    lean.install(parts, plan)

    def call() -> None:
        if options.part == "unet":
            parts.denoise(videos, frames, height // 8, width // 8)
        else:
            parts.decode(frames, height // 8, width // 8)

    widest = widest_moment(parts.networks, call)
    print(f"{widest.peak / GIB:.3f} GiB")
    for size, text in sorted(widest_moment(parts.networks, call, widest.widest).alive, reverse=True)[:24]:
        print(f"{size / 2**20:9.1f} MiB  {text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
