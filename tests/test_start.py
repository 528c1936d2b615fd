"""What stands between a process's start and its first denoising step: what is imported, in which order, and built."""

from __future__ import annotations

import gc
import importlib
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_models import TinyAnimateDiff
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.start import VIDKIT, bundled, phases, summary, vidkit_start
from vidkit import libraries
from vidkit.models.loading.components import Part, built
from vidkit.models.locate import describe

FRESH = """
import gc, sys, threading
from pathlib import Path

told = []
def note(event, arguments):
    if event == "import":
        told.append(arguments[0])
    elif event == "open" and str(arguments[0]).endswith(".safetensors"):
        told.append(threading.current_thread().name.rpartition("_")[0])

import torch
from vidkit.models.loading.components import Part, load_parts
from vidkit.models.locate import describe
from vidkit.pipelines import FAMILIES

model = describe(Path(sys.argv[1]))
assert "diffusers" not in sys.modules and "transformers" not in sys.modules
sys.addaudithook(note)
sizes = set()
gc.callbacks.append(lambda *_: sizes.add(len(sys.modules)))
parts = {name: Part(model, name) for name in ("unet", "vae", "image_encoder", "feature_extractor")}
components = load_parts(parts, "cpu", "float32")
FAMILIES["svd"].assemble(None, {"base_model": model}, components)
assert told.index("vidkit-read") < told.index("diffusers"), "the weights are read while the libraries are imported"
assert gc.isenabled() and len(sizes) < 50, f"{len(sizes)} collections amid the imports"
slow = {"scipy.stats", "scipy.optimize", "scipy.integrate"}
assert not slow & sys.modules.keys() and not slow & {*told}, "SciPy is imported, which nobody has used"

# and what needs it has it
from diffusers import EulerDiscreteScheduler, LMSDiscreteScheduler
from transformers.loss import loss_for_object_detection
rows, columns = loss_for_object_detection.linear_sum_assignment([[1, 2], [2, 5]])
assert (list(rows), list(columns)) == ([0, 1], [1, 0])
beta = EulerDiscreteScheduler(use_beta_sigmas=True)
beta.set_timesteps(5)
assert beta.sigmas[0] > beta.sigmas[1] > 0
steps = LMSDiscreteScheduler()
steps.set_timesteps(5)
assert steps.get_lms_coefficient(2, 1, 0) != 0
assert slow <= sys.modules.keys()
"""


def test_weights_are_read_while_the_libraries_are_imported_and_scipy_waits() -> None:
    folder = bundled()["svd"]["baseModel"]
    done = subprocess.run([sys.executable, "-c", FRESH, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_waiting_module_is_the_module_once_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "slow_for_a_test"
    (tmp_path / f"{name}.py").write_text("def twice(x): return 2 * x\nthrice = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    with libraries.when_used({name: ("twice",)}):
        held = __import__(name)
        twice = held.twice
        assert isinstance(held, libraries.Waiting)
    assert name not in sys.modules
    assert twice(4) == 8
    assert held.thrice == 3
    assert not isinstance(sys.modules.pop(name), libraries.Waiting)
    with libraries.when_used({name: ("twice",)}):
        held = __import__(name)
        assert held.thrice == 3  # another thread, meanwhile
    assert not isinstance(sys.modules.pop(name), libraries.Waiting)


def test_a_module_that_is_there_is_not_taken_away() -> None:
    before = sys.modules["json"]
    with libraries.when_used({"json": ()}):
        assert sys.modules["json"] is before
    assert sys.modules["json"] is before


def test_a_slow_package_is_not_imported_to_see_whether_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_package").mkdir()
    (tmp_path / "slow_package" / "__init__.py").write_text("whole = True\n")
    (tmp_path / "slow_package" / "inner").mkdir()
    (tmp_path / "slow_package" / "inner" / "__init__.py").write_text("def twice(x): return 2 * x\n")
    (tmp_path / "slow_package" / "inner" / "deep.py").write_text("def thrice(x): return 3 * x\n")
    (tmp_path / "slow_package" / "beside.py").write_text("from .inner.deep import thrice\n")
    monkeypatch.syspath_prepend(tmp_path)
    with libraries.when_used({"slow_package.inner": ("twice",)}):
        from slow_package.inner import twice  # type: ignore[import-not-found]

        assert "slow_package" not in sys.modules
        # another thread, meanwhile
        assert importlib.import_module("slow_package.beside").thrice(4) == 12
    assert twice(4) == 8
    assert sys.modules["slow_package"].whole
    assert sys.modules["slow_package.inner"].twice(4) == 8
    for name in [name for name in sys.modules if name.startswith("slow_package")]:
        del sys.modules[name]


def test_what_was_put_there_without_an_import_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "put_there", ModuleType("put_there"))
    assert not libraries.is_installed("put_there.inner")


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.module"])
def test_a_module_that_is_not_installed_stays_missing(name: str) -> None:
    with libraries.when_used({name: ("any",)}), pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
    assert name not in sys.modules


SWEEPING = """
import sys
from vidkit import libraries

libraries.import_papermill()
assert "jsonschema" in sys.modules and "rfc3987_syntax" not in sys.modules, "a parser was built that nobody has used"

# and addresses are checked where somebody asks for it
import jsonschema
check = jsonschema.Draft202012Validator.FORMAT_CHECKER
assert check.conforms("https://example.org/größer", "iri") and not check.conforms("no address", "iri")
assert "rfc3987_syntax" in sys.modules
"""


def test_papermill_is_imported_without_a_parser_for_addresses() -> None:
    done = subprocess.run([sys.executable, "-c", SWEEPING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_collected_inside_and_all_is_as_before_outside() -> None:
    assert gc.isenabled()
    with libraries.uncollected():
        assert not gc.isenabled()
        with libraries.uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


class Counting(TorchDispatchMode):
    """The operations that torch is asked for, by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["unet", "vae", "image_encoder", "text_encoder"])
def test_no_weight_is_drawn_as_a_module_is_built(
    tiny_svd_folder: Path, tiny_animatediff: TinyAnimateDiff, name: str
) -> None:
    folder = tiny_animatediff.base if name == "text_encoder" else tiny_svd_folder
    with Counting() as counting:
        module = built(Part(describe(folder), name))
    assert any(weight.is_meta for weight in module.parameters())
    drawn = {"normal_", "uniform_", "normal", "uniform", "bernoulli_", "trunc_normal_"}
    assert not drawn & counting.names


def test_drawing_is_seen_where_it_happens() -> None:
    with Counting() as counting:
        torch.nn.Linear(2, 2)
    assert "uniform_" in counting.names


# --- the benchmark ----------------------------------------------------------------------------------------------------


def test_phases_add_up_to_the_whole() -> None:
    assert phases({"one": 1.0, "two": 1.5}) == {"seconds": 1.5, "one": 1.0, "two": 0.5}
    found = summary([phases({"one": 3.0}), phases({"one": 1.0}), phases({"one": 2.0})])
    assert found == {"best": {"seconds": 1.0, "one": 1.0}, "median": 2.0, "all": [3.0, 1.0, 2.0]}


def test_a_start_is_measured_up_to_its_first_step(tmp_path: Path) -> None:
    request = {**bundled()["svd"], "numFrames": 2, "numInferenceSteps": 2}
    found = vidkit_start(request, tmp_path)
    assert found.keys() == {"seconds", *VIDKIT}
    assert all(seconds >= 0 for seconds in found.values())
    assert found["seconds"] == pytest.approx(sum(found[phase] for phase in VIDKIT), abs=0.01)
    assert not list(tmp_path.iterdir()), "it was stopped"


def test_a_warning_of_no_layers_is_left_out_and_one_of_layers_is_not(caplog: pytest.LogCaptureFixture) -> None:
    libraries.import_networks()
    import diffusers

    decoder = diffusers.AutoencoderKL()
    logging.getLogger("diffusers").addHandler(caplog.handler)
    try:
        decoder.to(dtype=torch.float16)
        assert caplog.records == []
        decoder._keep_in_fp32_modules = ["decoder"]
        decoder.to(dtype=torch.float32)
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "['decoder']" in caplog.text
