"""Which layer of which network gets which fast forward, and how it loses it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from vidkit.models.loading.tensors import the_device
from vidkit.pipelines.fast import blocks, fused, layers
from vidkit.pipelines.fast.attention import Texts, is_one_product, is_over_pictures, lay_together
from vidkit.pipelines.fast.waiting import wait_again, wait_less
from vidkit.pipelines.forwards import Forward
from vidkit.pipelines.watch import denoisers

if TYPE_CHECKING:
    import torch

#: fast forwards of the layers around transformer blocks, by class
LAYERS: Final[dict[str, Callable[..., Any]]] = {
    "ResnetBlock2D": layers.resnet,
    "SpatioTemporalResBlock": layers.spatio_temporal_resnet,
    "TransformerSpatioTemporalModel": layers.spatio_temporal_transformer,
    "Transformer2DModel": layers.transformer,
    "AnimateDiffTransformer3D": layers.motion_module,
    "Upsample2D": layers.upsampling,
    "UpBlockSpatioTemporal": layers.up_block,
    "CrossAttnUpBlockSpatioTemporal": layers.up_block,
    "UpBlockMotion": layers.up_block,
    "CrossAttnUpBlockMotion": layers.up_block,
}


#: in which order the dimensions of a convolution's weight lie in memory: (outputs, rows, columns, inputs), for maps
#: with channels last, and over time (frames, inputs, outputs, ...), a matrix for each frame
ORDERS: Final[Mapping[str, Sequence[int]]] = {"Conv2d": (0, 2, 3, 1), "Conv3d": (2, 1, 0, 3, 4)}


class Measures(Protocol):
    """Of a plan, what decides which forwards are fast, and which kernels they start."""

    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def speed(self) -> str: ...
    @property
    def offload(self) -> str: ...
    @property
    def halves(self) -> bool: ...
    @property
    def slices(self) -> bool: ...
    @property
    def host_skips(self) -> bool: ...


def has_layers(measures: Measures) -> bool:
    """Whether the layers around transformer blocks are fast too. On a GPU that takes kernels of our own."""
    return not is_lean(measures) and (measures.device == "cpu" or fused.works())


def notes(measures: Measures) -> list[str]:
    """For the result: what of a speed a GPU goes without, and why.

    Known once the GPU was asked, so not when a clip is planned, which loads no torch.
    """
    if measures.speed == "exact" or is_lean(measures) or has_layers(measures):
        return []
    lacking = "Triton's kernels do not run on this GPU (vidkit doctor says what they need)"
    return [f"speed {measures.speed} does less here: {lacking}, only transformer blocks are faster."]


class FastForward(Forward):
    """One that is installed here."""


def install(pipe: Any, measures: Measures) -> None:
    """Let a pipeline's networks compute at the plan's speed. What they had of it before is taken back first.

    To be called before `lean.install`, which replaces forwards of layers that it needs.
    """
    remove(pipe)
    if measures.speed == "exact":
        return
    is_whole = hasattr(type(pipe), "_execution_device")  # a pipeline, not some of its parts
    if is_whole:
        wait_less(pipe, the_device(measures.device))
    # what is shared between steps has no slices, and one half's text is a new tensor each time
    keeps_texts = not (is_lean(measures) or measures.halves)
    for network in denoisers(pipe):
        install_blocks(network, Texts() if keeps_texts else None)
    if has_layers(measures):
        for network in (*denoisers(pipe), pipe.vae.decoder):
            install_layers(network)
            lay_out_weights(network)
        if is_whole and not measures.halves:
            compute_once(pipe)


def install_blocks(network: Any, texts: Texts | None) -> None:
    for module in network.modules():
        match type(module).__name__:
            case "BasicTransformerBlock":
                replace(module, blocks.transformer_block, texts)
            case "TemporalBasicTransformerBlock":
                replace(module, blocks.temporal_block)


def install_layers(network: Any) -> None:
    """Of a UNet, a ControlNet or an autoencoder's decoder."""
    replace(network.conv_in, layers.first_convolution)
    if hasattr(network, "conv_out"):  # a ControlNet has none
        replace(network.conv_out, layers.last_convolution)
        if type(network.conv_norm_out).__name__ == "GroupNorm" and type(network.conv_act).__name__ == "SiLU":
            replace(network.conv_norm_out, layers.last_norm)
            replace(network.conv_act, layers.last_activation)
    install_inner(network)


def install_inner(network: Any) -> None:
    for module in network.modules():
        if forward := LAYERS.get(type(module).__name__):
            replace(module, forward)
        elif type(module).__name__ == "Attention" and is_over_pictures(module):
            replace(module, layers.picture_attention)


def compute_once(pipe: Any) -> None:
    """What is the same for both halves of guidance. AnimateDiff's are one video twice, until its first layer that reads
    the text; SVD's are not, as only one is told of the picture.

    While it is placed, the UNet is called by its pipeline alone: which says whether its input has two halves.
    """
    block = pipe.unet.down_blocks[0]
    if type(block).__name__ == "CrossAttnDownBlockMotion":
        replace(block.resnets[0], layers.first_resnet, lambda: getattr(pipe, "_guidance_scale", 0) > 1)


def remove(pipe: Any) -> None:
    """Take back what `install` did: the networks compute as diffusers' again."""
    wait_again(pipe)
    for network in (*denoisers(pipe), pipe.vae):
        for module in network.modules():
            if isinstance(vars(module).get("forward"), FastForward):
                del module.forward
        lay_back_convolutions(network)


def lay_out_weights(network: Any) -> None:
    """Weights that stay on a GPU lie there as its kernels read them, which they would be copied for at each call: of
    convolutions 2.4 of the 330 ms of a step of SVD on an H200."""
    for module in network.modules():
        kind = type(module).__name__
        if (order := ORDERS.get(kind)) and stays_on_a_gpu(module.weight):
            module.weight.data = laid_out(module.weight.data, order)
        elif kind == "Attention" and is_one_product(module) and stays_on_a_gpu(module.to_q.weight):
            lay_together(module)


def stays_on_a_gpu(weight: torch.Tensor) -> bool:
    """As networks are placed: what is offloaded is on the host then."""
    return weight.is_cuda


def lay_back_convolutions(network: Any) -> None:
    for module in network.modules():
        if type(module).__name__ in ORDERS:
            module.weight.data = module.weight.data.contiguous()


def laid_out(weight: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The same, whose dimensions lie in memory in an order of their own."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return weight.permute(*order).contiguous().permute(*back)


def is_lean(measures: Measures) -> bool:
    """Whether layers are `pipelines.lean`'s."""
    return measures.slices or measures.host_skips


def replace(module: Any, forward: Callable[..., Any], *first: Any) -> None:
    module.forward = FastForward(forward, (module, *first))
