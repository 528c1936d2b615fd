// The grid over up to four axes, and the sorted list.

let laidOut = []; // the points in the order in which they stand on the page

function renderView() {
  hideCard();
  const matching = data.points.filter(passesFilters);
  const points = state.view === "grid" ? matching.filter(onPage) : sorted(matching);
  laidOut = points;
  if (!points.some((point) => point.id === active)) active = points[0]?.id ?? null;
  const content = points.length === 0 ? nothingLeft() : state.view === "grid" ? gridOf(points) : listOf(points);
  fitTiles(content); // before it is on the page, so that it is laid out once
  $("view").replaceChildren(content);
  for (const id of [...mounted.keys()]) if (!tiles.get(id).isConnected) unmount(id);
  for (const tile of tiles.values()) if (!tile.isConnected) observer.unobserve(tile);
  fitHeads();
  regather(points);
}

function nothingLeft() {
  return make("p", { className: "nothing" }, "No clip passes the filters. ", make("button", { type: "button", onclick: clearFilters }, "Clear filters"));
}

function listOf(points) {
  return make("ol", { className: "list", "aria-label": "Clips" }, ...points.map((point) => make("li", {}, tileOf(point))));
}

// tuples of value numbers that occur, in the axes' own order
function lattice(points, axes) {
  const tuples = new Map();
  for (const point of points) {
    const tuple = axes.map((axis) => point.at[axis] ?? -1);
    tuples.set(tuple.join(), tuple);
  }
  return [...tuples.values()].sort((a, b) => {
    const level = a.findIndex((value, index) => value !== b[index]);
    return level < 0 ? 0 : a[level] - b[level];
  });
}

function gridOf(points) {
  const columnAxes = [state.columns, state.innerColumns].filter((axis) => axis >= 0);
  const rowAxes = [state.rows, state.innerRows].filter((axis) => axis >= 0);
  const columns = lattice(points, columnAxes);
  const rows = lattice(points, rowAxes);
  const cells = new Map();
  const place = (point) => `${rowAxes.map((axis) => point.at[axis] ?? -1)}|${columnAxes.map((axis) => point.at[axis] ?? -1)}`;
  for (const point of points) cells.set(place(point), [...(cells.get(place(point)) ?? []), point]);
  const hidden = new Set(data.points.filter((point) => onPage(point) && !passesFilters(point)).map(place));

  const head = make("thead", {}, ...columnAxes.map((axis, level) => make("tr", { role: "row" },
    level === 0 && rowAxes.length > 0 && make("td", { className: "corner", role: "none", colspan: rowAxes.length, rowspan: columnAxes.length }),
    ...spans(columns, level).map(({ value, start, count }) => headerOf(axis, value, { role: "columnheader", scope: level + 1 < columnAxes.length ? "colgroup" : "col", colspan: count, className: `level-${level}${startsGroup(columns, start) ? " group-left" : ""}` })))));
  const starts = rowAxes.map((_, level) => new Map(spans(rows, level).map((span) => [span.start, span])));
  const body = make("tbody", {}, ...rows.map((row, index) => make("tr", { role: "row", className: starts[0]?.has(index) ? "group-start" : "" },
    ...rowAxes.map((axis, level) => {
      const span = starts[level].get(index);
      return span && headerOf(axis, span.value, { role: "rowheader", scope: level + 1 < rowAxes.length ? "rowgroup" : "row", rowspan: span.count, className: `level-${level}` });
    }),
    ...columns.map((column, position) => cellOf(cells.get(`${row}|${column}`), hidden.has(`${row}|${column}`), startsGroup(columns, position))))));
  const table = make("table", { role: "grid", "aria-label": "Clips by axis" }, head, body);
  table.style.setProperty("--row-heads", rowAxes.length);
  table.dataset.columns = Math.max(1, ...rows.map((row) => columns.reduce((sum, column) => sum + Math.max(1, Math.min(4, cells.get(`${row}|${column}`)?.length ?? 1)), 0)));
  return table;
}

// runs of equal values at one level, within equal values of the levels above
function spans(tuples, level) {
  const found = [];
  tuples.forEach((tuple, index) => {
    const same = index > 0 && tuple.slice(0, level + 1).join() === tuples[index - 1].slice(0, level + 1).join();
    if (same) found.at(-1).count += 1;
    else found.push({ value: tuple[level], start: index, count: 1 });
  });
  return found;
}

// whether a new outer value begins here
const startsGroup = (tuples, index) => tuples[0].length > 1 && index > 0 && tuples[index - 1][0] !== tuples[index][0];

function headerOf(axis, value, properties) {
  const label = value < 0 ? "none" : data.axes[axis].labels[value];
  return make("th", { ...properties, title: `${words(axisName(axis))} ${label}` },
    make("span", { className: "label" }, make("span", { className: "axis" }, words(axisName(axis)), " "), make("b", {}, label)));
}

function cellOf(points, isHidden, isStart) {
  const className = isStart ? "group-left" : "";
  if (points) return make("td", { role: "gridcell", className }, make("div", { className: "cell" }, ...points.map(tileOf)));
  const text = isHidden ? "filtered out" : data.planned ? "not in this sweep" : "no clip";
  return make("td", { role: "gridcell", className: `${className} empty` }, make("span", { className: "absent" }, text));
}

// so wide that the grid fills the page, within what can still be seen and what is sensible
function fitTiles(content = $("view").firstElementChild) {
  const view = $("view");
  let size = state.size;
  if (!size && content?.tagName === "TABLE") {
    const heads = Number(content.style.getPropertyValue("--row-heads")) * 104;
    size = Math.floor((view.clientWidth - heads - 24) / Number(content.dataset.columns)) - 9;
    size = Math.min(size, Math.max(150, innerHeight * 0.42));
  }
  size = Math.min(640, Math.max(90, size || 200));
  view.style.setProperty("--tile", `${size}px`);
  view.style.setProperty("--text-scale", size < 130 ? 0.85 : 1);
  $("size").value = size;
}

// Heads stay in sight below those above them. Told to them alone: what the table is told, all its tiles are styled for.
function fitHeads() {
  const view = $("view");
  const table = view.querySelector("table");
  if (!table) {
    view.style.scrollPadding = "4px";
    return;
  }
  const height = table.tHead.offsetHeight;
  const rowHeads = table.querySelectorAll("tbody tr:first-child th").length;
  table.tHead.style.setProperty("--head", `${table.querySelector("thead tr")?.offsetHeight ?? 0}px`);
  for (const head of table.querySelectorAll("tbody th")) head.style.setProperty("--heads", `${height}px`);
  view.style.scrollPadding = `${height + 4}px 4px 4px ${rowHeads * 104 + 4}px`;
}

function refit() {
  fitTiles();
  fitHeads();
}

// the nearest clip in a direction, wherever the layout has put it
function neighbour(id, dx, dy) {
  const here = centre(id);
  if (!here) return laidOut[0]?.id ?? null;
  let best = null;
  let least = Infinity;
  for (const point of laidOut) {
    if (point.id === id) continue;
    const there = centre(point.id);
    const along = (there.x - here.x) * dx + (there.y - here.y) * dy;
    const aside = Math.abs((there.x - here.x) * dy) + Math.abs((there.y - here.y) * dx);
    if (along > 4 && aside < here.size * 1.5 && along + 4 * aside < least) { best = point.id; least = along + 4 * aside; }
  }
  return best;
}

function centre(id) {
  const tile = tiles.get(id);
  if (!tile?.isConnected) return null;
  const box = tile.getBoundingClientRect();
  return { x: box.left + box.width / 2, y: box.top + box.height / 2, size: Math.max(box.width, box.height) };
}

