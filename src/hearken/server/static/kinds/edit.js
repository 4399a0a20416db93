// A response made better. The changes are shown as they are made.

import { diff, words } from "../lib/diff.js";
import { h, hidden, signed } from "../lib/dom.js";
import { writing } from "./writing.js";

export function mount(task, desk, draft) {
  const { text: original, written } = task.responses[0];
  const signs = hidden(written);
  const before = h("p", { class: "plain text" }, original);
  const show = (text) => {
    const pieces = words(original);
    const same = diff(pieces, words(text));
    before.replaceChildren(...(same ? pieces.flatMap((piece, index) => (same[0][index] ? signed(piece, signs) : h("del", {}, signed(piece, signs)))) : signed(original, signs)));
  };
  return writing({
    name: "edit", question: "Make this response better.", kind: "edit", label: "The response, to be edited",
    text: draft.text ?? original, empty: "Write something, or skip.", said: "Edit saved", desk,
    check: (text) => (text.trim() === original.trim() ? "Change something, or skip where nothing needs to change." : ""),
    watch: show,
    body: (paper) => h("div", { class: "split" },
      h("section", { class: "response", "aria-label": "The response as it was" }, h("div", { class: "content" }, before)), paper),
  });
}
