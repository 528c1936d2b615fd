"""`vidkit.ControlPanel`: tune a clip by hand in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from vidkit.panel.static_panel import static_html
from vidkit.panel.surroundings import Mode, find_mode
from vidkit.params import GenerationParams

if TYPE_CHECKING:
    from vidkit.panel.live_panel import LivePanel
    from vidkit.panel.queue import Job


class ControlPanel:
    """A form over `GenerationParams`, a queue, and the clips made so far; displayed as a cell's last expression.

        panel = vidkit.ControlPanel()
        panel

    `panel.params` is at every moment a valid request, and assigning it sets every control. While a clip is made, cells
    run and more requests queue. What was set, queued and made is there again after a restart of the kernel. A kernel
    has one panel: a new one takes over from the last.

    Args:
        params: the request to begin with, or some of its parameters; by default what was set last.
        mode: "live", "foreground" (clips are made in the Run button's own call, for front ends where threads cannot
            update widgets) or "static" (no widgets: how a notebook run by papermill shows it). By default told by the
            surroundings; the environment's VIDKIT_PANEL says otherwise.

    Raises:
        InputError: for params as `GenerationParams`; `invalid_value` for another mode.
    """

    _latest: ClassVar[ControlPanel | None] = None

    def __init__(self, params: GenerationParams | Mapping[str, Any] | None = None, *, mode: Mode | None = None) -> None:
        from vidkit.panel.preferences import load_request

        self.mode = find_mode(mode)
        if isinstance(params, Mapping):
            params = load_request()[0].replace(**params)
        self._static = params or load_request()[0]
        self._live: LivePanel | None = None
        if self.mode == "static":
            return
        from vidkit.panel.live_panel import LivePanel
        from vidkit.panel.session import the_session

        if ControlPanel._latest is not None:
            ControlPanel._latest.close()
        foreground = self.mode == "foreground"
        self._live = LivePanel(params, the_session(threaded=not foreground), foreground=foreground)
        ControlPanel._latest = self

    @property
    def params(self) -> GenerationParams:
        """The request as it is set now."""
        return self._static if self._live is None else self._live.params

    @params.setter
    def params(self, params: GenerationParams | Mapping[str, Any]) -> None:
        checked = params if isinstance(params, GenerationParams) else GenerationParams(**params)
        if self._live is None:
            self._static = checked
        else:
            self._live.params = checked

    def run(self) -> Job | None:
        """Queue the request, as the Run button does. None in a static panel."""
        return None if self._live is None else self._live.submit()

    def close(self) -> None:
        """Take the panel off the page. What is queued goes on."""
        if self._live is not None:
            self._static = self._live.params
            self._live.close()
            self._live = None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if self._live is None:
            return {"text/plain": repr(self), "text/html": static_html(self._static)}
        return self._live.widget._repr_mimebundle_(include=include, exclude=exclude)

    def __repr__(self) -> str:
        return f"ControlPanel({self.params.to_wire()})"
