// Which of two responses is better, and by how much.

import { alike, diff, mark, shown } from "../lib/diff.js";
import { h, keyed } from "../lib/dom.js";
import { panel, responseBody } from "../lib/prompt.js";

const NEAR = 0.6; // so much in common: the differences are shown from the start
const HOW = ["slightly", "somewhat", "clearly", "much"];

// The steps of a scale, from "A is much better" to "B is much better".
export function steps(count) {
  if (count === 3) {
    return [
      { key: "1", label: "A is better", ranks: [0, 1] },
      { key: "0", label: "Tie", ranks: [0, 0] },
      { key: "2", label: "B is better", ranks: [1, 0] },
    ];
  }
  const left = [4, 3, 2, 1].map((by, index) => ({ key: String(index + 1), label: `A ${HOW[by - 1]} better`, ranks: [0, 1], strength: by / 4 }));
  const right = [1, 2, 3, 4].map((by, index) => ({ key: String(index + count - 3), label: `B ${HOW[by - 1]} better`, ranks: [1, 0], strength: by / 4 }));
  return [...left, ...(count === 9 ? [{ key: "5", label: "Tie", ranks: [0, 0] }] : []), ...right];
}

// What both contents show, in either way to see them, and which words they share; null where that is too much.
function compare(contents) {
  const ways = [".rendered", ".written"].map((way) => {
    const found = contents.map((content) => [...content.querySelectorAll(way)].flatMap(shown));
    return { found, same: diff(...found.map((words) => words.map(({ word }) => word))) };
  });
  return ways.every(({ same }) => same) ? ways : null;
}

export function mount(task, desk, draft) {
  const scale = steps(desk.options.strength);
  const panels = task.responses.map((response, place) => panel(response, place, 2));
  const body = h("div", { class: "sides" }, panels);
  const contents = panels.map((made) => made.querySelector(".content"));
  const compared = task.responses.some((response) => response.media) ? null : compare(contents);
  const watched = task.responses.some((response) => response.viewer === "video"); // a text scrolls by ↑ and ↓
  const upDown = watched ? { ArrowUp: "0", ArrowDown: "C" } : {};
  let differences = false;

  const pick = (step) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.step === step));
    const answer = { kind: "comparison", ranks: step.ranks };
    if (step.strength) answer.strength = step.strength;
    desk.choose(answer, step.label, { key: step.key });
  };
  const bothBad = () => desk.choose({ kind: "comparison", ranks: [0, 0], both_bad: true }, "Both are bad", { key: "B" });
  const buttons = scale.map((step) => {
    const button = keyed(step.label, step.key, () => pick(step), { class: "step", "aria-pressed": String(draft.key === step.key) });
    button.step = step;
    return button;
  });

  const toggle = () => {
    differences = !differences;
    contents.forEach((content, place) => content.replaceChildren(responseBody(task.responses[place])));
    if (differences) for (const { found, same } of compare(contents)) found.forEach((words, place) => mark(words, same[place]));
    switcher?.setAttribute("aria-pressed", String(differences));
  };
  const switcher = compared ? keyed("Differences", "D", toggle, { class: "quiet", "aria-pressed": "false" }) : null;
  const near = compared && alike(compared[0].same) >= NEAR && task.responses[0].text !== task.responses[1].text;
  if (near && !body.querySelector("pre, table")) toggle(); // marks in code and tables say little and hide much

  return {
    name: "pair",
    question: desk.options.question,
    body,
    bar: [
      h("div", { class: "scale", "data-steps": scale.length, role: "group", "aria-label": desk.options.question }, buttons),
      h("div", { class: "other" }, keyed("Both bad", "B", bothBad, { class: "quiet" }),
        keyed("Can't tell", "C", () => desk.skip("cannot tell"), { class: "quiet" }), switcher),
    ],
    keys: [
      ...scale.map((step) => [step.key, step.label]),
      ...(desk.options.strength === 9 ? [["0", "Tie"]] : []),
      ...(desk.options.strength === 3 ? [["←", "A is better"], ["→", "B is better"]] : []),
      ...(desk.options.strength === 3 && watched ? [["↑", "Tie"], ["↓", "I cannot tell"]] : []),
      ["B", "Both are bad"], ["C", "I cannot tell"], ...(compared ? [["D", "Show the differences"]] : []),
    ],
    key(key) {
      const arrow = desk.options.strength === 3 ? { ArrowLeft: "1", ArrowRight: "2", ...upDown }[key] : undefined;
      const meant = key === "0" && desk.options.strength === 9 ? "5" : (arrow ?? key);
      const step = scale.find((one) => one.key === meant);
      if (step) pick(step);
      else if (key === "B") bothBad();
      else if (meant === "C") desk.skip("cannot tell");
      else if (key === "D" && compared) toggle();
      else return false;
      return true;
    },
  };
}
