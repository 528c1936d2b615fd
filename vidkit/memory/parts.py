"""Which parts a request's pipeline has: their configs, and the bytes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from vidkit.memory.weights import lora_weights, weights
from vidkit.models.loading.layouts import UNET
from vidkit.models.loras import is_lora
from vidkit.params import GenerationParams
from vidkit.pipelines.family import Models

#: Bytes in the allocator for one byte of weights: it leaves remainders of up to 1 MiB unsplit, so that a big weight's
#: block can be that much longer. Measured: 0.7 to 1.7 % of all weights.
SLACK: Final = 1.01


@dataclass(frozen=True)
class Weights:
    """Bytes of a pipeline's parts. modules: of the UNet's, those that are the motion adapter's."""

    unet: int
    vae: int
    encoder: int
    controlnet: int = 0
    modules: int = 0

    @property
    def all(self) -> int:
        return self.unet + self.vae + self.encoder + self.controlnet

    def with_slack(self) -> Weights:
        """As the allocator holds them."""
        return Weights(**{part: round(size * SLACK) for part, size in asdict(self).items()})


def weights_of(params: GenerationParams, models: Models, dtype: str) -> Weights:
    """Bytes of the weights alone. Raises SetupError, see `vidkit.memory.weights`."""
    base = models["base_model"]
    unet, vae = weights(base, "unet", dtype), weights(base, "vae", dtype)
    if params.pipeline == "svd":
        return Weights(unet, vae, weights(base, "image_encoder", dtype))
    pia = params.conditioning == "pia"
    adapter = weights(models["motion_adapter"], "", dtype, without="" if pia else "conv_in.")
    if pia:  # the adapter's own input layer instead of the base's
        prefix = "conv_in." if base.path.is_dir() else UNET + "input_blocks.0.0."
        unet = weights(base, "unet", dtype, without=prefix)
    controlnet = weights(models["controlnet"], "", dtype) if params.conditioning == "sparsectrl" else 0
    loras = [model for name, model in models.items() if is_lora(name)]
    unet += lora_weights(loras, "unet", dtype)
    encoder = weights(base, "text_encoder", dtype) + lora_weights(loras, "text_encoder", dtype)
    return Weights(unet + adapter, vae, encoder, controlnet, adapter)


def configs_of(models: Models) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the UNet and the autoencoder."""
    base = models["base_model"]
    return base.config("unet"), base.config("vae")
