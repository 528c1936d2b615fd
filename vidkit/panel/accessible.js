// Stock widgets leave out: the names of sliders' handles, what describes an input, and tooltips of labelled inputs.
// Works on every `.vidkit-control` of the form or panel that it stands in, now and later; changes nothing else.

let count = 0;

function idOf(element) {
  if (!element.id) element.id = `vidkit-described-${++count}`;
  return element.id;
}

function complete(control) {
  const labels = [...control.querySelectorAll("label")].map((label) => label.textContent.replace(/\u200b/g, "").trim());
  const name = labels.find(Boolean);
  if (!name) return;
  for (const handle of control.querySelectorAll('[role="slider"]')) handle.setAttribute("aria-label", name);
  for (const button of control.querySelectorAll(".vidkit-reset")) {
    button.setAttribute("aria-label", `${button.textContent.trim()}: ${name}`);
  }
  const said = control.querySelectorAll(".vidkit-help-text, .vidkit-problem [role=alert]");
  const help = control.querySelector(".vidkit-help-text");
  for (const input of control.querySelectorAll("input, select, textarea")) {
    input.setAttribute("aria-describedby", [...said].map(idOf).join(" "));
    if (help) input.title = help.textContent;
  }
}

function render({ el }) {
  let observer = null;
  let waiting = 0;
  function begin() {
    const root = el.closest(".vidkit-panel, .vidkit-form");
    if (!root) {
      waiting = requestAnimationFrame(begin); // not yet in the page
      return;
    }
    const all = () => root.querySelectorAll(".vidkit-control").forEach(complete);
    let due = 0;
    observer = new MutationObserver(() => {
      cancelAnimationFrame(due);
      due = requestAnimationFrame(all);
    });
    observer.observe(root, { childList: true, subtree: true });
    all();
  }
  begin();
  return () => {
    cancelAnimationFrame(waiting);
    observer?.disconnect();
  };
}

export default { render };
