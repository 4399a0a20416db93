// The prompt, which stays in sight while the responses scroll by; and a response's panel.

import { clean, h, letter } from "./dom.js";

const NAMES = { prompt: "Prompt", system: "System", user: "User", assistant: "Assistant", tool: "Tool" };

export function promptView(task) {
  const turns = task.prompt.map((turn) => h("div", { class: "turn", "data-role": turn.role },
    h("p", { class: "role" }, NAMES[turn.role]), clean(turn.html)));
  return h("section", { class: "prompt", "aria-label": "Prompt", tabindex: 0 }, turns);
}

export function responseBody(response) {
  if (response.media) return h("img", { src: response.media, alt: "The response, an image" });
  if (response.turns.length) {
    return h("div", {}, response.turns.map((turn) => h("div", { class: "turn", "data-role": turn.role },
      h("p", { class: "role" }, NAMES[turn.role]), clean(turn.html))));
  }
  return response.text.trim() ? clean(response.html) : h("p", { class: "muted" }, "This response is empty.");
}

export function panel(response, place, count) {
  const name = count > 1 ? `Response ${letter(place)}` : "Response";
  return h("section", { class: "response", "aria-label": name, "data-place": place },
    count > 1 ? h("h2", { class: "letter" }, h("span", { class: "visually-hidden" }, "Response "), letter(place)) : null,
    h("div", { class: "content" }, responseBody(response)));
}
