// JupyterLab's shortcuts of command mode fire on whatever has the focus in an output: on a button there, "b" adds a
// cell and "x" removes the one that shows the button. Lumino asks the focused element itself for this attribute, and
// listens on the document in the capture phase: the window comes before. Shortcuts with Ctrl, Alt or Cmd (save, undo)
// stay as they are. Elsewhere (VS Code, Colab) the attribute means nothing.
function keepKeys(root) {
  const keep = (event) => {
    if (!(event.target instanceof Element) || !root.contains(event.target)) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey || event.altKey));
  };
  window.addEventListener("keydown", keep, true);
  return () => window.removeEventListener("keydown", keep, true);
}
