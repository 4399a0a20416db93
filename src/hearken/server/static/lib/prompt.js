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

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const clips = () => [...document.querySelectorAll("#desk video")];
let slow = false; // from one item to the next

// All clips from their beginning, so that they run side by side; they begin so when the last of them is there.
function replay() {
  for (const clip of clips()) {
    clip.currentTime = 0;
    clip.play().catch(() => {}); // a browser may want a click first: the clip's own button is there
  }
}

function pace() {
  for (const clip of clips()) clip.playbackRate = slow ? 0.5 : 1;
  for (const button of document.querySelectorAll("[data-slow]")) button.setAttribute("aria-pressed", String(slow));
}

export const clipKeys = () => (clips().length ? [["Space", "Pause, or go on"], ["A", "Again from the beginning"], ["H", "Half speed, or whole"]] : []);

// For those without a keyboard.
export function clipButtons(task) {
  if (!task.responses.some(({ viewer }) => viewer === "video")) return null;
  return h("div", { class: "clip-keys", role: "group", "aria-label": "All clips" },
    keyed("Pause", "Space", () => clipKey("Space"), { class: "quiet" }),
    keyed("Again", "A", () => clipKey("A"), { class: "quiet" }),
    keyed("Half speed", "H", () => clipKey("H"), { class: "quiet", "data-slow": "", "aria-pressed": String(slow) }));
}

// What a key does to the clips; false where it does nothing.
export function clipKey(key) {
  const all = clips();
  if (!all.length) return false;
  if (key === "A") replay();
  else if (key === "H") { slow = !slow; pace(); }
  else if (key === "Space") {
    const playing = all.some((clip) => !clip.paused);
    for (const clip of all) if (playing) clip.pause(); else clip.play().catch(() => {});
  } else return false;
  return true;
}

// Have the server make the clips of an item that is not on the screen yet.
export function prepare(task) {
  for (const { media, viewer } of task.responses) if (viewer === "video") fetch(media).then((got) => got.blob()).catch(() => {});
}

const broken = (event) => event.target.replaceWith(
  h("p", { class: "muted", "data-unseen": "" }, "This response cannot be shown here. Skip the item, or flag it."));

// A picture, a sound or a clip. Until it is there, and where it cannot be shown, it is marked as unseen. Where a clip
// cannot be played, some of its moments are shown; who wants no motion sees it once they have it played.
function medium({ media, viewer }) {
  const seen = (event) => event.target.removeAttribute("data-unseen");
  const common = { src: media, "data-unseen": "", onerror: broken };
  if (viewer === "audio") return h("audio", { ...common, controls: true, preload: "auto", onloadeddata: seen });
  if (viewer === "video") {
    const begin = (event) => {
      if (still()) return;
      seen(event);
      if (!unseen()) replay();
    };
    const stills = (event) => {
      event.target.replaceWith(h("img", {
        src: `${media}&stills=true`, class: "stills", "data-unseen": "", alt: "Moments of the response, a clip, in the order of reading",
        onload: (loaded) => { seen(loaded); if (!unseen() && !still()) replay(); }, onerror: broken,
      }));
    };
    const clip = h("video", {
      ...common, controls: true, loop: true, playsinline: true, preload: "auto", onerror: stills, onloadeddata: begin, onplay: seen,
      onloadedmetadata: pace,
    });
    clip.muted = true; // else browsers do not let it begin by itself
    return clip;
  }
  return h("img", { ...common, alt: "The response, an image", onload: seen });
}

// Whether a response of the item on the screen is not to be seen (yet): nobody can judge that.
export const unseen = () => document.querySelector("#desk [data-unseen]") !== null;

export function responseBody(response) {
  if (response.media) return medium(response);
  if (response.turns.length) return h("div", {}, response.turns.map(turn));
  return response.text ? text(response) : h("p", { class: "muted" }, "This response is empty.");
}

export function panel(response, place, count) {
  const name = count > 1 ? `Response ${letter(place)}` : "Response";
  return h("section", { class: "response", "aria-label": name, "data-place": place },
    count > 1 ? h("h2", { class: "letter" }, h("span", { class: "visually-hidden" }, "Response "), letter(place)) : null,
    h("div", { class: "content" }, responseBody(response)));
}
