"""The settings file, and the environment variables that change what vidkit or torch do."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any, Final

from vidkit.errors import SetupError
from vidkit.finding import Finding, note, ok, problem
from vidkit.placement import ALLOCATOR_SETTINGS
from vidkit.settings import Settings, config_path, load_settings
from vidkit.settings_schema import entries

#: of vidkit's own variables
PREFIX: Final = "VIDKIT_"
#: others that are worth knowing; what they do where they are set, "" where that is as expected
OTHERS: Final = {
    **dict.fromkeys(ALLOCATOR_SETTINGS, "torch's allocator keeps to it; unset, vidkit has its segments grow"),
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HOME": "",
    "HF_HUB_CACHE": "",
    "IMAGEIO_FFMPEG_EXE": "",
    "OMP_NUM_THREADS": "",
    "TMPDIR": "",
}
#: and what is left over from a search for a defect: what each does
SLOW: Final = {
    "CUDA_LAUNCH_BLOCKING": "each of the GPU's kernels is waited for",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "memory is taken from the driver anew each time",
    "TORCH_SHOW_CPP_STACKTRACES": "errors are collected slowly",
    "NVIDIA_TF32_OVERRIDE": "it changes how the GPU rounds, and so the frames",
}


def settings_file() -> Iterator[Finding]:
    topic, path = "settings", config_path()
    try:
        load_settings()
    except SetupError as error:
        yield problem(topic, error.message, *error.suggestions, stops=True, file=str(path))
        return
    yield ok(topic, f"{path} {'can be read' if path.exists() else 'is not there: defaults'}.", file=str(path))


def environment() -> Iterator[Finding]:
    topic = "environment"
    own = {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIX)}
    others = {name: os.environ[name] for name in OTHERS if name in os.environ}
    data: dict[str, Any] = {"variables": own | others}
    told = ", ".join(f"{name}={value}" for name, value in (own | others).items())
    yield ok(topic, f"Set: {told}." if told else "Nothing is set that changes what vidkit does.", **data)
    for name in (name for name, words in OTHERS.items() if words and name in others):
        yield note(topic, f"{name}: {OTHERS[name]}.", f"Unset {name} when memory runs short though enough is free")
    for name in (name for name in SLOW if os.environ.get(name, "0") not in ("", "0")):
        yield note(topic, f"{name} is set: {SLOW[name]}.", f"Unset {name}")
    known = known_variables()
    for name in sorted(own.keys() - known):
        near = difflib.get_close_matches(name, known, n=1)
        yield note(topic, f"vidkit knows no {name}.", *(f"Did you mean {one}?" for one in near))


def known_variables() -> set[str]:
    """vidkit's own: the settings know them."""
    return {entry.variable for entry in entries(Settings) if entry.variable}
