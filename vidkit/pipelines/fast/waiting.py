"""What diffusers' pipelines themselves do with less waiting: the host for the device, and the device for the host.

A pipeline is asked several times a clip where it computes, and looks through all layers of its networks each time: 12
ms for AnimateDiff on a slow core. So does AnimateDiff's UNet at each step for its type: 7 ms, in which the GPU has
nothing to do; and the autoencoder. The first of their weights tells as well, and where a pipeline is placed is known.

SVD's asks at each step whether any frame's guidance scale is above 1, which the host waits for the device to say; the
scales are those that the call was given, so the answer of its beginning holds. It makes the picture small for CLIP on
the host, which takes 90 ms of a picture of 1024x576 on two cores. And of its autoencoder, for which half precision may
be too little as it encodes, it casts the decoder there and back too.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.loading.tensors import cast

if TYPE_CHECKING:
    import torch

#: pixels of a side of what CLIP is given, as diffusers has it
CLIP_SIDE: Final = 224


def wait_less(pipe: Any, device: torch.device) -> None:
    """device: where the pipeline computes."""
    pipe._known_device = device
    for answering in (pipe, pipe.unet, pipe.vae):
        kind: Any = type(answering)
        answering.__class__ = waiting_less(kind)


def wait_again(pipe: Any) -> None:
    """Take back what `wait_less` did."""
    for answering in (pipe, pipe.unet, pipe.vae):
        if vars(type(answering)).get("waits_less"):
            answering.__class__ = type(answering).__bases__[0]
            for name in ("_known_device", "_is_guided"):
                vars(answering).pop(name, None)


@cache
def waiting_less(kind: Any) -> type:
    """The same class, whose objects answer at once. Of a pipeline, or of a network."""
    own: dict[str, Any] = {"waits_less": True}
    if hasattr(kind, "_execution_device"):
        own["_execution_device"] = property(lambda pipe: pipe._known_device)
        own["dtype"] = property(lambda pipe: pipe.unet.dtype)
    else:
        own["dtype"] = property(lambda network: next(network.parameters()).dtype)
    more = {"StableVideoDiffusionPipeline": of_svd, "AutoencoderKLTemporalDecoder": of_svds_autoencoder}
    return type(kind.__name__, (kind,), own | more.get(kind.__name__, lambda kind: {})(kind))


def of_svd(pipeline: Any) -> dict[str, Any]:
    def do_classifier_free_guidance(pipe: Any) -> bool:
        if isinstance(pipe._guidance_scale, int | float):  # as a call begins; a tensor later
            pipe._is_guided = pipe._guidance_scale > 1
        return bool(pipe._is_guided)

    def encode_image(pipe: Any, image: Any, device: Any, *more: Any) -> Any:
        import torch

        if not isinstance(image, torch.Tensor) and torch.device(device).type == "cuda":
            image = made_small(pipe.video_processor, image, device).cpu()
        return pipeline._encode_image(pipe, image, device, *more)

    return {"do_classifier_free_guidance": property(do_classifier_free_guidance), "_encode_image": encode_image}


def of_svds_autoencoder(autoencoder: Any) -> dict[str, Any]:
    """Of type float32 it is for encoding alone: what else is to decode in that must cast the decoder itself."""

    def to(network: Any, *arguments: Any, **options: Any) -> Any:
        import torch

        if arguments or options != {"dtype": torch.float32}:
            return autoencoder.to(network, *arguments, **options)
        cast(torch.nn.ModuleList([network.encoder, network.quant_conv]), torch.float32)
        return network

    return {"to": to}


def made_small(processor: Any, image: Any, device: Any) -> Any:
    """What diffusers' `_encode_image` makes of a picture, or of several, before CLIP's own preparation of it: pixels in
    [0, 1], (pictures, 3, side, side), computed on the device, in single precision."""
    import torch
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as diffusers_own

    pixels = processor.numpy_to_pt(processor.pil_to_numpy(image)).to(device) * 2.0 - 1.0
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        small = diffusers_own._resize_with_antialiasing(pixels, (CLIP_SIDE, CLIP_SIDE))
    return (small + 1.0) / 2.0
