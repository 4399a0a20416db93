// Time of attention: seconds in which the page is visible and something happened in the last minute.

const IDLE = 60_000;
const PAUSE = 5 * 60_000;

export class Clock {
  constructor({ breakMinutes, onTick, onBreak }) {
    Object.assign(this, { breakMinutes, onTick, onBreak });
    this.session = 0; // seconds at work since the page was opened
    this.item = 0; // seconds on the item that is shown
    this.stretch = 0; // seconds since the last pause
    this.last = Date.now();
    for (const event of ["pointerdown", "pointermove", "keydown", "scroll", "touchstart"]) {
      addEventListener(event, () => this.#awake(), { passive: true });
    }
    this.timer = setInterval(() => this.#tick(), 1000);
    this.before = performance.now();
  }

  next() {
    this.#tick();
    this.item = 0;
  }

  seconds() {
    this.#tick();
    return Math.round(this.item * 10) / 10;
  }

  #awake() {
    if (Date.now() - this.last > PAUSE) this.stretch = 0;
    this.last = Date.now();
  }

  #tick() {
    const now = performance.now();
    const passed = Math.min((now - this.before) / 1000, 5); // a sleeping machine is not attention
    this.before = now;
    if (document.hidden || Date.now() - this.last > IDLE) return;
    this.session += passed;
    this.item += passed;
    this.stretch += passed;
    this.onTick(this.session);
    if (this.breakMinutes && this.stretch >= this.breakMinutes * 60) {
      this.stretch = 0;
      this.onBreak(this.breakMinutes);
    }
  }
}

export function span(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
}
