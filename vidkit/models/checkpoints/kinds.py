"""What a checkpoint is, by its keys and shapes: what is known, the most telling first. The unknown is refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from vidkit.models.checkpoints import adapters, motion, others, unets
from vidkit.models.checkpoints.findings import Finding
from vidkit.models.checkpoints.keys import Keys
from vidkit.models.checkpoints.unets import ContradictionError
from vidkit.models.files.file_format import invalid, quoted
from vidkit.models.files.safetensors_header import Header

#: A LoRA's keys hold the names of the layers that it changes, a ControlNet's those of half a UNet: they come first.
_RECOGNIZED: Final[Sequence[Callable[[Keys], Finding | None]]] = (
    adapters.ip_adapter,
    adapters.lora,
    adapters.textual_inversion,
    motion.motion_model,
    motion.controlnet,
    adapters.t2i_adapter,
    unets.original_checkpoint,
    others.transformer,
    unets.diffusers_unet,
    others.vae,
    others.encoder,
)
CHOOSE: Final = "Check where it came from: vidkit uses Stable Video Diffusion, Stable Diffusion 1.5 and its adapters"

#: safetensors' names of dtypes, and torch's
DTYPES: Final[Mapping[str, str]] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}
#: positions and counts, no weights; quantized weights are of 8 bits
_COUNTS: Final = frozenset({"I64", "U64", "I32", "U32", "I16", "U16", "BOOL"})


def recognized(keys: Keys, path: Path) -> Finding:
    """Raises SetupError `invalid_model`, naming some of its keys, when nothing known has such."""
    try:
        found = next((finding for look in _RECOGNIZED if (finding := look(keys)) is not None), None)
    except ContradictionError as error:
        raise invalid(path, f"is of a kind unknown here: it {error}", CHOOSE) from error
    if found is None:
        some = ", ".join(quoted(key) for key in list(keys.shapes)[:3])
        raise invalid(path, f"is of a kind unknown here; its {len(keys.shapes)} tensors begin with {some}", CHOOSE)
    return found


def counted(header: Header) -> Counter[str]:
    """The number of weights by dtype."""
    values: Counter[str] = Counter()
    for dtype, shape in header.values():
        if dtype not in _COUNTS:
            values[DTYPES.get(dtype, dtype)] += math.prod(shape)
    return values
