"""How much memory is free for a request now."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

from vidkit.device import chosen_device

#: seconds that an answer of nvidia-smi is used again, and after which it is not waited for any longer
FRESH: Final = 1.0
PATIENCE: Final = 3.0
#: where the answer is needed once: without a process that keeps drivers awake, many GPUs take seconds to wake
LONG_PATIENCE: Final = 20.0

#: bytes that CUDA takes for itself once a process uses the GPU: some 0.3 GiB on a small card, 0.5 on a large one
CONTEXT: Final = 2**29

logger = logging.getLogger("vidkit")

_answer: tuple[float, int | None] = (-FRESH, None)


def free_host_memory() -> int:
    """Bytes of the host's memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def expected_device() -> str:
    """The device on which this machine will compute ("cuda" or "cpu"), told without loading torch.

    As `vidkit.device.chosen_device` once torch is there; before, a GPU counts that nvidia-smi knows, where torch was
    built for CUDA.
    """
    if "torch" in sys.modules:
        return chosen_device()
    wanted = os.environ.get("VIDKIT_DEVICE", "auto").lower()
    if wanted != "auto":
        return "cpu" if wanted == "cpu" else "cuda"
    return "cuda" if torch_knows_cuda() and free_device_memory() is not None else "cpu"


def torch_knows_cuda() -> bool:
    """By the file in which a build says for what it was made."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return False
    version = Path(found.submodule_search_locations[0], "version.py")
    try:
        return re.search(r"^cuda\b[^=]*= *['\"]", version.read_text(encoding="utf-8"), re.MULTILINE) is not None
    except OSError:
        return False


def free_device_memory() -> int | None:
    """Bytes that a request may take on the GPU; None where there is none, or it does not say. Loads no torch.

    What this process holds already counts as free: the loaded models are used again or dropped first, and memory that
    the allocator keeps is used again.
    """
    global _answer
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # torch may be half loaded, by another thread
    if cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized():
        free, _ = cuda.mem_get_info()
        return int(free + cuda.memory_reserved())
    if time.monotonic() - _answer[0] >= FRESH:
        free_now = ask_driver()
        _answer = (time.monotonic(), None if free_now is None else max(free_now - CONTEXT, 0))
    return _answer[1]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; none where a CPU is to compute, or
    where there is no nvidia-smi to ask; also where that does not answer, which is logged. Loads no torch.
    """
    if os.environ.get("VIDKIT_DEVICE", "auto").lower() == "cpu":
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = ask("--query-gpu=uuid", seconds=LONG_PATIENCE) if given is None else given.split(",")
    found = [name.strip() for name in names if name.strip() not in ("", "-1")]
    if not found and given is None and shutil.which("nvidia-smi"):
        logger.warning("nvidia-smi does not tell which GPUs there are: all workers compute on the first")
    return found


def ask_driver() -> int | None:
    """Free memory of the first GPU that this process may use, by nvidia-smi, which creates no context on the device."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()  # an index or an id
    if visible in ("", "-1"):
        return None
    try:
        return int(ask(f"--id={visible}", "--query-gpu=memory.free")[0]) * 2**20  # it says MiB
    except (ValueError, IndexError):
        return None  # no answer, or "[N/A]"


def ask(*question: str, seconds: float | None = None) -> list[str]:
    """The lines that nvidia-smi answers; none where there is no driver, or no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, *question, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=seconds or PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
