// One clip enlarged; two clips side by side, wiped over one another, or their difference; and copying a request.

function dialogBar(id, title, ...buttons) {
  return make("div", { className: "dialog-bar" }, make("h2", { id }, title), ...buttons,
    make("button", { type: "button", className: "push close", "aria-label": "Close" }, "✕"));
}

function figureOf(point, letter) {
  const figure = make("figure", { className: point.status });
  if (point.width && point.height) figure.style.aspectRatio = `${point.width} / ${point.height}`;
  figure.style.setProperty("--ratio", point.width && point.height ? point.width / point.height : 16 / 9);
  if (point.clip) {
    const player = new Player(point);
    dialogPlayers.add(player);
    player.video.setAttribute("aria-label", nameOf(point));
    player.video.removeAttribute("aria-hidden");
    figure.append(player.video);
  } else figure.append(...standIn(point));
  if (letter) figure.append(make("figcaption", {}, letter));
  return figure;
}

function clearDialog() {
  $("dock").append($("transport"), $("message")); // before the dialog's content is replaced
  for (const player of [...dialogPlayers]) player.unload();
}

// playback bar and messages go into the open dialog: what is outside of one cannot be used
function enter(dialog, points, focused) {
  hideCard();
  halt();
  if (!dialog.open) dialog.showModal();
  dialog.append($("transport"), $("message"));
  workOn();
  say("");
  // no button has the focus at first, so that the space key plays
  const same = [...dialog.querySelectorAll(".dialog-bar button")].find((button) => focused && button.getAttribute("aria-label") === focused);
  (same ?? dialog).focus();
  regather(points);
  writeHash();
}

function leave() {
  if (dialogIsOpen()) return; // this event comes late: another dialog has taken over
  clearDialog();
  state.open = state.pair = null;
  regather(laidOut);
  writeHash();
  activate(active, { focus: true });
}

function openLarge(point) {
  const dialog = $("large");
  const focused = document.activeElement.getAttribute("aria-label"); // of the button that led here
  clearDialog();
  state.open = point.id;
  state.pair = null;
  const button = (text, action) => action && make("button", { type: "button", onclick: action }, text);
  dialog.replaceChildren(
    dialogBar("large-title", nameOf(point),
      make("button", { type: "button", "aria-label": "Previous clip", onclick: () => showNext(-1) }, "‹"),
      make("button", { type: "button", "aria-label": "Next clip", onclick: () => showNext(1) }, "›")),
    make("div", { className: "large-body" },
      make("div", { className: "stage" }, figureOf(point)),
      make("div", { className: "side-panel", tabindex: 0, role: "region", "aria-label": "What made this clip" },
        make("div", { className: "side-actions" },
          button("Copy as YAML", point.yaml && (() => copyYaml(point))),
          button("Copy as command line", point.command && (() => copyCommand(point))),
          button("Compare", point.clip && (() => { dialog.close(); chooseForComparison(point); })),
          point.notebook && make("a", { href: point.notebook, target: "_blank", rel: "noopener noreferrer" }, "Notebook of the run")),
        ...factsOf(point),
        point.yaml && make("details", {}, make("summary", {}, "As YAML"), make("pre", { className: "yaml" }, point.yaml)),
        point.command && make("details", {}, make("summary", {}, "As a command line"), make("pre", { className: "command" }, point.command)))));
  enter(dialog, [point], focused);
}

function showNext(step) {
  const index = laidOut.findIndex((point) => point.id === state.open);
  const point = laidOut[(index + step + laidOut.length) % laidOut.length];
  activate(point.id);
  openLarge(point);
}

// ---- comparing

function chooseForComparison(point) {
  if (!point.clip) return say("This point has no clip to compare.");
  if (chosen === point.id) { markChosen(null); return say("No clip is chosen for comparison."); }
  if (!chosen) { markChosen(point.id); return say("Chosen. Now press c (or Compare) on another clip."); }
  const first = byId.get(chosen);
  markChosen(null);
  openCompare(first, point);
}

function markChosen(id) {
  chosen = id;
  for (const [other, tile] of tiles) tile.classList.toggle("chosen", other === id);
}

const MODES = [["side", "Side by side"], ["wipe", "Wipe"], ["difference", "Difference"]];

function openCompare(first, second) {
  const dialog = $("compare");
  clearDialog();
  state.open = null;
  state.pair = [first.id, second.id];
  const stage = make("div", { className: "stage pair" }, figureOf(first, "A"), figureOf(second, "B"), dividerOf());
  stage.style.setProperty("--ratio", first.width && first.height ? first.width / first.height : 16 / 9);
  dialog.replaceChildren(
    dialogBar("compare-title", "Compare",
      make("div", { className: "segmented", role: "group", "aria-label": "Way of comparing" },
        ...MODES.map(([mode, text]) => make("button", { type: "button", "data-mode": mode, onclick: () => setMode(mode) }, text))),
      make("button", { type: "button", onclick: () => openCompare(second, first) }, "Exchange")),
    make("div", { className: "compare-body" }, stage, differences(first, second)));
  connectWipe(stage);
  setMode(state.mode);
  enter(dialog, [first, second]);
}

function setMode(mode) {
  state.mode = mode;
  const stage = $("compare").querySelector(".stage");
  stage.dataset.mode = mode;
  for (const button of $("compare").querySelectorAll("[data-mode]:not(.stage)")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  moveDivider(state.cut);
  writeHash();
}

function dividerOf() {
  return make("div", { className: "divider", role: "slider", tabindex: 0, "aria-label": "Divider", "aria-valuemin": 0, "aria-valuemax": 100,
    onkeydown: (event) => {
      const step = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      moveDivider(state.cut + step);
      writeHash();
    } });
}

function moveDivider(percent) {
  state.cut = Math.round(Math.min(100, Math.max(0, percent)) * 10) / 10;
  const stage = $("compare").querySelector(".stage");
  stage.style.setProperty("--cut", `${state.cut}%`);
  stage.querySelector(".divider").setAttribute("aria-valuenow", state.cut);
}

function connectWipe(stage) {
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    moveDivider(((event.clientX - box.left) / box.width) * 100);
  };
  stage.addEventListener("pointerdown", (event) => {
    if (stage.dataset.mode !== "wipe" || event.button !== 0) return;
    event.preventDefault();
    stage.querySelector(".divider").focus();
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
  stage.addEventListener("pointerup", writeHash);
}

function differences(first, second) {
  const text = (value) => (value === undefined ? "–" : typeof value === "number" ? number(value) : String(value));
  const rows = (kind, label) => [...new Set([...Object.keys(first[kind]), ...Object.keys(second[kind])])]
    .filter((name) => first[kind][name] !== second[kind][name])
    .map((name) => make("tr", {}, make("th", { scope: "row" }, label(name)), make("td", {}, text(first[kind][name])), make("td", {}, text(second[kind][name]))));
  const head = make("tr", {}, make("td", {}), make("th", { scope: "col" }, "A"), make("th", { scope: "col" }, "B"));
  const body = [...rows("request", words), ...rows("measures", measureLabel)];
  if (!body.length) return make("p", {}, "The two have the same parameters and measures.");
  return make("div", { className: "differences" }, make("table", { "aria-label": "Differences" }, make("thead", {}, head), make("tbody", {}, ...body)));
}

// ---- copying

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or a page that is not trusted with the clipboard
    const field = make("textarea", { readonly: true, className: "offscreen" });
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    if (!copied) return say("The browser did not allow copying: open the clip and copy the text from there.");
  }
  say(`Copied as ${what}.`);
}

const copyYaml = (point) => (point?.yaml ? copy(point.yaml, "YAML") : say("Its request is not known."));
const copyCommand = (point) => (point?.command ? copy(point.command, "a command line") : say("Its request is not known."));

function openHelp() {
  hideCard();
  $("help").showModal();
  $("help").focus();
}

function connectDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest(".close")) dialog.close();
    });
  }
  for (const name of ["large", "compare"]) $(name).addEventListener("close", leave);
}

