// What was begun and not sent: kept in the browser, item by item, and cleared a week later.

const WEEK = 7 * 86_400_000;

export class Drafts {
  constructor(owner) {
    this.prefix = `hearken:draft:${owner}:`;
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith("hearken:draft:") && Date.now() - (JSON.parse(localStorage[key]).at ?? 0) > WEEK) localStorage.removeItem(key);
    }
  }

  load(item) {
    return JSON.parse(localStorage.getItem(this.prefix + item) ?? "null")?.state ?? null;
  }

  save(item, state) {
    localStorage.setItem(this.prefix + item, JSON.stringify({ at: Date.now(), state }));
  }

  clear(item) {
    localStorage.removeItem(this.prefix + item);
  }
}
