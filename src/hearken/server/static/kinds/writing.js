// What critiques, demonstrations and edits have in common: a field that is kept as it is written.

import { h, keyed } from "../lib/dom.js";

export function writing({ name, question, body, kind, text, label, empty, said, desk, check = () => "", watch = () => {} }) {
  const field = h("textarea", { id: "writing", class: "writing", "aria-label": label, rows: 8, spellcheck: "true" });
  field.value = text;
  const count = h("p", { class: "muted count", "aria-live": "off" });
  const send = keyed("Send", "Ctrl+Enter", () => submit(), { class: "primary" });
  const state = () => ({ text: field.value });

  function update() {
    const words = field.value.trim() ? field.value.trim().split(/\s+/u).length : 0;
    count.textContent = `${words} word${words === 1 ? "" : "s"}`;
    send.disabled = !field.value.trim() || Boolean(check(field.value));
    watch(field.value);
  }
  function submit() {
    const problem = field.value.trim() ? check(field.value) : empty;
    if (problem) { desk.problem(problem); field.focus(); return; }
    desk.submit({ kind, text: field.value }, said, state());
  }
  field.addEventListener("input", () => { desk.save(state()); update(); });
  update();
  return {
    name,
    question,
    body: body(h("div", { class: "paper" }, field, count)),
    bar: [h("div", { class: "scale single" }, send)],
    keys: [["Ctrl+Enter", "Send"], ["Esc", "Leave the field, so that the other keys work"], ["W", "Back into the field"]],
    state,
    start: () => field.focus({ preventScroll: true }),
    key(key) {
      if (key === "Ctrl+Enter") submit();
      else if (key === "Escape") field.blur();
      else if (key === "W") field.focus();
      else return false;
      return true;
    },
  };
}
