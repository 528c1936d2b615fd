// The page's master clock and its players: those of the grid, or those of an open dialog, are held to it.

const gridPlayers = new Set();
const dialogPlayers = new Set();
const dialogIsOpen = () => $("large").open || $("compare").open;
const players = () => (dialogIsOpen() ? dialogPlayers : gridPlayers);
const clock = new MasterClock({
  followers: players, everyone: () => [...gridPlayers, ...dialogPlayers], speed: () => state.speed,
});

const durationOf = (point) => (point.frames && point.fps ? point.frames / point.fps : 0);

class Player extends Follower {
  constructor(point, className = "") {
    const video = make("video", {
      className, muted: true, playsinline: true, preload: "auto", tabindex: -1, "aria-hidden": "true",
      disablepictureinpicture: true, disableremoteplayback: true, poster: point.poster,
    });
    super(video, point.fps || 8, () => ({ speed: state.speed, lengths: state.lengths, cycle: clock.cycle }));
    this.point = point;
    video.muted = true; // the attribute alone is only a default, and autoplay rules ask for the property
    video.addEventListener("loadeddata", () => { this.rest(); this.seek(clock.now()); });
    video.addEventListener("seeked", () => this.rest());
    video.addEventListener("error", () => {
      this.wanted = null;
      if (video.hasAttribute("src")) video.parentElement?.classList.add("broken");
      this.rest();
    });
  }

  // when it is this clip's turn: load, or seek, if that is wanted
  takeTurn() {
    if (this.busy || this.video.error) return;
    if (this.video.hasAttribute("src")) return super.work();
    this.begin();
    this.video.src = this.point.clip;
  }

  work() {
    workOn();
  }

  begin() {
    super.begin();
    Player.busy += 1;
  }

  rest() {
    if (this.busy) Player.busy -= 1;
    super.rest();
  }

  get duration() {
    return super.duration || durationOf(this.point);
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
    player.takeTurn();
  }
}

const halt = () => clock.halt();

function setPlaying(playing) {
  clock.setPlaying(playing);
  showPlaying();
}

function stepFrame(direction) {
  const focused = [...players()].find((player) => player.point.id === active);
  const fps = dialogPlayers.size || !focused ? Math.max(1, ...[...players()].map((player) => player.fps)) : focused.fps;
  clock.step(direction, fps);
  showPlaying();
}

// after the layout or the group of clips has changed
function regather(points) {
  halt();
  clock.cycle = Math.max(0, ...points.map(durationOf));
  if (clock.time >= clock.cycle) clock.time = 0;
  if (clock.playing) clock.start(2500);
  else clock.goTo(clock.time);
}

function showPlaying() {
  $("play").setAttribute("aria-label", clock.playing ? "Pause" : "Play");
  $("play").classList.toggle("playing", clock.playing);
}

function showTime() {
  const time = Math.min(clock.now(), clock.cycle);
  const text = `${time.toFixed(2)} / ${clock.cycle.toFixed(2)} s`;
  if ($("clock").textContent === text) return;
  $("clock").textContent = text;
  $("seek").max = clock.cycle || 1;
  $("seek").value = time;
  $("seek").setAttribute("aria-valuetext", `${time.toFixed(2)} of ${clock.cycle.toFixed(2)} seconds`);
}

function tick() {
  clock.tick();
  showTime();
  requestAnimationFrame(tick);
}

function connectTransport() {
  $("play").addEventListener("click", () => setPlaying(!clock.playing));
  $("back").addEventListener("click", () => stepFrame(-1));
  $("forward").addEventListener("click", () => stepFrame(1));
  $("seek").addEventListener("input", () => clock.goTo(Number($("seek").value)));
  $("seek").addEventListener("change", () => { if (clock.playing) clock.start(); });
  $("speed").addEventListener("change", () => {
    clock.change(() => { state.speed = Number($("speed").value); });
    writeHash();
  });
  $("lengths").addEventListener("change", () => {
    state.lengths = $("lengths").value;
    writeHash();
    if (clock.playing) clock.start(); else clock.goTo(clock.time);
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) halt();
    else if (clock.playing) clock.start();
  });
}

