"""Which torch this is, whether it computes, and whether it fits the driver and the GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from vidkit.doctor.driver import Driver
from vidkit.doctor.probe import Probed
from vidkit.finding import Finding, note, ok, problem

TOPIC: Final = "torch"

PIP: Final = f"{sys.executable} -m pip install"
WHEELS: Final = "https://download.pytorch.org/whl"

#: torch's builds by the least CUDA that a driver must serve: the libraries of CUDA 12.x run on all drivers for 12,
#: those of 13 need one for 13 (driver 580). https://pytorch.org/get-started/locally
BUILDS: Final = (((13, 0), "cu130"), ((12, 0), "cu126"))

#: CUDA 13 serves no GPU before Turing; the last torch with a build for CUDA 12.6, which does, is 2.14
TURING: Final = (7, 5)
LAST_FOR_OLDER: Final = "cu126"
LAST_WITH_IT: Final = "torch>=2.10,<2.15"

ON_CPU: Final = "Until then, to make clips on the CPU: set VIDKIT_DEVICE=cpu"
MEANWHILE: Final = "Until then clips are made on the CPU"


def findings(probed: Probed, driver: Driver) -> Iterator[Finding]:
    if (error := probed.error("torch")) is not None:
        yield not_importable(error)
        return
    told = probed.stage("torch")
    build = f"CUDA {told['cuda']}" if told["cuda"] else f"ROCm {told['rocm']}" if told["rocm"] else "CPU"
    data: dict[str, Any] = {
        "version": told["version"],
        "cuda": told["cuda"],
        "rocm": told["rocm"],
        "file": told["file"],
    }
    what = f"torch {told['version']}, {build} build"
    if (failure := cpu_failure(probed)) is not None:
        yield problem(TOPIC, f"{what}: {failure}.", reinstall(told["version"]), stops=True, **data)
        return
    if told["cuda"] or told["rocm"]:
        yield from gpu_build(what, probed, driver, data)
    elif driver.has_nvidia:
        yield problem(
            TOPIC, f"{what}: it cannot use the NVIDIA GPU. {MEANWHILE}.", *cuda_builds(told["version"], driver), **data
        )
    else:
        yield ok(TOPIC, f"{what}, computes with {told['threads']} threads.", **data)
    yield from wanted_device(probed)


def not_importable(error: str) -> Finding:
    if "No module named 'torch'" in error:
        return problem(TOPIC, "torch is not installed.", f"{PIP} torch", stops=True)
    remedies = [f"{PIP} --force-reinstall torch"]
    if sys.platform == "win32":
        remedies.append(
            "Install Microsoft's Visual C++ redistributable: https://aka.ms/vs/17/release/vc_redist.x64.exe"
        )
    return problem(TOPIC, f"torch cannot be imported: {error}.", *remedies, stops=True)


def cpu_failure(probed: Probed) -> str | None:
    if (error := probed.error("cpu")) is not None:
        return f"it cannot compute: {error}"
    return None if probed.stage("cpu")["right"] else "it computes wrong numbers on the CPU"


def gpu_build(what: str, probed: Probed, driver: Driver, data: dict[str, Any]) -> Iterator[Finding]:
    version = str(data["version"])
    if (error := probed.error("cuda")) is not None:
        crashed = "Update the NVIDIA driver, then install torch again"
        yield problem(TOPIC, f"{what}: it breaks on the GPU: {error}.", crashed, ON_CPU, stops=uses_gpu(), **data)
        return
    told = probed.stage("cuda")
    data |= {"available": told["available"]}
    if not told["available"]:
        yield unavailable(what, str(told.get("why", "")), driver, data)
    elif "failure" in told:
        yield computes_not(what, str(told["failure"]), told["capability"], told["architectures"], version, data)
    elif not told["right"]:
        yield problem(
            TOPIC,
            f"{what}: the GPU computes wrong numbers.",
            "Take back overclocking; try another torch build or driver; have the card checked",
            ON_CPU,
            stops=uses_gpu(),
            **data,
        )
    else:
        yield ok(TOPIC, f"{what}, computes on the GPU {told['names'][0]}.", **data)


def unavailable(what: str, why: str, driver: Driver, data: dict[str, Any]) -> Finding:
    if not driver.has_nvidia:
        return ok(TOPIC, f"{what}; without a GPU it computes on the CPU.", **data)
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return note(TOPIC, f"{what}: CUDA_VISIBLE_DEVICES hides the GPU from it.", "Unset CUDA_VISIBLE_DEVICES", **data)
    if driver.cuda and data["cuda"] and numbers(driver.cuda)[0] < numbers(str(data["cuda"]))[0]:
        return problem(
            TOPIC,
            f"{what}: the driver {driver.version} is too old for it; it serves CUDA up to {driver.cuda}. {MEANWHILE}.",
            "Update the NVIDIA driver: https://www.nvidia.com/drivers",
            *(f"Or {command}" for command in cuda_builds(str(data["version"]), driver)),
            **data,
        )
    return problem(
        TOPIC, f"{what}: it sees no GPU ({why}). {MEANWHILE}.", "Restart the machine; then update the driver", **data
    )


def computes_not(
    what: str, failure: str, capability: str, architectures: list[str], version: str, data: dict[str, Any]
) -> Finding:
    mine = "sm_" + capability.replace(".", "")
    if "no kernel image" in failure or (architectures and not serves(architectures, capability)):
        older = numbers(capability) < TURING
        remedy = wheel(LAST_WITH_IT, LAST_FOR_OLDER) if older else f"{PIP} --upgrade torch"
        told = f"{what}: it has no kernels for this GPU ({mine}; it has {', '.join(architectures)})."
        return problem(TOPIC, told, remedy, ON_CPU, stops=uses_gpu(), **data)
    full = "out of memory" in failure
    remedy = "Close other programs that use the GPU" if full else "Restart the machine, then update the NVIDIA driver"
    return problem(TOPIC, f"{what}: it cannot compute on the GPU: {failure}.", remedy, ON_CPU, stops=uses_gpu(), **data)


def serves(architectures: list[str], capability: str) -> bool:
    """Kernels run on GPUs of their own major number and a minor one at least as high; compute_NN is made to fit."""
    major, minor = numbers(capability)
    for name in architectures:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")
        own = (int(digits[:-1]), int(digits[-1])) if digits.isdigit() else (0, 0)
        if (kind == "sm" and own[0] == major and own[1] <= minor) or (kind == "compute" and own <= (major, minor)):
            return True
    return False


def cuda_builds(version: str, driver: Driver) -> list[str]:
    """How to get the build that the driver serves, of the torch that is here."""
    given = numbers(driver.cuda) if driver.cuda else BUILDS[0][0]
    named = next((name for least, name in BUILDS if given >= least), None)
    if named is None:
        least = BUILDS[-1][0]
        return [f"Update the NVIDIA driver to one for CUDA {least[0]}, then {wheel('torch', BUILDS[-1][1])}"]
    return [wheel(f"torch=={version.split('+')[0]}", named)]


def wheel(wanted: str, build: str) -> str:
    return f'{PIP} --force-reinstall "{wanted}" --index-url {WHEELS}/{build}'


def reinstall(version: str) -> str:
    return f'{PIP} --force-reinstall "torch=={version.split("+")[0]}"'


def uses_gpu() -> bool:
    """Whether clips would be made on the GPU that torch sees."""
    return os.environ.get("VIDKIT_DEVICE", "auto").lower() != "cpu"


def wanted_device(probed: Probed) -> Iterator[Finding]:
    """VIDKIT_DEVICE, where it asks for what is not there."""
    wanted = os.environ.get("VIDKIT_DEVICE", "auto").lower()
    if wanted not in ("auto", "cpu", "cuda"):
        yield problem("device", f"VIDKIT_DEVICE is {wanted!r}.", "Set it to auto, cpu or cuda", stops=True)
    elif wanted == "cuda" and not probed.stage("cuda").get("available"):
        yield problem(
            "device", "VIDKIT_DEVICE is cuda, but torch sees no GPU.", "Set VIDKIT_DEVICE to auto", stops=True
        )
    elif wanted == "cpu" and probed.stage("cuda").get("available"):
        yield note("device", "VIDKIT_DEVICE is cpu: the GPU is not used.", "To use it, unset VIDKIT_DEVICE")


def numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)
