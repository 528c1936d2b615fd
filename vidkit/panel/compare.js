// One clip, or two side by side, wiped over one another, or their difference; always in step.
// Put behind the report's master_clock.js (Follower, MasterClock) and keys.js (keepKeys) into one module.

const MODES = [["side", "Side by side"], ["wipe", "Wipe"], ["difference", "Difference"]];
const SPEEDS = [0.1, 0.25, 0.5, 1, 2];
const STRENGTHS = [1, 4, 16];
const LETTERS = ["A", "B"];
const ENLARGED = 400; // CSS pixels: a small clip is enlarged by a whole factor, as long as its sides stay within this
const TALLEST = 640; // CSS pixels

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "className") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const rounded = (value) => String(Math.round(value * 100) / 100);

// What is shown of one clip: its picture, and what is said of it.
class Shown {
  constructor(clip, bytes, view) {
    this.clip = clip;
    this.address = URL.createObjectURL(new Blob([bytes], { type: clip.type }));
    this.view = view;
    this.broken = false;
    const isVideo = clip.type.startsWith("video/");
    this.media = make(isVideo ? "video" : "img", isVideo
      ? { muted: true, playsinline: true, preload: "auto", tabindex: -1, disablepictureinpicture: true }
      : { draggable: "false" });
    this.figure = make("figure", {}, this.media, make("span", { className: "vidkit-compare-letter", "aria-hidden": "true" }));
    this.caption = make("p", { className: "vidkit-compare-caption" });
    this.follower = isVideo ? this.followed(this.media) : null;
    this.media.addEventListener(isVideo ? "loadedmetadata" : "load", () => view.loaded());
    this.media.addEventListener("error", () => {
      this.broken = true;
      view.loaded();
    });
    this.media.src = this.address;
  }

  followed(video) {
    video.muted = true; // the attribute alone is only a default, and autoplay rules ask for the property
    const { clock } = this.view;
    const follower = new Follower(video, this.clip.fps, () => ({ speed: this.view.speed, lengths: "wait", cycle: clock.cycle }));
    video.addEventListener("loadeddata", () => { follower.rest(); follower.seek(clock.now()); });
    video.addEventListener("seeked", () => follower.rest());
    video.addEventListener("error", () => { follower.wanted = null; follower.rest(); });
    return follower;
  }

  get width() { return this.media.videoWidth || this.media.naturalWidth || 0; }
  get height() { return this.media.videoHeight || this.media.naturalHeight || 0; }

  name(letter) {
    this.figure.querySelector("span").textContent = letter;
    const label = [letter, this.clip.label].filter(Boolean).join(": ");
    this.media.setAttribute(this.follower ? "aria-label" : "alt", label || "Clip");
    const facts = this.width ? [`${this.width} × ${this.height}`] : [];
    if (this.follower?.duration) facts.push(`${rounded(this.clip.fps)} frames/s`, `${rounded(this.follower.duration)} s`);
    if (!this.follower) facts.push("a GIF plays by itself");
    this.caption.replaceChildren(make("b", {}, label), label ? " " : "", make("span", {}, facts.join(", ")));
  }

  remove() {
    if (this.follower) {
      this.media.pause();
      this.media.removeAttribute("src");
      this.media.load();
    }
    URL.revokeObjectURL(this.address);
    this.figure.remove();
    this.caption.remove();
  }
}

class Player {
  constructor(root) {
    this.root = root;
    this.shown = [];
    this.version = null;
    this.swapped = false;
    this.speed = 1;
    this.inView = true;
    this.clock = new MasterClock({ followers: () => this.followers(), speed: () => this.speed });
    this.build();
    this.listen();
    this.setMode("side");
    this.setCut(50);
    this.tick();
  }

  followers() {
    return this.shown.map((shown) => shown.follower).filter((follower) => follower && !follower.video.error);
  }

  // ---- what is on the page

  build() {
    const button = (text, action, more = {}) => make("button", { type: "button", onclick: action, ...more }, text);
    const select = (label, values, text, start, action) => make("label", {}, `${label} `, make("select", { onchange: action },
      ...values.map((value) => make("option", { value, selected: value === start }, text(value)))));
    this.play = button("Pause", () => this.setPlaying(!this.clock.playing), { className: "vidkit-compare-play" });
    this.seekBar = make("input", { type: "range", min: 0, value: 0, "aria-label": "Position", className: "vidkit-compare-seek" });
    this.time = make("span", { className: "vidkit-compare-time" });
    const speeds = select("Speed", SPEEDS, (value) => `${value} ×`, 1, (event) => {
      this.clock.change(() => { this.speed = Number(event.target.value); });
    });
    this.transport = make("div", { className: "vidkit-compare-bar", role: "group", "aria-label": "Playback" },
      this.play, button("Frame back", () => this.step(-1)), button("Frame forward", () => this.step(1)),
      this.seekBar, this.time, speeds);
    this.cutBar = make("input", { type: "range", min: 0, max: 100, step: 1 });
    this.wipe = make("label", {}, "Wipe border ", this.cutBar);
    this.strength = select("Difference made stronger", STRENGTHS, (value) => `${value} ×`, 4, () => this.showStrength());
    this.pairBar = make("div", { className: "vidkit-compare-bar", role: "group", "aria-label": "Comparison" },
      make("span", { className: "vidkit-compare-modes", role: "group", "aria-label": "Way of comparing" },
        ...MODES.map(([mode, text]) => button(text, () => this.setMode(mode), { "data-mode": mode }))),
      button("Swap sides", () => this.swap()), this.wipe, this.strength);
    this.stage = make("div", { className: "vidkit-compare-stage", tabindex: 0, role: "group", "aria-label": "Picture",
      "aria-keyshortcuts": "Space ArrowLeft ArrowRight Home End [ ]" });
    this.captions = make("div", { className: "vidkit-compare-captions" });
    this.status = make("p", { className: "vidkit-compare-status", role: "status" });
    this.differences = make("div", { className: "vidkit-compare-differences" });
    this.keyHelp = make("p", { className: "vidkit-compare-help" });
    this.root.classList.add("vidkit-compare");
    this.root.setAttribute("role", "region");
    this.root.setAttribute("aria-label", "Clip player");
    this.root.append(this.stage, this.captions, this.transport, this.pairBar, this.status, this.keyHelp, this.differences);
    this.showParts();
    this.say("Waiting for the clip.");
  }

  listen() {
    this.seekBar.addEventListener("input", () => { this.clock.goTo(Number(this.seekBar.value)); this.showStatus(); });
    this.seekBar.addEventListener("change", () => { if (this.clock.playing) this.start(); });
    this.cutBar.addEventListener("input", () => this.setCut(Number(this.cutBar.value)));
    this.stage.addEventListener("pointerdown", (event) => this.press(event));
    this.stage.addEventListener("pointermove", (event) => { if (this.stage.hasPointerCapture(event.pointerId)) this.drag(event); });
    this.onkeydown = (event) => this.key(event);
    this.root.addEventListener("keydown", this.onkeydown);
    this.looked = () => this.look();
    document.addEventListener("visibilitychange", this.looked);
    this.sight = new IntersectionObserver((entries) => { this.inView = entries.at(-1).isIntersecting; this.look(); });
    this.sight.observe(this.root);
    this.room = new ResizeObserver(() => this.fit());
    this.room.observe(this.root);
    this.leaveKeys = keepKeys(this.root);
  }

  show({ version, clips, differences }, buffers) {
    if (version === this.version) return; // another view of this widget has asked
    this.version = version;
    this.clock.halt();
    this.clear();
    this.swapped = false;
    this.shown = clips.map((clip, number) => new Shown(clip, buffers[number], this));
    this.stated = differences;
    this.showParts();
    this.keyHelp.textContent = `Keys: Space plays and pauses, ← → one frame, Home and End first and last frame${clips.length < 2 ? "" : ", [ ] the wipe border"}.`;
    this.clock.time = 0;
    this.clock.cycle = 0;
    this.clock.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.arrange();
    this.showStatus();
  }

  showParts() {
    this.stage.hidden = this.keyHelp.hidden = !this.shown.length;
    this.transport.hidden = !this.shown.some((shown) => shown.follower);
    this.pairBar.hidden = this.shown.length < 2;
  }

  clear() {
    for (const shown of this.shown) shown.remove();
    this.shown = [];
  }

  // the clips in their places, A first
  arrange() {
    const order = this.swapped ? [...this.shown].reverse() : this.shown;
    order.forEach((shown, place) => shown.name(order.length > 1 ? LETTERS[place] : ""));
    this.stage.replaceChildren(...order.map((shown) => shown.figure));
    this.captions.replaceChildren(...order.map((shown) => shown.caption));
    this.stage.dataset.mode = order.length > 1 ? this.mode : "single";
    this.captions.dataset.mode = this.stage.dataset.mode;
    this.showDifferences();
    this.fit();
    this.look(); // a video that is moved in the document is paused by the browser
  }

  // one of the clips has come, or can't be shown
  loaded() {
    this.clock.cycle = Math.max(0, ...this.followers().map((follower) => follower.duration));
    const finest = Math.max(1, ...this.followers().map((follower) => follower.fps));
    this.seekBar.max = this.clock.cycle || 1;
    this.seekBar.step = 1 / finest;
    this.arrange();
    this.showStatus();
  }

  fit() {
    const room = this.root.clientWidth;
    if (!room || !this.shown.length) return;
    const beside = this.stage.dataset.mode === "side";
    const space = beside ? (room - 8) / 2 : room;
    const { width, height } = this.stage.firstElementChild === this.shown[0].figure ? this.shown[0] : this.shown.at(-1);
    for (const shown of this.shown) {
      // over one another, both have the size of A
      const [across, down] = beside || this.shown.length < 2 ? [shown.width, shown.height] : [width, height];
      if (!across) continue;
      const scale = Math.min(space / across, TALLEST / down);
      const factor = scale < 1 ? scale : Math.max(1, Math.floor(Math.min(scale, ENLARGED / Math.max(across, down))));
      shown.figure.style.width = `${across * factor}px`;
      shown.figure.style.aspectRatio = `${across} / ${down}`;
      shown.caption.style.width = beside ? `${across * factor}px` : "";
    }
  }

  // ---- playing

  look() {
    const seen = this.inView && !document.hidden;
    if (!seen) this.clock.halt();
    else if (this.clock.playing && this.clock.cycle) this.start();
    else this.clock.goTo(this.clock.time);
  }

  start() {
    if (this.clock.cycle) this.clock.start();
    this.showStatus();
  }

  setPlaying(playing) {
    this.clock.setPlaying(playing);
    this.showStatus();
  }

  step(direction) {
    this.clock.step(direction, Math.max(1, ...this.followers().map((follower) => follower.fps)));
    this.showStatus();
  }

  goToEnd(last) {
    this.clock.setPlaying(false);
    this.clock.goTo(last ? this.clock.cycle : 0);
    this.showStatus();
  }

  tick() {
    this.clock.tick();
    this.showTime();
    this.frameRequest = requestAnimationFrame(() => this.tick());
  }

  showTime() {
    const time = Math.min(this.clock.now(), this.clock.cycle);
    const text = `${time.toFixed(2)} / ${this.clock.cycle.toFixed(2)} s`;
    if (text === this.time.textContent) return;
    this.time.textContent = text;
    this.seekBar.value = time;
    this.seekBar.setAttribute("aria-valuetext", `${time.toFixed(2)} of ${this.clock.cycle.toFixed(2)} seconds`);
  }

  showStatus() {
    this.play.textContent = this.clock.playing ? "Pause" : "Play";
    const broken = this.shown.filter((shown) => shown.broken);
    if (broken.length) return this.say(`This browser cannot show ${broken.map((shown) => shown.clip.label || "the clip").join(" and ")}: ${broken[0].clip.type} is not played, or the file is damaged.`);
    const followers = this.followers();
    if (!this.shown.length) return this.say("There is no clip to show yet.");
    if (!followers.length) return this.say("GIFs play by themselves and are not in step: make MP4 or WebM clips to step through them.");
    if (!this.clock.cycle) return this.say("Loading.");
    const short = new Set(followers.map((follower) => follower.duration.toFixed(2))).size > 1 ? "; the shorter waits on its last frame" : "";
    if (this.clock.playing) return this.say(`Playing${followers.length > 1 ? " in step" : ""}${short}.`);
    const order = this.swapped ? [...followers].reverse() : followers;
    const where = order.map((follower, place) => `${order.length > 1 ? `${LETTERS[place]} ` : ""}frame ${follower.frameAt(this.clock.time) + 1} of ${follower.frames}`);
    this.say(`Paused: ${where.join(", ")}${short}.`);
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  // ---- comparing

  setMode(mode) {
    this.mode = mode;
    for (const button of this.pairBar.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    this.wipe.hidden = mode !== "wipe";
    this.strength.hidden = mode !== "difference";
    this.showStrength();
    this.arrange();
  }

  showStrength() {
    this.stage.style.setProperty("--vidkit-strength", this.strength.querySelector("select").value);
  }

  setCut(percent) {
    this.cut = Math.min(100, Math.max(0, Math.round(percent)));
    this.cutBar.value = this.cut;
    this.cutBar.setAttribute("aria-valuetext", `A ${this.cut} %, B ${100 - this.cut} %`);
    this.stage.style.setProperty("--vidkit-cut", `${this.cut}%`);
  }

  swap() {
    this.swapped = !this.swapped;
    this.arrange();
    this.showStatus();
  }

  showDifferences() {
    if (this.shown.length < 2 || !this.stated) return this.differences.replaceChildren();
    if (!this.stated.length) return this.differences.replaceChildren(make("p", {}, "The two requests are the same."));
    const [left, right] = this.swapped ? [2, 1] : [1, 2];
    this.differences.replaceChildren(make("table", {},
      make("caption", {}, "What differs between the two requests"),
      make("thead", {}, make("tr", {}, ...["Setting", ...LETTERS].map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...this.stated.map((row) => make("tr", {},
        make("th", { scope: "row" }, row[0]), make("td", {}, row[left]), make("td", {}, row[right]))))));
  }

  // ---- pointer and keyboard

  press(event) {
    if (event.button !== 0) return;
    if (this.stage.dataset.mode !== "wipe") return this.setPlaying(!this.clock.playing);
    event.preventDefault(); // no selection of what is under the pointer
    this.stage.focus();
    this.stage.setPointerCapture(event.pointerId);
    this.drag(event);
  }

  drag(event) {
    const box = this.stage.firstElementChild.getBoundingClientRect();
    this.setCut(((event.clientX - box.left) / box.width) * 100);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.shown.length) return;
    const tag = event.target.tagName;
    const act = {
      "[": () => this.setCut(this.cut - 2),
      "]": () => this.setCut(this.cut + 2),
      " ": tag !== "BUTTON" && tag !== "SELECT" && (() => this.setPlaying(!this.clock.playing)),
      // in sliders and lists these keys have a meaning already
      ArrowLeft: tag !== "INPUT" && tag !== "SELECT" && (() => this.step(-1)),
      ArrowRight: tag !== "INPUT" && tag !== "SELECT" && (() => this.step(1)),
      Home: tag !== "INPUT" && tag !== "SELECT" && (() => this.goToEnd(false)),
      End: tag !== "INPUT" && tag !== "SELECT" && (() => this.goToEnd(true)),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  remove() {
    cancelAnimationFrame(this.frameRequest);
    this.clock.halt();
    this.clear();
    this.sight.disconnect();
    this.room.disconnect();
    document.removeEventListener("visibilitychange", this.looked);
    this.root.removeEventListener("keydown", this.onkeydown);
    this.leaveKeys();
    this.root.replaceChildren();
  }
}

// The clips come in custom messages, not in the widget's state: no notebook is saved with a video inside.
function render({ model, el }) {
  const root = make("div");
  el.append(root);
  const player = new Player(root);
  const receive = (message, buffers) => { if (message.kind === "clips") player.show(message, buffers); };
  model.on("msg:custom", receive);
  model.send({ kind: "wanted" });
  return () => {
    model.off("msg:custom", receive);
    player.remove();
    root.remove();
  };
}

export default { render };
