"""transformers and diffusers: imported without what is not used of them, quiet while models load; and no telemetry."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from vidkit.package_list import packages_listed_once

#: read by huggingface_hub, diffusers and transformers as they are imported; by Ray, as it starts. JupyterLab's look for
#: news and updates is off by its configuration (`cli_lab`).
NO_TELEMETRY: Final[Mapping[str, str]] = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

#: What transformers and diffusers import of SciPy and scikit-learn (which brings pandas), for losses of object
#: detection, drafts of texts and what few schedulers are asked for; by module the functions that they import by name.
SCIENTIFIC: Final[Mapping[str, tuple[str, ...]]] = {
    "scipy.integrate": (),
    "scipy.optimize": ("linear_sum_assignment",),
    "scipy.stats": (),
    "sklearn.metrics": ("roc_curve",),
}

#: What jsonschema imports, and so papermill and Ray, to check addresses with letters of all languages; nobody asks
#: for that, and it builds a parser, which takes one and a half seconds.
FROM_RFC3987: Final[Mapping[str, tuple[str, ...]]] = {"rfc3987_syntax": ("is_valid_syntax",)}


def tell_nobody() -> None:
    """Libraries that are loaded from here on, and the processes started, tell nobody of their use."""
    os.environ.update(NO_TELEMETRY)


def import_networks() -> None:
    """transformers' and diffusers' modules that any model is loaded with: seconds, the first time."""
    with when_used(SCIENTIFIC), uncollected():
        import diffusers
        import transformers

        for library, name in (
            (transformers, "CLIPTextModel"),
            (transformers, "CLIPVisionModelWithProjection"),
            (diffusers, "UNetMotionModel"),
            (diffusers, "StableVideoDiffusionPipeline"),
        ):
            getattr(library, name)  # is what imports it, and what others share with it
        diffusers.EulerDiscreteScheduler.from_config({})  # asks all schedulers whether they are compatible
    logging.getLogger("diffusers.models.modeling_utils").addFilter(says_something)


def says_something(record: logging.LogRecord) -> bool:
    """Not so where diffusers warns of layers that should stay in single precision, and names none: for each clip whose
    picture its pipelines encode in single precision."""
    return "should be kept in float32: []" not in record.getMessage()


def import_papermill() -> None:
    """papermill, and what runs and reads notebooks for it."""
    with when_used(FROM_RFC3987):
        import papermill  # noqa: F401  (its import is what matters)


@contextmanager
def when_used(functions: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """What is imported inside gets these slow modules as they are first used, and many never are.

    functions: by module those that are imported from it by name. Modules that are not installed stay missing.
    """
    slow = [name for name in functions if name not in sys.modules and is_installed(name)]
    waiting = {name: Waiting(name, functions[name]) for name in slow}
    sys.modules.update(waiting)
    try:
        yield
    finally:
        for name, module in waiting.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def is_installed(module: str) -> bool:
    """Whether its package is: to look inside, that would be imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # something that was put there without being imported
        return False


class Waiting(ModuleType):
    """A module that is imported when something of it is asked for. functions: may be asked for, until they are called.

    To whoever holds it, in other threads too, it is the module itself.
    """

    def __init__(self, name: str, functions: tuple[str, ...]) -> None:
        super().__init__(name)
        self._functions = functions
        package, *inner = name.split(".")
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations is not None:
            # so that meanwhile, in another thread, what lies inside can be imported
            self.__path__ = [str(Path(folder, *inner)) for folder in spec.submodule_search_locations]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by `import` itself
            raise AttributeError(name)
        if name in self._functions:
            return lambda *args, **options: getattr(self._imported(), name)(*args, **options)
        return getattr(self._imported(), name)

    def _imported(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python looks for no unreachable objects: imports make a million that stay, and it would look them all
    through again and again, for a seventh of the time until the first clip."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers and diffusers (their errors still show); restored at the end."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with packages_listed_once(), uncollected():
        import transformers.utils.logging as transformers_logging
        from diffusers.utils import logging as diffusers_logging

    bars = (transformers_logging.is_progress_bar_enabled(), diffusers_logging.is_progress_bar_enabled())
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    for logger in loggers:  # importing the libraries sets their own levels
        logger.setLevel(logging.ERROR)
    try:
        import_networks()  # some of which gives advice
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level or logging.WARNING)
        for enabled, library in zip(bars, (transformers_logging, diffusers_logging), strict=True):
            if enabled:
                library.enable_progress_bar()
