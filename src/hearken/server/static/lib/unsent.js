// What the server does not have: a line at the top of the page, and a list of the answers, to be copied or saved.

import { Refusal } from "./api.js";
import { h } from "./dom.js";

const answers = (count) => `${count} answer${count === 1 ? "" : "s"}`;
const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

function why(problem) {
  if (!problem) return "";
  if (!(problem instanceof Refusal)) return problem.name === "TimeoutError" ? "The server does not answer." : "No connection.";
  if (problem.status === 401) return "You are logged out.";
  if (problem.status === 413) return "An answer is too long for the way to the server: tell the owner of this project.";
  return sentence(problem.message);
}

export class Unsent {
  constructor(outbox, line, dialog) {
    Object.assign(this, { outbox, line, dialog });
  }

  // Shown while something waits or was refused.
  show() {
    const { waiting, refused, problem } = this.outbox;
    const kept = waiting.length && problem && `${why(problem)} ${answers(waiting.length)} ${waiting.length === 1 ? "waits" : "wait"} to be sent and ${waiting.length === 1 ? "is" : "are"} kept in this browser.`;
    const lost = refused.length && `${answers(refused.length)} cannot be stored.`;
    this.line.hidden = !kept && !lost;
    this.line.replaceChildren(...[
      h("span", {}, [kept, lost].filter(Boolean).join(" ")),
      kept && problem.status === 401 ? h("a", { class: "quiet", href: "/login" }, "Log in again") : null,
      h("button", { type: "button", class: "quiet", onclick: () => this.open() }, "Show"),
    ].filter(Boolean));
    if (this.dialog.open) this.draw();
  }

  open() {
    this.draw();
    this.dialog.showModal();
  }

  draw() {
    const { waiting, refused } = this.outbox;
    const all = [...waiting, ...refused];
    const item = (one, ...more) => h("li", {}, h("p", {}, one.about), ...more);
    this.dialog.replaceChildren(...[
      h("h2", { id: "unsent-title" }, all.length ? "Not on the server" : "All is sent"),
      waiting.length ? h("p", { class: "muted" }, "These wait. They are sent again by themselves, also after this page was closed and opened again.") : null,
      waiting.length ? h("ul", { class: "unsent" }, waiting.map((one) => item(one))) : null,
      refused.length ? h("p", { class: "muted" }, "These cannot be stored, for the reason given. Copy what you want to keep.") : null,
      refused.length ? h("ul", { class: "unsent" }, refused.map((one) => item(one, h("p", { class: "alarm small" }, one.reason),
        h("p", { class: "links" },
          h("button", { type: "button", class: "quiet", onclick: () => this.outbox.again(one) }, "Try again"),
          h("button", { type: "button", class: "quiet", onclick: () => { this.outbox.forget(one); this.draw(); } }, "Throw away"))))) : null,
      h("form", { method: "dialog", class: "links" },
        h("button", { class: "primary" }, "Close"),
        all.length ? h("button", { type: "button", class: "quiet", onclick: (event) => this.copy(event.currentTarget, all) }, "Copy all") : null,
        all.length ? h("button", { type: "button", class: "quiet", onclick: () => this.save(all) }, "Save as a file") : null,
        waiting.length ? h("button", { type: "button", class: "quiet", onclick: () => this.outbox.flush() }, "Send now") : null),
    ].filter(Boolean));
  }

  async copy(button, all) {
    try {
      await navigator.clipboard.writeText(JSON.stringify(all, null, 2));
      button.textContent = "Copied";
    } catch {
      this.save(all);
    }
  }

  save(all) {
    const address = URL.createObjectURL(new Blob([JSON.stringify(all, null, 2)], { type: "application/json" }));
    h("a", { href: address, download: "answers.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}
