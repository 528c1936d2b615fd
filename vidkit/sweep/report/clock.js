// One master clock; every visible clip follows it. Clips start together, are kept in step by small changes of their
// rate, and are gathered at the first frame whenever the longest has ended.

const clock = { time: 0, cycle: 0, playing: false, running: false, anchor: 0, attempt: 0 };
const gridPlayers = new Set();
const dialogPlayers = new Set();
const dialogIsOpen = () => $("large").open || $("compare").open;
const players = () => (dialogIsOpen() ? dialogPlayers : gridPlayers);

const now = () => (clock.running ? clock.time + ((performance.now() - clock.anchor) / 1000) * state.speed : clock.time);
const durationOf = (point) => (point.frames && point.fps ? point.frames / point.fps : 0);

class Player {
  constructor(point, className = "") {
    this.point = point;
    this.fps = point.fps || 8;
    this.wanted = null; // where to seek when it is this clip's turn
    this.busy = false; // loading or seeking
    const video = (this.video = make("video", {
      className, muted: true, playsinline: true, preload: "auto", tabindex: -1, "aria-hidden": "true",
      disablepictureinpicture: true, disableremoteplayback: true, poster: point.poster,
    }));
    video.muted = true; // the attribute alone is only a default, and autoplay rules ask for the property
    video.addEventListener("loadeddata", () => { this.rest(); this.seek(now()); });
    video.addEventListener("seeked", () => this.rest());
    video.addEventListener("error", () => {
      this.wanted = null;
      if (video.hasAttribute("src")) video.parentElement?.classList.add("broken");
      this.rest();
    });
  }

  // load, or seek, if that is wanted
  work() {
    const video = this.video;
    if (this.busy || video.error) return;
    if (!video.hasAttribute("src")) {
      this.begin();
      video.src = this.point.clip;
    } else if (this.wanted !== null) {
      this.begin();
      video.currentTime = this.wanted;
      this.wanted = null;
    }
  }

  begin() {
    this.busy = true;
    Player.busy += 1;
  }

  rest() {
    if (this.busy) Player.busy -= 1;
    this.busy = false;
    workOn();
  }

  get duration() {
    return Number.isFinite(this.video.duration) ? this.video.duration : durationOf(this.point);
  }

  get atRest() {
    return Boolean(this.video.error) || (!this.busy && this.wanted === null && this.video.readyState >= 2);
  }

  // where this clip is when the master clock shows `time`
  local(time) {
    const duration = this.duration || 1;
    const last = Math.max(0, duration - 0.5 / this.fps);
    if (state.lengths === "repeat") return Math.min(time % duration, last);
    if (state.lengths === "stretch" && clock.cycle) return Math.min((time / clock.cycle) * duration, last);
    return Math.min(time, last);
  }

  rate() {
    return state.lengths === "stretch" && clock.cycle ? (state.speed * this.duration) / clock.cycle : state.speed;
  }

  // to the middle of the frame that is due (its edges belong to two frames), unless that frame is shown
  seek(time) {
    const frame = Math.floor(this.local(time) * this.fps + 1e-3);
    const shown = Math.floor(this.video.currentTime * this.fps + 1e-3);
    if (this.busy || frame !== shown) this.jump((frame + 0.5) / this.fps);
    else this.wanted = null;
  }

  jump(target) {
    if (this.video.readyState === 0) return; // once it has loaded, it goes to where the clock is
    this.wanted = target;
    workOn();
  }

  play() {
    this.video.play().catch(() => {}); // cut short by a pause or an unload: nothing is lost
  }

  follow(time) {
    const video = this.video;
    if (!this.atRest) return;
    const target = this.local(time);
    if (state.lengths === "wait" && time >= this.duration - 0.5 / this.fps) { // over: stay on the last frame
      if (!video.paused) video.pause();
      return this.seek(time);
    }
    if (video.ended || video.paused) { this.jump(target); return this.play(); }
    const late = target - video.currentTime;
    const rate = this.rate();
    if (Math.abs(late) > Math.max(0.3, 2 / this.fps) * Math.max(1, rate)) return this.jump(target);
    const steered = rate * (Math.abs(late) < 0.008 ? 1 : Math.min(1.6, Math.max(0.5, 1 + (3 * late) / Math.max(rate, 0.25))));
    if (Math.abs(steered - video.playbackRate) > 0.02 * rate) video.playbackRate = Math.min(16, Math.max(0.07, steered));
  }

  unload() {
    gridPlayers.delete(this);
    dialogPlayers.delete(this);
    this.rest();
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.video.remove();
  }
}

// A few at a time: when a hundred clips load or seek at once, all come late, and in Chromium some never come.
Player.busy = 0;
const AT_ONCE = 8;

function workOn() {
  for (const player of [...dialogPlayers, ...gridPlayers]) {
    if (Player.busy >= AT_ONCE) return;
    player.work();
  }
}

function halt() {
  clock.time = now();
  clock.running = false;
  clock.attempt += 1;
  for (const player of [...gridPlayers, ...dialogPlayers]) player.video.pause();
}

// all clips at the frame that is due, then all off at once; who is not there after `patience` ms catches up
async function start(patience = 1000) {
  halt();
  const attempt = clock.attempt;
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  for (const player of players()) {
    player.video.playbackRate = Math.min(16, Math.max(0.07, player.rate()));
    player.seek(clock.time);
  }
  const end = performance.now() + patience;
  do await pause(15); while (performance.now() < end && attempt === clock.attempt && ![...players()].every((player) => player.atRest));
  if (attempt !== clock.attempt || !clock.playing) return;
  clock.anchor = performance.now();
  clock.running = true;
  for (const player of players()) if (player.atRest) player.play();
}

function goTo(time) {
  halt();
  clock.time = Math.min(Math.max(0, time), Math.max(0, clock.cycle - 1e-3));
  for (const player of players()) player.seek(clock.time);
}

function setPlaying(playing) {
  clock.playing = playing;
  if (playing) start();
  else goTo(now());
  showPlaying();
}

function stepFrame(direction) {
  const focused = [...players()].find((player) => player.point.id === active);
  const fps = dialogPlayers.size || !focused ? Math.max(1, ...[...players()].map((player) => player.fps)) : focused.fps;
  const count = Math.max(1, Math.round(clock.cycle * fps));
  const frame = Math.floor(now() * fps + 1e-3) + direction;
  setPlaying(false);
  goTo((((frame % count) + count) % count + 0.5) / fps);
}

// after the layout or the group of clips has changed
function regather(points) {
  halt();
  clock.cycle = Math.max(0, ...points.map(durationOf));
  if (clock.time >= clock.cycle) clock.time = 0;
  if (clock.playing) start(2500);
  else goTo(clock.time);
}

function showPlaying() {
  $("play").setAttribute("aria-label", clock.playing ? "Pause" : "Play");
  $("play").classList.toggle("playing", clock.playing);
}

function showTime() {
  const time = Math.min(now(), clock.cycle);
  const text = `${time.toFixed(2)} / ${clock.cycle.toFixed(2)} s`;
  if ($("clock").textContent === text) return;
  $("clock").textContent = text;
  $("seek").max = clock.cycle || 1;
  $("seek").value = time;
  $("seek").setAttribute("aria-valuetext", `${time.toFixed(2)} of ${clock.cycle.toFixed(2)} seconds`);
}

let beat = 0;
function tick() {
  if (clock.running) {
    const time = now();
    if (time >= clock.cycle) { halt(); clock.time = 0; start(); }
    else if (beat++ % 3 === 0) for (const player of players()) player.follow(time);
  }
  showTime();
  requestAnimationFrame(tick);
}

function connectTransport() {
  $("play").addEventListener("click", () => setPlaying(!clock.playing));
  $("back").addEventListener("click", () => stepFrame(-1));
  $("forward").addEventListener("click", () => stepFrame(1));
  $("seek").addEventListener("input", () => goTo(Number($("seek").value)));
  $("seek").addEventListener("change", () => { if (clock.playing) start(); });
  $("speed").addEventListener("change", () => {
    clock.time = now(); clock.anchor = performance.now();
    state.speed = Number($("speed").value);
    writeHash();
  });
  $("lengths").addEventListener("change", () => {
    state.lengths = $("lengths").value;
    writeHash();
    if (clock.playing) start(); else goTo(clock.time);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) halt();
    else if (clock.playing) start();
  });
}

