"""What a clip knows of itself: the record in its tag and sidecar, and the way back from a clip to its request."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import vidkit
from vidkit.errors import InputError
from vidkit.images import decode_png, encode_png, load_image
from vidkit.lora_list import LORAS, LoraEntry, loras_text, weight_text
from vidkit.models.files.content_hash import remembered
from vidkit.models.locate import BUNDLED_PREFIX, Model
from vidkit.models.loras import check_different, is_lora, weights_of_loras
from vidkit.near_paths import near_paths
from vidkit.params import SCHEMA_VERSION, GenerationParams, OutputFormat, wire_name
from vidkit.paths import local_path
from vidkit.settings import load_settings
from vidkit.video import read_cover, read_record, sidecar_path, write_sidecar

if TYPE_CHECKING:
    from PIL import Image

#: IPTC's term for media made by a trained model: https://cv.iptc.org/newscodes/digitalsourcetype/
AI_GENERATED: Final = {
    "declaration": "AI-generated",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}

#: raised when the same request would give other frames than before
RESULTS_VERSION: Final = 3

#: parameters that say where things lie on this machine, not what the clip is
PATH_PARAMETERS: Final = (
    "imagePath",
    "lastImagePath",
    "outputPath",
    "baseModel",
    "motionAdapter",
    "controlnet",
    "loras",
)
VIDEO_SUFFIXES: Final = tuple(f".{name}" for name in get_args(OutputFormat))


def make_record(
    params: GenerationParams,
    *,
    models: Mapping[str, Mapping[str, str]],
    pictures: Sequence[Mapping[str, str]],
    plan: Mapping[str, Any],
    notes: Sequence[str],
    safety_checker: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole request (resolved, seed drawn), what it was made with and how. Names and hashes, no absolute paths.

    models: as `identities_of`; pictures: name and sha256 of each input file; safety_checker: whether the clip was
    checked, and by what.
    """
    return {
        **AI_GENERATED,
        "generator": "vidkit",
        "schemaVersion": SCHEMA_VERSION,
        **content_of(params, models=models, pictures=pictures, safety_checker=safety_checker),
        "plan": dict(plan),
        "notes": list(notes),
        "versions": versions(),
    }


def identities_of(
    params: GenerationParams, models: Mapping[str, Model], hashes: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of a request's models by camelCase parameter; LoRAs as lora1, lora2, ... with their weights.

    models, hashes: by snake_case name among the request's models.

    Raises:
        InputError: `invalid_value`, when two LoRAs have the same content.
    """
    check_different(params, hashes)
    lora_weights = weights_of_loras(params)
    found = {}
    for name, model in models.items():
        identity = {"name": model.stored_name, "sha256": hashes[name]}
        if is_lora(name):
            found[name.replace("_", "")] = {**identity, "weight": weight_text(lora_weights[name])}
        else:
            found[wire_name(name)] = identity
    return found


def names_of_models(
    models: Mapping[str, Mapping[str, str]], name_of: Callable[[Mapping[str, str]], str] = lambda model: model["name"]
) -> dict[str, str]:
    """What a request calls a record's models, by camelCase parameter, its LoRAs as one list."""
    names = {name: name_of(model) for name, model in models.items() if "weight" not in model}
    loras = [LoraEntry(name_of(model), float(model["weight"])) for model in models.values() if "weight" in model]
    return {**names, LORAS: loras_text(loras)} if loras else names


#: parameters that came later than the keys of clips: with these values a clip keeps the key it had
ADDED: Final = (("windowFrames", None), ("allowChanges", False), ("turboShare", 0.25), ("windowing", "chained"))


def content_of(
    params: GenerationParams,
    *,
    models: Mapping[str, Mapping[str, str]],
    pictures: Sequence[Mapping[str, str]],
    safety_checker: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The part of a record that decides the frames, and whether anybody gets them; arguments as `make_record`."""
    left_out = {*PATH_PARAMETERS, "overwrite", "bare"}
    return {
        "resultsVersion": RESULTS_VERSION,
        "request": {key: value for key, value in params.to_record().items() if key not in left_out},
        "models": {name: dict(model) for name, model in models.items()},
        "pictures": [dict(picture) for picture in pictures],
        **({} if safety_checker is None else {"safetyChecker": dict(safety_checker)}),
    }


def key_of(record: Mapping[str, Any]) -> str:
    """The content key of a clip: 64 hex digits, the same for the same frames to make, whatever files are called.

    SHA-256 of the canonical JSON (sorted keys, no spaces, ASCII) of the results version, the resolved request without
    its paths, the SHA-256 of each input picture's file and of each model, and the weights of LoRAs, whose order makes
    no difference. Where the settings have every clip checked that is in it too: a clip that was made before must not
    stand for one that is checked. record: as `make_record` or `content_of`.
    """
    all_checked = record.get("safetyChecker", {}).get("setting") == "on"
    models = record["models"]
    hashes: dict[str, Any] = {name: model["sha256"] for name, model in models.items() if "weight" not in model}
    loras = sorted([model["sha256"], model["weight"]] for model in models.values() if "weight" in model)
    content = {
        "resultsVersion": record["resultsVersion"],
        "request": {name: value for name, value in record["request"].items() if (name, value) not in ADDED},
        "models": {**hashes, LORAS: loras} if loras else hashes,
        "pictures": [
            {kind: sha256 for kind, sha256 in picture.items() if kind != "name"} for picture in record["pictures"]
        ],
        **({"allChecked": True} if all_checked else {}),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def versions() -> dict[str, str]:
    """Of what makes a clip, by package; a GIF is made without imageio-ffmpeg too."""
    found = {"vidkit": vidkit.__version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "Pillow", "imageio-ffmpeg"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def file_identity(path: Path) -> dict[str, str]:
    """Name and SHA-256 of an input picture's file; of its sidecar too, where that is what holds a clip's picture.

    Raises:
        InputError: `image_not_found`, when it cannot be read.
    """
    try:
        if not path.is_file():  # a folder; a pipe or a device would never end
            raise FileNotFoundError(errno.ENOENT, "no such file")
        identity = {"name": path.name, "sha256": sha256_of(path)}
        if is_clip(path) and path.suffix.lower() != ".mp4" and sidecar_path(path).is_file():
            identity["sidecarSha256"] = sha256_of(sidecar_path(path))
        return identity
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            "image_not_found",
            f"The image {str(path)!r} cannot be read ({reason}).",
            near_paths(path),
        ) from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_clip_sidecar(clip: Path, record: Mapping[str, Any], pictures: Sequence[Image.Image]) -> None:
    """The record beside the clip. pictures: the fitted input pictures, for containers that carry no cover art."""
    stored = [base64.b64encode(encode_png(picture)).decode("ascii") for picture in pictures]
    write_sidecar(clip, {**record, "storedPictures": stored} if stored else record)


def show(clip: str | Path) -> dict[str, Any]:
    """A clip's record: request, seed, plan, models' hashes, versions, the AI-generated declaration.

    Raises:
        InputError: `clip_not_found`; `invalid_clip`, when vidkit did not write it or its tags were stripped.
    """
    record = read_record(local_path(clip))
    if record.get("digitalSourceType") != AI_GENERATED["digitalSourceType"]:
        raise InputError(
            "invalid_clip", f"{clip} has a comment, but not vidkit's record.", ["Give a clip that vidkit wrote"]
        )
    return record


def request_from_clip(clip: str | Path) -> dict[str, Any]:
    """The request that makes a clip again, as a camelCase mapping; the clip itself is its picture.

    Raises:
        InputError: `clip_not_found`; `invalid_clip`, also for a clip made with `bare`.
    """
    path = local_path(clip).absolute()
    record = show(path)
    if "request" not in record:
        raise InputError(
            "invalid_clip",
            f"{clip} was made with 'bare': it holds no settings.",
            ["Use the original request", "Make clips without --bare to keep their settings in them"],
        )
    try:
        return remade(record, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            "invalid_clip",
            f"{clip} holds a record that vidkit did not write like this ({type(error).__name__}: {error}).",
            ["Use the original clip or request"],
        ) from error


def remade(record: Mapping[str, Any], clip: Path) -> dict[str, Any]:
    """A record's request with its models where they are now, and the clip as its picture."""
    request = dict(record["request"])
    settings = load_settings()

    def place(model: Mapping[str, str]) -> str:
        if model["name"].startswith(BUNDLED_PREFIX):
            return model["name"]
        # outside the models folder, or another model there has its name by now
        return str(remembered(model["sha256"], settings) or model["name"])

    request |= record.get("plan", {}).get("changes", {})  # what was computed, whatever was asked for
    request |= names_of_models(record["models"], place)
    request["imagePath"] = str(clip)
    if len(record["pictures"]) > 1:
        request["lastImagePath"] = str(clip)
    return request


def is_clip(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def load_picture(path: Path, number: int = 0) -> Image.Image:
    """An input picture, RGB: an image file, or the picture stored in a vidkit clip (number 1: its last frame's).

    Raises:
        InputError: as `load_image`; `invalid_image` for a video that stores no picture.
    """
    if not is_clip(path):
        return image_file(path, number)
    stored = stored_pictures(path) if path.is_file() else []
    if number < len(stored):
        return stored[number]
    if not path.is_file() or (path.suffix.lower() == ".gif" and not is_ours(path)):
        return image_file(path, number)  # any other animation: its first frame; or the error for what is not there
    raise InputError(
        "invalid_image",
        f"{path.name} is a video, and no picture is stored in it.",
        ["Give a picture (JPEG, PNG, WebP, BMP, TIFF, GIF)", "Give a clip that vidkit wrote without --bare"],
    )


def image_file(path: Path, number: int) -> Image.Image:
    """An image file; where there is none, what is near is told so that a program can set it."""
    try:
        return load_image(path)
    except InputError as error:
        if error.code == "image_not_found":
            parameter = ("image_path", "last_image_path")[number]
            error.suggestions, error.concerns = near_paths(path, parameter), (parameter,)
        raise


def is_ours(clip: Path) -> bool:
    try:
        return "request" in show(clip)
    except InputError:
        return False


def stored_pictures(clip: Path) -> list[Image.Image]:
    """The fitted input pictures in a clip: its cover art, else those in its sidecar."""
    try:
        covers = [] if clip.suffix.lower() == ".gif" else read_cover(clip)
        if covers or not sidecar_path(clip).is_file():
            return covers
        sidecar = read_json_record(sidecar_path(clip))
        return [decode_png(base64.b64decode(text)) for text in sidecar.get("storedPictures", [])]
    except (InputError, binascii.Error, ValueError):
        return []  # a damaged clip stores nothing; the caller says what it needs


def read_json_record(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
