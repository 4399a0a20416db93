// Answers that are on their way. Each stays in the browser until the server has it on disk, and is sent again, with the same id,
// until it says so: nothing is lost by a bad connection, a closed lid, a database that is away or a disk that is full. Only what
// the server calls final is given up, and then it is kept apart, to be copied.

import { Refusal, post, renew } from "./api.js";
import { Kept } from "./kept.js";

const FIRST = 1000, LAST = 30_000; // milliseconds between two rounds
const PATIENCE = 20_000; // milliseconds for one answer

// Not this answer's trouble but everybody's: no use in sending the next one now.
const away = (problem) => !(problem instanceof Refusal) || [401, 408, 425, 429, 502, 503, 504].includes(problem.status);

export class Outbox {
  constructor(owner, { onStored, onRefused, onChange }) {
    this.kept = new Kept(`hearken:answer:${owner}:`);
    this.given = new Kept(`hearken:refused:${owner}:`);
    Object.assign(this, { onStored, onRefused, onChange, busy: null, wait: FIRST, problem: null });
    addEventListener("online", () => this.flush());
    addEventListener("storage", () => this.onChange());
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.waiting.length) this.flush(); });
    addEventListener("beforeunload", (event) => { if (this.kept.fragile || this.given.fragile) event.preventDefault(); });
  }

  // { id, at, about, said }: said is the submission, about what it is in words.
  get waiting() {
    return this.kept.all;
  }

  // The same with the reason, for what can never be stored.
  get refused() {
    return this.given.all;
  }

  add(said, about) {
    this.kept.set(said.id, { id: said.id, at: Date.now(), about, said });
    return this.flush();
  }

  forget(one) {
    this.given.delete(one.id);
    this.onChange();
  }

  again(one) {
    this.given.delete(one.id);
    return this.add(one.said, one.about);
  }

  // One at a time, in order; whoever calls meanwhile waits for the same round.
  flush() {
    this.busy ??= this.#round().finally(() => { this.busy = null; });
    return this.busy;
  }

  async #round() {
    clearTimeout(this.timer);
    this.problem = null;
    const tried = new Set();
    for (let next; (next = this.waiting.find((one) => !tried.has(one.id)));) {
      tried.add(next.id);
      try {
        await this.#send(next);
      } catch (problem) {
        this.problem = problem;
        if (problem.final) this.#giveUp(next, problem);
        else if (away(problem)) break;
      }
    }
    if (this.waiting.length) {
      const soon = Math.max(this.wait * (0.75 + Math.random() / 2), (this.problem?.after ?? 0) * 1000);
      this.timer = setTimeout(() => this.flush(), soon);
      this.wait = Math.min(this.wait * 2, LAST);
    }
    this.onChange();
  }

  async #send(next) {
    const deliver = () => post("/api/v1/judgments", next.said, { signal: AbortSignal.timeout(PATIENCE) });
    const stored = await deliver().catch(async (problem) => {
      if (![401, 403, 413].includes(problem.status)) throw problem; // 413: strangers may send little
      const state = await renew().catch(() => "same");
      if (state === "new") return deliver();
      throw state === "out" ? new Refusal(401, { error: "nobody is logged in" }) : problem;
    });
    if (stored?.id !== next.id) throw new Refusal(502, { error: "somebody else answered in the server's place" });
    this.kept.delete(next.id);
    this.wait = FIRST;
    this.onStored(next.said, stored);
  }

  #giveUp(next, problem) {
    this.given.set(next.id, { ...next, reason: [problem.message, problem.hint].filter(Boolean).join(". ") });
    this.kept.delete(next.id);
    this.onRefused(next.said, problem);
  }
}
