"""The keyboard belongs to the panel while the focus is in it."""

from __future__ import annotations

from pathlib import Path

import anywidget


class PanelKeys(anywidget.AnyWidget):
    """Shows nothing. Keeps JupyterLab's one-key shortcuts (x cuts the cell) off the `.vidkit-panel` it stands in."""

    _esm = Path(__file__).with_name("keys.js").read_text(encoding="utf-8") + (
        """
function render({ el }) {
  let leave = () => cancelAnimationFrame(waiting);
  let waiting = requestAnimationFrame(function begin() {
    const root = el.closest(".vidkit-panel");
    if (root) leave = keepKeys(root);
    else waiting = requestAnimationFrame(begin); // not yet in the page
  });
  return () => leave();
}

export default { render };
"""
    )
