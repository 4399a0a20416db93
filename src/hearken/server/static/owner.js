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

for (const dispute of document.querySelectorAll(".dispute")) {
  const id = hex(16);
  for (const button of dispute.querySelectorAll("[data-ranks]")) {
    button.addEventListener("click", async () => {
      const buttons = dispute.querySelectorAll("button");
      buttons.forEach((one) => (one.disabled = true));
      try {
        await send("POST", "/owner/adjudicate", {
          id, item_id: dispute.dataset.item, ranks: button.dataset.ranks.split(",").map(Number),
        });
        dispute.classList.add("settled");
        dispute.querySelector(".decide").replaceWith(Object.assign(document.createElement("p"), {
          className: "quiet", textContent: `decided: ${button.textContent}`,
        }));
        say("Stored.");
      } catch (error) {
        buttons.forEach((one) => (one.disabled = false));
        say(error.message, true);
      }
    });
  }
}
