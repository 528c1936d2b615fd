"""The panel's acknowledgement: there when a request needs it, given by a box and a button, and not before."""

from __future__ import annotations

import threading

from vidkit.errors import InputError, SetupError
from vidkit.panel.acknowledgement_view import AcknowledgementView, text_in_html
from vidkit.panel.control_panel import ControlPanel
from vidkit.safety.acknowledgement import POINTS, is_acknowledged
from vidkit.settings import config_path, load_settings, update_settings

NEEDED = SetupError("acknowledgement_needed", "It needs an acknowledgement.")


def view() -> tuple[AcknowledgementView, list[str]]:
    given: list[str] = []
    return AcknowledgementView(lock=threading.RLock(), on_given=lambda: given.append("given")), given


def test_it_is_there_only_when_it_is_needed() -> None:
    shown, _ = view()
    assert shown.widget.layout.display == "none"
    shown.show([InputError("empty_prompt", "There is no prompt."), NEEDED])
    assert shown.widget.layout.display == ""
    shown.box.value = True
    shown.show([])
    assert (shown.widget.layout.display, shown.box.value) == ("none", False)


def test_the_whole_text_is_there() -> None:
    assert all(text.replace("'", "&#x27;") in text_in_html() for text in POINTS.values())


def test_the_button_waits_for_the_box() -> None:
    shown, given = view()
    shown.show([NEEDED])
    assert shown.button.disabled
    shown.button.click()  # as a page could, whatever is disabled
    assert not is_acknowledged(load_settings()) and given == []
    shown.box.value = True
    assert not shown.button.disabled
    shown.button.click()
    assert is_acknowledged(load_settings()) and given == ["given"]


def test_what_stands_in_the_way_is_said() -> None:
    shown, given = view()
    config_path().write_text("broken")
    shown.box.value = True
    shown.button.click()
    words = shown._problem.widget.children[0].value
    assert "cannot be read" in words and 'role="alert"' in words
    assert given == [] and config_path().read_text() == "broken"


def test_the_panel_runs_once_it_is_given() -> None:
    update_settings(safety={"checker": "off"})
    panel = ControlPanel({"image_path": "example:photo", "prompt": "x"}, mode="foreground")
    live = panel._live
    assert live is not None
    assert live.acknowledgement.widget.layout.display == ""
    assert live.stage.run.disabled and "acknowledgement" in live.stage.run.tooltip
    live.acknowledgement.box.value = True
    live.acknowledgement.button.click()
    assert live.acknowledgement.widget.layout.display == "none"
    assert not live.stage.run.disabled
    panel.close()
