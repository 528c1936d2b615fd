// One clock, and the videos held to it. The report's page and the panel's player both use this: it knows no page.

// A video held to the clock: by small changes of its rate, or by a seek to the middle of the frame that is due.
class Follower {
  // pace() gives {speed, lengths, cycle}: what "lengths" asks of a shorter video is "wait", "repeat" or "stretch"
  constructor(video, fps, pace) {
    this.video = video;
    this.fps = fps;
    this.pace = pace;
    this.wanted = null; // where to seek when the last seek has ended
    this.placed = null; // where the last seek went, if it has not played since
    this.busy = false; // loading or seeking
  }

  begin() {
    this.busy = true;
  }

  rest() {
    this.busy = false;
    this.work();
  }

  work() {
    if (this.busy || this.video.error || this.wanted === null) return;
    this.begin();
    this.video.currentTime = this.wanted;
    this.placed = this.video.paused ? this.wanted : null;
    this.wanted = null;
  }

  get duration() {
    return Number.isFinite(this.video.duration) ? this.video.duration : 0;
  }

  get frames() {
    return Math.max(1, Math.round(this.duration * this.fps));
  }

  get atRest() {
    return Boolean(this.video.error) || (!this.busy && this.wanted === null && this.video.readyState >= 2);
  }

  // where this clip is when the master clock shows `time`
  local(time) {
    const { lengths, cycle } = this.pace();
    const duration = this.duration || 1;
    const last = Math.max(0, duration - 0.5 / this.fps);
    if (lengths === "repeat") return Math.min(time % duration, last);
    if (lengths === "stretch" && cycle) return Math.min((time / cycle) * duration, last);
    return Math.min(time, last);
  }

  rate() {
    const { speed, lengths, cycle } = this.pace();
    return lengths === "stretch" && cycle ? (speed * this.duration) / cycle : speed;
  }

  frameAt(time) {
    return Math.floor(this.local(time) * this.fps + 1e-3);
  }

  // to the middle of the frame that is due (its edges belong to two frames), unless it was put there. What currentTime
  // says does not tell: a browser that plays paints frames ahead of it, and a pause leaves such a frame on the screen.
  seek(time) {
    const middle = (this.frameAt(time) + 0.5) / this.fps;
    if (middle !== this.placed) this.jump(middle);
    else this.wanted = null;
  }

  jump(target) {
    if (this.video.readyState === 0) return; // once it has loaded, it goes to where the clock is
    this.wanted = target;
    this.work();
  }

  play() {
    this.placed = null;
    this.video.play().catch(() => {}); // cut short by a pause or an unload: nothing is lost
  }

  follow(time) {
    const video = this.video;
    if (!this.atRest) return;
    const target = this.local(time);
    if (this.pace().lengths === "wait" && time >= this.duration - 0.5 / this.fps) { // over: stay on the last frame
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
}

// Clips start together and are gathered at the first frame whenever the longest has ended.
class MasterClock {
  // followers() gives those that are held to it now, everyone() all that may be playing
  constructor({ followers, everyone = followers, speed }) {
    Object.assign(this, { followers, everyone, speed, time: 0, cycle: 0, playing: false, running: false });
    this.anchor = 0; // when `time` was true, while running
    this.attempt = 0; // which start is the present one
    this.beat = 0;
  }

  now() {
    return this.running ? this.time + ((performance.now() - this.anchor) / 1000) * this.speed() : this.time;
  }

  halt() {
    this.time = this.now();
    this.running = false;
    this.attempt += 1;
    for (const follower of this.everyone()) follower.video.pause();
  }

  // all clips at the frame that is due, then all off at once; who is not there after `patience` ms catches up
  async start(patience = 1000) {
    this.halt();
    const attempt = this.attempt;
    const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
    for (const follower of this.followers()) {
      follower.video.playbackRate = Math.min(16, Math.max(0.07, follower.rate()));
      follower.seek(this.time);
    }
    const end = performance.now() + patience;
    const gathered = () => [...this.followers()].every((follower) => follower.atRest);
    do await pause(15); while (performance.now() < end && attempt === this.attempt && !gathered());
    if (attempt !== this.attempt || !this.playing) return;
    this.anchor = performance.now();
    this.running = true;
    for (const follower of this.followers()) if (follower.atRest) follower.play();
  }

  goTo(time) {
    this.halt();
    this.time = Math.min(Math.max(0, time), Math.max(0, this.cycle - 1e-3));
    for (const follower of this.followers()) follower.seek(this.time);
  }

  setPlaying(playing) {
    this.playing = playing;
    if (playing) this.start();
    else this.goTo(this.now());
  }

  // to the middle of the next frame or the one before, counted at `fps`; after the last comes the first
  step(direction, fps) {
    const count = Math.max(1, Math.round(this.cycle * fps));
    const frame = Math.floor(this.now() * fps + 1e-3) + direction;
    this.setPlaying(false);
    this.goTo((((frame % count) + count) % count + 0.5) / fps);
  }

  // `setSpeed` changes what speed() gives: the clock goes on from where it is
  change(setSpeed) {
    this.time = this.now();
    this.anchor = performance.now();
    setSpeed();
  }

  // once a painted frame
  tick() {
    if (!this.running) return;
    const time = this.now();
    if (time >= this.cycle) { this.halt(); this.time = 0; this.start(); }
    else if (this.beat++ % 3 === 0) for (const follower of this.followers()) follower.follow(time);
  }
}
