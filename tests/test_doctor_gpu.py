"""What vidkit doctor makes of drivers and torch builds. nvidia-smi is an outside program: its words are played here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidkit.doctor import attention, driver, gpu, probe, torch_build
from vidkit.doctor.driver import Driver, Gpu, User, ask_driver
from vidkit.doctor.probe import Probed
from vidkit.finding import Finding

GIB = 2**30

#: as nvidia-smi prints them
HEADER = "| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: 12.4     |"
ONE_GPU = "NVIDIA GeForce RTX 4090, GPU-1f2e, 24564, 23013, 550.54.14, 8.9"
APPS = "GPU-1f2e, 4711, /usr/bin/python3, 1210"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running."
)
OLD_FIELD = 'Field "compute_cap" is not a valid field to query.'


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of that name on the path."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def answers(gpus: str, apps: str = "", header: str = HEADER) -> str:
    return f"""case "$*" in
*query-gpu*) cat <<'END'
{gpus}
END
;;
*query-compute-apps*) cat <<'END'
{apps}
END
;;
*) cat <<'END'
{header}
END
;;
esac"""


def test_a_gpu_and_who_uses_it(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi(answers(ONE_GPU, APPS))
    told = ask_driver()
    assert (told.state, told.version, told.cuda) == ("answers", "550.54.14", "12.4")
    assert told.gpus == [Gpu("NVIDIA GeForce RTX 4090", "GPU-1f2e", 24564 * 2**20, 23013 * 2**20, "8.9")]
    assert told.users == [User("GPU-1f2e", 4711, "/usr/bin/python3", 1210 * 2**20)]
    (found,) = gpu.findings(told)
    assert found.status == "ok"
    assert found.what == (
        "NVIDIA GeForce RTX 4090: 24.0 GiB, 22.5 GiB free, compute capability 8.9, driver 550.54.14 (CUDA up to 12.4). "
        "Also used by python3 (pid 4711, 1.2 GiB)."
    )


def test_a_driver_too_old_for_a_field_and_one_that_keeps_things_to_itself(nvidia_smi: Callable[[str], None]) -> None:
    without = ONE_GPU.rsplit(",", 1)[0].replace("24564", "[N/A]")
    nvidia_smi(f"case \"$*\" in *compute_cap*) echo '{OLD_FIELD}'; exit 2;; esac\n" + answers(without))
    told = ask_driver()
    assert told.gpus == [Gpu("NVIDIA GeForce RTX 4090", "GPU-1f2e", None, 23013 * 2**20, "")]
    (found,) = gpu.findings(told)
    assert "? GiB, 22.5 GiB free, driver" in found.what


def test_a_hanging_driver_is_not_waited_for(nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 0.5)
    nvidia_smi("echo 'Wait...' >&2\nsleep 30")
    began = time.monotonic()
    told = ask_driver()
    assert time.monotonic() - began < 5
    assert told.state == "hangs"
    (found,) = gpu.findings(told)
    assert (found.status, found.stops) == ("problem", False)
    assert "no answer within 0.5 s" in found.what


@pytest.mark.parametrize(("words", "status"), [(MISMATCH, 18), (NO_DRIVER, 9)])
def test_a_driver_that_fails(nvidia_smi: Callable[[str], None], words: str, status: int) -> None:
    nvidia_smi(f'cat <<"END"\n{words}\nEND\nexit {status}')
    told = ask_driver()
    assert told.state == "fails"
    (found,) = gpu.findings(told)
    assert words.split("\n")[0] in found.what
    assert found.remedies[0].startswith("Restart the machine")


def test_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(driver, "IN_WSL", tmp_path / "nothing")
    told = ask_driver()
    assert told.state == "absent"
    (found,) = gpu.findings(replace(told, cards=()))
    assert found.status == "note"
    (found,) = gpu.findings(replace(told, cards=("NVIDIA",)))
    assert found.status == "problem"
    assert "its driver is not" in found.what
    (found,) = gpu.findings(replace(told, cards=("AMD",)))
    assert "ROCm" in found.what


def test_cards_on_the_bus(tmp_path: Path) -> None:
    devices = {"0": ("0x10de", "0x030000"), "1": ("0x8086", "0x030000"), "2": ("0x10de", "0x040300")}
    for name, (vendor, kind) in devices.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")
    (tmp_path / "3").mkdir()  # one that went away
    assert driver.graphics_cards(tmp_path) == ["NVIDIA"]
    assert driver.graphics_cards(tmp_path / "none") == []


def test_a_full_gpu_and_several() -> None:
    full = Gpu("A", "u1", 24 * GIB, 2 * GIB, "8.9")
    free = Gpu("B", "u2", 3 * GIB, 3 * GIB, "7.5")
    first, second, which = gpu.findings(
        Driver("answers", version="580", gpus=[full, free], users=[User("u1", 1, "game.exe", None)])
    )
    assert first.status == "note"
    assert "92% of its memory are taken by game.exe (pid 1, ? GiB)" in first.what
    assert second.status == "note"
    assert "That is little" in second.what
    assert "CUDA_VISIBLE_DEVICES" in which.remedies[0]


# --- torch ----------------------------------------------------------------------------------------------------------

CARD = Driver("answers", version="550.54.14", cuda="12.4", gpus=[Gpu("RTX", "u", 24 * GIB, 23 * GIB, "8.9")])
NO_CARD = Driver("absent", "there is no nvidia-smi")


def built(version: str, cuda: str | None, **told: Any) -> Probed:
    return Probed(
        {
            "torch": {"version": version, "cuda": cuda, "rocm": None, "threads": 8, "file": "torch/__init__.py"},
            "cpu": {"right": True},
            "cuda": {"available": False, **told},
        }
    )


def seeing(**told: Any) -> dict[str, Any]:
    usual = {"available": True, "names": ["RTX"], "capability": "8.9", "architectures": ["sm_80", "sm_90"]}
    return {**usual, "right": True, **told}


def only(probed: Probed, card: Driver = CARD) -> Finding:
    (found,) = torch_build.findings(probed, card)
    return found


def test_a_cpu_build_beside_a_gpu_names_the_very_command() -> None:
    found = only(built("2.11.0+cpu", None))
    assert (found.status, found.stops) == ("problem", False)
    index = "https://download.pytorch.org/whl/cu126"
    assert found.remedies == (f'{sys.executable} -m pip install --force-reinstall "torch==2.11.0" --index-url {index}',)
    newer = only(built("2.11.0+cpu", None), replace(CARD, cuda="13.0"))
    assert newer.remedies[0].endswith("/cu130")
    older = only(built("2.11.0+cpu", None), replace(CARD, cuda="11.8"))
    assert older.remedies[0].startswith("Update the NVIDIA driver to one for CUDA 12")
    assert only(built("2.11.0+cpu", None), NO_CARD).status == "ok"


def test_a_driver_too_old_for_the_build() -> None:
    found = only(built("2.11.0+cu130", "13.0", why="The NVIDIA driver on your system is too old"))
    assert found.status == "problem"
    assert "it serves CUDA up to 12.4" in found.what
    assert found.remedies[1].endswith("/cu126")


def test_a_hidden_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = only(built("2.11.0+cu126", "12.6", why="no devices"))
    assert found.status == "note"
    assert found.remedies == ("Unset CUDA_VISIBLE_DEVICES",)


def test_a_gpu_that_the_build_has_no_kernels_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = "CUDA error: no kernel image is available for execution on the device"
    pascal = built("2.11.0+cu130", "13.0", **seeing(capability="6.1", failure=failure))
    found = only(pascal)
    assert found.stops
    assert "sm_61" in found.what
    assert '"torch>=2.10,<2.15" --index-url https://download.pytorch.org/whl/cu126' in found.remedies[0]
    newer = only(built("2.11.0+cu126", "12.6", **seeing(capability="12.0", failure=failure)))
    assert newer.remedies[0].endswith("--upgrade torch")
    monkeypatch.setenv("VIDKIT_DEVICE", "cpu")
    first, second = torch_build.findings(pascal, CARD)
    assert not first.stops
    assert second.topic == "device"


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        (["sm_80", "sm_90"], "8.9", True),
        (["sm_80"], "9.0", False),
        (["sm_75", "compute_90"], "12.0", True),
        (["sm_86"], "8.0", False),
        (["sm_90a"], "9.0", True),
    ],
)
def test_which_gpus_a_build_serves(architectures: list[str], capability: str, expected: bool) -> None:
    assert torch_build.serves(architectures, capability) is expected


def test_a_gpu_that_computes_wrong_or_fails_or_works() -> None:
    assert only(built("2.11.0", "12.6", **seeing())).status == "ok"
    assert only(built("2.11.0", "12.6", **seeing(right=False))).stops
    full = only(built("2.11.0", "12.6", **seeing(failure="CUDA out of memory. Tried to allocate 2 MiB")))
    assert full.remedies[0] == "Close other programs that use the GPU"
    crashed = only(built("2.11.0", "12.6", error="the process was ended by SIGSEGV while torch computed on the GPU"))
    assert crashed.stops
    assert "SIGSEGV" in crashed.what


def test_a_device_that_was_asked_for_and_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("cuda", "mps"):
        monkeypatch.setenv("VIDKIT_DEVICE", wanted)
        _, found = torch_build.findings(built("2.11.0+cpu", None), NO_CARD)
        assert found.stops
        assert wanted in found.what


# --- the process that tries torch -----------------------------------------------------------------------------------


def package(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(folder)  # the probe's process sees what we see


def test_a_torch_that_never_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "torch", "import time; time.sleep(60)", monkeypatch)
    told = probe.probe(3)
    assert told.error("torch") == "the process gave no answer within 3 s while torch was imported"
    assert not told.was_tried("pipelines")
    assert list(attention.findings(told)) == []


def test_what_libraries_print_is_none_of_ours_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real torch; a diffusers that is broken, and an xformers that warns as the real one does."""
    package(
        tmp_path, "diffusers", "print('{\"stage\": \"odd\"}', end=''); raise ImportError('no torchvision')", monkeypatch
    )
    warning = (
        "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:\\n    PyTorch "
        "2.10.0+cu128 with CUDA 1208 (you have 2.13.0+cpu)\\n  Please reinstall xformers (see https://github.com/...)"
    )
    package(tmp_path, "xformers", "", monkeypatch)
    (tmp_path / "xformers" / "ops.py").write_text(f'import logging; logging.getLogger("xformers").warning("{warning}")')
    (tmp_path / "xformers-0.0.35.dist-info").mkdir()
    (tmp_path / "xformers-0.0.35.dist-info" / "METADATA").write_text("Name: xformers\nVersion: 0.0.35\n")
    told = probe.probe()
    assert told.error("torch") is None
    assert told.stage("cpu")["right"] is True
    sdpa, xformers, pipelines = attention.findings(told)
    assert sdpa.status == "ok"
    assert xformers.status == "note"
    assert "xformers 0.0.35 loads no kernels here: xFormers can't load C++/CUDA" in xformers.what
    assert "built for: PyTorch 2.10.0+cu128 with CUDA 1208 (you have 2.13.0+cpu). It does no harm" in xformers.what
    assert pipelines.stops
    assert "ImportError: no torchvision" in pipelines.what
    assert "uninstall torchvision" in pipelines.remedies[0]


def test_attention_that_is_wrong_is_seen() -> None:
    assert probe.attention_is_right("cpu", "float32")
    import torch

    right = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = lambda *qkv: right(*qkv) * 1.05
    try:
        assert not probe.attention_is_right("cpu", "float32")
    finally:
        torch.nn.functional.scaled_dot_product_attention = right
