// What is shown, as one plain object; the address's hash holds it, so that a view can be sent.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.points.map((point) => [point.id, point]));
const $ = (id) => document.getElementById(id);

const ROLES = ["columns", "rows", "innerColumns", "innerRows"];
const swept = data.axes.map((_, axis) => axis).filter((axis) => data.axes[axis].labels.length > 1);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

function defaults() {
  // the first two axes span the grid; further ones nest while the grid stays narrow enough to be seen whole
  const [rows = -1, columns = -1, third = -1, fourth = -1] = swept.length === 1 ? [-1, swept[0]] : swept;
  const count = (axis) => (axis < 0 ? 1 : data.axes[axis].labels.length);
  const nested = count(columns) * count(third) <= 8;
  return {
    view: "grid", columns, rows,
    innerColumns: nested ? third : -1,
    innerRows: nested ? fourth : third >= 0 && count(third) <= 6 ? third : -1,
    pages: {}, // axis that has no role in the grid -> number of its value shown, -1 for all
    shown: {}, // axis -> set of values that the filter lets through; absent: all
    low: {}, high: {}, statuses: new Set(), find: "",
    measure: data.measures[0]?.name ?? "", sort: "", descending: false, size: null,
    speed: 1, lengths: "wait", open: null, pair: null, mode: "side", cut: 50,
  };
}

let state = defaults();
let active = null; // id of the clip that the keyboard is on
let chosen = null; // id of the first of two clips to compare

const axisNumber = (name) => data.axes.findIndex((axis) => axis.name === name);
const axisName = (axis) => (axis < 0 ? "" : data.axes[axis].name);
const allowed = (axis) => data.axes[axis].labels.map((_, value) => value).filter((value) => state.shown[axis]?.has(value) ?? true);
const pagedAxes = () => swept.filter((axis) => !ROLES.some((role) => state[role] === axis));

function pageOf(axis) {
  const wanted = state.pages[axis] ?? 0;
  const values = allowed(axis);
  return wanted < 0 || values.includes(wanted) ? wanted : values[0] ?? 0;
}

function writeHash() {
  const usual = defaults();
  const hash = new URLSearchParams();
  const put = (name, value, other) => { if (value !== other) hash.append(name, value); };
  put("view", state.view, usual.view);
  for (const role of ROLES) put(role, axisName(state[role]), axisName(usual[role]));
  for (const [axis, value] of Object.entries(state.pages)) {
    if (value) hash.append(`page.${axisName(axis)}`, value < 0 ? "" : data.axes[axis].labels[value]);
  }
  for (const [axis, values] of Object.entries(state.shown)) {
    for (const value of values) hash.append(`only.${axisName(axis)}`, data.axes[axis].labels[value]);
  }
  for (const bound of ["low", "high"]) {
    for (const [name, value] of Object.entries(state[bound])) hash.append(`${bound}.${name}`, value);
  }
  for (const status of state.statuses) hash.append("status", status);
  for (const name of ["find", "measure", "sort", "lengths", "mode"]) put(name, state[name], usual[name]);
  for (const name of ["size", "speed", "cut"]) put(name, state[name], usual[name]);
  if (state.descending) hash.append("descending", 1);
  if (state.open) hash.append("open", state.open);
  if (state.pair) hash.append("pair", state.pair.join(","));
  const text = hash.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function readHash() {
  const result = defaults();
  const oneOf = (value, values, other) => (values.includes(value) ? value : other);
  const measures = data.measures.map((measure) => measure.name);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const dot = name.indexOf(".");
    const [kind, rest] = dot < 0 ? [name, ""] : [name.slice(0, dot), name.slice(dot + 1)];
    const axis = axisNumber(rest);
    const number = axis < 0 ? -1 : data.axes[axis].labels.indexOf(value);
    if (ROLES.includes(kind)) result[kind] = oneOf(axisNumber(value), value ? swept : [-1], result[kind]);
    else if (kind === "page" && axis >= 0) result.pages[axis] = number;
    else if (kind === "only" && number >= 0) (result.shown[axis] ??= new Set()).add(number);
    else if ((kind === "low" || kind === "high") && measures.includes(rest) && value !== "" && isFinite(value)) result[kind][rest] = Number(value);
    else if (kind === "status") result.statuses.add(value);
    else if (kind === "find") result.find = value;
    else if (kind === "measure") result.measure = oneOf(value, ["", ...measures], result.measure);
    else if (kind === "sort") result.sort = oneOf(value, ["", ...measures, ...swept.map(axisName)], "");
    else if (kind === "view") result.view = oneOf(value, ["grid", "list"], "grid");
    else if (kind === "lengths") result.lengths = oneOf(value, ["wait", "repeat", "stretch"], "wait");
    else if (kind === "mode") result.mode = oneOf(value, ["side", "wipe", "difference"], "side");
    else if (kind === "size" && value > 0) result.size = Math.min(640, Math.max(90, Number(value)));
    else if (kind === "speed" && value > 0) result.speed = Math.min(16, Math.max(0.1, Number(value)));
    else if (kind === "cut" && value >= 0) result.cut = Math.min(100, Number(value));
    else if (kind === "descending") result.descending = true;
    else if (kind === "open" && byId.has(value)) result.open = value;
    else if (kind === "pair") {
      const pair = value.split(",");
      if (pair.length === 2 && pair.every((id) => byId.get(id)?.clip)) result.pair = pair;
    }
  }
  ROLES.forEach((role, index) => { // one place for one axis
    if (ROLES.slice(0, index).some((earlier) => result[earlier] === result[role])) result[role] = -1;
  });
  state = result;
}

function passesFilters(point) {
  if (state.statuses.size && !state.statuses.has(point.status)) return false;
  for (const [axis, values] of Object.entries(state.shown)) if (!values.has(point.at[axis])) return false;
  for (const [name, bound] of Object.entries(state.low)) if (!(point.measures[name] >= bound)) return false;
  for (const [name, bound] of Object.entries(state.high)) if (!(point.measures[name] <= bound)) return false;
  return !state.find || textOf(point).includes(state.find.toLowerCase());
}

const onPage = (point) => pagedAxes().every((axis) => pageOf(axis) < 0 || point.at[axis] === pageOf(axis));

function textOf(point) {
  const labels = point.at.map((value, axis) => (value === null ? "" : `${words(axisName(axis))} ${data.axes[axis].labels[value]}`));
  const parts = [point.id, point.status, ...labels, point.request.prompt, ...(point.notes ?? []), point.error?.message, point.error?.code];
  return parts.join("\n").toLowerCase();
}

function sorted(points) {
  if (!state.sort) return state.descending ? [...points].reverse() : points;
  const axis = axisNumber(state.sort);
  const value = (point) => (axis >= 0 ? point.at[axis] : point.measures[state.sort]) ?? null;
  const sign = state.descending ? -1 : 1;
  return [...points].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what has no value comes last in both directions
    return sign * (x - y);
  });
}

// ---- words and elements

const words = (name) => name.replaceAll("_", " ").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
const measureLabel = (name) => data.measures.find((measure) => measure.name === name)?.label ?? words(name);

function number(value) {
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1000 || Number.isInteger(value)) return String(Math.round(value));
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : String(Number(value.toPrecision(3)));
}

function axisTexts(point, axes = swept) {
  return axes.filter((axis) => point.at[axis] !== null).map((axis) => `${words(axisName(axis))} ${data.axes[axis].labels[point.at[axis]]}`);
}

const nameOf = (point) => axisTexts(point).join(", ") || point.id;

// text is always set as text, never as markup
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

let messageTimer;
function say(text) {
  $("message").textContent = text;
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => { $("message").textContent = ""; }, 4000);
}

