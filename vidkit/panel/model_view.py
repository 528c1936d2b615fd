"""The models: a control for each that a request names, and a section to look through what is there."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import ipywidgets

from vidkit.errors import VidkitError
from vidkit.lora_list import LORAS
from vidkit.models.catalogue import Published
from vidkit.models.entries import in_gigabytes
from vidkit.models.registry import unregister
from vidkit.panel.control_base import BaseControl, label_of, looks
from vidkit.panel.download_view import DownloadView
from vidkit.panel.lora_control import LoraControl
from vidkit.panel.model_details import details
from vidkit.panel.model_fit import changes_to_use
from vidkit.panel.model_guide import advice, published_for
from vidkit.panel.model_list import Found, add_model, bundled_models, found_models, why_not
from vidkit.panel.problems import Apply
from vidkit.params import GenerationParams
from vidkit.settings import Settings

NAMES: Final = ("base_model", "motion_adapter", "controlnet")

#: what decides which models go with a request
CHOICE: Final = ("pipeline", "conditioning", *NAMES, LORAS)

#: models that are asked within a callback, some milliseconds each; more are asked in a thread
AT_ONCE: Final = 8


class ModelControl(BaseControl):
    """A name or path, with those to choose from that go with the request. Empty: the family's default model."""

    def __init__(self, name: str, lock: threading.RLock) -> None:
        super().__init__(name, lock)
        self._box = ipywidgets.Combobox(
            description=label_of(name), continuous_update=False, layout=looks().field, style=looks().text
        )
        self._place(self._box)
        self._watch(self._box, lambda value: value.strip() or None)

    def choose(self, name: str) -> None:
        """As if the user had typed it."""
        self._change(name)

    def offer(self, names: Sequence[str], default: str | None) -> None:
        """names: to choose from; default: what an empty box means."""
        if tuple(names) != tuple(self._box.options):
            self._box.options = tuple(names)
        self._box.placeholder = f"{default} (default)" if default else "a name or a path"

    def _put(self, value: Any) -> None:
        self._box.value = value or ""


class ModelView:
    """controls: by parameter. widget: the section. downloads: in it, the place for what fetches models.

    The models folder is looked through in a thread, when the view is made and on Refresh: it may lie far away.

    Args:
        on_choose: called when another model was chosen, so that it can be loaded ahead.
        apply: changes several parameters of the request, for a model of another pipeline or conditioning; without it
            only the model's own parameter is set.
    """

    def __init__(
        self,
        *,
        lock: threading.RLock,
        settings: Settings,
        on_choose: Callable[[], None],
        apply: Apply | None = None,
    ) -> None:
        self._lock, self._settings, self._on_choose, self._apply = lock, settings, on_choose, apply
        self.controls: dict[str, ModelControl | LoraControl] = {
            **{name: ModelControl(name, lock) for name in NAMES},
            LORAS: LoraControl(LORAS, lock),
        }
        self.downloads = ipywidgets.VBox([])
        self._params: GenerationParams | None = None
        self._defaults: dict[str, str] = {}
        self._told_for: tuple[Any, ...] | None = None
        self._found: list[Found] = bundled_models()
        self._reasons: dict[str, str | None] = {}
        self._inspected: tuple[Found, Mapping[str, Any]] | None = None
        self._widget: ipywidgets.Widget | None = None
        self._getting: DownloadView | None = None
        self._looks = 0
        self.refresh()

    @property
    def widget(self) -> ipywidgets.Widget:
        with self._lock:
            if self._widget is None:
                self._widget = self._make()
                self._show()
            return self._widget

    def tell(self, params: GenerationParams, models: Mapping[str, Any] | None) -> None:
        """The request has changed: what is offered and what goes with it may be others now. models: those it uses."""
        with self._lock:
            self._params = params
            not_given = {name for name in NAMES if getattr(params, name) is None}
            self._defaults = {name: model.name for name, model in (models or {}).items() if name in not_given}
            choice = choice_of(params)
            if choice != self._told_for:
                self._told_for = choice
                if is_quick(self._found):
                    self._judge()
                else:
                    threading.Thread(target=self._judge, name="vidkit-models-fit", daemon=True).start()
            self._offer()

    def refresh(self) -> None:
        """Look at the disk again, and at the downloads."""
        if self._getting is not None:
            self._getting.refresh()
        self._look_again()

    def close(self) -> None:
        """The panel goes off the page; downloads go on."""
        if self._getting is not None:
            self._getting.close()

    def _look_again(self) -> None:
        with self._lock:
            self._looks += 1
            threading.Thread(target=self._look, args=(self._looks,), name="vidkit-models", daemon=True).start()

    def say(self, text: str) -> None:
        """What loading ahead has come to."""
        with self._lock:
            if self._widget is not None:
                self._said.value = f'<span role="status">{html.escape(text)}</span>'

    def _look(self, number: int) -> None:
        found = found_models(self._settings)
        with self._lock:
            if number != self._looks:  # begun before something changed: another look is under way, which sees that
                return
            self._found = found
        self._judge()

    def _judge(self) -> None:
        """Ask of each model whether it goes with the request; show it, unless the request is another by now."""
        with self._lock:
            params, models = self._params, self._found
        reasons = {} if params is None else {one.name: why_not(one, params, self._settings) for one in models}
        with self._lock:
            if self._found is models and (params is None or choice_of(params) == self._told_for):
                self._reasons = reasons
                self._offer()
                if self._widget is not None:
                    self._show()

    def _offer(self) -> None:
        for name, control in self.controls.items():
            fitting = [one.name for one in self._found if one.role == name and self._reasons.get(one.name) is None]
            control.offer(fitting, self._defaults.get(name))

    # --- the section

    def _make(self) -> ipywidgets.Widget:
        self.list = ipywidgets.Select(description="Models", rows=7, layout={"width": "98%"})
        self.use = button("Use model", "Set the request's parameters so that it uses this model")
        self.load = button("Load now", "Load the request's models ahead of the run")
        self.again = button("Refresh models", "Look through the models folder again")
        self.path = ipywidgets.Text(
            description="Path",
            placeholder="of a model elsewhere: a diffusers folder, or a .safetensors file",
            layout={"width": "auto", "flex": "1 1 300px"},
        )
        self.add = button("Add model", "Put it into the registry; the model stays where it is")
        self.forget = button("Forget model", "Take the chosen one off the registry, if it is there; its files stay")
        self._said, self._details, self._guide = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        self._getting = DownloadView(lock=self._lock, settings=self._settings, on_done=self._look_again)
        self.downloads.children = [self._getting.widget]
        self.list.observe(lambda _: self._locked(self._inspect), "value")
        self.use.on_click(lambda _: self._choose())
        self.load.on_click(lambda _: self._load())
        self.again.on_click(lambda _: self.refresh())
        self.add.on_click(lambda _: self._locked(self._add))
        self.forget.on_click(lambda _: self._locked(self._forget))
        return ipywidgets.VBox(
            [
                self.list,
                ipywidgets.HBox([self.use, self.load, self.again, self.forget], layout=row),
                ipywidgets.HBox([self.path, self.add], layout=row),
                self._said,
                self._details,
                self.downloads,
                self._guide,
            ]
        )

    def _show(self) -> None:
        chosen = self.list.value
        fitting_first = sorted(self._found, key=lambda one: one.role is None or self._reasons.get(one.name) is not None)
        self.list.options = [(in_one_line(found, self._reasons), found.name) for found in fitting_first]
        if chosen in [found.name for found in self._found]:
            self.list.value = chosen
        self._inspect()
        if self._params is not None:
            self._guide.value = guide_html(self._params.pipeline, self._found, self._settings)
            if self._getting is not None:
                self._getting.tell(self._params.pipeline)

    def _chosen(self) -> Found | None:
        return next((found for found in self._found if found.name == self.list.value), None)

    def _inspect(self) -> None:
        found = self._chosen()
        if found is None:
            self._details.value = ""
            return
        if self._inspected is None or self._inspected[0] != found:  # headers are read once
            self._inspected = (found, details(found))
        told = {"this request": fit_in_words(found, self._reasons), **self._inspected[1]}
        self._details.value = table_html(told)

    def _choose(self) -> None:
        with self._lock:
            found = self._chosen()
            if found is None or found.role is None:
                self.say("Choose a model that vidkit can use.")
                return
            if self._apply is None or self._params is None:
                self.controls[found.role].choose(found.name)
            else:
                changes = changes_to_use(found, self._params, self._settings)
                self._apply(changes)
                others = [f"{name} is now {value or 'the default'}" for name, value in changes.items()]
                self.say("; ".join(others) + ".")
        self._on_choose()

    def _load(self) -> None:
        self.say("Loading the request's models in the background…")
        self._on_choose()

    def _add(self) -> None:
        found = add_model(self.path.value, self._settings)
        self.path.value = ""
        self._found = [*(one for one in self._found if one.path != found.path), found]
        self._judge()
        self.list.value = found.name
        self.say(f"Added: {found.name} ({found.purpose}).")
        self._look_again()

    def _forget(self) -> None:
        found = self._chosen()
        if found is None or found.origin != "registered":
            self.say("Only a model that was added, or downloaded, can be taken off the registry.")
            return
        unregister(self._settings, str(found.path))
        self._found = [one for one in self._found if one is not found]
        self._judge()
        self.say(f"Forgotten: {found.name}. Its files are where they were.")
        self._look_again()  # one in the models folder is listed by its name there

    def _locked(self, act: Callable[[], None]) -> None:
        with self._lock:
            try:
                act()
            except VidkitError as error:
                self.say(". ".join([error.message.removesuffix("."), *error.suggestions]))


def choice_of(params: GenerationParams) -> tuple[Any, ...]:
    return tuple(getattr(params, name) for name in CHOICE)


def is_quick(found: Sequence[Found]) -> bool:
    """Whether all can be asked within a callback: single files are asked by their headers, 15 ms each."""
    return len(found) <= AT_ONCE and not any(one.path.is_file() for one in found)


def in_one_line(found: Found, reasons: Mapping[str, str | None]) -> str:
    """What a model is, and whether it goes with the request."""
    fits = fit_in_words(found, reasons)
    return (
        f"{found.name}: {found.purpose}, {in_gigabytes(found.size)}, {found.origin}; {fits}"
        if found.role
        else (f"{found.name}: {fits}")
    )


def fit_in_words(found: Found, reasons: Mapping[str, str | None]) -> str:
    if found.role is None:
        return f"not usable: {found.problem}"
    reason = reasons.get(found.name)
    return "goes with this request" if reason is None else f"does not go with this request: {reason}"


def table_html(told: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>" for key, value in told.items()
    )
    return f'<table class="vidkit-model">{rows}</table>' if rows else ""


def guide_html(family: str, found: Sequence[Found], settings: Settings) -> str:
    """What to know now, and how models come here."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in advice(family, found, settings))
    rows = "".join(f"<li>{published_html(one)}</li>" for one in published_for(family))
    return (
        f"{lines}<details><summary>Models for {html.escape(family)} that can be downloaded</summary><p>Each also in a "
        f"terminal, by the line below it; then press Refresh models.</p><ul>{rows}</ul></details>"
    )


def published_html(published: Published) -> str:
    """What to know of a model before it is fetched."""
    told = [f"about {published.gigabytes:g} GB", published.licence]
    told += ["its licence has to be accepted on its page; then log in with hf auth login"] if published.gated else []
    told += [f"needs {need.what}" for need in published.needs]
    title = f"{published.title}, {published.use}" if published.use else published.title
    page = f'<a href="{html.escape(published.page)}" target="_blank" rel="noopener">{html.escape(title)}</a>'
    return (
        f"{page}: {html.escape('; '.join(told))}<br><code>vidkit models download {html.escape(published.name)}</code>"
    )


def button(text: str, tooltip: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=text, tooltip=tooltip, layout={"width": "auto"})
