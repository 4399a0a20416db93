// The labelers' workplace: fetches items ahead, shows them one by one, sends answers, undoes them.

import { Refusal, post, renew, send } from "./lib/api.js";
import { Clock, span } from "./lib/clock.js";
import { h, id, keyed } from "./lib/dom.js";
import { Drafts } from "./lib/drafts.js";
import { Outbox } from "./lib/outbox.js";
import { clipButtons, clipKey, clipKeys, isWritten, lookAlike, prepare, promptView, setWritten, unseen, writtenButton } from "./lib/prompt.js";
import { Unsent } from "./lib/unsent.js";
import { Help, hotkey } from "./lib/keys.js";
import * as pair from "./kinds/pair.js";
import * as ranking from "./kinds/ranking.js";
import * as rating from "./kinds/rating.js";
import * as spans from "./kinds/spans.js";
import * as thumb from "./kinds/thumb.js";
import * as critique from "./kinds/critique.js";
import * as demonstration from "./kinds/demonstration.js";
import * as edit from "./kinds/edit.js";

const KINDS = { rating, thumb, edit, critique, demonstration, span_flag: spans };
const AHEAD = 2; // the item on the screen and the next one
const MOST = 50; // items that the server gives at a time
const POLL = 4000;
const SETTLE = 300; // milliseconds that nobody needs to read an item: what comes earlier was meant for the one before

const options = JSON.parse(document.getElementById("options").textContent);
const $ = (name) => document.getElementById(name);

const kindOf = (task) => (task.kind === "comparison" ? (task.responses.length === 2 ? pair : ranking) : KINDS[task.kind]);

const counts = (answer) => !["skip", "flag"].includes(answer.kind);

class Workplace {
  constructor() {
    this.ready = []; // fetched, not yet shown
    this.answered = new Set();
    this.history = []; // what can be undone: { id, task, state, words }
    this.done = 0;
    this.drafts = new Drafts(options.labeler);
    this.help = new Help($("help"), $("keys"));
    this.outbox = new Outbox(options.labeler, {
      onStored: (sent, stored) => this.stored(sent, stored),
      onRefused: (sent) => this.refused(sent),
      onChange: () => this.unsent.show(),
    });
    this.unsent = new Unsent(this.outbox, $("notice"), $("unsent"));
    this.clock = new Clock({
      breakMinutes: options.break_minutes,
      onTick: (seconds) => { $("clock").textContent = span(seconds); },
      onBreak: (minutes) => this.toast(`${minutes} minutes without a pause. A few minutes away from the screen do good.`, null, 20000),
    });
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("click", (event) => this.click(event), true);
    setInterval(() => this.beat(), (options.lease_seconds * 1000) / 3);
    addEventListener("pagehide", () => this.giveBack());
    $("flag-form").addEventListener("submit", (event) => this.flagged(event));
    $("enough-form")?.addEventListener("submit", (event) => this.enough(event));
    for (const button of document.querySelectorAll("[data-open]")) {
      button.addEventListener("click", () => (button.dataset.open === "help" ? this.help.open() : $(button.dataset.open).showModal()));
    }
  }

  async start() {
    this.unsent.show();
    await this.outbox.flush();
    this.tally();
    await this.next();
  }

  // -- items ----------------------------------------------------------------------------------------------------

  async fetch() {
    const waiting = this.outbox.waiting.map((one) => one.said.item_id); // the server takes them for open, and gives them first
    const { tasks } = await post("/api/v1/claims", { n: Math.min(AHEAD + waiting.length, MOST), html: true, practice: true });
    const known = new Set([...this.ready.map((task) => task.item_id), ...this.answered, ...waiting, this.task?.item_id]);
    const fresh = tasks.filter((task) => !known.has(task.item_id));
    this.ready.push(...fresh);
    if (this.task) fresh.forEach(prepare);
  }

  async next() {
    this.task = null;
    if (this.goal?.reached) return this.restBeforeGoal();
    if (!this.ready.length) await this.fetchOrWait();
    if (this.ready.length) {
      this.show(this.ready.shift());
      this.fetchQuietly();
    }
    return undefined;
  }

  async fetchQuietly() {
    try { await this.fetch(); } catch { /* the next item asks again */ }
  }

  async fetchOrWait() {
    clearTimeout(this.poll);
    try {
      await this.fetch();
    } catch (problem) {
      const status = problem instanceof Refusal ? problem.status : 0;
      if ([401, 403].includes(status) && (await renew().catch(() => "same")) === "new") return this.next();
      if (status === 401) return location.assign("/login"); // what waits in the outbox is sent after it
      if (status === 403) return this.rest("Let us talk first", "Some of your answers were not what was expected, so no more items come for now. Nothing is lost, and it may well be the items that are wrong. The owner of this project will talk to you.");
      const said = status ? `${problem.message[0].toUpperCase()}${problem.message.slice(1)}.` : "The server cannot be reached.";
      this.rest("Waiting for the server", `${said} This page goes on by itself; what you have answered is kept.`);
      this.poll = setTimeout(() => this.next(), Math.max(POLL, (problem.after ?? 0) * 1000));
      return undefined;
    }
    if (this.ready.length) return undefined;
    if (options.goal) return this.restBeforeGoal();
    const first = this.done === 0 && !this.history.length;
    this.rest(first ? "Nothing to judge yet" : "All done for now", first
      ? "Items appear here by themselves as soon as there are some."
      : `Thank you. You judged ${this.done} item${this.done === 1 ? "" : "s"} in this session. New ones appear here by themselves.`);
    this.poll = setTimeout(() => this.next(), POLL);
    return undefined;
  }

  // A run waits for these judgments, and says what it does meanwhile.
  async restBeforeGoal() {
    clearTimeout(this.poll);
    this.ready = [];
    await this.tally();
    const goal = this.goal;
    if (goal?.over) return this.rest("That was all", goal.said);
    this.rest(goal?.reached ? "Thank you" : "One moment", goal?.reached ? `Your part is done. ${goal.said}` : `${goal?.said ?? ""} New items appear here by themselves.`);
    this.poll = setTimeout(() => this.next(), POLL);
    return undefined;
  }

  async enough(event) {
    if (event.submitter?.value !== "yes") return undefined;
    try { await post("/goal/enough"); } catch { return this.toast("No connection."); }
    this.task = null;
    return this.restBeforeGoal();
  }

  rest(title, words) {
    this.view = null;
    $("desk").replaceChildren(h("section", { class: "rest" }, h("h1", { tabindex: -1 }, title), h("p", {}, words)));
    $("bar").replaceChildren();
    document.body.dataset.kind = "none";
  }

  show(task, state = this.drafts.load(task.item_id)) {
    this.task = task;
    this.sent = false;
    this.choice = null;
    this.tags = new Set(state?.tags ?? []);
    const desk = {
      options,
      confirm: options.confirm || options.tags.length > 0,
      save: (draft) => this.drafts.save(task.item_id, { ...draft, tags: [...this.tags] }),
      choose: (answer, words, draft) => this.choose(answer, words, draft),
      submit: (answer, words, draft) => this.submit(answer, words, draft),
      problem: (words) => this.toast(words),
      skip: (reason) => this.skip(reason),
    };
    this.view = kindOf(task).mount(task, desk, state ?? {});
    const practice = task.practice ? h("p", { class: "practice" }, h("b", {}, "Practice."), " This one only shows how it works.") : null;
    const heading = h("h1", { tabindex: -1, class: "question" }, this.view.question);
    $("desk").replaceChildren(...[practice, promptView(task), heading, this.view.body].filter(Boolean));
    $("bar").replaceChildren(...[...this.view.bar, this.tagRow(), clipButtons(task), this.common()].filter(Boolean));
    if (this.forced) setWritten(false);
    this.forced = !isWritten() && lookAlike(task);
    if (this.forced) {
      setWritten(true);
      this.toast("These answers differ and would look the same: they are shown as written.", null, 12000);
    }
    document.body.dataset.kind = this.view.name;
    this.help.set([...this.view.keys, ...clipKeys()], options.tags);
    this.clock.next();
    this.since = performance.now();
    scrollTo(0, 0);
    heading.focus({ preventScroll: true });
    this.view.start?.();
  }

  common() {
    return h("div", { class: "common" },
      this.history.length ? keyed("Undo", "U", () => this.undo(), { class: "quiet" }) : null,
      this.task.responses.length && this.task.responses.every(({ media }) => media) ? null : writtenButton(),
      keyed("Skip", "S", () => this.skip(), { class: "quiet" }),
      keyed("Flag", "F", () => this.flag(), { class: "quiet" }));
  }

  tagRow() {
    if (!options.tags.length) return "";
    return h("div", { class: "tags", role: "group", "aria-label": "Reasons" }, options.tags.map((tag, index) =>
      h("button", {
        type: "button", class: "tag", "aria-pressed": String(this.tags.has(tag)), "data-tag": tag,
        "aria-keyshortcuts": `Shift+${index + 1}`, onclick: () => this.toggle(tag),
      }, tag)));
  }

  toggle(tag) {
    if (!this.tags.delete(tag)) this.tags.add(tag);
    for (const button of document.querySelectorAll(".tag")) button.setAttribute("aria-pressed", String(this.tags.has(button.dataset.tag)));
  }

  // -- answers --------------------------------------------------------------------------------------------------

  // A choice is sent at once, or waits for Enter where reasons may be added.
  choose(answer, words, draft) {
    if (!(options.confirm || options.tags.length)) return this.submit(answer, words, draft);
    this.choice = { answer, words, draft };
    let button = $("send");
    if (!button) {
      button = keyed("Send", "Enter", () => this.confirm(), { id: "send", class: "primary" });
      $("bar").querySelector(".common").prepend(button);
    }
    return undefined;
  }

  confirm() {
    if (this.choice) this.submit(this.choice.answer, this.choice.words, this.choice.draft);
  }

  async submit(answer, words, draft = {}) {
    if (this.sent || !this.task) return; // a double click, a key held down
    if (counts(answer) && unseen()) {
      this.toast("Not every response is shown yet. Wait a moment, or play it; skip the item if it does not appear.");
      return;
    }
    this.sent = true;
    const task = this.task;
    const submission = {
      id: id(), item_id: task.item_id, ticket: task.ticket, answer,
      seconds: this.clock.seconds(), tags: [...this.tags], guideline: options.guideline,
    };
    const about = [`“${(task.prompt.at(-1)?.text ?? "").slice(0, 80)}”: ${words}`, answer.text, answer.note].filter(Boolean).join(" · ");
    this.answered.add(task.item_id);
    this.history.push({ id: submission.id, task, words, counts: counts(answer), state: { ...draft, tags: [...this.tags] } });
    this.drafts.save(task.item_id, { ...draft, tags: [...this.tags] });
    if (task.practice) {
      $("bar").replaceChildren();
      await this.outbox.add(submission, about);
      return;
    }
    this.outbox.add(submission, about);
    this.toast(words, () => this.undo());
    await this.next();
  }

  stored(sent, stored) {
    this.drafts.clear(sent.item_id);
    if (counts(sent.answer)) this.done += 1;
    this.tally();
    const entry = this.history.find((one) => one.id === sent.id);
    if (entry) entry.stored = true;
    if (stored.explanation && this.task?.item_id === sent.item_id) this.explain(stored);
    else if (stored.explanation && !this.task) this.next();
    if (stored.paused) { this.ready = []; this.next(); }
  }

  refused(sent) {
    this.answered.delete(sent.item_id);
    this.history = this.history.filter((one) => one.id !== sent.id);
    if (this.task?.item_id === sent.item_id) this.sent = false;
  }

  explain(stored) {
    const words = stored.agreed === false ? "We would have chosen otherwise." : stored.agreed ? "Just so." : "Skipped.";
    const go = () => { this.explaining = false; this.next(); };
    this.explaining = go;
    const next = keyed("Next", "Enter", go, { class: "primary", id: "next" });
    $("bar").replaceChildren(h("div", { class: "explanation", "data-agreed": String(stored.agreed) },
      h("p", { role: "status" }, h("b", {}, words), " ", stored.explanation), next));
    next.focus({ preventScroll: true });
  }

  skip(reason = "") {
    const words = reason ? "Can't tell" : "Skipped";
    return this.submit({ kind: "skip", reason }, words, this.view?.state?.() ?? {});
  }

  flag() {
    $("flag-reasons").replaceChildren(...options.flags.map((reason, index) => h("label", {},
      h("input", { type: "radio", name: "reason", value: reason, required: true, checked: index === 0 }), reason)));
    $("flag-note").value = "";
    $("flag").showModal();
  }

  flagged(event) {
    if (event.submitter?.value !== "send") return;
    const reason = $("flag-form").elements.reason.value;
    this.submit({ kind: "flag", reason, note: $("flag-note").value }, "Flagged", this.view?.state?.() ?? {});
  }

  async undo() {
    const last = this.history.at(-1);
    if (!last) return this.toast("Nothing to undo.");
    await this.outbox.flush();
    if (this.outbox.waiting.some((one) => one.id === last.id)) return this.toast("That answer is not sent yet. It can be taken back as soon as the server has it.");
    try {
      const { task } = await post(`/api/v1/judgments/${last.id}/withdraw?html=true`);
      this.history.pop();
      this.answered.delete(last.task.item_id);
      if (last.counts) this.done = Math.max(this.done - 1, 0);
      this.explaining = false;
      this.hideToast();
      if (this.task && !this.sent) this.ready.unshift(this.task);
      this.tally();
      if (task) this.show(task, last.state);
    } catch (problem) {
      this.toast(problem instanceof Refusal ? `${problem.message}. ${problem.hint}` : "No connection.");
    }
    return undefined;
  }

  // -- around the item ------------------------------------------------------------------------------------------

  async beat() {
    for (const task of [this.task, ...this.ready]) {
      if (!task || task.practice) continue;
      try {
        const { expires } = await post(`/api/v1/items/${task.item_id}/heartbeat?ticket=${task.ticket}`);
        if (!expires && task !== this.task) this.ready = this.ready.filter((one) => one !== task);
        if (!expires && task === this.task) this.toast("Somebody else was given this item meanwhile. Your answer is welcome all the same.");
      } catch { /* the next beat comes */ }
    }
  }

  giveBack() {
    for (const task of this.ready) {
      if (!task.practice) send("DELETE", `/api/v1/items/${task.item_id}/lease?ticket=${task.ticket}`, undefined, { keepalive: true }).catch(() => {});
    }
  }

  async tally() {
    try {
      if (options.goal) {
        this.goal = await send("GET", "/goal");
        $("tally").replaceChildren(h("b", {}, String(this.goal.done)), ` of ${this.goal.needed}`);
        if (this.goal.reached && this.task && !this.sent) this.next();
        return;
      }
      const { items_left: left } = await send("GET", "/api/v1/own");
      $("tally").replaceChildren(h("b", {}, String(this.done)), " done", h("span", { class: "left" }, ` · ${left.toLocaleString()} left`));
    } catch { /* shown with the next answer */ }
  }

  toast(words, undo = null, milliseconds = 7000) {
    clearTimeout(this.fading);
    $("toast").replaceChildren(h("span", {}, words), undo ? keyed("Undo", "U", undo, { class: "quiet" }) : "");
    $("toast").dataset.shown = "";
    this.fading = setTimeout(() => this.hideToast(), milliseconds);
  }

  hideToast() {
    delete $("toast").dataset.shown;
    $("toast").replaceChildren();
  }

  // -- keys and clicks -------------------------------------------------------------------------------------------

  // The second half of a double click, or of a key pressed twice, would answer an item that nobody has seen.
  get unread() {
    return performance.now() - this.since < SETTLE;
  }

  click(event) {
    if (!this.unread || !event.target.closest("#bar, #desk")) return;
    event.stopPropagation();
    event.preventDefault();
  }

  key(event) {
    if (document.querySelector("dialog[open]")) return;
    const key = hotkey(event);
    if (!key) return;
    if (this.handle(key, event)) event.preventDefault();
  }

  handle(key, event) {
    if (key === "?") { this.help.open(); return true; }
    if (key === "R") { setWritten(!isWritten()); this.forced = false; return true; }
    if (this.explaining && (key === "Enter" || key === "Space")) { this.explaining(); return true; }
    if (key === "U") { this.undo(); return true; }
    if (!this.view || this.sent) return false;
    if (this.unread) return true;
    const tag = /^Shift\+([1-9])$/.exec(key);
    if (tag && options.tags[tag[1] - 1]) { this.toggle(options.tags[tag[1] - 1]); return true; }
    if (this.view.key(key, event) || clipKey(key)) return true;
    if (key === "Enter" && this.choice) { this.confirm(); return true; }
    if (key === "S") { this.skip(); return true; }
    if (key === "F") { this.flag(); return true; }
    return false;
  }
}

new Workplace().start();
