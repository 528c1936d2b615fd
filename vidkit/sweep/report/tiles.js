// A clip in the grid or the list. Its video exists only near the visible part of the page.

const tiles = new Map(); // id -> element, kept over changes of layout
const mounted = new Map(); // id -> Player

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const id = entry.target.dataset.id;
    if (entry.isIntersecting) mount(byId.get(id), entry.target);
    else unmount(id);
  }
  workOn();
}, { root: $("view"), rootMargin: "120px" });

function mount(point, tile) {
  if (!point.clip || mounted.has(point.id)) return;
  const player = new Player(point);
  mounted.set(point.id, player);
  gridPlayers.add(player);
  tile.querySelector(".media").prepend(player.video);
}

function unmount(id) {
  mounted.get(id)?.unload();
  mounted.delete(id);
}

function tileOf(point) {
  if (!tiles.has(point.id)) tiles.set(point.id, makeTile(point));
  const tile = tiles.get(point.id);
  describeTile(tile, point);
  observer.observe(tile);
  return tile;
}

function makeTile(point) {
  const media = make("div", { className: "media", role: "button", tabindex: -1 }, ...standIn(point));
  if (point.width && point.height) media.style.aspectRatio = `${point.width} / ${point.height}`;
  return make("div", { className: `tile ${point.status}`, "data-id": point.id }, media, actionsOf(point), make("div", { className: "caption" }));
}

function standIn(point) {
  if (point.status === "failed") return errorTexts(point.error);
  if (point.status === "missing") return [make("span", { className: "absent" }, "not run yet")];
  return point.clip ? [] : [make("span", { className: "absent" }, "the clip is gone")];
}

function errorTexts(error) {
  return [
    make("strong", { className: "error-title" }, words(error?.code ?? "failed")),
    make("span", { className: "error-message" }, error?.message ?? "No message was recorded."),
    ...(error?.suggestions ?? []).map((text) => make("span", { className: "suggestion" }, text)),
  ];
}

function actionsOf(point) {
  const button = (label, text, action) => make("button", { type: "button", tabindex: -1, "aria-label": label, title: label, onclick: action }, text);
  return make("div", { className: "actions" },
    point.clip && button("Compare this clip", "Compare", () => chooseForComparison(point)),
    point.yaml && button("Copy as YAML", "YAML", () => copyYaml(point)),
    point.command && button("Copy as command line", "CLI", () => copyCommand(point)));
}

function describeTile(tile, point) {
  const media = tile.querySelector(".media");
  const value = point.measures[state.measure];
  const parts = [nameOf(point)];
  if (point.status !== "done") parts.push(point.status === "failed" ? `failed: ${point.error?.message ?? ""}` : "not run yet");
  if (value !== undefined) parts.push(`${measureLabel(state.measure)} ${number(value)}`);
  media.setAttribute("aria-label", parts.join(", "));
  media.tabIndex = point.id === active ? 0 : -1;
  tile.classList.toggle("chosen", point.id === chosen);
  for (const button of tile.querySelectorAll(".actions button")) button.tabIndex = media.tabIndex;

  const caption = tile.querySelector(".caption");
  const placed = state.view === "grid" ? ROLES.map((role) => state[role]) : [];
  const rest = axisTexts(point, swept.filter((axis) => !placed.includes(axis) && (state.view === "list" || pageOf(axis) < 0)));
  const range = data.measures.find((measure) => measure.name === state.measure);
  caption.replaceChildren(
    ...[value !== undefined && make("span", { className: "value", title: measureLabel(state.measure) }, number(value)),
      ...rest.map((text) => make("span", { className: "where", title: text }, text))].filter(Boolean));
  const share = value !== undefined && range.high > range.low ? (value - range.low) / (range.high - range.low) : 0;
  caption.style.setProperty("--share", share);
}

const mediaOf = (id) => tiles.get(id)?.querySelector(".media");

function activate(id, { focus = false } = {}) {
  if (active !== id) {
    for (const [other, tabindex] of [[active, -1], [id, 0]]) {
      const media = mediaOf(other);
      if (!media) continue;
      media.tabIndex = tabindex;
      for (const button of media.parentElement.querySelectorAll(".actions button")) button.tabIndex = tabindex;
    }
    active = id;
  }
  if (!focus) return;
  const media = mediaOf(id);
  media?.focus({ preventScroll: true });
  media?.closest("td, li")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// ---- what made a clip, while the pointer rests on it

let cardTimer;
let cardFor = null;

function hideCard() {
  clearTimeout(cardTimer);
  if (cardFor) mediaOf(cardFor)?.removeAttribute("aria-describedby");
  cardFor = null;
  $("card").hidden = true;
}

function showCard(point) {
  hideCard();
  const card = $("card");
  card.replaceChildren(...factsOf(point, { brief: true }));
  card.hidden = false;
  cardFor = point.id;
  mediaOf(point.id).setAttribute("aria-describedby", "card");
  const tile = tiles.get(point.id).getBoundingClientRect();
  const { width, height } = card.getBoundingClientRect();
  const right = tile.right + 8;
  const left = right + width < innerWidth ? right : tile.left - 8 - width;
  const beside = left >= 0;
  card.style.left = `${beside ? left : Math.max(4, Math.min(tile.left, innerWidth - width - 4))}px`;
  card.style.top = `${Math.max(4, Math.min(beside ? tile.top : tile.bottom + 8, innerHeight - height - 4))}px`;
}

function factsOf(point, { brief = false } = {}) {
  const pairs = (entries, className = "") => make("dl", { className: `facts ${className}` },
    ...entries.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const section = (title, ...content) => make("section", {}, make("h3", {}, title), ...content);
  const asText = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const axes = data.axes.map((_, axis) => axis).filter((axis) => point.at[axis] !== null);
  const measures = Object.entries(point.measures).map(([name, value]) => [measureLabel(name), number(value)]);
  const timing = Object.entries(point.timing ?? {}).map(([name, value]) => [name, `${number(value)} s`]);
  const request = Object.entries(point.request).map(([name, value]) => [words(name), asText(value)]);
  const notes = (point.notes ?? []).map((note) => make("li", {}, asText(note)));
  return [
    point.error && section("Failed", make("p", { className: "error-message" }, `${words(point.error.code ?? "")}: ${point.error.message ?? ""}`),
      make("ul", {}, ...(point.error.suggestions ?? []).map((text) => make("li", {}, text)))),
    point.status === "missing" && make("p", {}, "This point was not run yet."),
    axes.length > 0 && section("Point", pairs(axes.map((axis) => [words(axisName(axis)), data.axes[axis].labels[point.at[axis]]]))),
    measures.length > 0 && section("Measured", pairs(measures, "numbers")),
    notes.length > 0 && section("Notes", make("ul", {}, ...notes)),
    ...(brief ? [] : [
      request.length > 0 && section("Request", pairs(request)),
      timing.length > 0 && section("Time", pairs(timing, "numbers")),
      ...["models", "pictures", "plan", "versions"].filter((name) => point[name] && Object.keys(point[name]).length > 0).map((name) =>
        section(name[0].toUpperCase() + name.slice(1), pairs(Object.entries(point[name]).map(([key, value]) => [value?.name ? words(key) : key, asText(value)])))),
      point.error?.traceback && section("Traceback", make("pre", {}, asText(point.error.traceback))),
    ]),
  ].filter(Boolean);
}

function connectTiles() {
  const view = $("view");
  view.addEventListener("click", (event) => {
    const media = event.target.closest(".media");
    if (!media) return;
    activate(media.parentElement.dataset.id, { focus: true });
    openLarge(byId.get(active));
  });
  view.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) activate(tile.dataset.id);
  });
  view.addEventListener("pointerover", (event) => {
    const tile = event.pointerType === "mouse" && event.target.closest(".tile");
    if (!tile || tile.dataset.id === cardFor) return;
    hideCard();
    if (event.target.closest(".media")) cardTimer = setTimeout(() => showCard(byId.get(tile.dataset.id)), 350);
  });
  view.addEventListener("pointerleave", hideCard);
  view.addEventListener("scroll", hideCard, { passive: true });
}

