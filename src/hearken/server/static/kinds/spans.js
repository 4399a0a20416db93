// Passages of a response that are marked. Words are chosen with the arrows, by clicking, or by selecting text; a digit marks
// them. Offsets are counted in code points, as the server counts them.

import { h, hidden, keyed, signed } from "../lib/dom.js";

export function mount(task, desk, draft) {
  const { text, written } = task.responses[0];
  const signs = hidden(written);
  const labels = desk.options.span_labels;
  let spans = draft.spans ?? [];
  let from = null, to = null; // indices of words
  const words = [];
  let offset = 0;
  const sheet = h("p", { class: "plain words text", tabindex: 0, role: "application",
    "aria-label": "The response. Arrow keys choose a word, with Shift several; digits mark them.", "aria-describedby": "marked" });
  for (const piece of text.match(/\s+|[^\s]+/gu) ?? []) {
    const length = [...piece].length;
    if (piece.trim()) {
      const word = h("span", { class: "word", "data-word": words.length }, signed(piece, signs));
      words.push({ start: offset, end: offset + length, element: word });
      sheet.append(word);
    } else sheet.append(piece);
    offset += length;
  }
  const list = h("ul", { class: "marked", id: "marked", "aria-live": "polite" });
  const send = keyed("Send", "Enter", () => submit(), { class: "primary" });
  const nothing = keyed("Nothing to mark", "0", () => desk.submit({ kind: "span_flag", spans: [], nothing: true }, "Nothing marked", { spans: [] }), { class: "quiet" });
  const buttons = labels.map((label, index) => keyed(label, String(index + 1), () => mark(index), { class: "step", "data-label": index }));

  const chosen = () => (from === null ? [] : [Math.min(from, to), Math.max(from, to)]);
  const quote = ({ start, end }) => [...text].slice(start, end).join("");

  function select(first, last = first) {
    [from, to] = [first, last];
    draw();
    words[to]?.element.scrollIntoView({ block: "nearest" });
  }
  function mark(index) {
    const [first, last] = chosen();
    if (first === undefined) { desk.problem("Choose a passage first."); return; }
    const span = { start: words[first].start, end: words[last].end, label: labels[index], note: "" };
    spans = [...spans.filter((one) => one.end <= span.start || one.start >= span.end), span].sort((a, b) => a.start - b.start);
    from = to = null;
    changed();
  }
  function remove(span) {
    spans = spans.filter((one) => one !== span);
    changed();
  }
  function changed() {
    desk.save({ spans });
    draw();
  }
  function submit() {
    if (!spans.length) { desk.problem("Mark a passage, or say that there is nothing to mark."); return; }
    desk.submit({ kind: "span_flag", spans }, `${spans.length} marked`, { spans });
  }
  function draw() {
    const [first, last] = chosen();
    words.forEach(({ start, element }, index) => {
      const span = spans.find((one) => one.start <= start && start < one.end);
      element.toggleAttribute("data-chosen", first !== undefined && index >= first && index <= last);
      if (span) element.dataset.label = labels.indexOf(span.label);
      else delete element.dataset.label;
    });
    list.replaceChildren(...spans.map((span) => h("li", { "data-label": labels.indexOf(span.label) }, h("b", {}, span.label), ` “${quote(span)}” `,
      h("button", { type: "button", class: "quiet", "aria-label": `Take away: ${span.label}`, onclick: () => remove(span) }, "×"))));
    send.disabled = !spans.length;
    nothing.hidden = spans.length > 0;
  }

  sheet.addEventListener("pointerup", (event) => {
    const selection = getSelection();
    if (!selection.isCollapsed && sheet.contains(selection.anchorNode) && sheet.contains(selection.focusNode)) {
      const inside = words.map((word, index) => (selection.containsNode(word.element, true) ? index : -1)).filter((index) => index >= 0);
      if (inside.length) select(inside[0], inside.at(-1));
      selection.removeAllRanges();
      return;
    }
    const word = event.target.closest?.("[data-word]");
    if (!word) return;
    const index = Number(word.dataset.word);
    if (from !== null && (event.shiftKey || event.pointerType === "touch") && index !== from) select(from, index);
    else select(index);
  });
  draw();
  return {
    name: "spans",
    question: "Mark what is wrong in this response.",
    body: h("section", { class: "response", "aria-label": "Response" }, h("div", { class: "content" }, sheet), list),
    bar: [h("div", { class: "scale", role: "group", "aria-label": "Mark as" }, buttons), h("div", { class: "scale single" }, nothing, send)],
    keys: [["← →", "Another word"], ["Shift ← →", "More or fewer words"], ...labels.map((label, index) => [String(index + 1), `Mark as ${label}`]),
      ["Backspace", "Take the last mark away"], ["0", "Nothing to mark"], ["Enter", "Send"]],
    state: () => ({ spans }),
    start: () => sheet.focus({ preventScroll: true }),
    key(key) {
      const last = words.length - 1;
      const clip = (index) => Math.max(0, Math.min(index, last));
      if (key === "ArrowRight") select(from === null ? 0 : clip(Math.max(from, to) + 1));
      else if (key === "ArrowLeft") select(from === null ? last : clip(Math.min(from, to) - 1));
      else if (key === "Shift+ArrowRight" && from !== null) select(from, clip(to + 1));
      else if (key === "Shift+ArrowLeft" && from !== null) select(from, clip(to - 1));
      else if (/^[1-9]$/.test(key) && labels[key - 1]) mark(key - 1);
      else if (key === "Backspace" && spans.length) remove(spans.at(-1));
      else if (key === "0" && !spans.length) nothing.click();
      else if (key === "Enter" || key === "Ctrl+Enter") submit();
      else if (key === "Escape") select(null, null);
      else return false;
      return true;
    },
  };
}
