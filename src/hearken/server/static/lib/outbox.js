// Answers that are on their way. They stay in the browser's storage until the server has them on disk, and are sent again,
// with the same id, until it says so: nothing is lost by a bad connection, a closed lid or a restart of the server.

import { Refusal, post } from "./api.js";

export class Outbox {
  constructor(owner, { onStored, onRefused, onWaiting }) {
    this.key = `hearken:outbox:${owner}`;
    Object.assign(this, { onStored, onRefused, onWaiting, busy: null, wait: 1000 });
    addEventListener("online", () => this.flush());
  }

  get waiting() {
    return JSON.parse(localStorage.getItem(this.key) ?? "[]");
  }

  add(submission) {
    this.#write([...this.waiting, submission]);
    return this.flush();
  }

  // One at a time, in order; whoever calls meanwhile waits for the same round.
  flush() {
    this.busy ??= this.#send().finally(() => { this.busy = null; });
    return this.busy;
  }

  async #send() {
    for (let next; (next = this.waiting[0]);) {
      try {
        const stored = await post("/api/v1/judgments", next);
        this.#drop(next.id);
        this.wait = 1000;
        this.onStored(next, stored);
      } catch (problem) {
        if (problem instanceof Refusal && problem.status < 500 && ![401, 408, 429].includes(problem.status)) {
          this.#drop(next.id);
          this.onRefused(next, problem);
          continue;
        }
        if (problem instanceof Refusal && problem.status === 401) { location.assign("/login"); return; }
        this.onWaiting(this.waiting.length);
        setTimeout(() => this.flush(), this.wait);
        this.wait = Math.min(this.wait * 2, 30000);
        return;
      }
    }
    this.onWaiting(0);
  }

  #drop(done) {
    this.#write(this.waiting.filter((one) => one.id !== done));
  }

  #write(list) {
    localStorage.setItem(this.key, JSON.stringify(list));
  }
}
