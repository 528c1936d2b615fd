"""What to say of a worker that ended, or had to be ended, without an answer. Loads no torch."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from vidkit.errors import CriticalError, GenerationError, VidkitError
from vidkit.failures import smaller_requests
from vidkit.files import in_words
from vidkit.limits import how_to_raise
from vidkit.params import GenerationParams

#: Linux counts here since its start how many processes it has ended because memory ran out
KILLS: Final = Path("/proc/vmstat")

AGAIN: Final = "Send the request again: a new process is started for it"


def died(status: int, request: Mapping[str, Any], killed_for_memory: bool = False) -> CriticalError:
    """status: as of `subprocess`, negative for a signal; killed_for_memory: the system has said so."""
    message = f"The generating process ended without an answer ({how(status)})."
    if killed_for_memory:
        message += " The system's memory had run out, and it ended the process that took most of it."
    if killed_for_memory or status == -getattr(signal, "SIGKILL", 9):
        advice = [*smaller(request), free_memory(), AGAIN]
    elif status < 0 or status > 2**30:  # Windows' numbers of crashes, 0xC0000005 for one
        advice = [AGAIN, "If it crashes again, report it with what stands on stderr: a library has crashed"]
    else:
        advice = [AGAIN, "Read the last lines on stderr: they say what ended it"]
    return CriticalError("process_killed", message, advice)


def hung(limit: float, request: Mapping[str, Any]) -> GenerationError:
    """After the time limit it did not stop by itself."""
    return GenerationError(
        "timeout",
        f"The clip was not done within the limit of {limit:g} s, and the process did not stop by itself: it was ended.",
        [*smaller(request), AGAIN, how_to_raise("time")],
    )


def smaller(request: Mapping[str, Any]) -> list[str]:
    """Requests like this one that take less memory and time, as far as it says itself how much it asks for."""
    try:
        return smaller_requests(GenerationParams(**request))
    except VidkitError:  # some other worker's request
        return []


def how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def free_memory() -> str:
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    return f"Close other programs: of {in_words(memory.total)} of memory {in_words(memory.available)} are free"


def memory_kills() -> int:
    """How many processes the system has ended for want of memory; 0 where it does not say."""
    with suppress(OSError):
        for line in KILLS.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
