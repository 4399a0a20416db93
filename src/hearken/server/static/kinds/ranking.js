// Several responses from best to worst, with ties. By keys: press the letters' numbers in order of preference. By hand: drag
// the letters. Some may be left out where the project allows it.

import { h, keyed, letter } from "../lib/dom.js";
import { panel } from "../lib/prompt.js";

const ORDINALS = ["Best", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];

export function mount(task, desk, draft) {
  const count = task.responses.length;
  let tiers = draft.tiers ?? []; // places, best tier first
  let tie = false; // the next pick joins the last tier
  const panels = task.responses.map((response, place) => {
    const made = panel(response, place, count);
    made.append(keyed("Rank", String(place + 1), () => pick(place), { class: "quiet rank" }));
    return made;
  });
  const ladder = h("ol", { class: "ladder", "aria-label": "Your ranking, best first" });
  const send = keyed("Send", "Enter", () => submit(), { class: "primary" });

  const loose = () => task.responses.map((_, place) => place).filter((place) => !tiers.flat().includes(place));
  const without = (place) => tiers.map((tier) => tier.filter((one) => one !== place)).filter((tier) => tier.length);

  function change(next) {
    tiers = next;
    desk.save({ tiers });
    draw();
  }
  function pick(place) {
    if (tiers.flat().includes(place)) { tie = false; change(without(place)); return; }
    if (tie && tiers.length) change([...tiers.slice(0, -1), [...tiers.at(-1), place]]);
    else change([...tiers, [place]]);
    tie = false;
    draw();
  }
  function back() {
    const last = tiers.at(-1)?.at(-1);
    if (tie) tie = false;
    else if (last !== undefined) change(without(last));
    draw();
  }
  // To another tier (by = -1 is better), out of a tie first.
  function shift(place, by) {
    const at = tiers.findIndex((tier) => tier.includes(place));
    if (at < 0) return;
    const rest = tiers.map((tier) => tier.filter((one) => one !== place));
    if (tiers[at].length > 1) rest.splice(by < 0 ? at : at + 1, 0, [place]);
    else if (rest[at + by]) rest[at + by].push(place);
    change(rest.filter((tier) => tier.length));
    ladder.querySelector(`[data-chip="${place}"]`)?.focus();
  }
  function drop(place, zone) {
    if (!zone) return;
    const anchor = zone.dataset.gap === undefined ? null : tiers[Number(zone.dataset.gap)];
    const target = zone.dataset.tier === undefined ? null : tiers[Number(zone.dataset.tier)];
    const rest = without(place);
    if (zone.dataset.pool !== undefined) change(rest);
    else if (target) {
      const kept = rest.find((tier) => tier.some((one) => target.includes(one)));
      if (kept) { kept.push(place); change(rest); }
    } else {
      const at = anchor ? rest.findIndex((tier) => tier.some((one) => anchor.includes(one))) : -1;
      rest.splice(at < 0 ? (anchor ? tiers.indexOf(anchor) : rest.length) : at, 0, [place]);
      change(rest);
    }
  }
  function submit() {
    const open = loose();
    if (open.length === 1 && !desk.options.partial && tiers.length) tiers = [...tiers, open];
    if (tiers.flat().length < 2) { desk.problem("Rank two responses or more."); return; }
    if (loose().length && !desk.options.partial) { desk.problem(`Not ranked yet: ${loose().map(letter).join(", ")}.`); return; }
    const ranks = task.responses.map((_, place) => { const at = tiers.findIndex((tier) => tier.includes(place)); return at < 0 ? null : at; });
    const words = tiers.map((tier) => tier.map(letter).join(" = ")).join(" > ");
    desk.submit({ kind: "comparison", ranks }, words, { tiers });
  }

  function chip(place) {
    const made = h("button", { type: "button", class: "chip", "data-chip": place,
      "aria-label": `Response ${letter(place)}: arrow keys move it up or down, Delete takes it out` }, letter(place));
    made.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); event.stopPropagation(); shift(place, by); }
      if (event.key === "Delete") { event.stopPropagation(); change(without(place)); }
    });
    made.addEventListener("pointerdown", (event) => drag(event, made, place));
    return made;
  }
  function drag(event, made, place) {
    if (event.button) return;
    event.preventDefault();
    const ghost = made.cloneNode(true);
    ghost.classList.add("ghost");
    let zone = null, moved = false;
    const under = (x, y) => document.elementFromPoint(x, y)?.closest("[data-tier], [data-gap], [data-pool]");
    const move = (now) => {
      moved ||= Math.hypot(now.clientX - event.clientX, now.clientY - event.clientY) > 4;
      if (!moved) return;
      if (!ghost.isConnected) { document.body.append(ghost); made.classList.add("lifted"); }
      ghost.style.left = `${now.clientX}px`;
      ghost.style.top = `${now.clientY}px`;
      const next = under(now.clientX, now.clientY);
      if (next !== zone) { zone?.classList.remove("over"); next?.classList.add("over"); zone = next; }
    };
    const end = (now) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
      ghost.remove();
      made.classList.remove("lifted");
      zone?.classList.remove("over");
      if (moved && now.type === "pointerup") drop(place, zone);
      else if (now.type === "pointerup") { if (!tiers.flat().includes(place)) pick(place); else made.focus(); }
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  function draw() {
    const rows = tiers.flatMap((tier, index) => [
      h("li", { class: "gap", "data-gap": index, "aria-hidden": "true" }),
      h("li", { class: "tier", "data-tier": index }, h("span", { class: "place" }, ORDINALS[tiers.slice(0, index).flat().length] ?? ""),
        tier.flatMap((place, n) => (n ? [h("span", { class: "equal" }, "="), chip(place)] : [chip(place)]))),
    ]);
    const pool = loose();
    rows.push(h("li", { class: "gap end", "data-gap": tiers.length, "aria-hidden": "true" }, tie ? "= …" : pool.length && tiers.length ? "…" : ""));
    if (pool.length) {
      rows.push(h("li", { class: "pool", "data-pool": "" },
        h("span", { class: "place" }, tiers.length ? "Not ranked" : "Press the numbers, or drag, best first"), pool.map(chip)));
    }
    ladder.replaceChildren(...rows);
    panels.forEach((made, place) => {
      const at = tiers.findIndex((tier) => tier.includes(place));
      made.toggleAttribute("data-ranked", at >= 0);
      const button = made.querySelector(".rank span");
      button.textContent = at < 0 ? "Rank next" : `${ORDINALS[tiers.slice(0, at).flat().length]} · take out`;
    });
    const ranked = tiers.flat().length;
    send.disabled = ranked < 2 || (!desk.options.partial && pool.length > 1);
  }
  draw();
  return {
    name: "ranking",
    question: desk.options.question.replace("better", "best"),
    body: h("div", { class: "deck", "data-count": count }, panels),
    bar: [ladder, h("div", { class: "scale single" }, keyed("Tie", "0", () => { tie = !tie; draw(); }, { class: "quiet" }), send)],
    keys: [["1 … 9", "The next best response"], ["0", "The next one ties with the last"], ["Backspace", "Take the last one back"],
      ["↑ ↓", "Move the letter that has the focus"], ["Enter", "Send"], ["B", "All are bad"], ["C", "I cannot tell"]],
    state: () => ({ tiers }),
    key(key) {
      if (/^[1-9]$/.test(key) && Number(key) <= count) pick(Number(key) - 1);
      else if (key === "0" && tiers.length) { tie = !tie; draw(); }
      else if (key === "Backspace") back();
      else if (key === "Enter" || key === "Ctrl+Enter") submit();
      else if (key === "B") desk.choose({ kind: "comparison", ranks: task.responses.map(() => 0), both_bad: true }, "All are bad", { tiers });
      else if (key === "C") desk.skip("cannot tell");
      else return false;
      return true;
    },
  };
}
