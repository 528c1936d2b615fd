"""LoRAs on a pipeline whose base stays loaded: added, weighted and removed without touching the base's weights.

A LoRA adds `weight * scale * up @ down` to a layer's weights, scale being alpha / rank as it was trained. The sum is
put in the weights' place, which are kept and come back when the LoRA goes: nothing is left of it, a step takes as long
and as much memory for its activations as without, and what it costs are the changed layers' weights once more.

peft's layers, which diffusers puts around the base's, compute the update anew at every call: up to three more tensors
as large as a layer's output, and on a CPU steps that were 12 % longer with one LoRA and 30 % with two. diffusers'
loader takes the most frequent alpha of kohya's files for all of their layers (in a trial 43 % of what a LoRA does was
wrong), and leaves out what does not fit with a warning.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from vidkit.errors import SetupError
from vidkit.lora_list import LORAS
from vidkit.models.files.config_files import read_json
from vidkit.models.files.file_format import file_format
from vidkit.models.files.pickles import read_tensors
from vidkit.models.locate import Model
from vidkit.models.lora_keys import Component, LoraLayer, flat_name
from vidkit.models.loras import is_lora, layers_of, lora_file, weights_of_loras
from vidkit.params import GenerationParams

if TYPE_CHECKING:
    import torch

COMPONENTS: Final[tuple[Component, ...]] = ("unet", "text_encoder")

#: Bytes of LoRAs' matrices kept in memory, so that one which comes back is not read again. Most LoRAs of Stable
#: Diffusion 1.5 have 10 to 150 MB.
KEPT_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class Update:
    """What a LoRA does to one layer. down, up: matrices (or convolution kernels) as in the file, on the CPU; alpha: as
    in the file, None where it says none."""

    layer: LoraLayer
    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None


@dataclass(frozen=True)
class LoraWeights:
    """A LoRA's file in memory. config: peft's (r, lora_alpha, alpha_pattern, ...), where it comes with one."""

    path: Path
    updates: tuple[Update, ...]
    config: Mapping[str, Any]

    @property
    def size(self) -> int:
        return sum(update.down.nbytes + update.up.nbytes for update in self.updates)


@dataclass(frozen=True)
class Applied:
    """What is on a pipeline. loras: weights by content hash, and each with its matrices; originals: layers that hold
    sums now, with their own weights."""

    weights: Mapping[str, float]
    loras: Sequence[tuple[LoraWeights, float]]
    originals: list[tuple[torch.nn.Module, torch.nn.Parameter]] = field(default_factory=list)


#: by content hash, the one that was not used for longest first
_kept: OrderedDict[str, LoraWeights] = OrderedDict()

#: by UNet
_applied: WeakKeyDictionary[Any, Applied] = WeakKeyDictionary()


def apply_loras(pipe: Any, params: GenerationParams, models: Mapping[str, Model], hashes: Mapping[str, str]) -> None:
    """Bring a pipeline to exactly the LoRAs of a request; none removes all. No file of the base is needed, nor one of a
    LoRA that was used lately. The order of the LoRAs makes no difference, and one of weight 0 is left out.

    Args:
        pipe: any; its UNet and text encoder may be shared with other pipelines.
        models, hashes: the request's models and their SHA-256 by name, as a family finds them (lora_1, lora_2, ...).

    Raises:
        SetupError: `invalid_model`, when one does not fit the base or the motion modules; all are off then.
    """
    factors = weights_of_loras(params)
    found = {hashes[name]: (models[name], factors[name]) for name in models if is_lora(name) and factors[name]}
    wanted = dict(sorted(found.items()))  # sums of floating-point numbers depend on their order
    weights = {sha256: factor for sha256, (_, factor) in wanted.items()}
    if pipe.unet in _applied and _applied[pipe.unet].weights == weights:
        return
    remove_loras(pipe)
    if wanted:
        put_on(pipe, Applied(weights, [(loaded(model, sha256), factor) for sha256, (model, factor) in wanted.items()]))


def remove_loras(pipe: Any) -> None:
    """Take all LoRAs off: the layers have the very weights again that they had before. To be called before weights are
    loaded into the UNet or the text encoder in place, or these go into another pipeline."""
    applied = _applied.pop(pipe.unet, None)
    for layer, weight in applied.originals if applied else ():
        layer.weight = weight


def forget_loras() -> None:
    """Free the memory of LoRAs that were read; those that are applied stay so."""
    _kept.clear()


# --- files


def loaded(model: Model, sha256: str) -> LoraWeights:
    """A LoRA's matrices, from memory if they are there."""
    if sha256 not in _kept:
        _kept[sha256] = read_lora(model.path)
    _kept.move_to_end(sha256)
    while len(_kept) > 1 and sum(weights.size for weights in _kept.values()) > KEPT_BYTES:
        _kept.popitem(last=False)
    return _kept[sha256]


def read_lora(path: Path) -> LoraWeights:
    """Raises SetupError `invalid_model`."""
    file = lora_file(path)
    tensors = read_tensors(file)
    updates = tuple(
        # copies, so that the file is not held open, nor its memory with it
        Update(
            layer,
            tensors[layer.down].clone(),
            tensors[layer.up].clone(),
            number(tensors[layer.alpha], path) if layer.alpha else None,
        )
        for layer in layers_of(path)
    )
    return LoraWeights(path, updates, peft_config(file))


def number(tensor: torch.Tensor, path: Path) -> float:
    if tensor.numel() != 1:
        raise unfit(path, f"its alphas are of the shape {tuple(tensor.shape)}")
    return float(tensor)


def peft_config(file: Path) -> Mapping[str, Any]:
    """What peft says of a LoRA beside its matrices: adapter_config.json in its folder, or as diffusers puts it into the
    metadata of the file. {} where there is none. Only its numbers are used (`scale_of`)."""
    if (file.parent / "adapter_config.json").is_file() and file.stem == "adapter_model":
        return read_json(file.parent / "adapter_config.json")
    if file_format(file) != "safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unfit(file, f"its metadata cannot be read: {error}") from error
    return config if isinstance(config, dict) else {}


# --- layers


def put_on(pipe: Any, applied: Applied) -> None:
    """Sums in the place of the weights of all layers that these LoRAs change; all or none."""
    _applied[pipe.unet] = applied
    try:
        for component in COMPONENTS:
            changes: dict[str, list[tuple[Update, LoraWeights, float]]] = {}
            for lora, factor in applied.loras:
                for update in lora.updates:
                    if update.layer.component == component:
                        changes.setdefault(update.layer.layer, []).append((update, lora, factor))
            model = getattr(pipe, component) if changes else None
            names = {flat_name(component, name): name for name, _ in model.named_modules()} if model else {}
            for layer, several in changes.items():
                change(model, names.get(layer, ""), several, applied)
    except BaseException:
        remove_loras(pipe)
        raise


def change(model: Any, name: str, several: Sequence[tuple[Update, LoraWeights, float]], applied: Applied) -> None:
    """One layer's sum, in float32 and rounded once.

    name: of the layer in the model, "" where it is none of it.

    Raises:
        SetupError: `invalid_model`, for a layer that is not there or has another shape.
    """
    import torch

    if not name:
        update, lora, _ = several[0]
        missing = "the motion adapter" if update.layer.is_motion else "the base model"
        raise unfit(lora.path, f"it changes the layer {update.layer.layer[:100]}, which {missing} does not have")
    layer = model.get_submodule(name)
    with torch.no_grad():
        updates = [delta(update, layer, lora) * factor for update, lora, factor in several]
        total = sum(updates, layer.weight.detach().float())
        applied.originals.append((layer, layer.weight))
        layer.weight = torch.nn.Parameter(total.to(layer.weight.dtype), requires_grad=False)


def delta(update: Update, layer: Any, lora: LoraWeights) -> torch.Tensor:
    """scale * up @ down in the shape of the layer's weights, float32, where these are."""
    down, up = fitted(update, layer, lora.path)
    device = layer.weight.device
    product = up.to(device).float().flatten(1) @ down.to(device).float().flatten(1)
    return product.reshape(layer.weight.shape) * scale_of(update, lora)


def fitted(update: Update, base: Any, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrices with as many dimensions as the layer's weights: a 1 x 1 convolution may be stored as a matrix."""
    weight = getattr(base, "weight", None)
    dimensions = getattr(weight, "ndim", 0)
    down, up = (shaped(tensor, dimensions) for tensor in (update.down, update.up))
    rank = down.shape[0]
    if (
        weight is None
        or down.shape != (rank, *weight.shape[1:])
        or up.shape
        != (
            *weight.shape[:1],
            rank,
            *[1] * (dimensions - 2),
        )
    ):
        there = "no weights" if weight is None else f"weights of {tuple(weight.shape)}"
        raise unfit(
            path,
            f"its matrices for {update.layer.layer[:100]} are {tuple(update.down.shape)} and {tuple(update.up.shape)}, "
            f"the layer has {there}",
        )
    return down, up


def shaped(tensor: torch.Tensor, dimensions: int) -> torch.Tensor:
    if tensor.ndim == 2 and dimensions == 4:
        return tensor[:, :, None, None]
    if tensor.ndim == 4 and dimensions == 2 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    return tensor


def scale_of(update: Update, lora: LoraWeights) -> float:
    """alpha / rank; 1 where a file says nothing of alpha."""
    rank, alpha = update.down.shape[0], update.alpha
    component, layer = update.layer.component, update.layer.layer
    config = {key.removeprefix(f"{component}."): value for key, value in lora.config.items()}
    if alpha is None:
        patterns = config.get("alpha_pattern")
        known = patterns if isinstance(patterns, dict) else {}
        own = [
            value for key, value in known.items() if f"_{layer}".endswith("_" + flat_name(component, key.lstrip("^")))
        ]
        alpha = next(iter(own), config.get("lora_alpha", rank))
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise unfit(lora.path, f"alpha of {layer[:100]} is {alpha!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") is True else rank)


def unfit(path: Path, problem: str) -> SetupError:
    return SetupError(
        "invalid_model",
        f"The LoRA {path.name} does not fit: {problem}.",
        ["Take it out of loras", "Choose a LoRA that was made for this base model and motion adapter"],
        [LORAS],
    )
