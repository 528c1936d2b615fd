"""Quiet, offline use of transformers and diffusers while models load."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers and diffusers (their errors still show); restored at the end."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    import transformers.utils.logging as transformers_logging
    from diffusers.utils import logging as diffusers_logging

    bars = (transformers_logging.is_progress_bar_enabled(), diffusers_logging.is_progress_bar_enabled())
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    for logger in loggers:  # importing the libraries sets their own levels
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level or logging.WARNING)
        for enabled, library in zip(bars, (transformers_logging, diffusers_logging), strict=True):
            if enabled:
                library.enable_progress_bar()
