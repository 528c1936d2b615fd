"""Attention by the kernel at hand that is quickest on this device: measured once for tensors of a shape, and noted.

Noted in the data folder for this device and these libraries, so that every process computes alike. On one H200 cuDNN's
is 1.5 to 1.9 times as fast over the pixels of a map as the kernel that torch takes by itself, and the memory-efficient
one twice as fast over frames (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vidkit.files import remember, remembered
from vidkit.pipelines.fast.capture import is_recording
from vidkit.settings import settings_or_defaults

if TYPE_CHECKING:
    import torch

    #: from query, key and value, (rows, heads, tokens, channels of a head) each, to the query's shape
    Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

logger = logging.getLogger("vidkit")

#: what a kernel raises that is not there, or not for these tensors
UNFIT: Final = (RuntimeError, ImportError, NotImplementedError, ValueError)

#: calls that are timed, after one that loads the kernel
CALLS: Final = 3

#: channels of a head that flash attention takes
WIDEST_FLASH: Final = 256

#: tokens whose scores are computed at once, and their softmax: 1 GiB in half precision, less than such a map's decoding
#: takes
MOST_SCORED: Final = 1 << 14

#: torch's own choice, where none of the others fits
UNMEASURED: Final = "torch"

#: by device, dtype and shapes, the kernel that this process takes
_chosen: Final[dict[Hashable, Kernel]] = {}


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention. (rows, heads, tokens, channels of a head) each, to the query's shape."""
    if query.device.type != "cuda":  # others have one kernel for what comes here
        return by_torch(query, key, value)
    is_wide = query.shape[-1] > WIDEST_FLASH and query.shape[-2] <= MOST_SCORED
    return chosen(query, key, value, WIDE_KERNELS if is_wide else KERNELS)(query, key, value)


def chosen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kernels: Mapping[str, Kernel]) -> Kernel:
    """The kernel for tensors like these: this process's, the noted one, or the quickest in a trial, which is noted.

    Raises:
        RuntimeError: a trial, which waits for the device, cannot be part of what is recorded.
    """
    like = query.device, query.dtype, query.shape, key.shape
    if like not in _chosen:
        device, shape = device_of(query), shape_of(query, key)
        name = noted(device).get(shape, "")
        if name not in (*kernels, UNMEASURED):
            if is_recording():
                raise RuntimeError(f"no kernel was chosen yet for attention of {shape}")
            name = quickest(query, key, value, kernels)
            remember(note_file(device), noted(device) | {shape: name})
        _chosen[like] = kernels.get(name, by_torch)
    return _chosen[like]


def quickest(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kernels: Mapping[str, Kernel]) -> str:
    """By name, of those that can; waits for the device.

    Raises:
        torch.OutOfMemoryError: which says nothing of the kernel.
    """
    import torch

    found = {}
    for name, kernel in kernels.items():
        try:
            found[name] = seconds(kernel, query, key, value)
        except torch.OutOfMemoryError:
            raise
        except UNFIT:
            continue
    best = min(found, key=found.__getitem__, default=UNMEASURED)
    times = ", ".join(f"{name} {1e3 * taken:.2f} ms" for name, taken in found.items())
    logger.info("attention of %s: %s (%s)", shape_of(query, key), best, times)
    return best


def seconds(kernel: Kernel, *tensors: torch.Tensor) -> float:
    kernel(*tensors)
    began = waited(tensors[0])
    for _ in range(CALLS):
        kernel(*tensors)
    return (waited(tensors[0]) - began) / CALLS


def waited(tensor: torch.Tensor) -> float:
    """The time, once the device is done."""
    import torch

    if tensor.device.type != "cpu":
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()


# --- kernels ----------------------------------------------------------------------------------------------------------


def by_torch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


def by_backend(name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One of torch's backends. Raises RuntimeError where that is not for these tensors."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, name)):
        return by_torch(query, key, value)


def by_xformers(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Raises ImportError, NotImplementedError: it is not installed, or has no kernels for this torch and device."""
    from xformers.ops import memory_efficient_attention  # type: ignore[import-not-found,unused-ignore]

    found: torch.Tensor = memory_efficient_attention(*(one.transpose(1, 2) for one in (query, key, value)))
    return found.transpose(1, 2)


def by_scores(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """With all scores of a row at once."""
    import torch

    result = torch.empty_like(query)
    for target, q, k, v in zip(result, query, key, value, strict=True):
        torch.matmul(torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1), v, out=target)
    return result


#: All that compute without the whole matrix of scores, which has no room at these sizes.
KERNELS: Final[Mapping[str, Kernel]] = {
    "cuDNN": functools.partial(by_backend, "CUDNN_ATTENTION"),
    "flash": functools.partial(by_backend, "FLASH_ATTENTION"),
    "memory-efficient": functools.partial(by_backend, "EFFICIENT_ATTENTION"),
    "xformers": by_xformers,
}

#: Of heads wider than most of them take, such as autoencoders have.
WIDE_KERNELS: Final[Mapping[str, Kernel]] = {**KERNELS, "all scores": by_scores}


# --- what is noted ----------------------------------------------------------------------------------------------------


def shape_of(query: torch.Tensor, key: torch.Tensor) -> str:
    rows, heads, tokens, width = query.shape
    dtype = str(query.dtype).removeprefix("torch.")
    return f"{rows} rows of {heads} heads, {tokens} tokens on {key.shape[2]}, {width} channels, {dtype}"


@functools.cache
def libraries() -> str:
    """Other versions may have other kernels."""
    import torch

    with suppress(importlib.metadata.PackageNotFoundError):
        return f"torch {torch.__version__}, xformers {importlib.metadata.version('xformers')}"
    return f"torch {torch.__version__}"


def device_of(tensor: torch.Tensor) -> str:
    import torch

    return "cpu" if tensor.device.type == "cpu" else torch.cuda.get_device_name(tensor.device)


def note_file(device: str) -> Path:
    name = hashlib.sha256(f"{device}, {libraries()}".encode()).hexdigest()[:16]
    return settings_or_defaults().cache / "attention" / f"{name}.json"


def noted(device: str) -> dict[str, str]:
    """Kernels' names by shape; none where there is no note, or a broken one."""
    return remembered(note_file(device))
