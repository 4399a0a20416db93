// An invite link: the secret stands behind the #, leaves the address bar at once, and is exchanged for a session.

import { post } from "./lib/api.js";

const secret = location.hash.slice(1);
const to = new URLSearchParams(location.search).get("to");
history.replaceState(null, "", "/enter");

function refuse(title, message) {
  document.getElementById("title").textContent = title;
  document.getElementById("message").textContent = message;
}

if (secret) {
  post("/enter", { secret }).then(
    ({ next }) => location.replace(["label", "chat", "owner"].includes(to) ? `/${to}` : next),
    (problem) => refuse("This link does not let you in", `${problem.hint || problem.message}.`),
  );
} else {
  refuse("Something is missing", "Open the whole link that you were given.");
}
