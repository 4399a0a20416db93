// The prompt, which stays in sight while the responses scroll by; a response's panel; and the two ways to see a text.

import { clean, h, keyed, letter } from "./dom.js";

const NAMES = { prompt: "Prompt", system: "System", user: "User", assistant: "Assistant", tool: "Tool" };

// A text with the looks of Markdown, and as it is written; the page shows one of them.
export function text({ html, written }) {
  return h("div", {}, clean(html, "text rendered"), clean(written, "text written"));
}

export const isWritten = () => document.body.hasAttribute("data-written");

export function setWritten(on) {
  document.body.toggleAttribute("data-written", on);
  for (const button of document.querySelectorAll("[data-writing]")) button.setAttribute("aria-pressed", String(on));
}

export const writtenButton = () =>
  keyed("As written", "R", () => setWritten(!isWritten()), { class: "quiet", "data-writing": "", "aria-pressed": String(isWritten()) });

// Whether two answers that differ look the same: two spellings of one formula, say.
export function lookAlike(task) {
  const looks = [...document.querySelectorAll("#desk .response .content")].map((one) => one.innerText.replace(/\s+/g, " "));
  const source = ({ text: whole, turns }) => (turns.length ? JSON.stringify(turns.map((turn) => turn.text)) : whole);
  return task.responses.some((one, i) => task.responses.some((other, j) =>
    i < j && !one.media && !other.media && looks[i] === looks[j] && source(one) !== source(other)));
}

function turn(one) {
  return h("div", { class: "turn", "data-role": one.role }, h("p", { class: "role" }, NAMES[one.role]), text(one));
}

export function promptView(task) {
  return h("section", { class: "prompt", "aria-label": "Prompt", tabindex: 0 }, task.prompt.map(turn));
}

export function responseBody(response) {
  if (response.media) return h("img", { src: response.media, alt: "The response, an image" });
  if (response.turns.length) return h("div", {}, response.turns.map(turn));
  return response.text ? text(response) : h("p", { class: "muted" }, "This response is empty.");
}

export function panel(response, place, count) {
  const name = count > 1 ? `Response ${letter(place)}` : "Response";
  return h("section", { class: "response", "aria-label": name, "data-place": place },
    count > 1 ? h("h2", { class: "letter" }, h("span", { class: "visually-hidden" }, "Response "), letter(place)) : null,
    h("div", { class: "content" }, responseBody(response)));
}
