"""How much device memory is free for a request now."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Final

#: seconds that an answer of nvidia-smi is used again, and after which it is not waited for any longer
FRESH: Final = 1.0
PATIENCE: Final = 3.0

_answer: tuple[float, int | None] = (-FRESH, None)


def free_device_memory() -> int | None:
    """Bytes that a request may take on the GPU; None where there is none, or it does not say.

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
        _answer = (time.monotonic(), ask_driver())
    return _answer[1]


def ask_driver() -> int | None:
    """Free memory of the first GPU that this process may use, by nvidia-smi, which creates no context on the device."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()  # an index or an id
    if program is None or visible in ("", "-1"):
        return None
    query = [program, f"--id={visible}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        return int(answer.split()[0]) * 2**20  # it says MiB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # no driver, no GPU, or "[N/A]"
