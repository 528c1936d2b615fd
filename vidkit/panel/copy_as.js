// A button that puts the widget's text into the clipboard: what stock widgets cannot do.

async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // a page that came over plain HTTP has no clipboard interface
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  area.style.opacity = "0";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refused");
}

function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-widgets jupyter-button vidkit-copy";
  button.textContent = "Copy";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    try {
      await copy(model.get("text"));
      said.textContent = " Copied.";
    } catch (error) {
      said.textContent = ` Not copied (${error.message}): select the text and copy it.`;
    }
  });
  const clear = () => (said.textContent = "");
  model.on("change:text", clear);
  el.append(button, said);
  return () => model.off("change:text", clear);
}

export default { render };
