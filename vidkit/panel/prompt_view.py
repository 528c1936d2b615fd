"""Prompt and negative prompt: typed, put together from examples, saved; with their length in tokens."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Any, Final

import ipywidgets

from vidkit.errors import InputError, SetupError, VidkitError
from vidkit.panel.control_base import BaseControl, label_of, looks
from vidkit.panel.prompt_library import CATEGORIES, Example, PromptLibrary, added_to, bundled
from vidkit.panel.prompt_tokens import token_counter
from vidkit.params import GenerationParams, Limits, is_used, wire_name
from vidkit.pipelines.family import Models

NEGATIVE: Final = "negative"


class WordsControl(BaseControl):
    """A text of some lines, taken while it is typed; with words about it below."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._box = ipywidgets.Textarea(description=label_of(name), rows=3, layout=looks().field, style=looks().text)
        self._note = ipywidgets.HTML(layout=looks().column, _dom_classes=("vidkit-hint",))
        self._place(self._box, self._note)
        # not stripped: the box would lose the space that is just being typed
        self._watch(self._box, lambda value: value or None)

    def add(self, words: str) -> None:
        """As if the user had typed them behind what is there."""
        self._change(added_to(self._given or "", words))

    def replace(self, text: str) -> None:
        self._change(text or None)

    def tell(self, note: str) -> None:
        self._note.value = html.escape(note)

    def _put(self, value: Any) -> None:
        text = value if isinstance(value, str) else ""
        if self._box.value != text:
            self._box.value = text


class PromptView:
    """prompt, negative_prompt: the controls; widget: the library, for a section of its own."""

    def __init__(self, *, lock: threading.RLock, library: PromptLibrary | None = None) -> None:
        self._lock = lock
        self._library = library or PromptLibrary()
        self._before: tuple[str, str] | None = None  # both prompts, before the library changed them
        self._replacing: str | None = None  # the name whose saved prompt the next Save replaces
        self.prompt = WordsControl("prompt", lock)
        self.negative_prompt = WordsControl("negative_prompt", lock)
        self._widget: ipywidgets.Widget | None = None

    def tell(self, params: GenerationParams, models: Models | None, limits: Limits | None) -> None:
        """Below each prompt: its length, or why it is ignored. The first count takes up to 150 ms (`warm_up`)."""
        for control in (self.prompt, self.negative_prompt):
            control.tell(note_on(control.name, params, models, limits))

    @property
    def widget(self) -> ipywidgets.Widget:
        if self._widget is None:
            self._widget = self._make_library()
        return self._widget

    def _make_library(self) -> ipywidgets.Widget:
        titles = bundled().titles
        self.category = ipywidgets.Dropdown(
            options=[(titles[category], category) for category in CATEGORIES], description="Category"
        )
        self.search = ipywidgets.Text(description="Search", placeholder="words to look for, in all categories")
        self.examples = ipywidgets.Select(description="Examples", rows=9, layout={"width": "98%"})
        self.add = button("Add to prompt")
        self.own = ipywidgets.Text(description="Own words", placeholder="to keep in this category")
        self.keep, self.forget = button("Keep words"), button("Forget words")
        self.saved = ipywidgets.Dropdown(description="Saved")
        self.use, self.unsave = button("Use saved prompt"), button("Forget saved prompt")
        self.name = ipywidgets.Text(description="Name", placeholder="of the prompt as it is now")
        self.save = button("Save prompt")
        self.back = button("Take back")
        self.back.disabled = True
        self._said = ipywidgets.HTML()
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        self.category.observe(lambda _: self._locked(self._show_category), "value")
        self.search.observe(lambda _: self._locked(self._show_examples), "value")
        for widget, act in (
            (self.add, self._add),
            (self.keep, self._keep),
            (self.forget, self._forget),
            (self.use, self._use),
            (self.save, self._save),
            (self.unsave, self._unsave),
            (self.back, self._take_back),
        ):
            widget.on_click(lambda _, act=act: self._locked(act))
        self.name.observe(lambda _: self._locked(self._offer_save), "value")
        self._locked(self._show_all)
        return ipywidgets.VBox(
            [
                ipywidgets.HBox([self.category, self.search], layout=row),
                self.examples,
                ipywidgets.HBox([self.add, self.back], layout=row),
                ipywidgets.HBox([self.own, self.keep, self.forget], layout=row),
                ipywidgets.HBox([self.saved, self.use, self.unsave], layout=row),
                ipywidgets.HBox([self.name, self.save], layout=row),
                self._said,
            ]
        )

    def _locked(self, act: Callable[[], None]) -> None:
        with self._lock:
            self._say("")
            try:
                act()
            except VidkitError as error:
                self._say(". ".join([error.message.removesuffix("."), *error.suggestions]))
            if self._library.problem:
                self._say(self._library.problem)
                self._library.problem = None

    def _say(self, text: str) -> None:
        self._said.value = f'<span role="status">{html.escape(text)}</span>'

    def _show_all(self) -> None:
        self._show_examples()
        self._show_saved()

    def _show_category(self) -> None:
        self.add.description = "Add to negative prompt" if self.category.value == NEGATIVE else "Add to prompt"
        self._show_examples()

    def _show_examples(self) -> None:
        searched = self.search.value.strip()
        found = self._library.examples(None if searched else self.category.value, searched)
        titles = bundled().titles
        self.examples.options = [
            (words_on(example, titles[example.category] if searched else None), (example.category, example.text))
            for example in found
        ]
        if not found:
            self._say("Nothing is found. Fewer words find more.")

    def _show_saved(self) -> None:
        names, chosen = [one.name for one in self._library.prompts()], self.saved.value
        self.saved.options = names
        self.saved.value = chosen if chosen in names else names[0]

    def _add(self) -> None:
        if self.examples.value is None:
            return
        category, text = self.examples.value
        control = self.negative_prompt if category == NEGATIVE else self.prompt
        before = control.get() or ""
        if added_to(before, text) == before:
            self._say(f"It is there already: {text}")
            return
        self._remember()
        control.add(text)
        self._say(f"Added to the {'negative ' if category == NEGATIVE else ''}prompt: {text}")

    def _keep(self) -> None:
        example = self._library.add_example(self.category.value, self.own.value)
        self.own.value = ""
        self._show_examples()
        self.examples.value = (example.category, example.text)

    def _forget(self) -> None:
        if self.examples.value is not None:
            self._library.remove_example(*self.examples.value)
            self._show_examples()

    def _use(self) -> None:
        chosen = next((one for one in self._library.prompts() if one.name == self.saved.value), None)
        if chosen is not None:
            self._remember()
            self.prompt.replace(chosen.prompt)
            self.negative_prompt.replace(chosen.negative_prompt)
            self._say(f"Both prompts are now those of {chosen.name}.")

    def _remember(self) -> None:
        self._before = (self.prompt.get() or "", self.negative_prompt.get() or "")
        self.back.disabled = False

    def _take_back(self) -> None:
        """As both prompts were before the last words or saved prompt; again: as they were after."""
        if self._before is not None:
            before = self._before
            self._remember()
            self.prompt.replace(before[0])
            self.negative_prompt.replace(before[1])

    def _offer_save(self) -> None:
        """Another name: nothing is replaced without a second press."""
        self._replacing, self.save.description = None, "Save prompt"

    def _save(self) -> None:
        name = self.name.value.strip()
        prompts = (self.prompt.get() or "", self.negative_prompt.get() or "")
        try:
            saved = self._library.save_prompt(name, *prompts, overwrite=self._replacing == name)
        except InputError as error:
            if error.code == "output_exists":
                self._replacing, self.save.description = name, "Replace saved prompt"
            raise
        self._offer_save()
        self._show_saved()
        self.saved.value = saved.name
        self._say(f"Saved as {saved.name}.")

    def _unsave(self) -> None:
        if self.saved.value is not None:
            self._library.remove_prompt(self.saved.value)
            self._show_saved()


def words_on(example: Example, place: str | None) -> str:
    """An example in one line. place: its category, where several are listed."""
    marks = [place] if place else []
    marks += ["known to the bundled model"] if example.demonstration else []
    return f"{example.text}: {example.help}" + (f" [{', '.join(marks)}]" if marks else "")


def note_on(name: str, params: GenerationParams, models: Models | None, limits: Limits | None) -> str:
    text = getattr(params, name)
    if not is_used(name, params.pipeline, params.conditioning):
        reason = limits.ignored.get(name) if limits is not None else None
        return f"{wire_name(name)} is ignored: {reason or f'{params.pipeline} has no use for it'}."
    if models is None or not text:
        return ""
    try:
        return token_counter(models["base_model"]).describe(text)
    except SetupError as error:
        return error.message


def warm_up(models: Models) -> None:
    """Read a model's vocabulary ahead: what a callback has no time for."""
    try:
        token_counter(models["base_model"])
    except SetupError:
        return  # a model without text; `note_on` tells where it matters


def button(text: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=text, layout={"width": "auto"})
