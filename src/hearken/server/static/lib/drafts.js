// What was begun and not sent: kept in the browser, item by item, and cleared a week later.

import { Kept } from "./kept.js";

const WEEK = 7 * 86_400_000;
const PREFIX = "hearken:draft:";

export class Drafts {
  constructor(owner) {
    this.kept = new Kept(`${PREFIX}${owner}:`);
    new Kept(PREFIX).drop((draft) => Date.now() - (draft.at ?? 0) > WEEK);
  }

  load(item) {
    return this.kept.get(item)?.state ?? null;
  }

  save(item, state) {
    this.kept.set(item, { at: Date.now(), state });
  }

  clear(item) {
    this.kept.delete(item);
  }
}
