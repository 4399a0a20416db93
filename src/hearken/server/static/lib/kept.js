// Things kept in the browser, each under a key of its own, so that two tabs never write over each other. What the browser does
// not take (its storage is full or switched off) is kept in this page.

export class Kept {
  constructor(prefix) {
    this.prefix = prefix;
    this.here = new Map();
  }

  set(id, value) {
    try {
      localStorage.setItem(this.prefix + id, JSON.stringify(value));
      this.here.delete(id);
    } catch {
      this.here.set(id, value);
    }
  }

  delete(id) {
    this.here.delete(id);
    try { localStorage.removeItem(this.prefix + id); } catch { /* nothing is there */ }
  }

  // In the order in which they came.
  get all() {
    let stored = [];
    try {
      stored = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix)).map((key) => JSON.parse(localStorage[key]));
    } catch { /* only what is here */ }
    return [...stored, ...this.here.values()].sort((a, b) => a.at - b.at);
  }

  // Whether something would go with this page.
  get fragile() {
    return this.here.size > 0;
  }
}
