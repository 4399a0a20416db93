// Good or bad.

import { h, keyed } from "../lib/dom.js";
import { panel } from "../lib/prompt.js";

export function mount(task, desk, draft) {
  const pick = (label) => {
    good.setAttribute("aria-pressed", String(label));
    bad.setAttribute("aria-pressed", String(!label));
    desk.choose({ kind: "thumb", label }, label ? "Good" : "Bad", { label });
  };
  const good = keyed("Good", "1", () => pick(true), { class: "step", "aria-pressed": String(draft.label === true) });
  const bad = keyed("Bad", "2", () => pick(false), { class: "step", "aria-pressed": String(draft.label === false) });
  return {
    name: "thumb",
    question: "Is this a good response?",
    body: panel(task.responses[0], 0, 1),
    bar: [
      h("div", { class: "scale", "data-steps": 2, role: "group", "aria-label": "Is this a good response?" }, good, bad),
      h("div", { class: "other" }, keyed("Can't tell", "C", () => desk.skip("cannot tell"), { class: "quiet" })),
    ],
    keys: [["1", "Good"], ["2", "Bad"], ["C", "I cannot tell"]],
    key(key) {
      if (key === "1" || key === "2") pick(key === "1");
      else if (key === "C") desk.skip("cannot tell");
      else return false;
      return true;
    },
  };
}
