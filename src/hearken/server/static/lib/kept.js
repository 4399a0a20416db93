// Things kept in the browser, each under a key of its own, so that two tabs never write over each other. What the browser does
// not take (its storage is full or switched off) is kept in this page.

export class Kept {
  constructor(prefix) {
    this.prefix = prefix;
    this.here = new Map();
  }

  get(id) {
    try { return this.here.get(id) ?? JSON.parse(localStorage.getItem(this.prefix + id)); } catch { return null; }
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
    return [...this.#stored().map(([, value]) => value), ...this.here.values()].sort((a, b) => a.at - b.at);
  }

  // Take away what is found old.
  drop(old) {
    for (const [id, value] of this.#stored()) if (old(value)) this.delete(id);
  }

  #stored() {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(this.prefix))
        .map((key) => [key.slice(this.prefix.length), JSON.parse(localStorage[key])]);
    } catch {
      return [];
    }
  }

  // Whether something would go with this page.
  get fragile() {
    return this.here.size > 0;
  }
}
