"""A notebook as what runs a point: executed by papermill, then read for what it shows: result, metrics, error."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vidkit.errors import ERROR_MIMETYPE, InputError
from vidkit.generation import RESULT_MIMETYPE
from vidkit.libraries import import_papermill
from vidkit.metrics import METRICS_MIMETYPE

WARM: Final = "vidkit-warm"

Notebook = Mapping[str, Any]


def execute(notebook: Path, executed: Path, parameters: Mapping[str, Any], engine: str | None) -> Notebook:
    """Run a notebook and write it with its outputs; also when it fails.

    Raises:
        Exception: what papermill raises: a cell's error, a timeout, a kernel that died.
    """
    import_papermill()
    import papermill
    from papermill.engines import papermill_engines

    from vidkit.sweep.engine import WarmEngine

    papermill_engines.register(WARM, WarmEngine)  # papermill overlooks entry points beside an old egg-info
    with quiet_about_parameters():
        return papermill.execute_notebook(  # type: ignore[no-any-return]
            notebook,
            executed,
            parameters=dict(parameters),
            engine_name=engine,
            progress_bar=False,
            request_save_on_cell_execute=False,
            autosave_cell_every=0,
        )


@contextmanager
def quiet_about_parameters() -> Iterator[None]:
    """papermill warns of each parameter that the notebook's cell does not list; a sweep's were checked before."""

    def other(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Passed unknown parameter")

    logger = logging.getLogger("papermill")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


@dataclass(frozen=True)
class Shown:
    """result: metadata, record and output (the clip's file name); metrics: as in a manifest; metrics_seconds: what
    measuring them took."""

    result: Mapping[str, Any]
    metrics: Mapping[str, Any]
    metrics_seconds: float


def read_shown(notebook: Notebook) -> Shown:
    """What an executed notebook made.

    Raises:
        InputError: `invalid_request`, when it shows no result of `vidkit.generate`.
    """
    result = last(notebook, RESULT_MIMETYPE)
    if result is None:
        raise InputError(
            "invalid_request",
            "The notebook ran to its end, but shows no result of vidkit.generate.",
            ["Let a cell end in the result: result = vidkit.generate(...), then result"],
        )
    metrics = last(notebook, METRICS_MIMETYPE)
    return Shown(result[1], metrics[1] if metrics else {}, duration(metrics[0]) if metrics else 0.0)


def read_error(executed: Path) -> Mapping[str, Any] | None:
    """The vidkit error that a cell of a failed notebook ended with, as in the JSON protocol; None for any other."""
    import nbformat

    try:
        notebook = nbformat.read(executed, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError):
        return None
    found = last(notebook, ERROR_MIMETYPE)
    return found[1] if found else None


def last(notebook: Notebook, mimetype: str) -> tuple[Mapping[str, Any], Any] | None:
    """The last output of a type, and its cell."""
    found = list(outputs(notebook, mimetype))
    return found[-1] if found else None


def outputs(notebook: Notebook, mimetype: str) -> Iterator[tuple[Mapping[str, Any], Any]]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if mimetype in output.get("data", {}):
                yield cell, output["data"][mimetype]


def duration(cell: Mapping[str, Any]) -> float:
    """Seconds, as papermill measured them."""
    return float(cell["metadata"].get("papermill", {}).get("duration") or 0)
