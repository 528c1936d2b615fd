"""Methods of one object in the place of its class's: forwards of modules, which can be told from others and taken back,
and what is replaced for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Forward:
    """Calls `forward` with `first` before what the module is called with. Who installs some has a subclass for it."""

    forward: Callable[..., Any]
    first: tuple[Any, ...]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*self.first, *arguments, **options)


@contextmanager
def replaced(owner: Any, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """An object has another method while the block runs, called with the one before it and then its arguments."""
    before, own = getattr(owner, name), vars(owner).get(name)
    setattr(owner, name, partial(by, before))
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)  # its class's again
        else:
            setattr(owner, name, own)
