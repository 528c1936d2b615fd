// The keyboard, and the start of everything.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key, target } = event;
  if (target.closest("input:not([type=range]), select, textarea")) return;
  const isControl = target.closest("button, a, summary, input");
  const point = byId.get(active);
  if (key === " ") {
    if (isControl && target.closest("button, a, summary")) return;
    setPlaying(!clock.playing);
  } else if (key === ",") stepFrame(-1);
  else if (key === ".") stepFrame(1);
  else if ($("help").open) return;
  else if (!(dialogIsOpen() ? onDialogKey(key, isControl) : onPageKey(event, point, isControl))) return;
  event.preventDefault();
}

function onDialogKey(key, isControl) {
  const compared = $("compare").open;
  if (compared && key === "w") setMode(MODES[(MODES.findIndex(([mode]) => mode === state.mode) + 1) % MODES.length][0]);
  else if (compared && key === "x") openCompare(...[...state.pair].reverse().map((id) => byId.get(id)));
  else if (!compared && key === "ArrowLeft" && isControl?.type !== "range") showNext(-1);
  else if (!compared && key === "ArrowRight" && isControl?.type !== "range") showNext(1);
  else if (!compared && key === "c") { $("large").close(); chooseForComparison(byId.get(active)); }
  else if (!compared && key === "y") copyYaml(byId.get(state.open));
  else if (!compared && key === "Y") copyCommand(byId.get(state.open));
  else if (key === "?") openHelp();
  else return false;
  return true;
}

function onPageKey(event, point, isControl) {
  const { key } = event;
  if (ARROWS[key]) {
    if (isControl?.type === "range") return false;
    hideCard();
    const inGrid = event.target.closest(".tile");
    const next = inGrid ? neighbour(active, ...ARROWS[key]) : active;
    if (next) activate(next, { focus: true });
  } else if (key === "Enter") {
    if (isControl || !point) return false;
    openLarge(point);
  } else if (key === "c" && point) chooseForComparison(point);
  else if (key === "i" && point) cardFor === point.id ? hideCard() : showCard(point);
  else if (key === "y") copyYaml(point);
  else if (key === "Y") copyCommand(point);
  else if (key === "[") turnPage(-1);
  else if (key === "]") turnPage(1);
  else if (key === "v") change({ view: state.view === "grid" ? "list" : "grid" });
  else if (key === "?") openHelp();
  else if (key === "Escape") { hideCard(); markChosen(null); }
  else return false;
  return true;
}

function openFromHash() {
  if (state.pair) openCompare(...state.pair.map((id) => byId.get(id)));
  else if (state.open) { active = state.open; openLarge(byId.get(state.open)); }
}

readHash();
clock.playing = !calm;
connectTransport();
connectTiles();
connectControls();
connectDialogs();
renderCounts();
renderSame();
renderFilters();
showPlaying();
renderAll();
openFromHash();
tick();
document.addEventListener("keydown", onKey);
addEventListener("hashchange", () => {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  readHash();
  renderFilters();
  renderAll();
  openFromHash();
});
