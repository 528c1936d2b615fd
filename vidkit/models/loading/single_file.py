"""Models in one file: the configurations that they need and don't hold, and whether they fit them. No torch.

diffusers takes any checkpoint it does not know for Stable Diffusion 1, and fetches configurations from the network.
Here the header says what a file is (`vidkit.models.inspection`), and the configurations lie on this disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from vidkit.models.files.config_files import read_json
from vidkit.models.files.file_format import FETCH_AGAIN, invalid, quoted
from vidkit.models.files.folder_safety import check_folder
from vidkit.models.files.pickles import read_header
from vidkit.models.files.safetensors_header import Header
from vidkit.models.inspection import Inspection, inspect
from vidkit.models.loading.layouts import OPEN_CLIP, PICTURE_VAE, TEXT_ENCODER, UNET, VAE
from vidkit.models.loading.reading import FLOATS

SD15: Final = "StableDiffusionPipeline"
SVD: Final = "StableVideoDiffusionPipeline"

#: configurations of the full-size models; Stable Diffusion's with CLIP's vocabulary
CONFIGS: Final = Path(__file__).parents[1] / "configs"
SD15_CONFIGS: Final = CONFIGS / "sd15"
SHIPPED: Final = {SD15: SD15_CONFIGS, SVD: CONFIGS / "svd"}

#: transformers leaves values out of a saved configuration that equal its defaults
_TEXT_DEFAULTS: Final = {"vocab_size": 49408, "hidden_size": 512}
_VISION_DEFAULTS: Final = {"hidden_size": 768, "num_channels": 3, "patch_size": 32}

_TEXT_KEYS: Final = ".attn2.to_k.weight"  # within the UNet: conditions to attention keys
_DERIVED: Final = ".position_ids"  # counts 0 to 76; made anew on loading

_CHOOSE_SD15: Final = "Choose a Stable Diffusion 1.5 checkpoint in one file, or a diffusers folder of one."
_CHOOSE: Final = "Choose another file of this model, or a diffusers folder of it."

#: what the header of a part in one file tells of its configuration, and what holds where it tells nothing
_DERIVABLE: Final[Mapping[str, dict[str, Any]]] = {
    "MotionAdapter": {
        "block_out_channels": (320, 640, 1280, 1280),
        "motion_max_seq_length": 32,
        "use_motion_mid_block": False,
        "conv_in_channels": None,
    },
    "SparseControlNetModel": {
        "block_out_channels": (320, 640, 1280, 1280),
        "motion_max_seq_length": 32,
        "cross_attention_dim": 768,
        "conditioning_channels": 4,
        "use_simplified_condition_embedding": False,
    },
}

Config = Mapping[str, Any]
Shape = tuple[object, ...]


def check_sd15_checkpoint(path: Path, config_folder: Path | None = None) -> Path:
    """Check by its header that a file is a Stable Diffusion 1.x base model that fits its configuration.

    Returns:
        The configuration folder that it fits; see `config_folder_of`.

    Raises:
        SetupError: `model_not_found`, or `invalid_model` naming what the file is instead, or what is wrong with it or
            with the configuration.
    """
    found = inspect(path)
    if (found.class_name, found.architecture) != (SD15, "SD 1.5"):
        needed = "AnimateDiff here needs a Stable Diffusion 1.5 base model: UNet, VAE and text encoder in one file"
        raise invalid(path, f"holds another kind of model ({found.title}); {needed}", _CHOOSE_SD15)
    return check_pipeline_file(found, config_folder)


def check_pipeline_file(found: Inspection, config_folder: Path | None = None) -> Path:
    """Check that a base model or Stable Video Diffusion in one file is whole and fits its configuration.

    Returns:
        The configuration folder, as `config_folder_of`.

    Raises:
        SetupError: `invalid_model`.
    """
    refuse_incomplete(found)
    refuse_odd_weights(found.path, read_header(found.path))
    folder = config_folder or config_folder_of(found.path, found.class_name)
    if not folder.is_relative_to(CONFIGS):
        check_folder(folder, configs_only=True)
    refuse_mismatch(found, folder)
    return folder


def config_folder_of(path: Path, class_name: str) -> Path:
    """The folder of the file, when that holds a `model_index.json`; else the shipped one of the published model."""
    return path.parent if (path.parent / "model_index.json").is_file() else SHIPPED[class_name]


def config_of(path: Path, class_name: str, part: str) -> dict[str, Any]:
    """The configuration of a part ("unet", "vae", ...; "" for a file that is one part).

    Raises:
        SetupError: `invalid_model`, when it cannot be read.
    """
    if class_name in SHIPPED:
        config = read_json(config_folder_of(path, class_name) / part / "config.json")
        return config | frames_of(path, class_name, part)
    beside = path.parent / "config.json"
    if beside.is_file() and read_json(beside).get("_class_name") == class_name:
        return read_json(beside)
    return {"_class_name": class_name, **derived(inspect(path))}


def frames_of(path: Path, class_name: str, part: str) -> dict[str, int]:
    """The weights don't say whether Stable Video Diffusion was trained on 14 frames or (XT) on 25; the name may.

    14 where it does not: every model makes those.
    """
    if (class_name, part) != (SVD, "unet") or config_folder_of(path, class_name) != SHIPPED[SVD]:
        return {}
    return {"num_frames": 25 if re.search(r"xt|25", path.stem, re.IGNORECASE) else 14}


def derived(found: Inspection) -> dict[str, Any]:
    """What the shapes of motion modules tell. Their heads they don't: 8 in all published ones, diffusers' default."""
    told = _DERIVABLE[found.class_name]
    return told | {name: found.details[name] for name in told if name in found.details}


# --- what is refused ------------------------------------------------------------------------------------------------


def refuse_incomplete(found: Inspection) -> None:
    lacks = found.details.get("lacks", ())
    if lacks:
        raise invalid(found.path, f"holds the {found.title} without its {' and its '.join(lacks)}", _CHOOSE)
    if found.class_name == SD15 and found.details.get("prediction_type") == "v_prediction":
        raise invalid(found.path, "is a v-prediction model, which motion adapters are not made for", _CHOOSE_SD15)


def refuse_odd_weights(path: Path, header: Header) -> None:
    """Integers would be loaded as they are, and 8-bit floats without the scales that belong to them."""
    for key, (dtype, _) in header.items():
        if key.startswith((UNET, VAE, TEXT_ENCODER, PICTURE_VAE, OPEN_CLIP)) and dtype not in FLOATS:
            if key.endswith(_DERIVED):
                continue
            raise invalid(path, f"is quantized or damaged: {quoted(key)} has dtype {dtype}", _CHOOSE)


def sd15_marks(config: Callable[[str], Config]) -> dict[str, Shape]:
    """The shapes of a few weights that tell one size of model from another, by the configuration."""
    unet, vae, text = config("unet"), config("vae"), _TEXT_DEFAULTS | dict(config("text_encoder"))
    return {
        UNET + "input_blocks.0.0.weight": (unet["block_out_channels"][0], unet["in_channels"], 3, 3),
        VAE + "encoder.conv_in.weight": (vae["block_out_channels"][0], vae["in_channels"], 3, 3),
        TEXT_ENCODER + "text_model.embeddings.token_embedding.weight": (text["vocab_size"], text["hidden_size"]),
    }


def svd_marks(config: Callable[[str], Config]) -> dict[str, Shape]:
    unet, vae, vision = config("unet"), config("vae"), _VISION_DEFAULTS | dict(config("image_encoder"))
    patch = vision["patch_size"]
    return {
        UNET + "input_blocks.0.0.weight": (unet["block_out_channels"][0], unet["in_channels"], 3, 3),
        PICTURE_VAE + "encoder.conv_in.weight": (vae["block_out_channels"][0], vae["in_channels"], 3, 3),
        VAE + "decoder.conv_in.weight": (vae["block_out_channels"][-1], vae["latent_channels"], 3, 3),
        OPEN_CLIP + "conv1.weight": (vision["hidden_size"], vision["num_channels"], patch, patch),
    }


_MARKS: Final = {SD15: sd15_marks, SVD: svd_marks}


def refuse_mismatch(found: Inspection, folder: Path) -> None:
    header, path = read_header(found.path), found.path

    def config(part: str) -> Config:
        return read_json(folder / part / "config.json")

    try:
        width = config("unet")["cross_attention_dim"]
        expected = _MARKS[found.class_name](config)
    except (LookupError, TypeError) as error:
        raise invalid(folder, f"is not the configuration of a {found.title}: {error!r}", _CHOOSE) from error
    missing = [key for key in expected if key not in header]
    if missing:
        raise invalid(path, f"lacks weights, {missing[0]!r} for one", FETCH_AGAIN)
    for key, shape in expected.items():
        if header[key][1] != shape:
            problem = f"has {key} of shape {header[key][1]}, its configuration in {str(folder)!r} {shape}"
            raise invalid(path, problem, _CHOOSE)
    for key, (_, shape) in header.items():
        if key.startswith(UNET) and key.endswith(_TEXT_KEYS) and "time_stack" not in key and shape[1:] != (width,):
            problem = f"has conditions of width {shape[-1:]}, its configuration in {str(folder)!r} {width}"
            raise invalid(path, problem, _CHOOSE)
