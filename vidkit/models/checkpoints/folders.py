"""What a folder is: a pipeline of diffusers by its `model_index.json`, one part by its `config.json`, or a LoRA's.

Reads JSON and headers only, and gives nothing to diffusers; whether the folder may be loaded, `folder_safety` tells.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vidkit.models.checkpoints.findings import Finding, known
from vidkit.models.checkpoints.folder_configs import part_of_config, pipeline_of_configs
from vidkit.models.checkpoints.keys import Keys
from vidkit.models.checkpoints.kinds import counted, recognized
from vidkit.models.files.config_files import invalid_config, read_json
from vidkit.models.files.file_format import FETCH_AGAIN, invalid, quoted
from vidkit.models.files.file_identity import RememberedByFile
from vidkit.models.files.pickles import read_header
from vidkit.models.folder_scan import WEIGHTS

#: parts that a pipeline may be loaded without
_OPTIONAL: Final = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
#: what a part's subfolder holds beside weights
_SETTINGS: Final = (
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
#: a file of a part's weights: whole or in shards, safetensors or a pickle, in any variant ("fp16", "non_ema", ...)
_PART_WEIGHTS: Final = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<early>[a-z]\w*))?(?:-\d+-of-(?P<shards>\d+))?"
    r"(?:\.(?P<late>[a-z]\w*))?\.(?P<suffix>safetensors|bin)"
)

Told = tuple[Finding, Counter[str]]


def inspect_folder(folder: Path) -> Told:
    """What it is, and its values by dtype, each weight counted once.

    Raises:
        SetupError: `invalid_model`, for a folder that is no model, or of a kind unknown here.
    """
    if (folder / "model_index.json").is_file():
        return inspect_pipeline(folder)
    if (folder / "config.json").is_file():
        return part_of_config(folder / "config.json"), values_in(folder)
    return inspect_weights_alone(folder)


def inspect_pipeline(folder: Path) -> Told:
    index = read_json(folder / "model_index.json")
    names = [name for name, entry in index.items() if is_part(entry) and not name.startswith("_")]
    for name in names:
        if not re.fullmatch(r"\w+", name):
            raise invalid_config(folder / "model_index.json", f"{quoted(name)} is no name of a part")
    configs = {name: read_json(folder / name / "config.json") for name in names if has_config(folder / name)}
    values = {name: values_in(folder / name) for name in configs}
    absent = [name for name in names if name not in configs and not has_settings(folder / name)]
    lacks = [name for name in absent if name not in _OPTIONAL]
    lacks += [f"weights of {name}" for name, found in values.items() if not found]
    scheduler = folder / "scheduler" / "scheduler_config.json"
    settings = read_json(scheduler) if scheduler.is_file() else {}
    found = pipeline_of_configs(folder / "model_index.json", str(index.get("_class_name")), configs, settings)
    details = {**found.details, **known(lacks=tuple(lacks), parts=tuple(names))}
    return Finding(found.kind, found.architecture, found.version, found.class_name, details), total(values.values())


def is_part(entry: object) -> bool:
    """Those that a pipeline has not are written as [null, null]."""
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "tokenizer_config.json").is_file()


def has_settings(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SETTINGS)


def inspect_weights_alone(folder: Path) -> Told:
    """A LoRA or another adapter, whose folders hold a file of weights, and peft's a config beside it."""
    file = the_weights(folder)
    keys = Keys(read_header(file))
    found = recognized(keys, file)
    return found, counted(keys.header)


def the_weights(folder: Path) -> Path:
    """The one file of weights of a folder without configs."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix in WEIGHTS]
    preferred = [file for file in files if file.suffix == ".safetensors"] or files
    usual = [
        file for file in preferred if re.match(r"(pytorch_lora_weights|adapter_model|learned_embeds)\.", file.name)
    ]
    chosen = usual or preferred
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise invalid(
            folder,
            "is not a diffusers model: it has neither model_index.json nor config.json, nor weights",
            "Give the folder that holds model_index.json, and check that the download is complete",
        )
    names = ", ".join(file.name for file in chosen[:6])
    raise invalid(folder, f"holds {len(chosen)} files of weights and no config: {names}", "Give one of the files")


def values_in(folder: Path) -> Counter[str]:
    """Of the weights that a part's folder holds, each counted once whatever variants there are; all their dtypes."""
    variants = [total(_VALUES.get(file, values_of) for file in files) for files in weight_variants(folder)]
    values = variants[0] if variants else Counter()
    values.update({dtype: 0 for other in variants[1:] for dtype in other})
    return values


def weight_variants(folder: Path) -> list[list[Path]]:
    """The sets of weights of a part, each of them whole: the plain one first, then fp16 and the like.

    Raises:
        SetupError: `invalid_model`, when a set lacks a shard.
    """
    sets: dict[str, list[Path]] = {}
    shards: dict[str, int] = {}
    found = [(match, file) for file in sorted(folder.iterdir()) if (match := _PART_WEIGHTS.fullmatch(file.name))]
    for suffix in ("safetensors", "bin"):
        of_suffix = [
            (match["early"] or match["late"] or "", match, file) for match, file in found if match["suffix"] == suffix
        ]
        new = {variant for variant, _, _ in of_suffix} - set(sets)  # a pickle beside safetensors is the same again
        for variant, match, file in of_suffix:
            if variant in new:
                sets.setdefault(variant, []).append(file)
                shards[variant] = int(match["shards"] or 1)
    for variant, files in sets.items():
        if len(files) < shards[variant]:
            raise invalid(folder, f"holds {len(files)} of {shards[variant]} shards of its weights", FETCH_AGAIN)
    return [sets[variant] for variant in sorted(sets)]


def values_of(file: Path) -> Counter[str]:
    return counted(read_header(file))


def total(several: Iterable[Counter[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in several:
        found.update(one)
    return found


_VALUES: Final[RememberedByFile[Counter[str]]] = RememberedByFile(most=256)
