"""The components of pipelines from a model's files: several at a time, straight to their device and in their type.

Modules are built without data, one after another, while threads read the weights: the libraries' own loaders change
global state as they build, and read when they have built. What is loaded is bit for bit what they would load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vidkit.libraries import quiet
from vidkit.models.files.config_files import invalid_config, read_json
from vidkit.models.files.file_format import FETCH_AGAIN, invalid, quoted
from vidkit.models.files.folder_safety import check_folder
from vidkit.models.files.weight_files import weight_files
from vidkit.models.inspection import inspect
from vidkit.models.loading.layouts import LAYOUTS
from vidkit.models.loading.reading import OnRead, Weights, joined, reading, weights_in
from vidkit.models.loading.single_file import SHIPPED, check_pipeline_file
from vidkit.models.locate import Model

if TYPE_CHECKING:
    import torch

#: classes of the parts that hold weights; a folder's config may name the second instead of the first
NETWORKS: Final[Mapping[str, tuple[str, ...]]] = {
    "unet": ("UNet2DConditionModel", "UNetMotionModel", "UNetSpatioTemporalConditionModel"),
    "vae": ("AutoencoderKL", "AutoencoderKLTemporalDecoder"),
    "": ("MotionAdapter", "SparseControlNetModel"),
    "text_encoder": ("CLIPTextModel",),
    "image_encoder": ("CLIPVisionModelWithProjection",),
}
#: those of transformers; the others are diffusers'
TRANSFORMERS: Final = {"text_encoder", "image_encoder"}

INDEX: Final = "model_index.json"

#: parts without weights: their classes are those of the model's index
TOOLS: Final = {"tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"), "feature_extractor": ("CLIPImageProcessor",)}

#: keys of weights that are made anew: counted positions, a temperature that only training uses
DERIVED: Final = (".position_ids", "logit_scale")

#: modules whose functions draw new weights; transformers puts its own in the place of torch's
INITIALISERS: Final = ("torch.nn.init", "transformers.initialization")

#: levels above the modules' own names that some releases of transformers write
LEVELS: Final = ("text_model.", "vision_model.")


@dataclass(frozen=True)
class Part:
    """One component of a pipeline, in a model. name: "unet", "vae", "tokenizer", ...; "" for a model that is one."""

    model: Model
    name: str = ""

    def elsewhere(self) -> str:
        """Of a model in one file, what its component depends on beside the file: its configuration, as text."""
        if self.model.path.is_dir() or self.name not in NETWORKS:
            return ""
        return json.dumps(self.model.config(self.name), sort_keys=True)

    def __str__(self) -> str:
        return f"the {self.name.replace('_', ' ')} of {self.model.name}" if self.name else self.model.name


def load_parts(
    parts: Mapping[str, Part], device: str, dtype: str, on_read: OnRead = lambda done, total: None
) -> dict[str, Any]:
    """The parts' components by the names given, on a device, floating-point weights in a type ("float16", ...).

    on_read: called in this thread.

    Raises:
        SetupError: `invalid_model`, when one is not safe, not complete, or does not fit its configuration.
    """
    for model in {part.model.path: part.model for part in parts.values()}.values():
        if model.path.is_dir():
            check_folder(model.path)
        elif model.kind in SHIPPED:
            check_pipeline_file(inspect(model.path))
    networks = {name: part for name, part in parts.items() if part.name in NETWORKS}
    weights = {name: weights_of(part, dtype) for name, part in networks.items()}
    with reading(weights, device, dtype) as under_way, quiet():  # quiet imports the libraries, meanwhile
        components: dict[str, Any] = {name: tool(part) for name, part in parts.items() if name not in networks}
        modules = {name: built(part) for name, part in networks.items()}
        for name in under_way.complete(on_read):
            fill(modules[name], networks[name], weights.pop(name))
            components[name] = modules[name].to(device).eval()  # only what has no weights has still to go there
    return components


def weights_of(part: Part, dtype: str) -> Weights:
    if part.model.path.is_dir():
        return joined(weights_in(file) for file in weight_files(part.model.path, part.name, dtype))
    prefixes = LAYOUTS[part.model.kind, part.name].prefixes
    return weights_in(part.model.path, lambda key: key.startswith(prefixes))


# --- networks -------------------------------------------------------------------------------------------------------


def built(part: Part) -> Any:
    """The module of a part: its weights have no data, but what it computes by itself it has."""
    import diffusers
    import transformers

    config = part.model.config(part.name)
    with without_weights():
        if part.name in TRANSFORMERS:
            cls = getattr(transformers, NETWORKS[part.name][0])
            return cls(cls.config_class.from_dict(config))
        return getattr(diffusers, class_name(part, config)).from_config(config)


def class_name(part: Part, config: Mapping[str, Any]) -> str:
    name = config.get("_class_name")
    if name not in NETWORKS[part.name]:
        raise invalid_config(part.model.path / part.name / "config.json", f"{quoted(name)} is no class of {part}")
    return str(name)


def without_weights() -> Any:
    """In this thread, new weights have no data, and are not drawn. Both libraries make them by `torch.empty` alone."""
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutWeights(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            options = {**(kwargs or {})}
            if getattr(function, "__module__", None) in INITIALISERS:
                return options.get("tensor", args[0] if args else None)
            if function is torch.empty:
                options["device"] = "meta"
            return function(*args, **options)

    return WithoutWeights()


def fill(module: Any, part: Part, weights: Weights) -> None:
    """Give a module its weights, in the place where they are.

    Raises:
        SetupError: `invalid_model`, when some are missing, or of another shape than the configuration's.
    """
    expected = module.state_dict()
    tensors = in_modules_words(module, part, weights.tensors, expected)
    if part.model.path.is_file():  # of folders the libraries take it, too
        refuse_unplaced(part, weights, tensors, expected)
    for key, tensor in expected.items():
        if key in tensors and tensors[key].shape != tensor.shape:
            shapes = f"{tuple(tensors[key].shape)}, by its configuration {tuple(tensor.shape)}"
            raise invalid(part.model.path, f"does not fit: in {part}, {quoted(key)} is {shapes}", FETCH_AGAIN)
    module.load_state_dict({key: tensors[key] for key in expected if key in tensors}, strict=False, assign=True)
    missing = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
    if missing:
        problem = f"is incomplete: {part} lacks {len(missing)} weights, {quoted(missing[0])} for one"
        raise invalid(part.model.path, problem, FETCH_AGAIN)
    convert_computed(module, {*tensors}, weights)


def refuse_unplaced(part: Part, weights: Weights, tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """A file of another shape of model: it has weights that the configuration has no place for."""
    unplaced = [key for key in tensors if key not in expected and not key.endswith(DERIVED)]
    # Stable Diffusion's names are converted one by one, and what diffusers does not know is left out
    count = len(unplaced) or (len(weights.tensors) - len(tensors) if part.name == "unet" else 0)
    if count:
        which = f", {quoted(unplaced[0])} for one" if unplaced else ""
        problem = f"has {count} weights that {part} has no place for{which}"
        raise invalid(part.model.path, problem, "Choose a model of the published size, or a diffusers folder of it.")


def convert_computed(module: Any, given: set[str], weights: Weights) -> None:
    """What the module computed by itself, positions above all, in the type of the others."""
    dtype = next((one.dtype for one in weights.tensors.values() if one.is_floating_point()), None)
    for key, tensor in module.state_dict(keep_vars=True).items():
        if key not in given and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def in_modules_words(
    module: Any, part: Part, tensors: dict[str, torch.Tensor], expected: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The keys of the files as the module has them."""
    if part.model.path.is_file():
        try:
            tensors = LAYOUTS[part.model.kind, part.name].converted(tensors, part.model.config(part.name))
        except (LookupError, AttributeError) as error:  # which is how diffusers meets a missing one
            raise invalid(part.model.path, f"is incomplete: {part} lacks weights: {error}", FETCH_AGAIN) from error
    if part.name in TRANSFORMERS:
        return {known_key(key, expected): tensor for key, tensor in tensors.items()}
    if hasattr(module, "_fix_state_dict_keys_on_load"):  # attention as diffusers named it until 2023
        module._fix_state_dict_keys_on_load(tensors)
    return tensors


def known_key(key: str, expected: Mapping[str, Any]) -> str:
    """transformers 5.6 dropped a level from the keys of some classes; files have it or not."""
    for level in LEVELS:
        for candidate in (key, key.removeprefix(level), level + key):
            if candidate in expected:
                return candidate
    return key


# --- tools ----------------------------------------------------------------------------------------------------------


def tool(part: Part) -> Any:
    """A tokenizer or an image processor."""
    import transformers

    name = named_class(part.model, part.name)
    if name.removesuffix("Pil") not in TOOLS[part.name]:
        raise invalid_config(part.model.configs / INDEX, f"{quoted(name)} is no {part.name} that is known here")
    cls = getattr(transformers, name)
    return cls.from_pretrained(part.model.configs / part.name, local_files_only=True)


def named_class(model: Model, part: str) -> str:
    """As the index of a pipeline's folder names it."""
    entry = read_json(model.configs / INDEX).get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else ""
