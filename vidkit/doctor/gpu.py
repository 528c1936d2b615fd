"""The graphics card and its driver, judged."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vidkit.device import GIB
from vidkit.doctor.driver import Driver, Gpu, User
from vidkit.finding import Finding, note, ok, problem

TOPIC: Final = "GPU"

#: bytes: with less, full-size models run with all low-memory measures, if at all (SVD-XT at 576x320: some 4 GiB)
SMALL: Final = 4 * GIB

#: share of a GPU's memory that others take before it is worth a note
MUCH: Final = 0.2

SLOW: Final = "Clips are made on the CPU: seconds for the bundled models, hours for full-size ones"


def findings(driver: Driver) -> Iterator[Finding]:
    if driver.state == "absent":
        yield without_driver(driver)
    elif driver.state == "hangs":
        yield problem(
            TOPIC,
            f"The NVIDIA driver does not answer: {driver.words}.",
            "Restart the machine; when it happens again, install the driver anew",
            "Until then: set VIDKIT_DEVICE=cpu",
        )
    elif driver.state == "fails":
        yield broken_driver(driver)
    elif not driver.gpus:
        yield note(TOPIC, f"The NVIDIA driver answers, but knows of no GPU. {SLOW}.", "Check that the card is seated")
    else:
        yield from every_gpu(driver)


def every_gpu(driver: Driver) -> Iterator[Finding]:
    for number, gpu in enumerate(driver.gpus):
        yield one_gpu(driver, gpu, number)
    if len(driver.gpus) > 1:
        yield note(
            TOPIC, "vidkit computes on the first GPU that it may use.", "To choose another: CUDA_VISIBLE_DEVICES=1"
        )
    if not driver.is_on_path:
        yield note(
            TOPIC,
            "nvidia-smi is not on the PATH, by which vidkit asks for free memory before torch is loaded.",
            "Add /usr/lib/wsl/lib to the PATH",
        )


def one_gpu(driver: Driver, gpu: Gpu, number: int) -> Finding:
    memory = f"{gibs(gpu.total)} GiB, {gibs(gpu.free)} GiB free"
    capability = f", compute capability {gpu.capability}" if gpu.capability else ""
    cuda = f" (CUDA up to {driver.cuda})" if driver.cuda else ""
    what = f"{gpu.name}: {memory}{capability}, driver {driver.version}{cuda}."
    users = [user for user in driver.users if user.gpu == gpu.uuid and user.pid != os.getpid()]
    data: dict[str, Any] = {
        "index": number,
        "name": gpu.name,
        "totalBytes": gpu.total,
        "freeBytes": gpu.free,
        "computeCapability": gpu.capability or None,
        "driver": driver.version,
        "driverCuda": driver.cuda or None,
        "users": [{"pid": user.pid, "name": user.name, "usedBytes": user.used} for user in users],
    }
    taken = 1 - gpu.free / gpu.total if gpu.total and gpu.free is not None else 0.0
    if taken > MUCH:
        return note(
            TOPIC,
            f"{what} {taken:.0%} of its memory are taken by {by_whom(users)}.",
            "Close what you don't need; vidkit plans with what is free",
            **data,
        )
    if gpu.total is not None and gpu.total < SMALL:
        return note(TOPIC, f"{what} That is little.", "See what fits: vidkit plan --base-model NAME ...", **data)
    return ok(TOPIC, what + (f" Also used by {by_whom(users)}." if users else ""), **data)


def by_whom(users: list[User]) -> str:
    if not users:
        return "other programs (the driver does not say which)"
    told = [f"{Path(user.name).name} (pid {user.pid}, {gibs(user.used)} GiB)" for user in users[:3]]
    return ", ".join(told) + (f" and {len(users) - 3} more" if len(users) > 3 else "")


def gibs(count: int | None) -> str:
    return "?" if count is None else f"{count / GIB:.1f}"


def broken_driver(driver: Driver) -> Finding:
    restart = "Restart the machine: after an update the old driver runs until then"
    mismatch = "mismatch" in driver.words.lower()
    return problem(
        TOPIC,
        f"nvidia-smi fails: {driver.words}",
        *([restart] if mismatch else [restart, "Install the NVIDIA driver anew: https://www.nvidia.com/drivers"]),
    )


def without_driver(driver: Driver) -> Finding:
    if sys.platform == "darwin":
        return note(TOPIC, f"macOS: vidkit does not use Apple's GPUs (MPS). {SLOW}.")
    if Path("/proc/driver/nvidia/version").exists():
        return problem(
            TOPIC,
            "The NVIDIA driver is loaded, but this container cannot use it.",
            "Start the container with --gpus all (NVIDIA Container Toolkit)",
        )
    if "NVIDIA" in driver.cards:
        return problem(
            TOPIC,
            f"An NVIDIA card is in this machine, but its driver is not ({driver.words}). {SLOW}.",
            "Install the NVIDIA driver: https://www.nvidia.com/drivers (Ubuntu: sudo ubuntu-drivers install)",
        )
    if "AMD" in driver.cards:
        return note(
            TOPIC,
            "An AMD card is in this machine. With torch's ROCm build vidkit computes on it, but nobody tested that.",
            "See https://pytorch.org/get-started/locally for the ROCm build",
        )
    return note(TOPIC, f"No NVIDIA GPU ({driver.words}). {SLOW}.")
