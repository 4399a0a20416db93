// Which words two texts have in common, in order (the longest common subsequence).

export const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
const MOST = 3000;

// For each of two lists of words, whether each is also in the other; null where they are too long to compare.
export function diff(a, b) {
  if (a.length > MOST || b.length > MOST) return null;
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] = a[i] === b[j]
        ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const mine = new Array(a.length).fill(false), theirs = new Array(b.length).fill(false);
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) mine[i++] = theirs[j++] = true;
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return [mine, theirs];
}

// The share of words that two texts have in common, 0..1.
export function alike(parts) {
  const all = parts.flat();
  return all.length ? all.filter(Boolean).length / all.length : 1;
}

// The words that a page shows under ``root``, each with where it stands. A drawn formula is one word: its source.
export function shown(root) {
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    (node.parentElement.closest("math") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.localName === "math") found.push({ word: node.textContent, node });
    else if (node.nodeType === Node.TEXT_NODE) {
      let at = 0;
      for (const word of words(node.data)) {
        if (word.trim()) found.push({ word, node, start: at, end: at + word.length });
        at += word.length;
      }
    }
  }
  return found;
}

// Put a mark around every word that is not in the other text; neighbours share one.
export function mark(found, same) {
  const runs = [];
  found.forEach((one, index) => {
    if (same[index]) return;
    const last = runs.at(-1);
    if (last?.node === one.node && last.next === index && one.start !== undefined) Object.assign(last, { end: one.end, next: index + 1 });
    else runs.push({ ...one, next: index + 1 });
  });
  for (const { node, start, end } of runs.reverse()) { // from the end, so that the places before stay right
    const range = document.createRange();
    if (start === undefined) range.selectNode(node);
    else { range.setStart(node, start); range.setEnd(node, end); }
    range.surroundContents(document.createElement("mark"));
  }
}
