"""A schema with one parameter more, for tests that what is made from the schema needs no other change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import create_model

from vidkit.params import GenerationParams, names_by_wire_name


@contextmanager
def added_parameter(name: str, kind: Any, field: Any) -> Iterator[None]:
    """`GenerationParams` has this field too, as if its line stood in params.py; field: of `params.parameter`."""
    with_it = create_model("WithIt", __base__=GenerationParams, **{name: (kind, field)})
    fields = GenerationParams.__pydantic_fields__
    fields[name] = with_it.model_fields[name]
    rebuild()
    try:
        yield
    finally:
        del fields[name]
        rebuild()


def rebuild() -> None:
    GenerationParams.model_rebuild(force=True)
    names_by_wire_name.cache_clear()
