"""vidkit's worker on a machine whose GPU driver crashes once the file `driver-crash` is in the data folder.

No test can crash a driver, so its failure is raised where torch would raise it: as a layer computes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from vidkit import worker


def main() -> None:
    crash, forward = Path(os.environ["VIDKIT_HOME"]) / "driver-crash", torch.nn.Conv2d.forward

    def computed_on_the_gpu(layer: torch.nn.Conv2d, *given: Any) -> torch.Tensor:
        if crash.exists():
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later."
            )
        return forward(layer, *given)

    torch.nn.Conv2d.forward = computed_on_the_gpu  # type: ignore[method-assign]
    worker.main()
