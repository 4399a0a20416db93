// Live conversation: say something, two answers stream in, choose one, and the talk goes on from it.

import { Refusal, post, token } from "./lib/api.js";
import { Clock, span } from "./lib/clock.js";
import { h, id, keyed } from "./lib/dom.js";
import { Drafts } from "./lib/drafts.js";
import { Help, hotkey } from "./lib/keys.js";
import { Outbox } from "./lib/outbox.js";
import { isWritten, panel, setWritten, text as shown, writtenButton } from "./lib/prompt.js";
import { Unsent } from "./lib/unsent.js";
import * as pair from "./kinds/pair.js";

const options = JSON.parse(document.getElementById("options").textContent);
const $ = (name) => document.getElementById(name);
const TYPED = "chat"; // the draft of what is to be said next

class Talk {
  constructor() {
    this.turns = []; // { text, task, winner, judgment, stored }
    this.done = 0;
    this.drafts = new Drafts(options.labeler);
    this.outbox = new Outbox(options.labeler, {
      onStored: (sent) => this.stored(sent),
      onRefused: (sent, problem) => this.refused(sent, problem),
      onChange: () => this.unsent.show(),
    });
    this.unsent = new Unsent(this.outbox, $("notice"), $("unsent"));
    this.help = new Help($("help"), $("keys"));
    this.clock = new Clock({
      breakMinutes: options.break_minutes,
      onTick: (seconds) => { $("clock").textContent = span(seconds); },
      onBreak: (minutes) => this.toast(`${minutes} minutes without a pause. A few minutes away from the screen do good.`),
    });
    this.field = h("textarea", { id: "say", rows: 1, "aria-label": "What you say", placeholder: "Say something", maxlength: 20000 });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.say(); }
    });
    this.field.value = this.drafts.load(TYPED)?.text ?? "";
    this.field.addEventListener("input", () => this.drafts.save(TYPED, { text: this.field.value }));
    document.addEventListener("keydown", (event) => this.key(event));
    for (const button of document.querySelectorAll("[data-open]")) {
      button.addEventListener("click", () => (button.dataset.open === "help" ? this.help.open() : $(button.dataset.open).showModal()));
    }
    this.talk = h("div", { class: "talk" });
    this.stage = h("div", { class: "stage" });
    $("desk").replaceChildren(h("h1", { class: "question visually-hidden", tabindex: -1 }, "Conversation"), this.talk, this.stage);
    document.body.dataset.kind = "chat";
    this.compose();
    this.unsent.show();
    this.outbox.flush(); // what an earlier page could not send
  }

  compose() {
    this.view = null;
    this.stage.replaceChildren();
    this.talk.replaceChildren(...(this.turns.length
      ? this.turns.flatMap((turn) => [h("p", { class: "said plain" }, turn.text), turn.winner ? h("div", { class: "answer" }, shown(turn.winner)) : null]).filter(Boolean)
      : [h("div", { class: "rest" }, h("h2", {}, "Talk to the model"), h("p", {}, "At every turn you get two answers. Choose the better one, and the conversation goes on from it."))]));
    $("bar").replaceChildren(h("div", { class: "composer" }, this.field,
      h("button", { type: "button", class: "primary", onclick: () => this.say() }, "Say it")),
      h("div", { class: "common" },
        this.turns.length ? keyed("Undo", "U", () => this.undo(), { class: "quiet" }) : null,
        this.turns.length ? h("button", { type: "button", class: "quiet", onclick: () => { this.turns = []; this.compose(); } }, "New conversation") : null));
    this.help.set([["Enter", "Say it"], ["Shift Enter", "A new line"], ["Esc", "Leave the field"]], []);
    this.field.disabled = false;
    this.field.focus();
    scrollTo(0, document.body.scrollHeight);
  }

  async say() {
    const text = this.field.value.trim();
    if (!text || this.busy) return;
    this.busy = true;
    this.field.disabled = true;
    const last = this.turns.at(-1);
    const arrived = !last || (await this.arrived(last));
    if (!arrived || this.turns.at(-1) !== last) { // it waits, or was refused meanwhile
      this.busy = false;
      this.compose();
      return arrived || this.toast("Your choice is not sent yet. It is kept, and so is what you typed: the conversation goes on when the server is back.");
    }
    const turn = { text };
    this.talk.querySelector(".rest")?.remove();
    this.talk.append(h("p", { class: "said plain" }, text));
    const panels = [0, 1].map((place) => panel({ text: "…", html: "", written: "", turns: [] }, place, 2));
    const written = panels.map((made) => {
      const words = h("p", { class: "plain" });
      made.classList.add("streaming");
      made.querySelector(".content").replaceChildren(words);
      return words;
    });
    this.stage.replaceChildren(h("div", { class: "sides", "aria-busy": "true" }, panels));
    try {
      const previous = last ? { item_id: last.task.item_id, ticket: last.task.ticket } : null;
      turn.task = await this.listen({ text, previous }, ({ place, text: piece }) => {
        written[place].append(piece);
        scrollTo(0, document.body.scrollHeight);
      });
      this.field.value = "";
      this.drafts.clear(TYPED);
      this.choose(turn);
    } catch (problem) {
      this.toast(problem instanceof Refusal ? `${problem.message}. ${problem.hint}` : "No connection.");
      this.compose();
    } finally {
      this.busy = false;
    }
    return undefined;
  }

  // Whether the server has a turn's choice: it goes on from that.
  async arrived(turn) {
    await this.outbox.flush();
    return !this.outbox.waiting.some((one) => one.id === turn.judgment);
  }

  async listen(body, onPiece) {
    const answer = await fetch("/api/v1/chat", {
      method: "POST", credentials: "same-origin", body: JSON.stringify(body),
      headers: { "X-CSRF-Token": token(), "Content-Type": "application/json" },
    });
    if (!answer.ok) throw new Refusal(answer.status, await answer.json());
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", task = null;
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      const lines = (rest + next.value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const said = JSON.parse(line);
        if (said.task) task = said.task;
        else onPiece(said);
      }
    }
    if (!task) throw new Refusal(500, { error: "the answers broke off", hint: "Say it again" });
    return task;
  }

  choose(turn, draft = {}) {
    this.choosing = turn;
    this.sent = false;
    this.clock.next();
    const desk = {
      options, save() {},
      choose: (answer, words, state) => this.submit(turn, answer, words, state),
      skip: (reason) => this.submit(turn, { kind: "skip", reason }, "Skipped", {}),
      problem: (words) => this.toast(words),
    };
    this.view = pair.mount(turn.task, desk, draft);
    const heading = h("h2", { class: "question", tabindex: -1 }, this.view.question);
    this.stage.replaceChildren(heading, this.view.body);
    $("bar").replaceChildren(...this.view.bar, h("div", { class: "common" }, writtenButton(), keyed("Skip", "S", () => desk.skip(""), { class: "quiet" })));
    this.help.set(this.view.keys, []);
    heading.focus({ preventScroll: true });
  }

  // The choice stands in the outbox until the server has it; the page goes on at once.
  submit(turn, answer, words, state) {
    if (this.sent) return;
    this.sent = true;
    turn.judgment = id();
    turn.state = state;
    const ranks = answer.ranks ?? [0, 0];
    turn.winner = turn.task.responses[ranks[1] < ranks[0] ? 1 : 0];
    this.turns.push(turn);
    const said = {
      id: turn.judgment, item_id: turn.task.item_id, ticket: turn.task.ticket, answer,
      seconds: this.clock.seconds(), guideline: options.guideline,
    };
    this.outbox.add(said, `“${turn.text.slice(0, 80)}”: ${words}`);
    this.compose();
  }

  stored(sent) {
    this.done += 1;
    this.tally();
    const turn = this.turns.find((one) => one.judgment === sent.id);
    if (turn) turn.stored = true;
  }

  // The conversation cannot go on from a choice that nobody has.
  refused(sent, problem) {
    const at = this.turns.findIndex((one) => one.judgment === sent.id);
    if (at < 0) return;
    this.turns.length = at;
    if (!this.busy) this.compose();
    this.toast(`Not stored: ${problem.message}. ${problem.hint}`);
  }

  tally() {
    $("tally").replaceChildren(h("b", {}, String(this.done)), " chosen");
  }

  async undo() {
    const turn = this.turns.at(-1);
    if (!turn) return undefined;
    if (!(await this.arrived(turn))) return this.toast("That choice is not sent yet. It can be taken back as soon as the server has it.");
    try {
      await post(`/api/v1/judgments/${turn.judgment}/withdraw`);
      this.turns.pop();
      if (turn.stored) this.done -= 1;
      this.tally();
      this.compose();
      this.talk.querySelector(".rest")?.remove();
      this.talk.append(h("p", { class: "said plain" }, turn.text));
      this.choose(turn, turn.state);
    } catch (problem) {
      this.toast(problem instanceof Refusal ? `${problem.message}. ${problem.hint}` : "No connection.");
    }
    return undefined;
  }

  toast(words) {
    clearTimeout(this.fading);
    $("toast").replaceChildren(h("span", {}, words));
    $("toast").dataset.shown = "";
    this.fading = setTimeout(() => { delete $("toast").dataset.shown; }, 8000);
  }

  key(event) {
    if (document.querySelector("dialog[open]")) return;
    const key = hotkey(event);
    if (!key) return;
    let done = true;
    if (key === "?") this.help.open();
    else if (key === "R") setWritten(!isWritten());
    else if (key === "Escape") this.field.blur();
    else if (this.view && !this.sent) done = this.view.key(key, event) || (key === "S" && (this.submit(this.choosing, { kind: "skip", reason: "" }, "Skipped", {}), true));
    else if (key === "U" && !this.busy) this.undo();
    else if (key === "W" && !this.busy) this.field.focus();
    else done = false;
    if (done) event.preventDefault();
  }
}

new Talk();
