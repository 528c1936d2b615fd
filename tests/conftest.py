"""What every test gets: no network, a vidkit home of its own, and tiny real models built once per session."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# huggingface_hub, transformers and diffusers read these once, on import: before anything below loads them
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
)
# OpenMP's threads spin while they wait for each other. On cores shared with other work that made the tiny models 50
# times slower (a UNet call took 5.7 s, 0.1 s with waiting threads asleep). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest

if TYPE_CHECKING:
    from tiny_models import TinyAnimateDiff

#: The files that take longest come first, so that of two processes none is left with one of them in the end; those that
#: wait for other programs in turn with those that compute.
LONGEST = (
    *("test_panel_jupyterlab", "test_windows", "test_sweep_ray", "test_readme", "test_front_ends"),
    *("test_bundled_animatediff", "test_sweep_runner", "test_pipelines", "test_notebooks", "test_bundled"),
    *("test_sweep_engine", "test_cli", "test_sweep_engine_contract", "test_supervisor", "test_panel_queue"),
    *("test_sweep_local", "test_download"),
    *("test_fast", "test_memory", "test_no_network", "test_record", "test_panel_compare"),
    *("test_placement", "test_check", "test_turbo", "test_panel_subshells", "test_lean", "test_lost_output"),
    *("test_training", "test_attempts"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))  # in a file they stay as they are


def pytest_collection_finish() -> None:
    """What the test files import stays: no collection looks through it again, a quarter of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def vidkit_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh `VIDKIT_HOME`, so that no test reads or writes the user's own models, settings or clips."""
    home = tmp_path_factory.mktemp("vidkit_home")
    monkeypatch.setenv("VIDKIT_HOME", str(home))
    return home


@pytest.fixture(scope="module")
def no_warm_pipeline() -> Iterator[None]:
    """A module that generates in this process begins and ends without a loaded model."""
    import clips  # loads vidkit's generation

    clips.cold()
    yield
    clips.cold()


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """For tests that call in this process what takes them, as long verbs of the command line do."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def without_gradients() -> Iterator[None]:
    """For tests that call networks themselves."""
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture, its file. Read it, don't write into it."""
    import clips

    return clips.saved(tmp_path_factory.mktemp("picture"))


@pytest.fixture(scope="session")
def tiny_svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny `StableVideoDiffusionPipeline`. Read it, don't write into it."""
    from tiny_models import make_svd  # loads torch and diffusers: only for the tests that need them

    return make_svd(tmp_path_factory.mktemp("tiny_svd"))


@pytest.fixture(scope="session")
def tiny_animatediff(tmp_path_factory: pytest.TempPathFactory) -> TinyAnimateDiff:
    """Folders of a tiny SD 1.5 base and the parts that AnimateDiff adds. Read them, don't write into them."""
    from tiny_models import make_animatediff

    return make_animatediff(tmp_path_factory.mktemp("tiny_animatediff"))


@pytest.fixture(scope="session")
def full_size_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of published and other sizes, whose weights are holes in their files (svd, sd15, ...)."""
    from benchmarks.memory_models import make_models

    folder = tmp_path_factory.mktemp("full_size_models")
    make_models(folder)
    return folder
