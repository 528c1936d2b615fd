"""The last pipeline stays loaded: the next request with the same models reads nothing from disk."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from typing import Any


class WarmPipeline:
    """Room for one pipeline. Not thread-safe; `generate` holds its lock around it."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._pipe: Any = None

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """The pipeline under this key; another one is dropped before `load` runs, so that both are never held."""
        if key != self._key:
            self.drop()
            self._pipe = load()
            self._key = key
        return self._pipe

    def drop(self) -> None:
        """Forget the pipeline and give its memory back."""
        if self._pipe is None:
            return
        self._key = self._pipe = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
