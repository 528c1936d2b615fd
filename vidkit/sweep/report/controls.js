// Everything above the clips: which axis goes where, pages, filters.

function renderAll() {
  writeHash();
  renderControls();
  renderPages();
  renderView();
}

function change(changes) {
  Object.assign(state, changes);
  renderAll();
}

function options(select, entries, value) {
  select.replaceChildren(...entries.map(([key, text]) => make("option", { value: key }, text)));
  select.value = value;
}

function renderControls() {
  document.body.dataset.view = state.view;
  $("as-grid").setAttribute("aria-pressed", state.view === "grid");
  $("as-list").setAttribute("aria-pressed", state.view === "list");
  const axes = swept.map((axis) => [axis, words(axisName(axis))]);
  for (const role of ROLES) options($(role), [[-1, "none"], ...axes], state[role]);
  for (const label of document.querySelectorAll(".nested")) label.hidden = swept.length < 3;
  const measures = data.measures.map((measure) => [measure.name, measure.label]);
  options($("measure"), [["", "nothing"], ...measures], state.measure);
  options($("sort"), [["", "order of the sweep"], ...measures, ...axes.map(([axis, text]) => [axisName(axis), text])], state.sort);
  $("measure-label").hidden = measures.length === 0;
  $("descending").setAttribute("aria-pressed", state.descending);
  $("speed").value = state.speed;
  $("lengths").value = state.lengths;
  const shown = data.points.filter(passesFilters).length;
  const active = Object.keys(state.shown).length + Object.keys(state.low).length + Object.keys(state.high).length + state.statuses.size + (state.find ? 1 : 0);
  $("filter-toggle").textContent = active ? `Filter: ${shown} of ${data.points.length}` : "Filter";
  $("filter-toggle").classList.toggle("on", active > 0);
}

// two roles never hold one axis: the axis that was there takes the other's place
function assign(role, axis) {
  const other = ROLES.find((name) => name !== role && axis >= 0 && state[name] === axis);
  if (other) state[other] = state[role];
  change({ [role]: axis });
}

function renderPages() {
  const paged = state.view === "grid" ? pagedAxes() : [];
  $("pages").hidden = paged.length === 0;
  $("pages").replaceChildren(...paged.map((axis) => {
    const name = words(axisName(axis));
    const select = make("select", { "aria-label": name, onchange: () => turnTo(axis, Number(select.value)) });
    options(select, [[-1, "all"], ...allowed(axis).map((value) => [value, data.axes[axis].labels[value]])], pageOf(axis));
    const turn = (label, text, step) => make("button", { type: "button", "aria-label": `${label} ${name}`, onclick: () => turnPage(step, axis) }, text);
    return make("span", { className: "pager" }, make("span", { "aria-hidden": "true" }, name), turn("Previous", "‹", -1), select, turn("Next", "›", 1));
  }));
}

function turnTo(axis, value) {
  state.pages = { ...state.pages, [axis]: value };
  renderAll();
}

function turnPage(step, axis = pagedAxes()[0]) {
  if (axis === undefined || state.view !== "grid") return;
  const values = allowed(axis);
  const index = values.indexOf(pageOf(axis));
  turnTo(axis, values[(index + step + values.length) % values.length]);
}

// ---- filters

function renderFilters() {
  const axes = swept.map((axis) => make("fieldset", {}, make("legend", {}, words(axisName(axis))),
    ...data.axes[axis].labels.map((label, value) => chip(label, () => !state.shown[axis]?.size || state.shown[axis].has(value), () => toggleValue(axis, value)))));
  const counts = countStatuses();
  const statuses = Object.keys(counts).filter((status) => counts[status]);
  const status = statuses.length > 1 && make("fieldset", {}, make("legend", {}, "status"), ...statuses.map((name) => chip(`${name} ${counts[name]}`,
    () => !state.statuses.size || state.statuses.has(name), () => toggleStatus(name, statuses))));
  const bounds = data.measures.map(({ name, label, low, high }) => make("fieldset", {}, make("legend", {}, label),
    bound("low", name, `${label} at least`, number(low)), " to ", bound("high", name, `${label} at most`, number(high))));
  const find = make("input", { type: "search", placeholder: "prompt, note, error …", "aria-label": "Find text", oninput: () => change({ find: find.value }) });
  find.value = state.find;
  $("filters").replaceChildren(...[find, status, ...axes, ...bounds, make("button", { type: "button", onclick: clearFilters }, "Clear filters")].filter(Boolean));
}

function chip(text, isOn, toggle) {
  const button = make("button", { type: "button", className: "chip", title: text, onclick: () => { toggle(); renderAll(); refreshChips(); } }, text);
  button.refresh = () => button.setAttribute("aria-pressed", isOn());
  button.refresh();
  return button;
}

const refreshChips = () => { for (const button of document.querySelectorAll(".chip")) button.refresh(); };

// from "all", the first click picks one value; clicks add and take away; none left means all again
function toggleValue(axis, value) {
  const values = new Set(state.shown[axis]);
  if (!values.delete(value)) values.add(value);
  if (values.size && values.size < data.axes[axis].labels.length) state.shown[axis] = values;
  else delete state.shown[axis];
}

function toggleStatus(name, all) {
  if (!state.statuses.delete(name)) state.statuses.add(name);
  if (state.statuses.size === all.length) state.statuses.clear();
}

function bound(kind, name, label, placeholder) {
  const input = make("input", { type: "number", step: "any", placeholder, "aria-label": label, oninput: () => {
    if (input.value === "") delete state[kind][name];
    else state[kind][name] = Number(input.value);
    renderAll();
  } });
  input.value = state[kind][name] ?? "";
  return input;
}

function clearFilters() {
  change({ shown: {}, low: {}, high: {}, statuses: new Set(), find: "" });
  renderFilters();
}

function countStatuses() {
  const counts = { done: 0, failed: 0, missing: 0 };
  for (const point of data.points) counts[point.status] += 1;
  return counts;
}

// ---- what all clips share, said once

function renderSame() {
  const single = data.axes.map((_, axis) => axis).filter((axis) => data.axes[axis].labels.length === 1);
  const names = [...new Set(single.flatMap((axis) => axisName(axis).split(", ")))];
  const requests = data.points.map((point) => point.request).filter((request) => Object.keys(request).length);
  const sameInAll = Object.entries(requests[0] ?? {}).filter(([name, value]) => !names.includes(name) &&
    requests.every((request) => request[name] === value));
  const entries = [
    ...single.map((axis) => [words(axisName(axis)), data.axes[axis].labels[0]]),
    ...sameInAll.filter(([name, value]) => name !== "schema_version" && value !== "").map(([name, value]) => [words(name), String(value)])];
  $("same").hidden = entries.length === 0;
  const first = ["prompt", "image path", "num frames", "fps", "width", "height"];
  const rank = ([name], index) => (index < single.length ? -1 : first.includes(name) ? first.indexOf(name) : first.length);
  const ranked = entries.map((entry, index) => [entry, rank(entry, index)]).sort((a, b) => a[1] - b[1]).map(([entry]) => entry);
  $("same").querySelector("summary").replaceChildren(make("b", {}, "Same in all clips "), ranked.map(([name, value]) => `${name} ${value}`).join(" · "));
  $("same").querySelector("dl").replaceChildren(...ranked.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function renderCounts() {
  const counts = countStatuses();
  const parts = [`${counts.done} of ${data.points.length} done`, counts.failed && `${counts.failed} failed`, counts.missing && `${counts.missing} not run yet`];
  $("counts").textContent = parts.filter(Boolean).join(" · ");
}

function connectControls() {
  for (const role of ROLES) $(role).addEventListener("change", () => assign(role, Number($(role).value)));
  $("as-grid").addEventListener("click", () => change({ view: "grid" }));
  $("as-list").addEventListener("click", () => change({ view: "list" }));
  $("measure").addEventListener("change", () => change({ measure: $("measure").value }));
  $("sort").addEventListener("change", () => {
    const sort = $("sort").value;
    change({ sort, ...(data.measures.some((measure) => measure.name === sort) && { measure: sort }) });
  });
  $("descending").addEventListener("click", () => change({ descending: !state.descending }));
  $("size").addEventListener("input", () => { state.size = Number($("size").value); refit(); });
  $("size").addEventListener("change", writeHash);
  $("filter-toggle").addEventListener("click", () => {
    $("filters").hidden = !$("filters").hidden;
    $("filter-toggle").setAttribute("aria-expanded", !$("filters").hidden);
  });
  $("help-open").addEventListener("click", openHelp);
  addEventListener("resize", refit);
}

