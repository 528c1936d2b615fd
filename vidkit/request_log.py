"""What is logged of one request: that it begins and ends, and each of its phases with its time and memory."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from vidkit.errors import VidkitError
from vidkit.log_privacy import last_part, remember
from vidkit.logs import log_failure, log_unless_chosen, tag_lines
from vidkit.lora_list import LORAS, parse_loras
from vidkit.params import GenerationParams
from vidkit.record import PATH_PARAMETERS
from vidkit.settings import settings_or_defaults

logger = logging.getLogger("vidkit")

#: parameters that are left out, but for the setting log.private
PROMPTS: Final = ("prompt", "negativePrompt")

_numbers = itertools.count(1)


@contextmanager
def logged_request(request: GenerationParams, what: str) -> Iterator[dict[str, Any]]:
    """A line as the request begins, and one as it ends, however it does: both with its parameters or what became of it.

    Yields a dictionary for what the last line shall say of it. One request at a time.
    """
    log = settings_or_defaults().log
    if log.everywhere:
        log_unless_chosen(console="OFF")
    wire, began = request.to_wire(), time.monotonic()
    remember([str(wire.get(name, "")) for name in PROMPTS], paths_in(wire))
    tag_lines(str(next(_numbers)))
    told = wire if log.private else without_private_parameters(wire)
    logger.info("%s begins: %s", what, in_words(told), extra={"data": {"event": "begin", "parameters": told}})
    made: dict[str, Any] = {}
    try:
        yield made
    except BaseException as error:
        log_failure(what, error, time.monotonic() - began, memory_now())
        raise
    else:
        tell(f"{what} is done", "done", time.monotonic() - began, made)
    finally:
        tag_lines("")


def log_phase(phase: str, seconds: float) -> None:
    """A phase has ended. Its memory is what the process has now, and had on the GPU at most, while loading or since."""
    tell(phase, "phase", seconds, {"phase": phase})


def tell(what: str, event: str, seconds: float, more: Mapping[str, Any]) -> None:
    memory = memory_now()
    data = {"event": event, "seconds": round(seconds, 3), **more, **memory}
    words = [in_words({key: value for key, value in more.items() if key != "phase"}), memory_in_words(memory)]
    logger.info("%s: %.3f s; %s", what, seconds, "; ".join(filter(None, words)), extra={"data": data})


def clip_in_short(clip: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Of a finished clip, what its last line says."""
    names = ("pipeline", "model", "numFrames", "resolution", "seed")
    return {"clip": clip.name, **{name: metadata[name] for name in names}, "notes": len(metadata["notes"])}


def without_private_parameters(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Without prompts, and of paths their last parts."""
    return {name: shortened(name, value) for name, value in wire.items() if name not in PROMPTS}


def shortened(name: str, value: Any) -> Any:
    if name not in PATH_PARAMETERS or not isinstance(value, str):
        return value
    return ", ".join(map(last_part, named_loras(value))) if name == LORAS else last_part(value)


def paths_in(wire: Mapping[str, Any]) -> list[str]:
    given = {name: value for name, value in wire.items() if name in PATH_PARAMETERS and isinstance(value, str)}
    return [path for name, value in given.items() for path in (named_loras(value) if name == LORAS else [value])]


def named_loras(text: str) -> list[str]:
    """The names or paths in a list of LoRAs; of a list that is none, all of it."""
    try:
        return [entry.name for entry in parse_loras(text)]
    except VidkitError:
        return [text]


def in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name != "schemaVersion")


def memory_now() -> dict[str, int]:
    """Bytes: hostBytes, resident of this process; gpuPeakBytes, allocated at most, where it uses a GPU."""
    found = {"hostBytes": int(psutil.Process().memory_info().rss)}
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized():
        found["gpuPeakBytes"] = int(cuda.max_memory_allocated())
    return found


def memory_in_words(memory: Mapping[str, int]) -> str:
    words = [f"host {memory['hostBytes'] / 2**30:.2f} GiB"]
    if "gpuPeakBytes" in memory:
        words.insert(0, f"GPU peak {memory['gpuPeakBytes'] / 2**30:.2f} GiB")
    return ", ".join(words)
