// Which words two texts have in common, in order (the longest common subsequence).

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
const MOST = 3000;

// Two lists of { text, same }, one for each text; null where they are too long to compare.
export function diff(left, right) {
  const a = words(left), b = words(right);
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
  const mine = [], theirs = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      mine.push({ text: a[i++], same: true });
      theirs.push({ text: b[j++], same: true });
    } else if (j >= b.length || (i < a.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) {
      mine.push({ text: a[i++], same: false });
    } else {
      theirs.push({ text: b[j++], same: false });
    }
  }
  return [mine, theirs];
}

// The share of words that two texts have in common, 0..1.
export function alike(parts) {
  const real = parts.flat().filter((part) => part.text.trim());
  return real.length ? real.filter((part) => part.same).length / real.length : 1;
}
