// Which key was meant. Single letters are ours only while nobody is typing; Ctrl+Enter and Escape always are.

const FIELDS = "input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]";

export function hotkey(event) {
  const typing = event.target instanceof Element && event.target.matches(FIELDS);
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") return "Ctrl+Enter";
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return null;
  if (event.repeat && !event.key.startsWith("Arrow")) return null;
  const pressing = event.key === "Enter" || event.key === " ";
  if (pressing && event.target.closest?.("button:not(.chip), a, summary")) return null; // the button's own
  if (typing) return event.key === "Escape" ? "Escape" : null;
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
  if (digit && event.shiftKey && event.code.startsWith("Digit")) return `Shift+${digit[1]}`;
  if (digit) return digit[1];
  if (event.key === " ") return "Space";
  if (event.shiftKey && event.key.startsWith("Arrow")) return `Shift+${event.key}`;
  return event.key.length === 1 ? event.key.toUpperCase() : event.key;
}

// The help: what each key does to the item on the screen.
export class Help {
  constructor(dialog, list) {
    Object.assign(this, { dialog, list, keys: [] });
  }

  set(keys, tags) {
    this.keys = [...keys, ...tags.map((tag, index) => [`Shift ${index + 1}`, `Reason: ${tag}`]),
      ["R", "As written, or with the looks of Markdown"], ["S", "Skip"], ["F", "Flag"], ["U", "Undo"], ["?", "This help"]];
  }

  open() {
    this.list.replaceChildren(...this.keys.flatMap(([keys, words]) => {
      const term = document.createElement("dt"), says = document.createElement("dd");
      for (const key of keys.split(" ")) term.append(Object.assign(document.createElement("kbd"), { textContent: key }), " ");
      says.textContent = words;
      return [term, says];
    }));
    this.dialog.showModal();
  }
}
