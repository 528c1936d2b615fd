"""Milliseconds of the attention kernels that speed fast chooses of, at the networks' largest maps, on a GPU.

    python -m benchmarks.attention_kernels RESULTS.json

Those that cannot compute a shape are named with what they say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.memory import about_this_machine
from vidkit.pipelines.fast.kernels import KERNELS, UNFIT, seconds

#: pictures, heads, tokens, channels of a head, and the words of a text
SHAPES: dict[str, tuple[int, ...]] = {
    "svd pixels": (50, 5, 9216, 64),
    "svd pixels, level 2": (50, 10, 2304, 64),
    "svd frames": (9216, 5, 25, 64),
    "sd15 pixels": (32, 8, 4096, 40),
    "sd15 frames": (8192, 8, 16, 40),
    "sd15 text": (32, 8, 4096, 40, 77),
}


def rows() -> list[dict[str, Any]]:
    import torch

    half: dict[str, Any] = {"device": "cuda", "dtype": torch.float16}
    found = []
    for name, (count, heads, tokens, width, *words) in SHAPES.items():
        query = torch.randn(count, tokens, heads, width, **half).transpose(1, 2)
        keys = torch.randn(count, *(words or [tokens]), heads, width, **half).transpose(1, 2)
        row: dict[str, Any] = {"attention": name}
        for kernel, attend in KERNELS.items():
            try:
                row[kernel] = round(1e3 * seconds(attend, query, keys, keys), 3)
            except UNFIT as failure:
                row[kernel] = str(failure).splitlines()[0][:80]
        found.append(row)
        print(row, flush=True)
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(about_this_machine() | {"attention": rows()}, indent=1) + "\n")
