"""Which of Triton's kernels would be compiled for an H200, where no GPU is: starts are noted, not made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.jit import JITFunction, create_function_from_signature

from vidkit.pipelines.fast import fused


@contextmanager
def started() -> Iterator[set[str]]:
    """Kernels that are started inside, of tensors of any device, as Triton tells apart what it compiles."""
    backend, found = CUDABackend(GPUTarget("cuda", 90, 32)), set()

    def note(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        _, specialization, chosen = bind(*arguments, debug=False, **options)
        found.add(f"{kernel.__name__} {specialization} {chosen}")

    with patch.object(JITFunction, "run", note), patch.object(fused, "takes", lambda tensor: True):
        yield found
