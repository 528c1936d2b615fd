"""Which parts a request's pipeline has: their configs, and the bytes of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from vidkit.memory.weights import Size, lora_weights, size_of, weights
from vidkit.models.loading.layouts import UNET
from vidkit.models.loras import is_lora
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models

#: Bytes in the allocator for one byte of weights: it leaves remainders of up to 1 MiB unsplit, so that a big weight's
#: block can be that much longer. Measured: 0.7 to 1.7 % of all weights.
SLACK: Final = 1.01


@dataclass(frozen=True)
class Weights:
    """Bytes of a pipeline's parts on the device.

    changed: of the UNet's and the text encoder's, those that LoRAs replaced, which are kept where the parts rest.
    by_layers: of UNet and ControlNet, what is on the device when their layers come one by one: room for two.
    pinned: what those layers take in the host's memory, ready to be copied.
    """

    unet: int
    vae: int
    encoder: int
    controlnet: int = 0
    changed: int = 0
    by_layers: int = 0
    pinned: int = 0

    @property
    def all(self) -> int:
        return self.unet + self.vae + self.encoder + self.controlnet + self.changed

    def with_slack(self) -> Weights:
        """As the allocator holds them."""
        return Weights(**{part: round(size * SLACK) for part, size in asdict(self).items()})


def weights_of(params: GenerationParams, models: Models, dtype: str) -> Weights:
    """Bytes of the weights alone. Raises SetupError, see `vidkit.memory.weights`."""
    base = models["base_model"]
    unet, vae = size_of(base, "unet", dtype), weights(base, "vae", dtype)
    if params.pipeline == "svd":
        return Weights(unet.all, vae, weights(base, "image_encoder", dtype), **by_layers([unet]))
    pia = params.conditioning == "pia"
    adapter = size_of(models["motion_adapter"], "", dtype, without="" if pia else "conv_in.")
    if pia:  # the adapter's own input layer instead of the base's
        prefix = "conv_in." if base.path.is_dir() else UNET + "input_blocks.0.0."
        unet = size_of(base, "unet", dtype, without=prefix)
    denoiser = [unet, adapter]
    if params.conditioning == "sparsectrl":
        denoiser.append(size_of(models["controlnet"], "", dtype))
    loras = [model for name, model in models.items() if is_lora(name)]
    return Weights(
        unet=unet.all + adapter.all,
        vae=vae,
        encoder=weights(base, "text_encoder", dtype),
        controlnet=sum(part.all for part in denoiser[2:]),
        changed=sum(lora_weights(loras, part, dtype) for part in ("unet", "text_encoder")),
        **by_layers(denoiser),
    )


def by_layers(networks: Sequence[Size]) -> dict[str, int]:
    """Networks whose layers share the two places for them."""
    largest = max(network.layer for network in networks)
    rest, pinned = (sum(getattr(network, name) for network in networks) for name in ("rest", "pinned"))
    return {"by_layers": 2 * largest + rest, "pinned": pinned}


def configs_of(models: Models) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the UNet and the autoencoder."""
    base = models["base_model"]
    return base.config("unet"), base.config("vae")
