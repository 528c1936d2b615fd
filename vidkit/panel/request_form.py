"""The request as a form: every parameter of the schema, grouped, those shown that the family uses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_args

import ipywidgets

from vidkit.errors import InputError, Remedy, VidkitError
from vidkit.panel.accessible import Accessible
from vidkit.panel.control_base import default_of, looks, unit_of
from vidkit.panel.controls import Control, make_control
from vidkit.params import GenerationParams, Group, Limits, group_of, is_used

#: groups that are there at once; the others are made when "More settings" is first opened
FIRST: Final = ("picture", "prompt", "model", "size", "motion")


class RequestForm:
    """Controls over one `GenerationParams`, which is valid at every moment.

    What a control holds that is no valid value is said there, and the last valid one counts until it is mended.

    Args:
        params: what to begin with.
        lock: the panel's; held in every callback.
        special: controls made elsewhere, by parameter; their widgets are put into the form too.
    """

    def __init__(
        self, params: GenerationParams, *, lock: threading.RLock, special: Mapping[str, Control] | None = None
    ) -> None:
        self._lock = lock
        self._params = params
        self._listeners: list[Callable[[], None]] = []
        self._controls: dict[str, Control] = {}
        self._limits: Limits | None = None
        self._invalid: dict[str, VidkitError] = {}
        self._problems: Sequence[VidkitError] = ()
        groups = [group for group in get_args(Group) if group != "hidden"]
        self._groups = {group: GroupView(group) for group in groups if names_of(group)}
        self._more = ipywidgets.ToggleButton(
            description=MORE, tooltip="Settings that are seldom changed", layout={"width": "auto"}
        )
        self._more.observe(self._on_more, "value")
        first = [view.widget for group, view in self._groups.items() if group in FIRST]
        later = [view.widget for group, view in self._groups.items() if group not in FIRST]
        self.widget = ipywidgets.VBox([*first, self._more, *later, Accessible()], _dom_classes=("vidkit-form",))
        for name, control in (special or {}).items():
            self._adopt(name, control)
        self._arrange()

    @property
    def params(self) -> GenerationParams:
        """At every moment a valid request. Assigning one sets every control and tells the listeners once."""
        return self._params

    @params.setter
    def params(self, params: GenerationParams) -> None:
        with self._lock:
            self._params = params
            self._invalid.clear()
            for name in self._controls:
                self._fill(name)
            self._tell()

    def change(self, **changes: Any) -> None:
        """Set some parameters, None takes one back; other controls keep what they hold. Listeners are told once.

        Raises:
            InputError: as `GenerationParams.replace`; nothing is changed then.
        """
        with self._lock:
            self._params = self._params.replace(**changes)
            for name in changes:
                self._invalid.pop(name, None)
                if name in self._controls:
                    self._fill(name)
            self._tell()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back, with the lock held, after each change of `params`, and of what is `invalid`."""
        self._listeners.append(callback)

    def control(self, name: str) -> Control:
        """A parameter's control, made now if it was not shown yet."""
        with self._lock:
            if name not in self._controls:
                self._adopt(name, make_control(name, self._lock))
            return self._controls[name]

    def narrow(self, limits: Limits) -> None:
        """What the chosen model narrows: defaults, ranges, the step of sizes."""
        with self._lock:
            if limits == self._limits:
                return
            self._limits = limits
            for name in self._controls:
                self._narrow(name)

    @property
    def invalid(self) -> Sequence[VidkitError]:
        """What controls hold that is no valid value. It is said at them; `params` has the last valid ones instead."""
        return list(self._invalid.values())

    def show_problems(self, problems: Sequence[VidkitError]) -> list[VidkitError]:
        """Say each at the first control that it concerns; returns those that concern none that is shown."""
        with self._lock:
            self._problems = problems
            return self._show_problems()

    # --- from the controls to the request

    def _adopt(self, name: str, control: Control) -> None:
        self._controls[name] = control
        self._fill(name)
        self._narrow(name)
        control.on_change(self._on_control)

    def _on_control(self, name: str) -> None:
        with self._lock:
            value = self._controls[name].get()
            try:
                self._params = self._params.replace(**{name: value})
                self._invalid.pop(name, None)
            except InputError as error:
                self._invalid[name] = self._mendable(error, name)
            self._tell()

    def _mendable(self, error: InputError, name: str) -> InputError:
        """With a button that takes the last valid value again."""
        kept = getattr(self._params, name) if name in self._params.model_fields_set else None
        words = "the default" if kept is None else shortened(str(kept))
        remedy = Remedy(f"Back to {words}", **{name: kept})
        return InputError(error.code, error.message, [*error.suggestions, remedy], [name])

    def _tell(self) -> None:
        self._arrange()
        self._show_problems()
        for listener in self._listeners:
            listener()

    # --- from the request to the controls

    def _fill(self, name: str) -> None:
        given = name in self._params.model_fields_set
        self._controls[name].set(getattr(self._params, name) if given else None)

    def _narrow(self, name: str) -> None:
        limits = self._limits
        if limits is None:
            return
        low, high = limits.ranges.get(name, (None, None))
        step = limits.size_multiple if unit_of(name) == "pixels" else None
        self._controls[name].narrow(limits.defaults.get(name, default_of(name)), low, high, step)

    def _arrange(self) -> None:
        """Show the controls that the family uses, in the groups that are open."""
        for group, view in self._groups.items():
            is_open = group in FIRST or self._more.value
            view.show([self.control(name) for name in names_of(group) if self._is_used(name)] if is_open else [])
        closed = [name for group in self._groups if group not in FIRST for name in names_of(group)]
        count = len(self._params.model_fields_set.intersection(closed))
        self._more.description = f"{MORE} ({count} set)" if count else MORE

    def _is_used(self, name: str) -> bool:
        """By the family and conditioning; what every request must have is always there."""
        if GenerationParams.model_fields[name].is_required():
            return True
        return is_used(name, self._params.pipeline, self._params.conditioning)

    def _has_control(self, name: str) -> bool:
        return name in GenerationParams.model_fields and group_of(name) in self._groups and self._is_used(name)

    def _show_problems(self) -> list[VidkitError]:
        at: dict[str, list[VidkitError]] = {name: [problem] for name, problem in self._invalid.items()}
        homeless = []
        for problem in self._problems:
            place = next(filter(self._has_control, problem.concerns), None)
            if place is None:
                homeless.append(problem)
            else:
                at.setdefault(place, []).append(problem)
        if not self._more.value and any(group_of(name) not in FIRST for name in at):
            self._more.value = True  # nobody sees a problem in a group that is closed
        for name, control in self._controls.items():
            control.show_problem(in_one(at[name]) if name in at else None, self._apply)
        return homeless

    def _apply(self, changes: Mapping[str, Any]) -> None:
        self.change(**changes)

    def _on_more(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            self._arrange()


MORE: Final = "More settings"


class GroupView:
    """The controls of one group under its heading, where there is more than one."""

    def __init__(self, group: str) -> None:
        self._heading = ipywidgets.HTML(
            f'<h4 class="vidkit-heading">{group.capitalize()}</h4>', layout=looks().narrow, style=looks().html
        )
        self.widget = ipywidgets.VBox(layout=looks().column, _dom_classes=("vidkit-group",))

    def show(self, controls: Sequence[Control]) -> None:
        widgets = [control.widget for control in controls]
        children = (self._heading, *widgets) if len(widgets) > 1 else tuple(widgets)
        if children != self.widget.children:
            self.widget.children = children


def names_of(group: str) -> list[str]:
    """A group's parameters, in the schema's order."""
    return [name for name in GenerationParams.model_fields if group_of(name) == group]


def in_one(problems: Sequence[VidkitError]) -> VidkitError:
    """What is said at one control."""
    first = problems[0]
    if len(problems) == 1:
        return first
    text = " ".join(problem.message for problem in problems)
    return type(first)(first.code, text, [line for problem in problems for line in problem.suggestions])


def shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
