// What is good or bad about a response, in words.

import { h } from "../lib/dom.js";
import { panel } from "../lib/prompt.js";
import { writing } from "./writing.js";

export function mount(task, desk, draft) {
  return writing({
    name: "critique", question: "What is good about this response, and what is not?", kind: "critique", label: "Your critique",
    text: draft.text ?? "", empty: "Write a sentence or two, or skip.", said: "Critique saved", desk,
    body: (paper) => h("div", { class: "split" }, panel(task.responses[0], 0, 1), paper),
  });
}
