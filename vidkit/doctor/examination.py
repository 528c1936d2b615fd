"""Everything examined, at the same time: what hangs holds up nothing else, and what fails is a finding itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import vidkit
from vidkit.device import device_label
from vidkit.doctor import (
    attention,
    bytecode,
    configuration,
    gpu,
    jupyter,
    machine,
    media,
    models,
    packages,
    storage,
    toolchain,
    torch_build,
)
from vidkit.doctor.driver import Driver, ask_driver
from vidkit.doctor.probe import Probed, probe
from vidkit.finding import Finding, problem, tally

#: what each tells, by what it is called should it fail; in the report's order
ALONE_FIRST: Final[dict[str, Callable[[], Iterable[Finding]]]] = {
    "system": machine.system,
    "Python": machine.python,
    "memory": machine.memory,
}
OF_BOTH: Final[dict[str, Callable[[Driver, Probed], Iterable[Finding]]]] = {
    "GPU": lambda driver, probed: gpu.findings(driver),
    "torch": lambda driver, probed: torch_build.findings(probed, driver),
    "attention": lambda driver, probed: attention.findings(probed),
}
ALONE_LAST: Final[dict[str, Callable[[], Iterable[Finding]]]] = {
    "packages": packages.findings,
    "bytecode": bytecode.findings,
    "compiling": toolchain.findings,
    "ffmpeg": media.findings,
    "Jupyter": jupyter.findings,
    "storage": storage.findings,
    "models": models.findings,
    "settings": configuration.settings_file,
    "environment": configuration.environment,
}


@dataclass(frozen=True)
class Report:
    """device: where clips are computed, "cuda" or "cpu"."""

    device: str
    findings: Sequence[Finding]

    @property
    def can_make_clips(self) -> bool:
        return not any(finding.stops for finding in self.findings)

    def summary(self) -> str:
        """One sentence."""
        if not self.can_make_clips:
            topics = dict.fromkeys(finding.topic for finding in self.findings if finding.stops)
            told = f"cannot make clips here, because of: {', '.join(topics)}"
        else:
            told = f"can make clips here, on {device_label(self.device)}"
        return f"vidkit {vidkit.__version__} {told} ({tally(self.findings)})."

    def to_json(self) -> dict[str, Any]:
        return {
            "status": "success",
            "vidkit": vidkit.__version__,
            "canMakeClips": self.can_make_clips,
            "device": self.device,
            "summary": self.summary(),
            "findings": [finding.to_json() for finding in self.findings],
        }


def examine() -> Report:
    """This machine as it is now. Some seconds, as long as torch takes to be imported in a process of its own.

    Raises nothing: what cannot be examined is a finding.
    """
    with ThreadPoolExecutor(max_workers=len(ALONE_FIRST) + len(ALONE_LAST) + 2) as pool:
        driver, probed = pool.submit(ask_driver), pool.submit(probe)
        first, last = (
            [pool.submit(guarded, topic, look) for topic, look in looks.items()] for looks in (ALONE_FIRST, ALONE_LAST)
        )
        of_both = [
            guarded(topic, lambda look=look: look(driver.result(), probed.result()))  # type: ignore[misc]
            for topic, look in OF_BOTH.items()
        ]
        findings = [*results(first), *(one for some in of_both for one in some), *results(last)]
    return Report(device_of(probed), findings)


def guarded(topic: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001  (a machine is examined because something is wrong with it)
        what = f"It cannot be examined: {type(error).__name__}: {error}"
        return [problem(topic, what, "This is a defect of vidkit: report it with this line")]


def results(futures: Sequence[Future[list[Finding]]]) -> list[Finding]:
    return [finding for future in futures for finding in future.result()]


def device_of(probed: Future[Probed]) -> str:
    """As `vidkit.device.chosen_device` will say."""
    if probed.exception() is not None or os.environ.get("VIDKIT_DEVICE", "auto").lower() == "cpu":
        return "cpu"
    return "cuda" if probed.result().stage("cuda").get("available") else "cpu"
