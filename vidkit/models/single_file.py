"""Stable Diffusion 1.5 base models from one `.safetensors` file, checked before anything is loaded.

diffusers takes any checkpoint it does not know for Stable Diffusion 1, and fetches configurations from the network
when it finds none. Here the file's header says what it is: what is not a complete Stable Diffusion 1.x base model is
refused by name, and the configurations lie on this disk. Importing this module loads neither torch nor diffusers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vidkit.libraries import quiet
from vidkit.models.safetensors_header import FETCH_AGAIN, Header, invalid, quoted, read_safetensors_header

if TYPE_CHECKING:
    import torch

#: configurations of a full-size Stable Diffusion 1.5, with CLIP's vocabulary
SD15_CONFIGS: Final = Path(__file__).parent / "configs" / "sd15"

_WEIGHT_DTYPES: Final = {"F64", "F32", "F16", "BF16"}

_UNET: Final = "model.diffusion_model."
_VAE: Final = "first_stage_model."
_TEXT_ENCODER: Final = "cond_stage_model.transformer.text_model."
_UNET_INPUT: Final = _UNET + "input_blocks.0.0.weight"
_VAE_INPUT: Final = _VAE + "encoder.conv_in.weight"
_TEXT_KEYS: Final = ".attn2.to_k.weight"  # within the UNet: text conditions to attention keys
_TOKEN_EMBEDDING: Final = _TEXT_ENCODER + "embeddings.token_embedding.weight"

#: what a file is, by the first pattern that one of its keys matches
_OTHER_KINDS: Final = (
    ("a LoRA", r"^lora_|\.lora[._](A|B|up|down)\b|\.(hada_w|lokr_w)\d"),
    ("a ControlNet", r"^(control_model|controlnet_\w+|input_hint_block)\."),
    ("a motion module (motion adapter)", r"(^|\.)motion_modules\."),
    ("a Stable Video Diffusion model", r"\.time_stack\.|^conditioner\.embedders\.0\.open_clip\."),
    ("an SDXL base model", r"^conditioner\.embedders\.1\."),
    ("an SDXL refiner", r"^conditioner\.embedders\.0\.model\."),
    ("a Stable Diffusion 2 base model", r"^cond_stage_model\.model\."),
    ("an SDXL UNet", r"^model\.diffusion_model\.label_emb\."),
    ("a Stable Diffusion 3 model", r"(^|\.)joint_blocks\.\d"),
    ("a Flux model", r"(^|\.)double_blocks\.\d"),
    ("an IP-Adapter", r"^(image_proj|ip_adapter)\."),
    ("a textual inversion embedding", r"^(emb_params|clip_l|clip_g|string_to_param)\b"),
    ("a v-prediction model", r"^(v_pred|ztsnr)$"),
)
#: likewise, for a file without a UNet in Stable Diffusion's layout
_LONE_PARTS: Final = (
    ("a UNet in diffusers' layout, one part of a diffusers folder", r"^(down|up)_blocks\.\d+\.(resnets|attentions)\."),
    ("a VAE alone", r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|down|up|down_blocks|up_blocks)\."),
    ("a text encoder alone", r"^(cond_stage_model\.transformer\.)?text_model\."),
)
_KIND_BY_INPUT_CHANNELS: Final = {
    5: "a depth-conditioned model (5 input channels)",
    7: "an upscaler (7 input channels)",
    8: "an InstructPix2Pix model (8 input channels)",
    9: "an inpainting model (9 input channels)",
}
_KIND_BY_TEXT_WIDTH: Final = {
    1024: "a Stable Diffusion 2 model (text width 1024)",
    1280: "an SDXL refiner (text width 1280)",
    2048: "an SDXL model (text width 2048)",
}

#: the classes a configuration folder may name. diffusers imports whatever `model_index.json` says, so that a folder
#: from elsewhere could run any module installed here.
_CLASSES: Final = {
    "unet": r"diffusers\.UNet2DConditionModel",
    "vae": r"diffusers\.AutoencoderKL",
    "text_encoder": r"transformers\.CLIPTextModel",
    "tokenizer": r"transformers\.CLIPTokenizer(Fast)?",
    "scheduler": r"diffusers\.[A-Z][A-Za-z]*Scheduler",
}
#: transformers leaves values out of a saved configuration that equal its defaults
_TEXT_DEFAULTS: Final = {"vocab_size": 49408, "hidden_size": 512}

_NEEDED: Final = "AnimateDiff here needs a Stable Diffusion 1.5 base model: UNet, VAE and text encoder in one file"
_CHOOSE: Final = "Choose a Stable Diffusion 1.5 checkpoint (.safetensors) or a diffusers folder of one."


def check_sd15_checkpoint(path: Path, config_folder: Path | None = None) -> Path:
    """Check by its header that `path` is a Stable Diffusion 1.x base model that fits the configuration.

    Returns:
        The configuration folder it fits: `config_folder`, else the folder of the file when that holds a
        `model_index.json`, else `SD15_CONFIGS`.

    Raises:
        SetupError: `model_not_found`, or `invalid_model` naming what the file looks like instead, or what is wrong
            with it or with the configuration.
    """
    return _checked(path, config_folder)[1]


def load_sd15_components(path: Path, dtype: torch.dtype, config_folder: Path | None = None) -> dict[str, Any]:
    """Load a Stable Diffusion 1.x base model from one `.safetensors` file, to the CPU and without the network.

    Args:
        path: the checkpoint, in the original (LDM) layout.
        dtype: of the weights once loaded.
        config_folder: a diffusers folder whose configurations and tokenizer to use; see `check_sd15_checkpoint`.

    Returns:
        `unet` (`UNet2DConditionModel`), `vae` (`AutoencoderKL`), `text_encoder` (`CLIPTextModel`), `tokenizer`
        (`CLIPTokenizer`) and `scheduler` (the configuration's own).

    Raises:
        SetupError: see `check_sd15_checkpoint`; also `invalid_model` when weights are missing, unknown or of another
            shape than the configuration's.
    """
    header, folder = _checked(path, config_folder)

    from diffusers import StableDiffusionPipeline
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from safetensors import SafetensorError

    try:
        with quiet():
            pipeline = StableDiffusionPipeline.from_single_file(
                str(path),
                config=str(folder),
                local_files_only=True,
                dtype=dtype,
                safety_checker=None,
                feature_extractor=None,
                image_encoder=None,
                requires_safety_checker=False,
            )
    # What diffusers raises over weights or configurations that don't fit. Not RuntimeError: out of memory is one.
    except (
        SingleFileComponentError,
        SafetensorError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OSError,
        NotImplementedError,
    ) as error:
        # the last: moving a weight without data, which is how diffusers meets a missing one
        reason = "weights are missing" if isinstance(error, NotImplementedError) else _shortened(error)
        problem = f"does not load with the configuration in {str(folder)!r}: {reason}"
        raise invalid(path, problem, _CHOOSE) from error
    components = {name: getattr(pipeline, name) for name in _CLASSES}
    _refuse_partial_load(path, header, components)
    return components


def _checked(path: Path, config_folder: Path | None) -> tuple[Header, Path]:
    _refuse_all_but_safetensors(path)
    header = read_safetensors_header(path)
    _refuse_other_kinds(path, header)
    _refuse_other_widths(path, header)
    _refuse_missing_parts(path, header)
    _refuse_odd_weights(path, header)
    folder = _config_folder_for(path, config_folder)
    _refuse_mismatch(path, header, folder)
    return header, folder


# --- what the file is -----------------------------------------------------------------------------------------------


def _refuse_all_but_safetensors(path: Path) -> None:
    # diffusers chooses its reader by this very suffix, and reads everything else as a pickle.
    if path.suffix == ".safetensors":
        return
    if path.suffix.lower() == ".safetensors":
        raise invalid(path, "has an upper-case ending", "Rename the file so that it ends in .safetensors.")
    raise invalid(
        path,
        "is not a .safetensors file. Pickles (.ckpt, .pt, .bin) can run code when they are opened and are not loaded",
        "Convert the checkpoint to .safetensors, or download it in that format.",
    )


def _refuse_other_kinds(path: Path, header: Header) -> None:
    keys = "\n".join(header)
    has_unet = any(key.startswith(_UNET) for key in header)
    for kind, pattern in _OTHER_KINDS if has_unet else _OTHER_KINDS + _LONE_PARTS:
        if re.search(pattern, keys, re.MULTILINE):
            raise invalid(path, f"looks like {kind}; {_NEEDED}", _CHOOSE)
    if not has_unet:
        raise invalid(path, f"is of a kind unknown here; {_NEEDED}", _CHOOSE)


def _refuse_other_widths(path: Path, header: Header) -> None:
    """Models that have Stable Diffusion 1's key names and other inputs."""
    for key, (_, shape) in header.items():
        kind = None
        if key == _UNET_INPUT and (len(shape) != 4 or shape[1] != 4):
            kind = _KIND_BY_INPUT_CHANNELS.get(
                shape[1] if len(shape) == 4 else 0, f"a model with a UNet input of {shape}"
            )
        elif key.startswith(_UNET) and key.endswith(_TEXT_KEYS):
            kind = _KIND_BY_TEXT_WIDTH.get(shape[-1] if shape else 0)
        if kind:
            raise invalid(path, f"looks like {kind}; {_NEEDED}", _CHOOSE)


def _refuse_missing_parts(path: Path, header: Header) -> None:
    parts = {"UNet": _UNET_INPUT, "VAE": _VAE_INPUT, "text encoder": _TOKEN_EMBEDDING}
    missing = [name for name, key in parts.items() if key not in header]
    if missing:
        raise invalid(path, f"lacks the {' and the '.join(missing)}; {_NEEDED}", _CHOOSE)


def _refuse_odd_weights(path: Path, header: Header) -> None:
    """diffusers would load integers as they are, and 8-bit floats without the scales that belong to them."""
    for key, (dtype, _) in header.items():
        if key.startswith((_UNET, _VAE, _TEXT_ENCODER)) and dtype not in _WEIGHT_DTYPES:
            if key.endswith(".position_ids"):  # counts 0 to 76; derived anew on loading
                continue
            raise invalid(path, f"is quantized or damaged: {quoted(key)} has dtype {dtype}", _CHOOSE)


# --- the configuration ----------------------------------------------------------------------------------------------


def _config_folder_for(path: Path, given: Path | None) -> Path:
    if given is not None:
        return given
    return path.parent if (path.parent / "model_index.json").is_file() else SD15_CONFIGS


def _read_config(file: Path) -> dict[str, Any]:
    remedy = f"Correct {str(file)!r}, or move the checkpoint out of that folder to use vidkit's own configuration."
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise invalid(file, f"is needed as configuration, but can't be read: {_shortened(error)}", remedy) from error
    if not isinstance(config, dict):
        raise invalid(file, "is needed as configuration, but is not a JSON object", remedy)
    return config


def _refuse_other_classes(folder: Path) -> None:
    index = _read_config(folder / "model_index.json")
    for name, pattern in _CLASSES.items():
        entry = index.get(name)
        if not (
            isinstance(entry, list)
            and all(isinstance(part, str) for part in entry)
            and re.fullmatch(pattern, ".".join(entry))
        ):
            problem = f"names {quoted(entry)} as {name}, which no Stable Diffusion 1.x model has"
            raise invalid(
                folder / "model_index.json", problem, "Use the configuration of a Stable Diffusion 1.5 model."
            )


def _refuse_mismatch(path: Path, header: Header, folder: Path) -> None:
    _refuse_other_classes(folder)
    unet = _read_config(folder / "unet" / "config.json")
    vae = _read_config(folder / "vae" / "config.json")
    text = _TEXT_DEFAULTS | _read_config(folder / "text_encoder" / "config.json")
    try:
        width = unet["cross_attention_dim"]
        expected: Mapping[str, tuple[object, ...]] = {
            _UNET_INPUT: (unet["block_out_channels"][0], unet["in_channels"], 3, 3),
            _VAE_INPUT: (vae["block_out_channels"][0], vae["in_channels"], 3, 3),
            _TOKEN_EMBEDDING: (text["vocab_size"], text["hidden_size"]),
        }
    except (LookupError, TypeError) as error:
        raise invalid(
            folder, f"is not the configuration of a Stable Diffusion 1.x model: {error!r}", _CHOOSE
        ) from error
    for key, (_, shape) in header.items():
        if key.startswith(_UNET) and key.endswith(_TEXT_KEYS) and shape[1:] != (width,):
            problem = f"has text conditions of width {shape[-1:]}, its configuration in {str(folder)!r} {width}"
            raise invalid(path, f"{problem}; {_NEEDED}", _CHOOSE)
        if shape != expected.get(key, shape):
            problem = f"has {key} of shape {shape}, its configuration in {str(folder)!r} {expected[key]}"
            raise invalid(path, f"{problem}; {_NEEDED}", _CHOOSE)


# --- loading --------------------------------------------------------------------------------------------------------


def _refuse_partial_load(path: Path, header: Header, components: Mapping[str, Any]) -> None:
    """diffusers leaves weights without data that the file lacks, and only logs those the model has no place for."""
    for name in ("unet", "vae", "text_encoder"):
        missing = [key for key, weight in components[name].state_dict().items() if weight.is_meta]
        if missing:
            raise invalid(path, f"lacks {len(missing)} weights of the {name}, {missing[0]!r} for one", FETCH_AGAIN)
    held = sum(key.startswith(_UNET) for key in header)
    used = len(components["unet"].state_dict())  # the layouts differ in names only, not in how weights are divided
    if held != used:
        raise invalid(path, f"has {held} UNet tensors where Stable Diffusion 1.x has {used}; {_NEEDED}", _CHOOSE)


# --- errors ---------------------------------------------------------------------------------------------------------


def _shortened(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
