"""Safetensors files written tensor by tensor: the library's own writer holds a second copy of all of them in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.files.safetensors_header import TORCH_DTYPES

if TYPE_CHECKING:
    import torch

#: the library's order: types that are wide and exact first, so that each tensor lies aligned
_ORDER: Final = list(TORCH_DTYPES.values())


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], on_progress: Callable[[float], None] = lambda share: None
) -> None:
    """Write tensors as the library does, to the byte.

    on_progress: called with the share that is written, between tensors; may raise to stop. Raises OSError as it is.
    """
    import torch

    dtypes = {key: TORCH_DTYPES[str(tensor.dtype).removeprefix("torch.")] for key, tensor in tensors.items()}
    order = sorted(tensors, key=lambda key: (_ORDER.index(dtypes[key]), key))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key in order:
        tensor = tensors[key]
        end = position + tensor.numel() * tensor.element_size()
        entries[key] = {"dtype": dtypes[key], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    total, written = position, 0
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for key in order:
            on_progress(written / total if total else 0.0)
            values = tensors[key].contiguous().flatten()
            written += file.write(values.view(torch.uint8).numpy().data)
    on_progress(1.0)
