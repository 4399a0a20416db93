// The owner's pages: forms that speak to the HTTP API, decisions on disputed items. Without it, everything can be read.

const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";
const said = document.getElementById("said");

function say(text, wrong = false) {
  said.textContent = text;
  said.classList.toggle("wrong", wrong);
}

async function send(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const found = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error([found.error, found.hint].filter(Boolean).join(". "));
  return found;
}

const read = {
  number: (text) => Number(text),
  "optional-number": (text) => (text === "" ? null : Number(text)),
  optional: (text) => text || null,
  list: (text) => text.split(",").map((part) => part.trim()).filter(Boolean),
  json: (text) => JSON.parse(text || "{}"),
};

// One row of a list: its fields by name; those of the same name that are "many" become a list.
function row(element) {
  const values = {};
  for (const field of element.querySelectorAll("[data-field]")) {
    const value = (read[field.dataset.type] ?? String)(field.value);
    if ("many" in field.dataset) (values[field.dataset.field] ??= []).push(value);
    else values[field.dataset.field] = value;
  }
  return values;
}

const filled = (values) => Object.values(values).some((value) => (Array.isArray(value) ? value.some(Boolean) : typeof value === "string" && value));

// Shares by attribute and value; attributes without any share are left out.
function shares(map) {
  const values = {};
  for (const field of map.querySelectorAll("[data-value]")) {
    if (field.value !== "") (values[field.dataset.attribute] ??= {})[field.dataset.value] = Number(field.value) / 100;
  }
  return values;
}

function body(form, button) {
  const values = {};
  for (const field of form.elements) {
    if (!field.name || field.tagName === "BUTTON") continue;
    if (field.type === "checkbox") values[field.name] = field.checked;
    else values[field.name] = (read[field.dataset.type] ?? String)(field.value);
  }
  for (const group of form.querySelectorAll("[data-list]")) {
    values[group.dataset.list] = [...group.querySelectorAll("input:checked")].map((box) => box.value);
  }
  for (const field of form.querySelectorAll("[data-tuple]")) (values[field.dataset.tuple] ??= []).push(Number(field.value));
  for (const list of form.querySelectorAll("[data-rows]")) {
    values[list.dataset.rows] = [...list.querySelectorAll("[data-row]")].map(row).filter(filled);
  }
  for (const map of form.querySelectorAll("[data-shares]")) values[map.dataset.shares] = shares(map);
  if (button?.name) values[button.name] = button.value;
  return values;
}

function show(secret) {
  const dialog = document.getElementById("secret");
  const text = secret.startsWith("/") ? location.origin + secret : secret;
  dialog.querySelector("output").textContent = text;
  document.getElementById("copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      getSelection().selectAllChildren(dialog.querySelector("output"));
    }
  };
  dialog.showModal();
  dialog.onclose = () => location.reload();
}

async function submit(form, button) {
  const [method, path] = form.dataset.send.split(" ");
  let values;
  try {
    values = method === "DELETE" ? undefined : body(form, button);
  } catch (error) {
    return say(`Not JSON: ${error.message}`, true);
  }
  try {
    const found = await send(method, path, values);
    if (form.dataset.show) show(found[form.dataset.show]);
    else if ("reload" in form.dataset) location.reload();
    else say("Saved.");
  } catch (error) {
    say(error.message, true);
  }
}

for (const form of document.querySelectorAll("form[data-send]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, event.submitter);
  });
  for (const field of form.querySelectorAll("[data-now]")) field.addEventListener("change", () => form.requestSubmit());
}

const hex = (bytes) => [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");

async function decide(dispute, id, ranks, words) {
  const buttons = dispute.querySelectorAll("button");
  buttons.forEach((one) => (one.disabled = true));
  try {
    await send("POST", "/owner/adjudicate", { id, item_id: dispute.dataset.item, ranks });
    dispute.classList.add("settled");
    dispute.querySelector(".decide").replaceWith(Object.assign(document.createElement("p"), {
      className: "quiet", textContent: `decided: ${words}`,
    }));
    say("Stored.");
  } catch (error) {
    buttons.forEach((one) => (one.disabled = false));
    say(error.message, true);
  }
}

const letter = (place) => String.fromCharCode(65 + place);

// Places in words, best first: "B > A = C".
function inWords(ranks) {
  const places = [...new Set(ranks)].sort((a, b) => a - b);
  return places.map((place) => ranks.flatMap((rank, i) => (rank === place ? [letter(i)] : [])).join(" = ")).join(" > ");
}

for (const dispute of document.querySelectorAll(".dispute")) {
  const id = hex(16);
  for (const button of dispute.querySelectorAll("[data-ranks]")) {
    button.addEventListener("click", () => decide(dispute, id, button.dataset.ranks.split(",").map(Number), button.textContent));
  }
  dispute.querySelector("form.ranking")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = [...event.target.querySelectorAll("select")].map((one) => Number(one.value));
    const order = [...new Set(given)].sort((a, b) => a - b);
    const ranks = given.map((place) => order.indexOf(place)); // 1, 1, 4 means 1, 1, 2
    decide(dispute, id, ranks, inWords(ranks));
  });
}

// Rows of a list can be added and taken away.
for (const list of document.querySelectorAll("[data-rows]")) {
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.hasAttribute("data-add")) {
      const made = list.querySelector("template").content.cloneNode(true);
      const row = made.querySelector("[data-row]");
      list.querySelector("template").before(made);
      row.querySelector("input, textarea")?.focus();
    } else if (button?.hasAttribute("data-remove")) {
      button.closest("[data-row]").remove();
    }
  });
}

const erasure = document.getElementById("erase");
if (erasure) {
  const asked = new URLSearchParams(location.search);
  for (const name of ["target", "target_id"]) if (asked.get(name)) erasure.elements[name].value = asked.get(name);
  erasure.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const found = await send("POST", "/owner/erase", body(erasure));
      const lines = [...found.artifacts.map((name) => `learned from it: ${name}`), ...found.snapshots.map((name) => `still holds it: ${name}`)];
      document.getElementById("erased").replaceChildren(
        Object.assign(document.createElement("p"), { textContent: `Erased ${found.rows} row${found.rows === 1 ? "" : "s"}, ${found.judgments} judgment${found.judgments === 1 ? "" : "s"} among them.` }),
        ...lines.map((line) => Object.assign(document.createElement("p"), { className: "quiet", textContent: line })));
      erasure.reset();
    } catch (error) {
      say(error.message, true);
    }
  });
}
