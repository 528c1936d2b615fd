"""A request as text to paste elsewhere: Python, YAML, JSON, or the command line."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import anywidget
import ipywidgets
import traitlets

from vidkit.panel.sweep_draft import quoted
from vidkit.params import GenerationParams

Language = Literal["python", "yaml", "json", "cli"]

LANGUAGES: Final[Mapping[str, Language]] = {
    "Python": "python",
    "YAML (sweep base, papermill)": "yaml",
    "JSON": "json",
    "Command line": "cli",
}


def copy_as(params: GenerationParams, language: Language) -> str:
    """Text that gives this request again; what was not given is left out.

    "python": a call of `vidkit.generate`; "yaml": a papermill parameters file, or what stands under `base:` in a sweep;
    "json": of the protocol, also for `vidkit generate --request FILE`; "cli": a command for a POSIX shell.
    """
    if language == "json":
        return json.dumps(params.to_wire(), indent=2, ensure_ascii=False) + "\n"
    given = params.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"schema_version"})
    if language == "yaml":
        return "".join(f"{name}: {quoted(value)}\n" for name, value in given.items())
    if language == "cli":
        return " ".join(["vidkit generate", *(option(name, value) for name, value in given.items())]) + "\n"
    arguments = "".join(f"    {name}={value!r},\n" for name, value in given.items())
    return f"import vidkit\n\nparams = vidkit.GenerationParams(\n{arguments})\nresult = vidkit.generate(params)\n"


def option(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else "--no" + flag.removeprefix("-")
    if isinstance(value, str) and value.startswith("-"):  # by itself it would be taken for an option
        return f"{flag}={shlex.quote(value)}"
    return f"{flag} {shlex.quote(str(value))}"


class CopyButton(anywidget.AnyWidget):
    """Puts `text` into the clipboard, and says whether that went well."""

    _esm = Path(__file__).with_name("copy_as.js")

    text = traitlets.Unicode().tag(sync=True)


class CopyView:
    """`show` a request; the user chooses the language. lock: the panel's."""

    def __init__(self, params: GenerationParams, *, lock: threading.RLock) -> None:
        self._params, self._lock = params, lock
        self.language = ipywidgets.Dropdown(options=list(LANGUAGES.items()), description="Copy as")
        self.text = ipywidgets.Textarea(description="Text", rows=8, layout={"width": "100%", "height": "auto"})
        self.button = CopyButton()
        choice = ipywidgets.HBox([self.language, self.button])
        self.widget = ipywidgets.VBox([choice, self.text], _dom_classes=("vidkit-copy-as",))
        self.language.observe(self._on_language, "value")
        self.show(params)

    def show(self, params: GenerationParams) -> None:
        with self._lock:
            self._params = params
            self.text.value = self.button.text = copy_as(params, self.language.value)

    def _on_language(self, change: Mapping[str, Any]) -> None:
        self.show(self._params)
