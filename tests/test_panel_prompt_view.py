from __future__ import annotations

import re
import threading
from html import unescape
from pathlib import Path

import ipywidgets
import pytest
from command_line import quickest
from tiny_models import TinyAnimateDiff

from vidkit.panel.prompt_library import PromptLibrary
from vidkit.panel.prompt_view import PromptView
from vidkit.params import GenerationParams, Limits
from vidkit.pipelines import FAMILIES
from vidkit.pipelines.family import Models
from vidkit.settings import load_settings


class Page:
    """The prompts and their library, as a person reads and uses them."""

    def __init__(self) -> None:
        self.view = PromptView(lock=threading.RLock())
        self.changed: list[str] = []
        for control in (self.view.prompt, self.view.negative_prompt):
            control.on_change(self.changed.append)
        self.library = self.view.widget

    def all_widgets(self, root: ipywidgets.Widget) -> list[ipywidgets.Widget]:
        found = [root]
        for child in getattr(root, "children", ()):
            found += self.all_widgets(child)
        return found

    def box(self, label: str) -> ipywidgets.Widget:
        """What carries a label, in the library or among the two controls."""
        roots = (self.library, self.view.prompt.widget, self.view.negative_prompt.widget)
        labelled = [one for root in roots for one in self.all_widgets(root) if getattr(one, "description", "") == label]
        assert len(labelled) == 1, f"{len(labelled)} widgets are called {label}"
        return labelled[0]

    def press(self, label: str) -> None:
        button = self.box(label)
        assert not button.disabled
        button.click()

    def choose(self, text: str) -> None:
        """An example, by the words it begins with."""
        examples = self.box("Examples")
        found = [value for words, value in examples.options if words.startswith(text)]
        assert found, f"no example {text!r}"
        examples.value = found[0]

    def said(self) -> str:
        return text_of(self.library.children[-1])

    def prompts(self) -> tuple[str | None, str | None]:
        return self.view.prompt.get(), self.view.negative_prompt.get()


def text_of(widget: ipywidgets.HTML) -> str:
    return unescape(re.sub("<[^>]*>", "", widget.value)).strip()


@pytest.fixture
def page() -> Page:
    return Page()


def told(page: Page, **given: object) -> tuple[GenerationParams, Models, Limits]:
    """The view is told of a request, as the panel does."""
    params = GenerationParams(**{"image_path": "example:photo", "prompt": "a cat", **given})
    family = FAMILIES[params.pipeline]
    models = family.models(params, load_settings())
    limits = family.limits(params, models)
    page.view.tell(params, models, limits)
    return params, models, limits


def notes(page: Page) -> list[str]:
    """What stands below the two boxes."""
    found = []
    for control in (page.view.prompt, page.view.negative_prompt):
        lines = [one for one in control.widget.children if isinstance(one, ipywidgets.HTML)]
        found.append(" ".join(text_of(one) for one in lines if "<details" not in one.value))
    return found


def test_what_is_typed_is_the_value_and_is_told(page: Page) -> None:
    page.box("Prompt").value = "a cat "
    assert page.prompts() == ("a cat ", None)
    page.box("Negative prompt").value = "blurry"
    assert page.prompts() == ("a cat ", "blurry")
    page.box("Prompt").value = ""
    assert page.prompts() == (None, "blurry")
    assert page.changed == ["prompt", "negative_prompt", "prompt"]
    assert page.box("Prompt").continuous_update  # problems and count follow the typing


def test_setting_a_value_is_no_change_of_the_users(page: Page) -> None:
    page.view.prompt.set("a dog")
    page.view.negative_prompt.set(None)
    assert (page.box("Prompt").value, page.box("Negative prompt").value) == ("a dog", "")
    assert page.changed == []


def test_an_example_is_added_to_the_prompt_it_belongs_to(page: Page) -> None:
    page.view.prompt.set("a cat")
    page.choose("zoom in:")
    page.press("Add to prompt")
    assert page.prompts() == ("a cat, zoom in", None)
    page.box("Category").value = "negative"
    page.choose("watermark, text")
    page.press("Add to negative prompt")
    assert page.prompts() == ("a cat, zoom in", "watermark, text, logo, signature, subtitles")
    assert page.changed == ["prompt", "negative_prompt"]


def test_words_that_are_there_are_not_added_again(page: Page) -> None:
    page.view.prompt.set("a cat, zoom in")
    page.choose("zoom in:")
    page.press("Add to prompt")
    assert page.prompts() == ("a cat, zoom in", None)
    assert page.said() == "It is there already: zoom in"
    assert page.changed == []


def test_search_goes_over_all_categories_and_names_them(page: Page) -> None:
    page.box("Search").value = "hair"
    shown = [words for words, _ in page.box("Examples").options]
    assert [words for words in shown if "wind blowing through hair" in words and "[Subject motion]" in words]
    page.choose("wind blowing through hair")
    page.press("Add to prompt")
    assert page.prompts()[0] == "wind blowing through hair"
    page.box("Search").value = "no such words"
    assert page.box("Examples").options == ()
    assert "Nothing is found" in page.said()


def test_what_the_bundled_model_knows_is_marked(page: Page) -> None:
    words = {value[1]: words for words, value in page.box("Examples").options}
    assert "known to the bundled model" in words["zoom in"]
    assert "known to the bundled model" not in words["dolly zoom"]


def test_own_words_are_kept_and_forgotten(page: Page) -> None:
    page.box("Own words").value = "through a keyhole"
    page.press("Keep words")
    assert page.box("Examples").value == ("camera", "through a keyhole")
    assert [one.text for one in PromptLibrary().examples("camera") if one.own] == ["through a keyhole"]
    page.press("Forget words")
    assert not any(one.own for one in PromptLibrary().examples("camera"))
    page.choose("zoom in:")
    page.press("Forget words")
    assert "none of your own words" in page.said()


def test_a_saved_prompt_replaces_both_and_can_be_taken_back(page: Page) -> None:
    page.view.prompt.set("a long text of mine")
    assert page.box("Saved").value == "Portrait in the wind"  # the first one is chosen, not none
    page.press("Use saved prompt")
    assert page.prompts()[0].startswith("slow cinematic zoom in, woman")
    assert page.prompts()[1].startswith("blurry, distorted")
    page.press("Take back")
    assert page.prompts() == ("a long text of mine", None)
    page.press("Take back")
    assert page.prompts()[0].startswith("slow cinematic zoom in, woman")


def test_saving_under_a_name_that_is_taken_needs_a_second_press(page: Page) -> None:
    page.view.prompt.set("first")
    page.box("Name").value = "Mine"
    page.press("Save prompt")
    assert page.said() == "Saved as Mine."
    assert page.box("Saved").value == "Mine"
    page.view.prompt.set("second")
    page.press("Save prompt")
    assert "is saved under 'Mine' already" in page.said()
    assert PromptLibrary().prompts()[0].prompt == "first"
    page.press("Replace saved prompt")
    assert PromptLibrary().prompts()[0].prompt == "second"
    page.press("Save prompt")  # once more: it asks again
    assert "already" in page.said()
    page.box("Name").value = "Other"
    page.press("Save prompt")
    assert {one.name for one in PromptLibrary().prompts() if one.own} == {"Mine", "Other"}
    page.press("Forget saved prompt")
    assert {one.name for one in PromptLibrary().prompts() if one.own} == {"Mine"}


def test_nothing_to_save_is_said(page: Page) -> None:
    page.box("Name").value = "Mine"
    page.press("Save prompt")
    assert "There is no prompt to save" in page.said()


def test_a_damaged_file_is_told_when_the_library_opens(vidkit_home: Path) -> None:
    (vidkit_home / "prompts.json").write_text("{")
    assert "could not be read" in Page().said()


def test_svd_says_that_it_ignores_both(page: Page) -> None:
    told(page)
    assert notes(page) == [
        "prompt is ignored: Stable Video Diffusion takes no text; the picture and motionBucketId decide.",
        "negativePrompt is ignored: Stable Video Diffusion takes no text.",
    ]


def test_animatediff_counts_the_tokens_of_its_own_model(page: Page, tiny_animatediff: TinyAnimateDiff) -> None:
    told(page, pipeline="animatediff", prompt="a photograph of a lighthouse")
    assert notes(page)[1] == ""
    bundled = notes(page)[0]
    models = {"base_model": str(tiny_animatediff.base), "motion_adapter": str(tiny_animatediff.motion_adapter)}
    told(page, pipeline="animatediff", prompt="a photograph of a lighthouse", **models)
    assert notes(page)[0] == "5 of 75 tokens"
    assert bundled.endswith(" of 75 tokens")
    assert bundled != "5 of 75 tokens"  # its vocabulary is smaller: it needs more pieces
    told(page, pipeline="animatediff", negative_prompt="blurry " * 100, **models)
    assert notes(page)[1] == "100 tokens: encoded in 2 chunks of 75, nothing is cut"


def test_after_the_first_time_the_notes_take_20_milliseconds_at_most(page: Page) -> None:
    params, models, limits = told(page, pipeline="animatediff")
    long = params.replace(prompt="slow cinematic zoom in, " * 60)
    assert quickest(lambda: page.view.tell(long, models, limits)) < 0.02


def test_markup_in_a_prompt_stays_text(page: Page) -> None:
    page.box("Own words").value = "<img src=x onerror=alert(1)>"
    page.press("Keep words")
    page.press("Add to prompt")
    assert "<img" not in page.library.children[-1].value
