"""A module's forward in the place of its class's, so that it can be told from others and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Forward:
    """Calls `forward` with `first` before what the module is called with. Who installs some has a subclass for it."""

    forward: Callable[..., Any]
    first: tuple[Any, ...]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*self.first, *arguments, **options)
