// One response on several attributes. A digit rates the attribute that is marked, and goes to the next.

import { h, keyed } from "../lib/dom.js";
import { panel } from "../lib/prompt.js";

export function mount(task, desk, draft) {
  const { attributes, scale: [low, high] } = desk.options;
  const ratings = { ...draft.ratings };
  const marks = Array.from({ length: high - low + 1 }, (_, index) => low + index);
  let at = Math.max(attributes.findIndex(({ name }) => !(name in ratings)), 0);

  const rows = attributes.map(({ name, about }, row) => h("fieldset", { class: "attribute" },
    h("legend", {}, name, about ? h("span", { class: "muted" }, about) : null),
    h("div", { class: "marks" }, marks.map((mark) => h("label", {},
      h("input", { type: "radio", name: `attribute-${row}`, value: mark, checked: ratings[name] === mark,
        onfocus: () => move(row), onchange: () => rate(row, mark) }),
      h("span", {}, String(mark)))))));
  const done = keyed("Send", "Enter", () => submit(), { class: "primary" });

  function move(row) {
    at = row;
    rows.forEach((element, index) => element.toggleAttribute("data-current", index === at));
  }
  function rate(row, mark) {
    ratings[attributes[row].name] = mark;
    const input = rows[row].querySelector(`input[value="${mark}"]`);
    input.checked = true;
    desk.save({ ratings });
    update();
  }
  function update() {
    done.disabled = attributes.some(({ name }) => !(name in ratings));
  }
  function submit() {
    const missing = attributes.findIndex(({ name }) => !(name in ratings));
    if (missing >= 0) { move(missing); desk.problem(`Not rated yet: ${attributes[missing].name}.`); return; }
    desk.submit({ kind: "rating", ratings: { ...ratings } }, "Rated", { ratings });
  }
  update();
  move(at);
  return {
    name: "rating",
    question: "How good is this response?",
    body: h("div", { class: "split" }, panel(task.responses[0], 0, 1),
      h("form", { class: "attributes", onsubmit: (event) => event.preventDefault() }, rows)),
    bar: [h("div", { class: "scale single" }, done)],
    keys: [[`${low} … ${high}`, "Rate the marked attribute"], ["↑ ↓", "Another attribute"], ["Enter", "Send"]],
    state: () => ({ ratings }),
    key(key) {
      const mark = marks.find((one) => String(one) === (high === 10 && key === "0" ? "10" : key));
      if (mark !== undefined) {
        rate(at, mark);
        const open = attributes.findIndex(({ name }) => !(name in ratings));
        move(open >= 0 ? open : at);
      } else if (key === "ArrowDown") move(Math.min(at + 1, rows.length - 1));
      else if (key === "ArrowUp") move(Math.max(at - 1, 0));
      else if (key === "Enter" || key === "Ctrl+Enter") submit();
      else return false;
      return true;
    },
  };
}
