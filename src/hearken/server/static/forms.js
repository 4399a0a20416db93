// Forms that are sent as JSON; fields named "about.X" become { about: { X: ... } }. Until this has run their buttons are
// disabled and their method is "dialog", which sends nothing: a browser of its own would put the fields into the address.

import { post } from "./lib/api.js";

for (const form of document.querySelectorAll("form[data-send]")) {
  const problem = form.querySelector("[data-problem]");
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    const body = {};
    for (const [name, value] of new FormData(form, event.submitter)) {
      const [outer, ...inner] = name.split(".");
      if (inner.length) (body[outer] ??= {})[inner.join(".")] = value;
      else body[outer] = outer === "consent" ? value === "true" : value;
    }
    button.disabled = true;
    try {
      const { next } = await post(form.dataset.send, body);
      location.assign(next);
    } catch (refusal) {
      problem.textContent = [refusal.message, refusal.hint].filter(Boolean).join(". ");
      problem.hidden = false;
      button.disabled = false;
    }
  });
  button.disabled = false;
  if (button.autofocus) button.focus();
}

document.querySelector("[data-logout]")?.addEventListener("click", async () => {
  const waiting = Object.keys(localStorage).filter((key) => key.startsWith("hearken:answer:")).length;
  const kept = `${waiting} of your answers ${waiting === 1 ? "is" : "are"} not on the server yet. They stay in this browser and are sent when you log in again. Log out now?`;
  if (waiting && !confirm(kept)) return;
  await post("/logout");
  for (const key of Object.keys(localStorage)) if (key.startsWith("hearken:draft:")) localStorage.removeItem(key);
  location.assign("/login");
});
