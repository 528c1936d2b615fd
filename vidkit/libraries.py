"""Quiet use of transformers and diffusers while models load; and what keeps libraries from telling about their use."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

#: read by huggingface_hub, diffusers and transformers as they are imported; by Ray, as it starts. JupyterLab's look for
#: news and updates is off by its configuration (`cli_lab`).
NO_TELEMETRY: Final[Mapping[str, str]] = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def tell_nobody() -> None:
    """Libraries that are loaded from here on, and the processes started, tell nobody of their use."""
    os.environ.update(NO_TELEMETRY)


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
