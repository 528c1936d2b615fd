from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from tiny_models import TinyAnimateDiff, save_single_file

from vidkit.errors import InputError, SetupError
from vidkit.models.locate import find
from vidkit.models.registry import register, registered, registry_file
from vidkit.panel.model_view import ModelView
from vidkit.params import GenerationParams
from vidkit.pipelines import FAMILIES
from vidkit.settings import Settings


class Page:
    """The models' controls and section beside a request, as the panel puts them together."""

    def __init__(self, **given: Any) -> None:
        self.lock = threading.RLock()
        self.params = GenerationParams(**{"image_path": "example:photo", "prompt": "waves", **given})
        self.chosen = 0
        self.view = ModelView(lock=self.lock, settings=Settings(), on_choose=self.on_choose, apply=self.apply)
        for control in self.view.controls.values():
            control.on_change(self.on_change)
        self.tell()

    def on_choose(self) -> None:
        self.chosen += 1

    def on_change(self, name: str) -> None:
        self.apply({name: self.view.controls[name].get()})

    def apply(self, changes: Mapping[str, Any]) -> None:
        self.params = self.params.replace(**changes)
        for name, control in self.view.controls.items():
            control.set(getattr(self.params, name))
        self.tell()

    def tell(self) -> None:
        try:
            models = FAMILIES[self.params.pipeline].models(self.params, Settings())
        except (InputError, SetupError):
            models = None
        self.view.tell(self.params, models)

    def all_widgets(self, root: ipywidgets.Widget) -> list[ipywidgets.Widget]:
        found = [root]
        for child in getattr(root, "children", ()):
            found += self.all_widgets(child)
        return found

    def box(self, label: str) -> Any:
        roots = [self.view.widget, *(control.widget for control in self.view.controls.values())]
        labelled = [one for root in roots for one in self.all_widgets(root) if getattr(one, "description", "") == label]
        assert len(labelled) == 1, f"{len(labelled)} widgets are called {label}"
        return labelled[0]

    def press(self, label: str) -> None:
        self.box(label).click()

    def text(self) -> str:
        """All that the section says."""
        shown = [one.value for one in self.all_widgets(self.view.widget) if isinstance(one, ipywidgets.HTML)]
        return unescape(re.sub("<[^>]*>", " ", " ".join(shown)))

    def lines(self) -> dict[str, str]:
        """The list's lines by the model's name."""
        return {name: line for line, name in self.box("Models").options}

    def offered(self, label: str) -> tuple[str, ...]:
        return tuple(self.box(label).options)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def models(vidkit_home: Path, tiny_animatediff: TinyAnimateDiff, tiny_svd_folder: Path) -> Path:
    folder = vidkit_home / "models"
    shutil.copytree(tiny_animatediff.base, folder / "base")
    shutil.copytree(tiny_animatediff.motion_adapter, folder / "v3")
    shutil.copytree(tiny_animatediff.sparse_controlnet, folder / "sparse")
    shutil.copytree(tiny_svd_folder, folder / "svd-xt")
    return folder


def test_an_empty_control_means_the_default_and_names_it() -> None:
    page = Page()
    assert page.view.controls["base_model"].get() is None
    assert page.box("Base model").placeholder == "tiny-svd (default)"
    page.box("Base model").value = "  svd-xt "
    assert page.params.base_model == "svd-xt"
    page.box("Base model").value = ""
    assert page.params.base_model is None


def test_what_is_offered_goes_with_the_request(models: Path) -> None:
    page = Page()
    wait_until(lambda: page.offered("Base model") == ("bundled:tiny-svd", "svd-xt"))
    assert page.offered("Motion adapter") == ()
    page.apply({"pipeline": "animatediff"})
    assert page.offered("Base model") == ("bundled:tiny-animatediff", "base")
    assert page.offered("Motion adapter") == ("bundled:tiny-motion-adapter",)  # the other fits another base
    page.apply({"base_model": "base", "conditioning": "sparsectrl"})
    assert page.offered("Motion adapter") == ("v3",)
    assert page.offered("SparseCtrl model") == ("sparse",)


def test_the_list_says_of_each_what_it_is_and_why_it_does_not_go(models: Path) -> None:
    (models / "old.ckpt").write_bytes(b"\x80\x04")
    page = Page()
    # what goes with it stands first, once all are judged
    wait_until(lambda: "old.ckpt" in page.lines() and list(page.lines())[:2] == ["bundled:tiny-svd", "svd-xt"])
    lines = page.lines()
    assert re.fullmatch(
        r"bundled:tiny-svd: base model of svd, \d\d\.\d MB, ships with vidkit; goes with this request",
        lines["bundled:tiny-svd"],
    )
    assert lines["v3"].endswith("in the models folder; does not go with this request: svd has no use for it.")
    assert lines["old.ckpt"].startswith("old.ckpt: not usable: ")


def test_a_chosen_model_is_inspected_and_used_with_what_it_needs(models: Path) -> None:
    page = Page()
    wait_until(lambda: "v3" in page.lines())
    page.box("Models").value = "bundled:tiny-animatediff"
    assert "million, float16" in page.text()
    assert "StableDiffusionPipeline" in page.text()
    assert "does not go with this request: " in page.text()  # whole, where the list cuts it off
    page.press("Use model")
    assert (page.params.pipeline, page.params.base_model) == ("animatediff", "bundled:tiny-animatediff")
    assert page.chosen == 1
    assert "pipeline is now animatediff" in page.text()
    assert "does not go with this request" not in page.text()
    page.box("Models").value = "base"
    page.press("Use model")
    page.box("Models").value = "v3"
    page.press("Use model")
    assert (page.params.base_model, page.params.motion_adapter) == ("base", "v3")
    assert page.box("Models").value == "v3"  # the list has been made anew, what was chosen stays
    assert "goes with this request" in page.lines()["v3"]


def test_what_is_no_model_cannot_be_used(models: Path) -> None:
    (models / "old.ckpt").write_bytes(b"\x80\x04")
    page = Page()
    wait_until(lambda: "old.ckpt" in page.lines())
    page.box("Models").value = "old.ckpt"
    page.press("Use model")
    assert page.chosen == 0
    assert "Choose a model that vidkit can use." in page.text()


def test_a_model_elsewhere_is_added_and_forgotten(tiny_svd_folder: Path, tmp_path: Path) -> None:
    page = Page()
    page.box("Path").value = str(tmp_path)
    page.press("Add model")
    assert "is not a diffusers model" in page.text()
    page.box("Path").value = str(tiny_svd_folder)
    page.press("Add model")
    name = tiny_svd_folder.name
    assert (page.box("Models").value, page.box("Path").value) == (name, "")
    assert name in page.offered("Base model")
    assert find(name, Settings(), "base model") == tiny_svd_folder  # the command line knows it too
    again = Page()
    wait_until(lambda: name in again.lines())
    page.press("Forget model")
    assert name not in page.lines()
    assert registered(Settings()) == [] and tiny_svd_folder.is_dir()
    page.box("Models").value = "bundled:tiny-svd"
    page.press("Forget model")
    assert "can be taken off the registry" in page.text()


def test_a_registered_model_in_the_models_folder_stays_listed_when_forgotten(models: Path) -> None:
    register(Settings(), models / "svd-xt", "my-svd", "svd")
    page = Page()
    wait_until(lambda: "my-svd" in page.lines())
    assert "svd-xt" not in page.lines()
    page.box("Models").value = "my-svd"
    page.press("Forget model")
    wait_until(lambda: "svd-xt" in page.lines())
    assert "my-svd" not in page.lines()


def test_a_registered_model_that_is_gone_can_be_forgotten(tmp_path: Path) -> None:
    register(Settings(), tmp_path / "gone", "gone", "svd")
    page = Page()
    wait_until(lambda: "gone" in page.lines())
    assert page.lines()["gone"] == f"gone: not usable: Nothing is at {tmp_path / 'gone'}."
    page.box("Models").value = "gone"
    page.press("Forget model")
    assert "gone" not in page.lines() and registered(Settings()) == []


def test_a_broken_registry_is_told_and_the_rest_works(models: Path) -> None:
    file = registry_file(Settings())
    file.write_text("{")
    page = Page()
    wait_until(lambda: "models.json" in page.lines())
    assert "not usable" in page.lines()["models.json"] and "cannot be read" in page.lines()["models.json"]
    assert "svd-xt" in page.offered("Base model")
    page.box("Path").value = str(models / "svd-xt")
    page.press("Add model")
    assert "cannot be read" in page.text()
    assert file.read_text() == "{"


def test_refresh_finds_what_has_come(vidkit_home: Path, tiny_svd_folder: Path) -> None:
    page = Page()
    assert "svd-xt" not in page.lines()
    shutil.copytree(tiny_svd_folder, vidkit_home / "models" / "svd-xt")
    page.press("Refresh models")
    wait_until(lambda: "svd-xt" in page.lines())
    assert "svd-xt" in page.offered("Base model")


def test_the_way_to_a_first_model_is_told_for_the_family(vidkit_home: Path) -> None:
    page = Page()
    text = page.text()
    assert "For svd there is only the bundled demonstration model" in text
    for part in ("vidkit models download svd-xt ", "about 4.5 GB", "Stability AI", "has to be accepted on its page"):
        assert part in text
    assert "animatelcm-svd-xt" not in text  # vidkit cannot run it
    page.apply({"pipeline": "animatediff"})
    text = page.text()
    assert "For animatediff there is only" in text
    assert "vidkit models download sparsectrl-rgb" in text and "needs an SD 1.5 base model" in text
    assert "stabilityai" not in text


def test_changing_the_request_asks_many_models_in_a_thread(
    models: Path, tiny_animatediff: TinyAnimateDiff, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models / "files"
    shutil.copytree(tiny_animatediff.base, folder, ignore=shutil.ignore_patterns("*.safetensors", "model_index.json"))
    save_single_file(tiny_animatediff.base, folder / "a.safetensors")
    page = Page()
    wait_until(lambda: "files/a.safetensors" in page.lines())
    asked_in = []
    import vidkit.panel.model_view as module

    def why_not(*arguments: Any) -> str | None:
        asked_in.append(threading.current_thread())
        return real(*arguments)

    real = module.why_not
    monkeypatch.setattr(module, "why_not", why_not)
    page.apply({"pipeline": "animatediff"})
    wait_until(lambda: page.offered("Base model")[:1] == ("bundled:tiny-animatediff",))
    assert threading.current_thread() not in asked_in


def test_another_seed_or_prompt_asks_no_model_again(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    wait_until(lambda: "v3" in page.lines())
    asked = []
    monkeypatch.setattr("vidkit.panel.model_view.why_not", lambda found, *_: asked.append(found.name))
    page.view.tell(page.params.replace(seed=3, prompt="a cat"), None)
    assert asked == []
    page.view.tell(page.params.replace(pipeline="animatediff"), None)
    assert "v3" in asked
