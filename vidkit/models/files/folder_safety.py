"""Whether a model's folder may be loaded: its configs name only known classes, its paths stay inside, nothing runs.

diffusers imports whatever module and class a `model_index.json` names, a module beside it too; transformers follows
`auto_map`, fetches attention kernels that a config names, and loads the base model of an adapter it finds. So what a
folder may say is listed here, and the folder is checked before any of the two sees it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vidkit.errors import SetupError
from vidkit.models.files.file_format import FETCH_AGAIN, invalid, quoted
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.near_paths import near_paths

#: What the families load, and what diffusers saves beside it, as library.class. `stable_diffusion` is how diffusers
#: names its own safety checker.
ALLOWED_CLASSES: Final = re.compile(
    r"diffusers\.("
    r"(StableDiffusion|StableVideoDiffusion|AnimateDiff|PIA|LatentConsistencyModel)[A-Za-z0-9]*Pipeline"
    r"|[A-Z][A-Za-z]*Scheduler"
    r"|UNet2DConditionModel|UNetMotionModel|UNetSpatioTemporalConditionModel"
    r"|AutoencoderKL|AutoencoderKLTemporalDecoder|AutoencoderTiny|AsymmetricAutoencoderKL"
    r"|MotionAdapter|ControlNetModel|SparseControlNetModel)"
    r"|transformers\.CLIP("
    r"TextModel|TextModelWithProjection|VisionModel|VisionModelWithProjection"
    r"|Tokenizer|TokenizerFast|FeatureExtractor|ImageProcessor|ImageProcessorFast|ImageProcessorPil)"
    r"|stable_diffusion\.StableDiffusionSafetyChecker"
)
#: keys that hold a class's name alone
_CLASS_KEYS: Final = ("_class_name", "tokenizer_class", "image_processor_type", "feature_extractor_type")

#: keys that lead to code, or to fetching, whatever their value
_FORBIDDEN_KEYS: Final = frozenset(
    {"auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines", "kernel_config", "use_kernels"}
)
#: attention by a name of the hub is code that is fetched
_ATTENTION_KEYS: Final = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})
_ATTENTIONS: Final = (None, "eager", "sdpa")
#: keys whose value is the path of a file, or some. transformers takes a tokenizer's from its config before its own.
_PATH_KEYS: Final = re.compile(r"\w+_files?")
#: written by trainers with paths of their machines, and not read any more
_UNREAD_PATH_KEY: Final = "special_tokens_map_file"

_CONFIG_NAME: Final = re.compile(r"(\w+_)?config\.json|model_index\.json|special_tokens_map\.json", re.IGNORECASE)
_INDEX_NAME: Final = re.compile(r".+\.index(\.[\w-]+)?\.json", re.IGNORECASE)
_CODE_SUFFIXES: Final = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"})
_PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
#: a file in the hub's cache, to which the links of a snapshot lead
_HUB_BLOB: Final = re.compile(r".*/models--[^/]+/blobs/[0-9a-f]{40}([0-9a-f]{24})?")
#: parts that nothing here loads; older folders hold them as pickles only
_UNUSED_PARTS: Final = frozenset({"safety_checker", "feature_extractor"})

MAX_CONFIG_BYTES: Final = 4 * 2**20
MAX_ENTRIES: Final = 10_000
MAX_DEPTH: Final = 4

_fine: Final[RememberedByFile[None]] = RememberedByFile(most=1024)


def check_folder(path: Path, models_folder: Path | None = None, *, configs_only: bool = False) -> None:
    """Refuse a diffusers folder that would run code, read outside of itself, or fetch when it is loaded.

    To be called before anything of the folder is given to diffusers or transformers. Reads names and JSON only, and
    each JSON file once while it stays what it is.

    Args:
        models_folder: links may lead to anywhere in it. Else they may lead to the folder itself, to files of the
            hub's cache, and to any `.safetensors` file, which is only data.
        configs_only: it is the folder around a model in one file, and no other weights of it are loaded.

    Raises:
        SetupError: `model_not_found` when there is no such folder; `invalid_model`, naming the file, what is wrong in
            it, and what to do.
    """
    if not path.is_dir():
        raise SetupError("model_not_found", f"There is no model folder {str(path)!r}.", near_paths(path))
    home = path.resolve()
    inside = [home] if models_folder is None else [home, models_folder.resolve()]
    try:
        files = list(_files(path, inside))
        for file in files:
            _check_name(file)
            if _CONFIG_NAME.fullmatch(file.name):
                _fine.get(file, lambda file: _checked(file, _check_config))
            elif _INDEX_NAME.fullmatch(file.name):
                _fine.get(file, lambda file: _checked(file, _check_index))
        if not configs_only:
            _check_weights(path, files)
    except OSError as error:
        file = Path(str(error.filename or path))
        raise invalid(file, f"cannot be read: {error.strerror or error}", "Check the file's permissions.") from error


# --- files and links ------------------------------------------------------------------------------------------------


def _files(path: Path, inside: list[Path]) -> Iterator[Path]:
    """The files that are not hidden, in all subfolders, links followed; what they lead to is checked first."""
    waiting, seen = [(path, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            seen += 1
            if seen > MAX_ENTRIES or depth > MAX_DEPTH:
                raise invalid(path, "holds too many files or too deep folders for a model", "Give the model's folder.")
            if entry.name.startswith("."):
                continue
            found = Path(entry.path)
            mode = _mode(found, inside)
            if stat.S_ISDIR(mode):
                waiting.append((found, depth + 1))
            elif stat.S_ISREG(mode):
                yield found
            else:
                raise invalid(found, "is neither a file nor a folder", "Remove it from the model's folder.")


def _mode(path: Path, inside: list[Path]) -> int:
    """Of a file or folder, or of what a link leads to, when it may lead there."""
    if not path.is_symlink():
        return path.lstat().st_mode
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise invalid(path, "is a link that leads nowhere", FETCH_AGAIN) from error
    mode = target.stat().st_mode
    if any(target.is_relative_to(folder) for folder in inside) or _HUB_BLOB.fullmatch(target.as_posix()):
        return mode
    if stat.S_ISREG(mode) and target.suffix == ".safetensors" and path.suffix == ".safetensors":
        return mode
    raise invalid(
        path,
        f"is a link that leads out of the model's folder, to {str(target)!r}",
        "Put a copy of the file in its place.",
    )


def _check_name(file: Path) -> None:
    if file.suffix.lower() in _CODE_SUFFIXES:
        raise invalid(
            file,
            "is a program in a model's folder, and would run when the model is loaded by its libraries",
            "Remove it if you trust the rest of the folder; models that need their own code are not supported.",
        )
    if file.name == "adapter_config.json" and (file.parent / "config.json").exists():
        raise invalid(
            file,
            "names another model to be loaded in place of this one",
            "Remove it; give LoRAs by the parameter loras.",
        )


def _check_weights(path: Path, files: list[Path]) -> None:
    """Pickles beside safetensors files are left alone; where nothing else is there, they are named."""
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    for file in files:
        if file.suffix.lower() in _PICKLE_SUFFIXES and file.parent not in safe | {
            path / part for part in _UNUSED_PARTS
        }:
            raise invalid(
                file,
                "is a pickle, and its folder has no .safetensors file; only these are loaded from folders",
                f"Convert it: vidkit models convert {file} {file.with_suffix('.safetensors').name}",
            )


# --- configs --------------------------------------------------------------------------------------------------------


def _checked(file: Path, check: Callable[[Path, Mapping[str, Any]], None]) -> None:
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise invalid(file, f"has more than the {MAX_CONFIG_BYTES} bytes allowed of a config", FETCH_AGAIN)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        check(file, content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise invalid(file, f"is no usable config: {reason}", FETCH_AGAIN) from error


def _check_config(file: Path, config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if file.name == "model_index.json":
            _check_part(file, key, value)
        if key in _CLASS_KEYS and not _is_known_class(value):
            raise _unknown_class(file, value, key)
        if _PATH_KEYS.fullmatch(key) and key != _UNREAD_PATH_KEY and not _are_inside(value):
            raise invalid(file, f"names a file outside of its folder: {quoted(key)} is {quoted(value)}", FETCH_AGAIN)
    _check_keys(file, config)


def _check_keys(file: Path, value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _check_keys(file, item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in _FORBIDDEN_KEYS and item:
            raise invalid(
                file,
                f"has {quoted(key)}, by which a model brings its own code",
                "Models that need their own code are not supported.",
            )
        if key == "quantization_config" and item:
            raise invalid(file, "is of a quantized model", "Use the model in half or full precision.")
        if key in _ATTENTION_KEYS and item not in _ATTENTIONS:
            raise invalid(file, f"asks for attention code of its own: {quoted(key)} is {quoted(item)}", FETCH_AGAIN)
        _check_keys(file, item)


def _check_part(file: Path, key: str, value: Any) -> None:
    """An entry of a `model_index.json`: "part": ["library", "class"], [null, null] for a part that is left out."""
    if key.startswith("_") or value is None or isinstance(value, bool | int | float | str):
        return
    if not re.fullmatch(r"[a-z]\w*", key, re.ASCII):
        raise invalid(file, f"has a part with the name {quoted(key)}, which is no folder's", FETCH_AGAIN)
    if value == [None, None]:
        return
    named = isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)
    if not named or not ALLOWED_CLASSES.fullmatch(".".join(value)):
        raise _unknown_class(file, value, key)


def _is_known_class(value: Any) -> bool:
    return isinstance(value, str) and any(
        ALLOWED_CLASSES.fullmatch(f"{library}.{value}") for library in ("diffusers", "transformers", "stable_diffusion")
    )


def _unknown_class(file: Path, value: Any, key: str) -> SetupError:
    return invalid(
        file,
        f"names {quoted(value)} as {quoted(key)}, which is not among the classes that vidkit loads",
        "Use a model for Stable Video Diffusion or AnimateDiff (Stable Diffusion 1.5), as diffusers saves it.",
    )


def _are_inside(value: Any) -> bool:
    """Whether what may be paths, one or some in any order, stay in their folder."""
    if isinstance(value, list | dict):
        return all(map(_are_inside, value.values() if isinstance(value, dict) else value))
    if not isinstance(value, str):
        return True
    parts = re.split(r"[/\\]", value)
    return ".." not in parts and parts[0] != "" and ":" not in value and not value.startswith("~")


def _check_index(file: Path, index: Mapping[str, Any]) -> None:
    """The files that the weights of one part are divided into lie beside the index, under plain names."""
    files = index.get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError("it has no weight_map")
    for name in sorted(set(files.values())):
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise invalid(file, f"names a file outside of its folder: {quoted(name)}", FETCH_AGAIN)
        if name.endswith(".safetensors") and not (file.parent / name).exists():
            raise invalid(file, f"needs {quoted(name)}, which is not there", "Fetch the model again; it is incomplete.")
